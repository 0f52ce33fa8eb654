package pod

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

// probedBench is a prober on a fake runtime, in virtual time. Its probes are commands; what they answer is scripted.
type probedBench struct {
	*prober
	fake  *runtimetest.Fake
	start time.Time

	mu      sync.Mutex
	script  map[string]string // of a container: p passes, f fails; then it passes on
	checks  []string          // "web 5s"
	reports []string          // "5s Readiness web passing=true"
}

func inProbedBench(t *testing.T, test func(b *probedBench)) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		b := &probedBench{fake: runtimetest.NewFake(), start: time.Now(), script: map[string]string{}}
		b.prober = newProber(&Config{Runtime: b.fake}, b.hear)
		b.jitter = func() float64 { return 0 }
		b.fake.SetExec(b.exec)
		test(b)
		<-b.stop() // the bubble waits for all goroutines
	})
}

func (b *probedBench) at() string { return time.Since(b.start).String() }

func (b *probedBench) hear(p probed) {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := fmt.Sprintf("%s %s %s passing=%v", b.at(), p.kind, p.id, p.passing)
	if p.gaveUp {
		text += " gaveUp"
	}
	if n, ok := p.news(); ok {
		text += " " + n.reason + ": " + n.message
	}
	b.reports = append(b.reports, text)
}

func (b *probedBench) exec(id string, e runtime.ExecConfig) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.checks = append(b.checks, id+" "+b.at())
	next := byte('p')
	if s := b.script[id]; s != "" {
		next, b.script[id] = s[0], s[1:]
	}
	if next == 'p' {
		return 0, nil
	}
	fmt.Fprint(e.Stdout, "no")
	return 1, nil
}

// after lets time pass and returns what was checked and reported meanwhile.
func (b *probedBench) after(d time.Duration) (checks, reports []string) {
	time.Sleep(d)
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	checks, reports = b.checks, b.reports
	b.checks, b.reports = nil, nil
	return checks, reports
}

// probing is a probe of a container that has just started: every 10 s, two successes or three failures make a result.
func (b *probedBench) probing(id string, kind probeKind, change func(*corev1.Probe)) probing {
	probe := &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"check"}}}, PeriodSeconds: 10, TimeoutSeconds: 1,
		SuccessThreshold: 1, FailureThreshold: 3,
	}
	if change != nil {
		change(probe)
	}
	return probing{
		id: id, kind: kind, container: &corev1.Container{Name: id}, probe: probe, startedAt: time.Now(), ip: "10.88.0.2",
		passing: kind == livenessProbe,
	}
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %s\nwant %s", what, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

func TestThresholds(t *testing.T) {
	for name, test := range map[string]struct {
		kind             probeKind
		passing          bool
		success, failure int32
		checks           string
		want             string // of each check: P and F when the result changes to it, . when it stays
	}{
		"readiness":                        {readinessProbe, false, 1, 3, "pffpfffffp", "P.....F..P"},
		"readiness begins as failed":       {readinessProbe, false, 1, 1, "ff", ".."},
		"readiness needs successes":        {readinessProbe, false, 3, 1, "ppfpppf", ".....PF"},
		"readiness that held":              {readinessProbe, true, 1, 2, "fpff", "...F"},
		"liveness begins as passed":        {livenessProbe, true, 1, 2, "pfpff", "....F"},
		"startup has no result at first":   {startupProbe, false, 1, 3, "fff", "..F"},
		"startup, whatever held":           {startupProbe, true, 1, 3, "p", "P"},
		"startup, once":                    {startupProbe, false, 1, 3, "ffp", "..P"},
		"thresholds that nobody defaulted": {livenessProbe, true, 0, 0, "fp", "FP"},
	} {
		t.Run(name, func(t *testing.T) {
			th := newThresholds(probing{
				kind: test.kind, passing: test.passing, probe: &corev1.Probe{SuccessThreshold: test.success, FailureThreshold: test.failure},
			})
			var got strings.Builder
			for _, check := range test.checks {
				switch changed := th.count(check == 'p'); {
				case !changed:
					got.WriteByte('.')
				case th.passing:
					got.WriteByte('P')
				default:
					got.WriteByte('F')
				}
			}
			expect(t, "changes of "+test.checks, got.String(), test.want)
		})
	}
}

