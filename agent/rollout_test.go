package agent

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/picketd/picket/agent/daemonset"
	"github.com/picketd/picket/cluster/clustertest"
	"k8s.io/apimachinery/pkg/types"
)

var web = types.NamespacedName{Namespace: "default", Name: "web"}

// own is this host's word on web.
func (h *fleetHost) own() (s daemonset.Status) {
	h.t.Helper()
	err := h.do(func() error {
		if d := h.loop.daemonSets[web]; d != nil {
			s = d.own
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// updating are the hosts that are in their turn.
func (f *testFleet) updating() []string {
	var list []string
	for _, h := range f.up() {
		if h.own().Updating {
			list = append(list, h.cfg.Node.Name)
		}
	}
	return list
}

// runs says whether a host runs an image, alone.
func (h *fleetHost) runs(image string) bool {
	list := h.running()
	return len(list) == 1 && strings.HasSuffix(list[0].ImageRef, "/"+image)
}

// rollsOut waits until an image runs on all hosts that are up, and sees to it that never more than budget are in their turn. It
// returns how long it took, and in what order they came.
func (f *testFleet) rollsOut(limit time.Duration, image string, budget int) (time.Duration, []string) {
	f.t.Helper()
	var order []string
	began := time.Now()
	for ; ; time.Sleep(20 * time.Millisecond) {
		now := f.updating()
		if len(now) > budget {
			f.t.Fatalf("%v update at a time", now)
		}
		for _, name := range now {
			if !slices.Contains(order, name) {
				order = append(order, name)
			}
		}
		if len(now) == 0 && f.everywhere(func(h *fleetHost) bool { return h.runs(image) && h.own().Available }) {
			return time.Since(began), order
		}
		if time.Since(began) > limit {
			f.t.Fatalf("%s does not run everywhere after %s:%s", image, limit, f.whyNot(image))
		}
	}
}

// whyNot is what hosts that do not run an image say.
func (f *testFleet) whyNot(image string) (text string) {
	for _, h := range f.up() {
		if own := h.own(); !h.runs(image) || !own.Available || own.Updating {
			text += fmt.Sprintf("\n%s: view %x updating %t: %s", h.cfg.Node.Name, own.View[:4], own.Updating, own.Reason)
		}
	}
	return text
}

// webUpdating is web with what an update goes by.
func webUpdating(image string, maxUnavailable, annotations string) string {
	text := strings.Replace(webOf(image, ""), "metadata: {name: web}", "metadata: {name: web, annotations: {"+annotations+"}}", 1)
	return strings.Replace(text, "spec:\n", "spec:\n  updateStrategy: {rollingUpdate: {maxUnavailable: "+maxUnavailable+"}}\n", 1)
}

func (f *testFleet) runWeb(n int32) {
	f.t.Helper()
	f.hosts[0].apply(webOf("busybox:1", ""))
	f.within(20*time.Second, "web runs and is shown everywhere", func() bool {
		return f.everywhere(func(h *fleetHost) bool { return h.webReady(n, n) })
	})
}

func TestRollingUpdate(t *testing.T) {
	withFleet(t, 5, func(t *testing.T, f *testFleet) {
		f.runWeb(5)
		f.hosts[3].apply(webOf("busybox:2", ""))
		took, order := f.rollsOut(20*time.Second, "busybox:2", 1)
		if !slices.Equal(order, []string{"host-01", "host-02", "host-03", "host-04", "host-05"}) {
			t.Errorf("the order is %v", order)
		}
		t.Logf("5 hosts, one at a time: %s", took)
		f.hosts[1].apply(webUpdating("busybox:3", "2", ""))
		took, order = f.rollsOut(20*time.Second, "busybox:3", 2)
		t.Logf("5 hosts, two at a time: %s, %v", took, order)
	})
}

// A host that was lost before the apply, or dies without having heard of it, is gone on without, and updates itself when it returns.
func TestUpdateGoesOnWithoutALostHost(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		f.runWeb(3)
		f.hosts[1].kill()
		f.hosts[0].apply(webOf("busybox:2", ""))
		took, _ := f.rollsOut(20*time.Second, "busybox:2", 1)
		t.Logf("two hosts without the third: %s", took)
		f.hosts[1].boot()
		f.rollsOut(20*time.Second, "busybox:2", 1)
		f.hosts[2].apply(webOf("busybox:3", ""))
		f.rollsOut(20*time.Second, "busybox:3", 1)
	})
}

// A host that dies in its turn holds the update, within the budget, and is named with what gives it up; when it returns all goes on.
func TestAHostThatDiesInItsTurnHoldsTheUpdate(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		f.runWeb(3)
		slow := strings.Replace(webOf("busybox:2", ""), "spec:\n", "spec:\n  minReadySeconds: 5\n", 1)
		f.hosts[2].apply(slow)
		f.within(time.Minute, "host-01 updates", func() bool { return f.hosts[0].own().Updating })
		time.Sleep(time.Second)
		f.hosts[0].kill()
		time.Sleep(time.Minute)
		if f.hosts[1].runs("busybox:2") || f.hosts[2].runs("busybox:2") {
			t.Fatal("the update went on")
		}
		if why := f.hosts[1].own().Reason; !strings.Contains(why, "host-01") || !strings.Contains(why, "kubectl delete node") {
			t.Errorf("it says %q", why)
		}
		f.hosts[0].boot()
		f.rollsOut(time.Minute, "busybox:2", 1)
	})
}

