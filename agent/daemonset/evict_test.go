package daemonset

import (
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const key = "dedicated=gpu:NoExecute"

// host plans the same DaemonSet again and again, keeping what Plan wants kept.
type host struct {
	t         *testing.T
	node      *corev1.Node
	view      View
	failures  Failures
	evictions map[string]Eviction
	memory    Memory
	said      Said
}

func (h *host) plan(after time.Duration, pods ...Pod) Decision {
	h.t.Helper()
	d := Plan(h.view, Self{Node: h.node}, Observed{Pods: pods, Failures: h.failures, Evictions: h.evictions}, t0.Add(after))
	h.failures, h.evictions = d.Failures, d.Evictions
	return d
}

// expect plans and checks the actions, and after what time from t0 Plan wants to be called again (0: never).
func (h *host) expect(after time.Duration, pods []Pod, wake time.Duration, want ...string) Decision {
	h.t.Helper()
	d := h.plan(after, pods...)
	if got := strings.Join(said(d), ", "); got != strings.Join(want, ", ") {
		h.t.Errorf("after %v: got %q, want %q", after, got, want)
	}
	if (wake == 0) != d.WakeUp.IsZero() || (wake != 0 && !d.WakeUp.Equal(t0.Add(wake))) {
		h.t.Errorf("after %v: wake-up after %v, want after %v", after, d.WakeUp.Sub(t0), wake)
	}
	return d
}

func newHost(t *testing.T, taints []corev1.Taint, tolerations ...corev1.Toleration) *host {
	view := viewOf(makeDS(tolerating(tolerations...)))
	return &host{t: t, node: makeNode(nil, taints...), view: view}
}

var noExecute = []corev1.Taint{taint(corev1.TaintEffectNoExecute)}

func TestTolerationSecondsRunOut(t *testing.T) {
	h := newHost(t, noExecute, toleration(corev1.TaintEffectNoExecute, 60))
	running := []Pod{makePod(1, revB, ready)}
	h.expect(0, running, 60*time.Second)
	h.expect(20*time.Second, running, 60*time.Second) // the timer keeps its start
	d := h.expect(60*time.Second, running, 0, "delete uid-1 TaintManagerEviction")
	if want := "taint dedicated=gpu:NoExecute is tolerated for 1m0s only"; !strings.Contains(d.Placement.Reason, want) {
		t.Errorf("reason %q, want %q", d.Placement.Reason, want)
	}
	if d.Status.Placed {
		t.Error("the host still says placed")
	}
	h.expect(90*time.Second, nil, 0) // ours: it stays away
	h.expect(24*time.Hour, nil, 0)
}

func TestTaintRemovalCancelsTheTimer(t *testing.T) {
	h := newHost(t, noExecute, toleration(corev1.TaintEffectNoExecute, 60))
	running := []Pod{makePod(1, revB, ready)}
	h.expect(0, running, 60*time.Second)
	h.node.Spec.Taints = nil
	h.expect(30*time.Second, running, 0)
	h.node.Spec.Taints = noExecute
	h.expect(50*time.Second, running, 110*time.Second) // a new timer
}

func TestEvictedComesBackWhenTheTaintGoes(t *testing.T) {
	h := newHost(t, noExecute, toleration(corev1.TaintEffectNoExecute, 0))
	h.expect(0, []Pod{makePod(1, revB, ready)}, 0, "delete uid-1 TaintManagerEviction")
	h.node.Spec.Taints = nil
	h.expect(time.Second, nil, 0, "create bbbb SuccessfulCreate")
	if h.evictions != nil {
		t.Errorf("still remembered: %v", h.evictions)
	}
}

func TestEvictedComesBackWhenToleratedForEver(t *testing.T) {
	h := newHost(t, noExecute, toleration(corev1.TaintEffectNoExecute, -5))
	h.expect(0, []Pod{makePod(1, revB, ready)}, 0, "delete uid-1 TaintManagerEviction")
	h.view.DaemonSet = makeDS(tolerating(toleration(corev1.TaintEffectNoExecute, 3600)))
	h.expect(time.Second, nil, 0) // a longer limit does not undo it
	h.view.DaemonSet = makeDS(tolerating(toleration(corev1.TaintEffectNoExecute)))
	h.expect(2*time.Second, nil, 0, "create bbbb SuccessfulCreate")
}

func TestTheEarliestTaintEvicts(t *testing.T) {
	other := corev1.Taint{Key: "maintenance", Effect: corev1.TaintEffectNoExecute}
	h := newHost(
		t, noExecute, toleration(corev1.TaintEffectNoExecute, 300),
		corev1.Toleration{Key: "maintenance", Operator: corev1.TolerationOpExists, TolerationSeconds: new(int64(100))},
	)
	running := []Pod{makePod(1, revB, ready)}
	h.expect(0, running, 300*time.Second)
	h.node.Spec.Taints = append(h.node.Spec.Taints[:1:1], other)
	h.expect(50*time.Second, running, 150*time.Second)
	h.expect(150*time.Second, running, 0, "delete uid-1 TaintManagerEviction")
	h.node.Spec.Taints = noExecute
	h.expect(160*time.Second, nil, 300*time.Second, "create bbbb SuccessfulCreate")
	h.expect(300*time.Second, running, 0, "delete uid-1 TaintManagerEviction")
}

func TestTheFirstMatchingTolerationCounts(t *testing.T) {
	forEver, limited := toleration(corev1.TaintEffectNoExecute), toleration(corev1.TaintEffectNoExecute, 60)
	h := newHost(t, noExecute, forEver, limited)
	h.expect(0, []Pod{makePod(1, revB, ready)}, 0)
	h = newHost(t, noExecute, limited, forEver)
	h.expect(0, []Pod{makePod(1, revB, ready)}, 60*time.Second)
}

func TestOneUntoleratedTaintEvictsAtOnce(t *testing.T) {
	h := newHost(t, append(noExecute[:1:1], corev1.Taint{Key: "gone", Effect: corev1.TaintEffectNoExecute}), toleration(corev1.TaintEffectNoExecute, 60))
	d := h.expect(0, []Pod{makePod(1, revB, ready)}, 0, "delete uid-1 TaintManagerEviction")
	if len(d.Evictions) != 0 {
		t.Errorf("a timer began where the pod may not run: %v", d.Evictions)
	}
}

func TestNoTimerForOtherEffectsAndOtherHosts(t *testing.T) {
	h := newHost(t, []corev1.Taint{taint(corev1.TaintEffectNoSchedule)}, toleration("", 60))
	h.expect(0, []Pod{makePod(1, revB, ready)}, 0)
	h = newHost(t, noExecute, toleration("", 60))
	h.view.DaemonSet.Spec.Template.Spec.NodeSelector = map[string]string{"disktype": "hdd"}
	h.expect(0, nil, 0)
	if len(h.evictions) != 0 {
		t.Errorf("a timer began where the DaemonSet is not placed: %v", h.evictions)
	}
}

func TestEvictionWhereTheDaemonSetIsNotPlacedForAWhile(t *testing.T) {
	h := newHost(t, noExecute, toleration("", 60))
	h.expect(0, []Pod{makePod(1, revB, ready)}, 60*time.Second)
	h.node.Labels["disktype"] = "none"
	h.view.DaemonSet.Spec.Template.Spec.NodeSelector = map[string]string{"disktype": "ssd"}
	h.expect(30*time.Second, nil, 60*time.Second)
	d := h.expect(80*time.Second, nil, 0)
	if want := "node selector disktype=ssd does not match"; d.Placement.Reason != want {
		t.Errorf("reason %q, want %q", d.Placement.Reason, want)
	}
	h.node.Labels["disktype"] = "ssd"
	h.expect(90*time.Second, nil, 0) // the taint stood all the time
}

func TestEvictionWhenTheClockIsSetBack(t *testing.T) {
	h := newHost(t, noExecute, toleration("", 60))
	h.expect(time.Hour, nil, time.Hour+60*time.Second, "create bbbb SuccessfulCreate")
	h.expect(0, []Pod{makePod(1, revB, ready)}, 60*time.Second)
}

func TestHugeTolerationSeconds(t *testing.T) {
	h := newHost(t, noExecute, toleration("", math.MaxInt64))
	d := h.plan(0, makePod(1, revB, ready))
	if len(d.Actions) != 0 || !d.WakeUp.After(t0.AddDate(100, 0, 0)) {
		t.Errorf("got %v, wake-up %v", said(d), d.WakeUp)
	}
	if !maps.Equal(d.Evictions, map[string]Eviction{key: {Since: t0}}) {
		t.Errorf("got %v", d.Evictions)
	}
}