func TestProbeNews(t *testing.T) {
	for want, p := range map[string]probed{
		"":                                     {kind: readinessProbe, passing: true},
		"Unhealthy Readiness probe failed: no": {kind: readinessProbe, passing: true, failed: true, output: "no"},
		"Unhealthy Startup probe errored and resulted in unknown state: no such file": {kind: startupProbe, errored: true, output: "no such file"},
		"ProbeWarning Liveness probe warning: moved":                                  {kind: livenessProbe, passing: true, warned: true, output: "moved"},
	} {
		n, ok := p.news()
		expect(t, "told", ok, want != "")
		expect(t, "news", strings.TrimSpace(n.reason+" "+n.message), want)
	}
}

func TestProbeTimes(t *testing.T) {
	inProbedBench(t, func(b *probedBench) {
		web := b.probing("web", livenessProbe, func(p *corev1.Probe) { p.InitialDelaySeconds = 15 })
		log := b.probing("log", readinessProbe, nil)
		b.want([]probing{web, log})
		checks, _ := b.after(0)
		same(t, "at once", checks, "log 0s")
		checks, _ = b.after(26 * time.Second)
		same(t, "then", checks, "log 10s", "web 15s", "log 20s", "web 25s")
	})
}

// A probe that begins when its initial delay is over, because the startup probe took long, is asked at once.
func TestProbeBeginsLate(t *testing.T) {
	inProbedBench(t, func(b *probedBench) {
		web := b.probing("web", readinessProbe, func(p *corev1.Probe) { p.InitialDelaySeconds = 15 })
		time.Sleep(40 * time.Second)
		b.want([]probing{web})
		checks, _ := b.after(time.Second)
		same(t, "checks", checks, "web 40s")
	})
}

// The clock is not trusted: a container that started in the future is asked as one that has just started.
func TestProbeClockSetBack(t *testing.T) {
	inProbedBench(t, func(b *probedBench) {
		web := b.probing("web", readinessProbe, func(p *corev1.Probe) { p.InitialDelaySeconds = 5 })
		web.startedAt = time.Now().Add(time.Hour)
		b.want([]probing{web})
		checks, _ := b.after(6 * time.Second)
		same(t, "checks", checks, "web 5s")
	})
}

// After the agent's restart what is due at once is spread over its period; what comes later is not.
func TestProbesSpreadAfterRestart(t *testing.T) {
	inProbedBench(t, func(b *probedBench) {
		b.jitter = func() float64 { return 0.25 }
		old := b.probing("old", livenessProbe, nil)
		old.startedAt = time.Now().Add(-time.Hour)
		young := b.probing("young", livenessProbe, func(p *corev1.Probe) { p.InitialDelaySeconds = 30 })
		young.startedAt = time.Now().Add(-27 * time.Second)
		own := b.probing("own", livenessProbe, nil)
		b.want([]probing{old, young, own})
		checks, _ := b.after(12 * time.Second)
		same(t, "after the start", checks, "own 0s", "old 2.5s", "young 3s", "own 10s")
		late := old
		late.kind = readinessProbe
		b.want([]probing{late})
		checks, _ = b.after(0)
		same(t, "later", checks, "old 12s")
	})
}

func TestProbeReports(t *testing.T) {
	for name, test := range map[string]struct {
		kind   probeKind
		script string
		checks int // within 2 minutes
		want   []string
	}{
		"readiness": {readinessProbe, "fpfpfff", 12, []string{
			"0s Readiness web passing=false Unhealthy: Readiness probe failed: no",
			"10s Readiness web passing=true",
			"20s Readiness web passing=true Unhealthy: Readiness probe failed: no",
			"40s Readiness web passing=true Unhealthy: Readiness probe failed: no",
			"50s Readiness web passing=true Unhealthy: Readiness probe failed: no",
			"1m0s Readiness web passing=false gaveUp Unhealthy: Readiness probe failed: no",
			"1m10s Readiness web passing=true",
		}},
		"liveness, until it fails": {livenessProbe, "pfpfff", 6, []string{
			"10s Liveness web passing=true Unhealthy: Liveness probe failed: no",
			"30s Liveness web passing=true Unhealthy: Liveness probe failed: no",
			"40s Liveness web passing=true Unhealthy: Liveness probe failed: no",
			"50s Liveness web passing=false gaveUp Unhealthy: Liveness probe failed: no",
		}},
		"startup, until it succeeds": {startupProbe, "ffp", 3, []string{
			"0s Startup web passing=false Unhealthy: Startup probe failed: no",
			"10s Startup web passing=false Unhealthy: Startup probe failed: no",
			"20s Startup web passing=true",
		}},
		"startup, until it fails": {startupProbe, "fff", 3, []string{
			"0s Startup web passing=false Unhealthy: Startup probe failed: no",
			"10s Startup web passing=false Unhealthy: Startup probe failed: no",
			"20s Startup web passing=false gaveUp Unhealthy: Startup probe failed: no",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inProbedBench(t, func(b *probedBench) {
				b.script["web"] = test.script
				web := b.probing("web", test.kind, nil)
				b.want([]probing{web})
				var checks, reports []string
				for range 12 { // as the worker does after every turn
					c, r := b.after(10*time.Second - time.Millisecond)
					checks, reports = append(checks, c...), append(reports, r...)
					b.want([]probing{web})
					time.Sleep(time.Millisecond)
				}
				expect(t, "checks", len(checks), test.checks)
				same(t, "reports", reports, test.want...)
			})
		})
	}
}

