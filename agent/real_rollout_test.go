package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/runtime/runtimetest"
	"github.com/picketd/picket/scripts/lab"
)

// rolloutSet is a DaemonSet of probes that is updated by another value of version; the probe answers at port 8099 of its host.
func rolloutSet(dir, version, annotations string) string {
	text := strings.Replace(probeSet("web", dir), "metadata: {name: web}", "metadata: {name: web, annotations: {"+annotations+"}}", 1)
	text = strings.Replace(text, "web-$(NODE)]", "web-$(NODE), \":8099\"]", 1)
	return strings.Replace(text, "metadata: {labels: {app: web}}", "metadata: {labels: {app: web}, annotations: {version: \""+version+"\"}}", 1)
}

// newRolloutFleet is three hosts that run web in version 0.
func newRolloutFleet(t testing.TB) (f *realFleet, dir string) {
	f, dir = newProbeFleet(t, 3, 0)
	f.run(f.Hosts[0], rolloutSet(dir, "0", ""), "apply", "-f", "-")
	for _, h := range f.Hosts {
		_, err := runtimetest.AwaitProbe(context.Background(), filepath.Join(dir, "web-"+h.Name), 1)
		f.must(err)
	}
	f.rolledOut(f.Hosts[0])
	return f, dir
}

// rolledOut waits as a user does.
func (f *realFleet) rolledOut(h *lab.Host) string {
	f.t.Helper()
	return f.run(h, "", "rollout", "status", "ds/web", "--timeout=60s")
}

