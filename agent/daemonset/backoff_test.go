package daemonset

import (
	"testing"
	"time"
)

// TestDaemonKillFailedPods: a failed pod is removed, and the next ones ever later (Kubernetes: TestDaemonKillFailedPods, E2E
// "should retry creating failed daemon pods").
func TestDaemonKillFailedPods(t *testing.T) {
	h := newHost(t, nil)
	kill := "delete uid-1 FailedDaemonPod"
	broken := []Pod{makePod(1, revB, failed)}
	d := h.expect(0, broken, 0, kill)
	if want := "Found failed daemon pod default/web-1 on node host-01, will try to kill it"; d.Actions[0].Message != want {
		t.Errorf("message %q, want %q", d.Actions[0].Message, want)
	}
	h.expect(0, []Pod{makePod(1, revB, failed, terminating)}, 0)
	h.expect(0, nil, 0, "create bbbb SuccessfulCreate")
	d = h.expect(500*time.Millisecond, broken, time.Second)
	if want := "pod web-1 is Failed, the next attempt (1 so far) is at 2026-03-01T12:00:01Z"; d.Status.Reason != want {
		t.Errorf("status says %q, want %q", d.Status.Reason, want)
	}
	h.expect(time.Second, broken, 0, kill)
	h.expect(time.Second, broken, 3*time.Second) // 2 s after the second
	h.expect(3*time.Second, broken, 0, kill)
	h.expect(4*time.Second, broken, 7*time.Second)

	h.view.Generation = 2 // a new generation starts over
	h.expect(4*time.Second, broken, 0, kill)
	h.expect(4*time.Second, broken, 5*time.Second)
}

func TestSucceededPodBacksOffToo(t *testing.T) {
	h := newHost(t, nil)
	over := []Pod{makePod(1, revB, func(p *Pod) { p.Phase = "Succeeded" })}
	d := h.expect(0, over, 0, "delete uid-1 SucceededDaemonPod")
	if want := "Found succeeded daemon pod default/web-1 on node host-01, will try to delete it"; d.Actions[0].Message != want {
		t.Errorf("message %q, want %q", d.Actions[0].Message, want)
	}
	h.expect(0, over, time.Second)
}

func TestSurgeDoesNotStepAroundTheBackOff(t *testing.T) {
	h := newHost(t, nil)
	surging(h.view.DaemonSet)
	broken := []Pod{makePod(1, revB, failed)}
	h.expect(0, broken, 0, "delete uid-1 FailedDaemonPod")
	h.expect(0, broken, time.Second)
	h.expect(0, append(broken, makePod(2, revA, ready)), time.Second, "prefetch bbbb Preparing")
}

func TestBackOffDoublesTo15Minutes(t *testing.T) {
	var f Failures
	if !f.until().IsZero() {
		t.Errorf("nothing failed, but the next attempt is at %v", f.until())
	}
	for i, want := range []time.Duration{
		time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, 64 * time.Second,
		128 * time.Second, 256 * time.Second, 512 * time.Second, 15 * time.Minute, 15 * time.Minute,
	} {
		f = f.again(1, t0)
		if got := f.until().Sub(t0); got != want {
			t.Errorf("after failure %d: %v, want %v", i+1, got, want)
		}
	}
	f.Count = 1 << 40
	if got := f.until().Sub(t0); got != 15*time.Minute {
		t.Errorf("after very many: %v", got)
	}
}

func TestBackOffIsForgotten(t *testing.T) {
	f := Failures{Generation: 1, Count: 5, Last: t0}
	for _, c := range []struct {
		name       string
		generation int64
		now        time.Time
		want       Failures
	}{
		{"same generation", 1, t0.Add(time.Minute), f},
		{"new generation", 2, t0.Add(time.Minute), Failures{}},
		{"after 30 quiet minutes", 1, t0.Add(30 * time.Minute), f},
		{"after more than that", 1, t0.Add(30*time.Minute + time.Second), Failures{}},
		{"clock set back", 1, t0.Add(-time.Hour), Failures{Generation: 1, Count: 5, Last: t0.Add(-time.Hour)}},
	} {
		if got := f.current(c.generation, c.now); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}