// A container that was restarted is probed anew, from the beginning.
func TestProbeOfNextAttempt(t *testing.T) {
	inProbedBench(t, func(b *probedBench) {
		b.script["web-0"] = "fff"
		web := b.probing("web-0", livenessProbe, nil)
		b.want([]probing{web})
		b.after(60 * time.Second)
		next := b.probing("web-1", livenessProbe, nil)
		b.want([]probing{next})
		checks, reports := b.after(11 * time.Second)
		same(t, "checks", checks, "web-1 1m0s", "web-1 1m10s")
		same(t, "reports", reports)
	})
}

// A pod that has another IP is asked there.
func TestProbeOfNewIP(t *testing.T) {
	inProbedBench(t, func(b *probedBench) {
		web := b.probing("web", readinessProbe, nil)
		b.want([]probing{web})
		b.after(5 * time.Second)
		web.ip = "10.88.0.3"
		b.want([]probing{web})
		b.want([]probing{web})
		checks, _ := b.after(6 * time.Second)
		same(t, "checks", checks, "web 5s")
	})
}

func TestProbeTimesOut(t *testing.T) {
	inProbedBench(t, func(b *probedBench) {
		b.fake.SetHang("exec web", true)
		b.want([]probing{b.probing("web", livenessProbe, func(p *corev1.Probe) { p.TimeoutSeconds = 4 })})
		_, reports := b.after(4*time.Second - 1)
		same(t, "before", reports)
		_, reports = b.after(1)
		same(t, "then", reports, `4s Liveness web passing=true Unhealthy: Liveness probe failed: command timed out: "check" timed out after 4s`)
	})
}

// A check that takes longer than the period is followed by the next at once; the ones between are left out.
func TestSlowProbe(t *testing.T) {
	inProbedBench(t, func(b *probedBench) {
		b.fake.SetExec(func(id string, e runtime.ExecConfig) (int, error) {
			defer time.Sleep(25 * time.Second)
			return b.exec(id, e)
		})
		b.want([]probing{b.probing("web", livenessProbe, func(p *corev1.Probe) { p.TimeoutSeconds = 30 })})
		checks, _ := b.after(70 * time.Second)
		same(t, "checks", checks, "web 0s", "web 25s", "web 50s")
	})
}

func TestNextCheck(t *testing.T) {
	begin := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct{ due, now, want time.Duration }{
		"in time":                {0, time.Millisecond, 10 * time.Second},
		"rounded up to the beat": {40 * time.Millisecond, 50 * time.Millisecond, 10*time.Second + 100*time.Millisecond},
		"on the beat it stays":   {100 * time.Millisecond, 150 * time.Millisecond, 10*time.Second + 100*time.Millisecond},
		"one is due":             {0, 13 * time.Second, 10 * time.Second},
		"two are left out":       {0, 39 * time.Second, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			got := nextCheck(begin.Add(test.due), begin.Add(test.now), 10*time.Second)
			expect(t, "next", got.Sub(begin), test.want)
		})
	}
}

// What could not be asked is no answer: the result stays as it is, and so does the row.
func TestProbeErrors(t *testing.T) {
	for name, test := range map[string]struct {
		err    error
		report string
	}{
		"containerd is away":       {runtime.ErrUnavailable, ""},
		"the container is gone":    {fmt.Errorf("cannot run in container: %w", runtime.ErrNotFound), ""},
		"there is no such command": {errors.New("check: not found"), "20s Liveness web passing=true Unhealthy: Liveness probe errored and resulted in unknown state: check: not found"},
	} {
		t.Run(name, func(t *testing.T) {
			inProbedBench(t, func(b *probedBench) {
				b.script["web"] = "ffff"
				b.want([]probing{b.probing("web", livenessProbe, nil)})
				_, reports := b.after(11 * time.Second)
				expect(t, "reports of failures", len(reports), 2)
				b.fake.SetFail("exec web", test.err)
				var want []string
				if test.report != "" {
					want = []string{test.report}
				}
				_, reports = b.after(10 * time.Second)
				same(t, "reports", reports, want...)
				b.fake.SetFail("exec web", nil)
				_, reports = b.after(10 * time.Second)
				same(t, "the third failure", reports, "30s Liveness web passing=false gaveUp Unhealthy: Liveness probe failed: no")
			})
		})
	}
}