func TestGivingUpAHostThatDiedInItsTurn(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		f.runWeb(3)
		f.hosts[2].apply(strings.Replace(webOf("busybox:2", ""), "spec:\n", "spec:\n  minReadySeconds: 5\n", 1))
		f.within(time.Minute, "host-01 updates", func() bool { return f.hosts[0].own().Updating })
		f.hosts[0].kill()
		time.Sleep(20 * time.Second)
		if err := f.hosts[1].delete(resourceNodes, "", "host-01"); err != nil {
			t.Fatal(err)
		}
		f.rollsOut(time.Minute, "busybox:2", 1)
	})
}

// A pod that never becomes available: with Rollback the fleet is back on the old revision, and stays there.
func TestRollback(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		f.runWeb(3)
		for _, h := range f.hosts {
			h.fake.SetFail("start web", fmt.Errorf("exec format error"))
		}
		f.hosts[1].apply(webUpdating("busybox:2", "1", `picket.io/on-failure: Rollback, picket.io/progress-deadline: "30"`))
		f.within(10*time.Second, "host-01 updates", func() bool { return f.hosts[0].own().Updating })
		time.Sleep(20 * time.Second)
		for _, h := range f.hosts[1:] {
			if !h.runs("busybox:1") {
				t.Fatalf("%s took its pod down", h.cfg.Node.Name)
			}
		}
		for _, h := range f.hosts {
			h.fake.SetFail("start web", nil)
		}
		f.hosts[0].fake.SetFail("image busybox:2", fmt.Errorf("gone"))
		_, order := f.rollsOut(3*time.Minute, "busybox:1", 1)
		t.Logf("in their turn were %v", order)
		time.Sleep(5 * time.Minute)
		f.rollsOut(time.Second, "busybox:1", 0)
		if got := f.hosts[2].daemonSet("web").Annotations[daemonset.AnnotationRolledBack]; got == "" {
			t.Error("nothing says that it was rolled back")
		}
	})
}

func TestPausedAndResumed(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		f.runWeb(3)
		f.hosts[1].apply(webUpdating("busybox:2", "1", `picket.io/paused: "true"`))
		time.Sleep(time.Minute)
		f.rollsOut(time.Second, "busybox:1", 0)
		f.hosts[1].apply(webUpdating("busybox:2", "1", `picket.io/paused: "false"`))
		f.rollsOut(20*time.Second, "busybox:2", 1)
	})
}

func TestConfigThatRestarts(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		const settings = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: %q}\n"
		manifest := strings.Replace(webUpdating("busybox:1", "1", `picket.io/restart-on-config: "true"`), `image: "busybox:1"}`,
			`image: "busybox:1", envFrom: [{configMapRef: {name: settings}}]}`, 1)
		f.hosts[0].apply(fmt.Sprintf(settings, "1") + "---\n" + manifest)
		f.within(20*time.Second, "web runs everywhere", func() bool {
			return f.everywhere(func(h *fleetHost) bool { return h.webReady(3, 3) })
		})
		before := map[types.UID]bool{}
		for _, h := range f.hosts {
			before[h.ownPod().UID] = true
		}
		f.hosts[1].apply(fmt.Sprintf(settings, "2"))
		took := f.within(20*time.Second, "all pods are new", func() bool {
			if now := f.updating(); len(now) > 1 {
				t.Fatalf("%v update at a time", now)
			}
			return f.everywhere(func(h *fleetHost) bool { return len(h.running()) == 1 && !before[h.ownPod().UID] && h.own().Available })
		})
		t.Logf("a ConfigMap restarts three hosts in %s", took)
	})
}

// havoc kills hosts and cuts links for a while, and then lets all be well again.
type havoc struct {
	f      *testFleet
	random *rand.Rand
	turns  map[string]bool // killed in their turn
	down   map[*fleetHost]time.Time
}