// BenchmarkFleetUpdate prints what an update of three hosts costs, one at a time: from the apply to the last new container's first
// instruction, and how long a host is without its daemon, from TERM to the next one's first instruction. Beside it a bare client on the
// same hosts: how long they are without its container when it makes the same exchange, warm, and how long it takes to stop and start
// one container on each host in turn, cold. Medians.
func BenchmarkFleetUpdate(b *testing.B) {
	f, dir := newRolloutFleet(b)
	sets := f.clientset(f.Hosts[0]).AppsV1().DaemonSets("default")
	ctx := context.Background()
	bare, contexts := f.bares(dir)
	for i := range bare {
		_, err := bare[i].BareStart(contexts[i])
		f.must(err)
	}
	var total, without, floor, cold []time.Duration
	n := 1
	for b.Loop() {
		restarts := time.Now()
		for i := range bare {
			_, err := bare[i].BareRestart(contexts[i])
			f.must(err)
		}
		cold = append(cold, time.Since(restarts))
		for i := range bare {
			took, err := bare[i].BareExchange(contexts[i])
			f.must(err)
			floor = append(floor, took)
		}
		n++
		patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"version":"%d"}}}}}`, n)
		began := time.Now()
		_, err := sets.Patch(ctx, "web", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
		f.must(err)
		var last time.Time
		for _, h := range f.Hosts {
			file := filepath.Join(dir, "web-"+h.Name)
			gap, err := runtimetest.Without(ctx, file, n)
			f.must(err)
			without = append(without, gap)
			started, err := runtimetest.AwaitProbe(ctx, file, n)
			f.must(err)
			if started.After(last) {
				last = started
			}
		}
		total = append(total, last.Sub(began))
		f.rolledOut(f.Hosts[1])
	}
	for i := range bare {
		f.must(bare[i].Delete(contexts[i]))
	}
	milliseconds := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(milliseconds(median(total)), "update-ms")
	b.ReportMetric(milliseconds(slices.Max(total)), "update-max-ms")
	b.ReportMetric(milliseconds(median(without)), "without-ms")
	b.ReportMetric(milliseconds(slices.Max(without)), "without-max-ms")
	b.ReportMetric(milliseconds(median(floor)), "bare-without-ms")
	b.ReportMetric(milliseconds(median(cold)), "bare-cold-ms")
}

// watcher asks the daemons of all hosts every 5 ms, and remembers the most that did not answer in one round.
type watcher struct {
	rounds, most int
	end          func()
}

func (f *realFleet) watch(hosts []*lab.Host) *watcher {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{}
	done := make(chan struct{})
	w.end = func() { cancel(); <-done }
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			w.rounds++
			w.most = max(w.most, f.silent(hosts))
			<-tick.C
		}
	}()
	return w
}

// silent is how many hosts' daemons do not answer.
func (f *realFleet) silent(hosts []*lab.Host) int {
	answers := make(chan bool, len(hosts))
	for _, h := range hosts {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			conn, err := h.Dial(ctx, "tcp", h.Address.String()+":8099")
			if err == nil {
				_ = conn.Close()
			}
			answers <- err == nil
		}()
	}
	n := 0
	for range hosts {
		if !<-answers {
			n++
		}
	}
	return n
}

// Twenty updates, and whoever asks all three daemons every 5 ms never finds two of them down.
func TestRealNeverTwoDown(t *testing.T) {
	f, dir := newRolloutFleet(t)
	w := f.watch(f.Hosts)
	for n := range 20 {
		f.run(f.Hosts[n%3], rolloutSet(dir, fmt.Sprint(n+1), ""), "apply", "-f", "-")
		f.rolledOut(f.Hosts[(n+1)%3])
	}
	w.end()
	t.Logf("%d rounds of asking all three", w.rounds)
	if w.most > 1 {
		t.Errorf("%d were down at once", w.most)
	}
	if w.most == 0 {
		t.Log("none was ever found down")
	}
}

// Whatever is wrong with a new version, the fleet keeps all but one of its daemons and says why; with Rollback it is back by itself.
func TestRealBadUpdates(t *testing.T) {
	f, dir := newRolloutFleet(t)
	const deadline = `picket.io/progress-deadline: "5"`
	why := func(want string) {
		t.Helper()
		f.eventually("it says "+want, func() bool { return strings.Contains(f.run(f.Hosts[2], "", "get", "ds/web", "-o", "yaml"), want) })
	}
	back := func(version string) {
		t.Helper()
		f.run(f.Hosts[1], rolloutSet(dir, version, ""), "apply", "-f", "-")
		f.rolledOut(f.Hosts[2])
	}
	for i, bad := range []struct {
		name   string
		change func(text string) string
		why    string
		halts  bool // there is nothing to roll back, or what is wrong is not in the template
	}{
		{"a bad image", func(text string) string { return strings.Replace(text, "image: probe:1", "image: probe:none", 1) }, "CannotMakePod", true},
		{"a crashing command", func(text string) string { return strings.Replace(text, "command: [", "command: [/bin/false, ", 1) }, "HostStuck", false},
		{"a command that fails on one host", func(text string) string {
			return strings.Replace(text, "command: ["+runtimetest.ProbePath, `command: [/bin/sh, -c, 'case $NODE in host-02) exit 1;; esac; exec `+runtimetest.ProbePath+` "$@"', sh`, 1)
		}, "HostStuck", false},
		{"one that is never available", func(text string) string {
			return strings.Replace(text, "spec:\n", "spec:\n  minReadySeconds: 3600\n", 1)
		}, "HostStuck", true},
	} {
		t.Run(bad.name, func(t *testing.T) {
			w := f.watch(f.Hosts)
			f.run(f.Hosts[i%3], bad.change(rolloutSet(dir, fmt.Sprint("bad-", i), deadline)), "apply", "-f", "-")
			why(bad.why)
			w.end()
			if w.most > 1 || bad.why == "CannotMakePod" && w.most > 0 {
				t.Errorf("%d were down at once", w.most)
			}
			t.Log(f.run(f.Hosts[i%3], "", "why", "ds/web"))
			back(fmt.Sprint("good-", i))
			if bad.halts {
				return
			}
			w = f.watch(f.Hosts)
			f.run(f.Hosts[i%3], bad.change(rolloutSet(dir, fmt.Sprint("bad-again-", i), deadline+", picket.io/on-failure: Rollback")), "apply", "-f", "-")
			f.eventually("it is rolled back", func() bool {
				return f.run(f.Hosts[2], "", "get", "ds/web", "-o", "jsonpath={.spec.template.metadata.annotations.version}") == fmt.Sprint("good-", i)
			})
			f.rolledOut(f.Hosts[0])
			w.end()
			if w.most > 1 {
				t.Errorf("%d were down at once, with Rollback", w.most)
			}
			if got := f.silent(f.Hosts); got > 0 {
				t.Errorf("%d are down after the rollback", got)
			}
		})
	}
}

// Agents, containerd and a whole host end in the middle of updates: never two daemons are down of those hosts that live, and every
// update comes to its end.
func TestRealUpdateThroughCrashes(t *testing.T) {
	f, dir := newRolloutFleet(t)
	for n, crash := range []struct {
		name   string
		happen func(h *lab.Host) error
		// alive are whose daemons the crash does not end itself.
		alive []*lab.Host
	}{
		{"agent", func(h *lab.Host) error { return errors.Join(h.Kill(), h.Start(context.Background())) }, f.Hosts},
		{"containerd", func(h *lab.Host) error { return h.RestartContainerd(context.Background()) }, f.Hosts},
		{"agent restart", func(h *lab.Host) error { return h.Restart(context.Background()) }, f.Hosts},
		{"host", func(h *lab.Host) error { return errors.Join(h.Crash(), h.Start(context.Background())) }, f.Hosts[1:]},
		{"cut", func(h *lab.Host) error {
			err := f.Isolate(h)
			f.eventually("the others miss it", func() bool { return !f.ready(f.Hosts[1:2], 3) })
			return errors.Join(err, f.Heal())
		}, f.Hosts},
	} {
		t.Run(crash.name, func(t *testing.T) {
			w := f.watch(crash.alive)
			var group sync.WaitGroup
			f.run(f.Hosts[1], rolloutSet(dir, fmt.Sprint("crash-", n), ""), "apply", "-f", "-")
			group.Go(func() {
				if err := crash.happen(f.Hosts[0]); err != nil {
					t.Error(err)
				}
			})
			group.Wait()
			f.rolledOut(f.Hosts[2])
			w.end()
			if w.most > 1 {
				t.Errorf("%d were down at once", w.most)
			}
		})
	}
}