// A check that cannot be made is tried again at once, three times in all.
func TestProbeErrorIsTriedAgain(t *testing.T) {
	inProbedBench(t, func(b *probedBench) {
		tries := 0
		b.fake.SetExec(func(string, runtime.ExecConfig) (int, error) {
			if tries++; tries%3 != 0 {
				return 0, errors.New("busy")
			}
			return 0, nil
		})
		b.want([]probing{b.probing("web", readinessProbe, nil)})
		_, reports := b.after(11 * time.Second)
		same(t, "reports", reports, "0s Readiness web passing=true")
		expect(t, "tries", tries, 6)
	})
}

// A probe that is not wanted any more ends in the middle of its check and says nothing.
func TestProbeCancelled(t *testing.T) {
	inProbedBench(t, func(b *probedBench) {
		b.fake.SetHang("exec web", true)
		web := b.probing("web", livenessProbe, func(p *corev1.Probe) { p.TimeoutSeconds = 8 })
		log := b.probing("log", livenessProbe, func(p *corev1.Probe) { p.InitialDelaySeconds = 3 })
		b.want([]probing{web, log})
		b.after(time.Second)
		b.want([]probing{log})
		checks, reports := b.after(20 * time.Second)
		same(t, "checks", checks, "log 3s", "log 13s")
		same(t, "reports", reports)
		expect(t, "loops", len(b.loops), 1)
	})
}

// What stop returns is closed when the last check has come back, not before.
func TestStopWaits(t *testing.T) {
	inProbedBench(t, func(b *probedBench) {
		b.fake.SetExec(func(string, runtime.ExecConfig) (int, error) {
			time.Sleep(5 * time.Second) // the command is being killed
			return 1, nil
		})
		b.want([]probing{b.probing("web", readinessProbe, nil)})
		b.after(time.Second)
		began := time.Now()
		<-b.stop()
		expect(t, "waited", time.Since(began), 4*time.Second)
		_, reports := b.after(0)
		same(t, "reports", reports)
	})
}

// Few commands run at once over all pods. One that waits for its turn has its whole time.
func TestChecksAtOnce(t *testing.T) {
	inProbedBench(t, func(b *probedBench) {
		checks := &Checks{exec: make(chan struct{}, 2), network: make(chan struct{}, 1)}
		b.cfg.Checks = checks
		other := newProber(b.cfg, b.hear)
		b.fake.SetExec(func(id string, e runtime.ExecConfig) (int, error) {
			_, _ = b.exec(id, e)
			time.Sleep(900 * time.Millisecond)
			return 0, nil
		})
		var mine, others []probing
		for i := range 3 {
			mine = append(mine, b.probing(fmt.Sprint("a", i), readinessProbe, nil))
			others = append(others, b.probing(fmt.Sprint("b", i), readinessProbe, nil))
		}
		b.want(mine)
		other.want(others)
		asked, reports := b.after(5 * time.Second)
		at := map[string]int{}
		for _, a := range asked {
			at[strings.Fields(a)[1]]++
		}
		if want := map[string]int{"0s": 2, "900ms": 2, "1.8s": 2}; !reflect.DeepEqual(at, want) {
			t.Errorf("commands at once: %v, want %v", at, want)
		}
		for _, r := range reports {
			if !strings.HasSuffix(r, "passing=true") {
				t.Error(r)
			}
		}
		expect(t, "reports", len(reports), 6)
		<-other.stop()
	})
}

// A check that waits for its turn when it is cancelled asks nothing, and takes no turn away.
func TestCheckCancelledBeforeItsTurn(t *testing.T) {
	inProbedBench(t, func(b *probedBench) {
		b.cfg.Checks = &Checks{exec: make(chan struct{}, 1)}
		b.cfg.Checks.exec <- struct{}{}
		web, log := b.probing("web", readinessProbe, nil), b.probing("log", readinessProbe, nil)
		b.want([]probing{web, log})
		b.after(time.Second)
		b.want([]probing{log})
		b.after(time.Second)
		<-b.cfg.Checks.exec
		checks, _ := b.after(time.Second)
		same(t, "checks", checks, "log 2s")
	})
}