// happen does something, or nothing.
func (tr *havoc) happen(now time.Time) {
	for h, until := range tr.down {
		if now.After(until) {
			h.boot()
			delete(tr.down, h)
			delete(tr.turns, h.cfg.Node.Name)
		}
	}
	h := tr.f.hosts[1+tr.random.IntN(len(tr.f.hosts)-1)]
	switch tr.random.IntN(40) {
	case 0:
		if len(tr.down) < 3 && h.end != nil {
			tr.turns[h.cfg.Node.Name] = h.own().Updating
			h.kill()
			tr.down[h] = now.Add(time.Duration(1+tr.random.IntN(20)) * time.Second)
		}
	case 1:
		other := tr.f.hosts[tr.random.IntN(len(tr.f.hosts))]
		tr.f.net.Cut(h.cfg.Node.Name, other.cfg.Node.Name)
	case 2:
		tr.f.net.Heal()
	}
}

// Fifty whole agents roll out while hosts crash and links drop: never more than the budget take their pods down, and it ends.
func TestFiftyAgentsRollOut(t *testing.T) {
	const hosts = 50
	withFleet(t, 1, func(t *testing.T, f *testFleet) {
		f.net.SetFaults(clustertest.Faults{Loss: 0.05, Reorder: 0.2, ReorderBy: 20 * time.Millisecond, Delay: time.Millisecond, Jitter: 2 * time.Millisecond})
		for i := 1; i < hosts; i++ {
			f.add(fmt.Sprintf("host-%02d", i+1), true)
		}
		f.within(time.Minute, "all hosts are ready everywhere", f.allReady)
		f.runWeb(hosts)
		for i, c := range []struct {
			maxUnavailable string
			budget         int
		}{{"1", 1}, {"3", 3}, {"20%", 10}} {
			image := fmt.Sprintf("busybox:%d", i+2)
			f.hosts[hosts/3].apply(webUpdating(image, c.maxUnavailable, ""))
			f.survives(12*time.Second, rand.New(rand.NewPCG(uint64(i), 1)), c.budget)
			took, _ := f.rollsOut(3*time.Minute, image, c.budget)
			t.Logf("maxUnavailable %s: all is done %s after the trouble", c.maxUnavailable, took)
		}
	})
}

// survives looks on while hosts crash and links drop, and lets all be well again.
func (f *testFleet) survives(d time.Duration, random *rand.Rand, budget int) {
	f.t.Helper()
	h := &havoc{f: f, random: random, turns: map[string]bool{}, down: map[*fleetHost]time.Time{}}
	for began := time.Now(); time.Since(began) < d; time.Sleep(40 * time.Millisecond) {
		h.happen(time.Now())
		now := f.updating()
		for name, turn := range h.turns {
			if turn {
				now = append(now, name)
			}
		}
		if len(now) > budget {
			f.t.Fatalf("%v are down at a time", now)
		}
	}
	for host := range h.down {
		host.boot()
	}
	f.net.Heal()
}

// A host whose containerd does not answer when its agent starts decides nothing: the others go on without it, and it updates itself
// when it can.
func TestUpdateGoesOnWithoutAHelplessHost(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		f.runWeb(3)
		f.hosts[1].fake.SetDown(true)
		f.hosts[1].kill()
		f.hosts[1].boot()
		f.hosts[0].apply(webOf("busybox:2", ""))
		f.within(20*time.Second, "the others run it", func() bool { return f.hosts[0].runs("busybox:2") && f.hosts[2].runs("busybox:2") })
		if !f.hosts[1].runs("busybox:1") {
			t.Error("the host without containerd did something")
		}
		f.hosts[1].fake.SetDown(false)
		f.rollsOut(time.Minute, "busybox:2", 1)
	})
}

// With maxSurge the new pod runs beside the old one, on so many hosts at a time, and no host is ever without.
func TestSurge(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		f.runWeb(3)
		surging := strings.Replace(webOf("busybox:2", ""), "spec:\n", "spec:\n  updateStrategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}\n", 1)
		f.hosts[1].apply(strings.Replace(surging, "hostNetwork: true", "", 1))
		f.within(20*time.Second, "it runs everywhere", func() bool {
			two := 0
			for _, h := range f.hosts {
				switch n := len(h.running()); n {
				case 0:
					t.Fatalf("%s is without", h.cfg.Node.Name)
				case 2:
					two++
				}
			}
			if two > 1 {
				t.Fatalf("%d hosts run two", two)
			}
			return f.everywhere(func(h *fleetHost) bool { return h.runs("busybox:2") && h.own().Available })
		})
	})
}
