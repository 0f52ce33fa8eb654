package daemonset

import (
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// planCase is one observation and what Plan says to it. Names in brackets are Kubernetes' tests of the same claim.
type planCase struct {
	name string
	node *corev1.Node // nil: a plain one
	ds   *appsv1.DaemonSet
	pods []Pod
	want []string // see said
	wake time.Duration
	// reason is a part of the status' reason.
	reason string
}

func runPlans(t *testing.T, cases []planCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.node == nil {
				c.node = makeNode(nil)
			}
			d := planOn(c.node, c.ds, c.pods...)
			if got := said(d); !slices.Equal(got, c.want) {
				t.Errorf("actions: got %q, want %q", got, c.want)
			}
			if want := t0.Add(c.wake); (c.wake == 0) != d.WakeUp.IsZero() || (c.wake != 0 && !d.WakeUp.Equal(want)) {
				t.Errorf("wake-up: got %v, want %v after %v", d.WakeUp, c.wake, t0)
			}
			if !strings.Contains(d.Status.Reason, c.reason) || (c.reason == "" && d.Status.Reason != "") {
				t.Errorf("status reason: got %q, want %q", d.Status.Reason, c.reason)
			}
			for _, a := range d.Actions {
				if a.Message == "" {
					t.Errorf("%v has no message", a)
				}
			}
		})
	}
}

func TestPlanCreateAndDelete(t *testing.T) {
	noSchedule, noExecute := taint(corev1.TaintEffectNoSchedule), taint(corev1.TaintEffectNoExecute)
	runPlans(t, []planCase{
		{name: "no pod yet [TestOneNodeDaemonLaunchesPod]", ds: makeDS(), want: []string{"create bbbb SuccessfulCreate"}, reason: "no pod runs yet"},
		{name: "all is well [TestDealsWithExistingPods]", ds: makeDS(), pods: []Pod{makePod(1, revB, ready)}, want: []string{}},
		{
			name: "a terminating pod counts [TestDaemonSetRespectsTermination]", ds: makeDS(),
			pods: []Pod{makePod(1, revB, ready, terminating)}, want: []string{}, reason: "pod web-1 is terminating",
		},
		{
			name: "one too many: the oldest stays [TestDealsWithExistingPods]", ds: makeDS(),
			pods: []Pod{makePod(3, revB), makePod(2, revB, ready), makePod(1, revB, ready)},
			want: []string{"delete uid-2 SuccessfulDelete", "delete uid-3 SuccessfulDelete"},
		},
		{
			name: "the oldest, not the first by name", ds: makeDS(),
			pods: []Pod{makePod(1, revB, ready, func(p *Pod) { p.Created = t0 }), makePod(2, revB, ready)}, want: []string{"delete uid-1 SuccessfulDelete"},
		},
		{
			name: "one too many while one terminates", ds: makeDS(), pods: []Pod{makePod(1, revB, terminating), makePod(2, revB, ready)}, want: []string{},
		},
		{
			name: "not selected any more [TestSelectorDaemonDeletesUnselectedPods]", ds: makeDS(selecting("disktype", "hdd")),
			pods: []Pod{makePod(1, revB, ready), makePod(2, revB, terminating)}, want: []string{"delete uid-1 SuccessfulDelete"},
			reason: "node selector disktype=hdd does not match",
		},
		{name: "not selected, no pod [TestSelectorDaemonLaunchesPods]", ds: makeDS(selecting("disktype", "hdd")), want: []string{}, reason: "node selector"},
		{
			name: "[TestNoScheduleTaintedDoesntEvicitRunningIntolerantPod]", node: makeNode(nil, noSchedule), ds: makeDS(),
			pods: []Pod{makePod(1, revB, ready)}, want: []string{}, reason: "taint dedicated=gpu:NoSchedule is not tolerated",
		},
		{
			name: "[TestNoExecuteTaintedDoesEvicitRunningIntolerantPod]", node: makeNode(nil, noExecute), ds: makeDS(),
			pods: []Pod{makePod(1, revB, ready)}, want: []string{"delete uid-1 TaintManagerEviction"}, reason: "taint dedicated=gpu:NoExecute is not tolerated",
		},
		{
			name: "[TestTaintedNodeDaemonDoesNotLaunchIntolerantPod]", node: makeNode(nil, noSchedule), ds: makeDS(), want: []string{},
			reason: "taint dedicated=gpu:NoSchedule",
		},
		{
			name: "[TestTaintedNodeDaemonLaunchesToleratePod]", node: makeNode(nil, noSchedule), ds: makeDS(tolerating(toleration(""))),
			want: []string{"create bbbb SuccessfulCreate"}, reason: "no pod runs yet",
		},
		{
			name: "a pod that only continues to run takes no turn in an update", node: makeNode(nil, noSchedule), ds: makeDS(),
			pods: []Pod{makePod(1, revA)}, want: []string{}, reason: "taint dedicated=gpu:NoSchedule",
		},
		{
			name: "a failed pod where none should start is removed and not made again", node: makeNode(nil, noSchedule), ds: makeDS(),
			pods: []Pod{makePod(1, revB, failed)}, want: []string{"delete uid-1 FailedDaemonPod"}, reason: "taint dedicated=gpu:NoSchedule",
		},
		{
			name: "deleted DaemonSet", ds: nil, pods: []Pod{makePod(2, revA, ready), makePod(1, revB), makePod(3, revB, terminating)},
			want: []string{"delete uid-1 SuccessfulDelete", "delete uid-2 SuccessfulDelete"}, reason: "the DaemonSet was deleted",
		},
		{name: "deleted DaemonSet, all gone", ds: nil, want: []string{}, reason: "the DaemonSet was deleted"},
	})
}

func TestPlanRollingUpdate(t *testing.T) {
	justReady := readySince(t0.Add(-4 * time.Second))
	runPlans(t, []planCase{
		{name: "up to date [TestDaemonSetUpdatesNoTemplateChanged]", ds: makeDS(), pods: []Pod{makePod(1, revB, ready)}, want: []string{}},
		{
			name: "old and available [TestDaemonSetUpdatesPods]", ds: makeDS(), pods: []Pod{makePod(1, revA, ready)},
			want: []string{"delete uid-1 RollingUpdate"}, reason: "pod web-1 is terminating",
		},
		{
			name: "old and terminating", ds: makeDS(), pods: []Pod{makePod(1, revA, ready, terminating)}, want: []string{}, reason: "pod web-1 is terminating",
		},
		{
			name: "new and not ready: wait [TestDaemonSetUpdatesWhenNewPosIsNotReady]", ds: makeDS(), pods: []Pod{makePod(1, revB)}, want: []string{},
			reason: "pod web-1 is not ready",
		},
		{
			name: "old and not ready [TestDaemonSetUpdatesAllOldPodsNotReady]", ds: makeDS(), pods: []Pod{makePod(1, revA)},
			want: []string{"delete uid-1 RollingUpdate"}, reason: "pod web-1 is terminating",
		},
		{
			name: "paused: a healthy pod stays [TestDaemonSetUpdatesSaveOldHealthyPods]", ds: makeDS(pausing), pods: []Pod{makePod(1, revA, ready)}, want: []string{},
			reason: "pod web-1 runs the older revision aaaa: the update is paused by the annotation picket.io/paused",
		},
		{
			name: "paused: a pod that is not available is replaced all the same", ds: makeDS(pausing), pods: []Pod{makePod(1, revA)},
			want: []string{"delete uid-1 RollingUpdate"}, reason: "pod web-1 is terminating",
		},
		{
			name: "paused: a missing pod is made", ds: makeDS(pausing), want: []string{"create bbbb SuccessfulCreate"}, reason: "no pod runs yet",
		},
		{
			name: "old and ready, but not for the minReadySeconds of the new revision: only with leave", ds: makeDS(minReady(10), pausing),
			pods: []Pod{makePod(1, revA, justReady)}, want: []string{}, reason: "the update is paused",
		},
		{
			name: "new, ready, but not for minReadySeconds", ds: makeDS(minReady(10)), pods: []Pod{makePod(1, revB, justReady)}, want: []string{},
			wake: 6 * time.Second, reason: "pod web-1 is ready and counts as available at 2026-03-01T12:00:06Z (minReadySeconds 10)",
		},
		{
			name: "ready for exactly minReadySeconds is available", ds: makeDS(minReady(4)), pods: []Pod{makePod(1, revB, justReady)}, want: []string{},
		},
		{
			name: "OnDelete", ds: makeDS(deleting), pods: []Pod{makePod(1, revA, ready)}, want: []string{},
			reason: "pod web-1 runs the older revision aaaa: the update strategy is OnDelete",
		},
		{name: "OnDelete, not even one that is not ready", ds: makeDS(deleting), pods: []Pod{makePod(1, revA)}, want: []string{}, reason: "pod web-1 is not ready"},
		{name: "OnDelete, deleted: the new revision", ds: makeDS(deleting), want: []string{"create bbbb SuccessfulCreate"}, reason: "no pod runs yet"},
		{
			name: "one too many goes before the update begins", ds: makeDS(), pods: []Pod{makePod(1, revA, ready), makePod(2, revB)},
			want: []string{"delete uid-2 SuccessfulDelete"}, reason: "pod web-1 of the older revision aaaa is being replaced",
		},
		{
			name: "a failed pod goes before the update begins", ds: makeDS(), pods: []Pod{makePod(1, revA, failed), makePod(2, revA, ready)},
			want: []string{"delete uid-1 FailedDaemonPod"}, reason: "pod web-2 of the older revision aaaa is being replaced",
		},
		{
			name: "maxUnavailable 0% and maxSurge 0 still move", ds: makeDS(func(ds *appsv1.DaemonSet) {
				ds.Spec.UpdateStrategy = rolling(intstr.FromString("0%"), intstr.FromInt32(0))
			}), pods: []Pod{makePod(1, revA, ready)}, want: []string{"delete uid-1 RollingUpdate"}, reason: "pod web-1 is terminating",
		},
	})
}

func TestPlanSurge(t *testing.T) {
	justReady := readySince(t0.Add(-4 * time.Second))
	runPlans(t, []planCase{
		{name: "no pod", ds: makeDS(surging), want: []string{"create bbbb SuccessfulCreate"}, reason: "no pod runs yet"},
		{
			name: "old and available: new beside it [TestDaemonSetUpdatesPodsWithMaxSurge]", ds: makeDS(surging), pods: []Pod{makePod(1, revA, ready)},
			want: []string{"create bbbb SuccessfulCreate"}, reason: "pod web-1 of the older revision aaaa is being replaced",
		},
		{
			name: "old and not available: new beside it [TestDaemonSetUpdatesAllOldPodsNotReadyMaxSurge]", ds: makeDS(surging),
			pods: []Pod{makePod(1, revA)}, want: []string{"create bbbb SuccessfulCreate"}, reason: "pod web-1 is not ready",
		},
		{
			name: "old stays while new is not ready [TestSurgePreservesReadyOldPods]", ds: makeDS(surging),
			pods: []Pod{makePod(1, revA, ready), makePod(2, revB)}, want: []string{}, reason: "waiting for pod web-2 of revision bbbb to become available",
		},
		{
			name: "old goes when new is available", ds: makeDS(surging), pods: []Pod{makePod(1, revA, ready), makePod(2, revB, ready)},
			want: []string{"delete uid-1 RollingUpdate"},
		},
		{
			name: "old goes when it is not ready and a new one exists [TestSurgeDeletesUnreadyOldPods]", ds: makeDS(surging),
			pods: []Pod{makePod(1, revA), makePod(2, revB)}, want: []string{"delete uid-1 RollingUpdate"}, reason: "pod web-2 is not ready",
		},
		{
			name: "[TestSurgePreservesOldReadyWithUnsatisfiedMinReady]", ds: makeDS(surging, minReady(10)),
			pods: []Pod{makePod(1, revA, ready), makePod(2, revB, justReady)}, want: []string{}, wake: 6 * time.Second, reason: "waiting for pod web-2",
		},
		{
			name: "[TestSurgeDeletesOldReadyWithUnsatisfiedMinReady]", ds: makeDS(surging, minReady(3)),
			pods: []Pod{makePod(1, revA, ready), makePod(2, revB, justReady)}, want: []string{"delete uid-1 RollingUpdate"},
		},
		{
			name: "the old pod terminates: new at once [TestSurgeCreatesNewPodWhenAtMaxSurgeAndOldPodDeleted]", ds: makeDS(surging),
			pods: []Pod{makePod(1, revA, ready, terminating)}, want: []string{"create bbbb SuccessfulCreate"}, reason: "pod web-1 is terminating",
		},
		{
			name: "a terminating pod of the current revision is waited for", ds: makeDS(surging), pods: []Pod{makePod(1, revB, terminating)}, want: []string{},
			reason: "pod web-1 is terminating",
		},
		{
			name: "never a third pod", ds: makeDS(surging), pods: []Pod{makePod(1, revA, terminating), makePod(2, revA, ready)}, want: []string{},
			reason: "pod web-2 runs the older revision aaaa: waiting for the other pods of this host to be gone",
		},
		{
			name: "more than a pair: the oldest of each [TestSurgeDealsWithExistingPods]", ds: makeDS(surging),
			pods: []Pod{makePod(1, revA, ready), makePod(2, "cccc", ready), makePod(3, revB), makePod(4, revB)},
			want: []string{"delete uid-4 SuccessfulDelete", "delete uid-2 SuccessfulDelete"}, reason: "waiting for pod web-3",
		},
		{
			name: "paused: no surge", ds: makeDS(surging, pausing), pods: []Pod{makePod(1, revA, ready)}, want: []string{}, reason: "picket.io/paused",
		},
		{
			name: "paused in the middle: both stay", ds: makeDS(surging, pausing), pods: []Pod{makePod(1, revA, ready), makePod(2, revB, ready)}, want: []string{},
			reason: "picket.io/paused",
		},
		{
			name: "a percentage is a surge too", ds: makeDS(func(ds *appsv1.DaemonSet) {
				ds.Spec.UpdateStrategy = rolling(intstr.FromInt32(0), intstr.FromString("1%"))
			}), pods: []Pod{makePod(1, revA, ready)}, want: []string{"create bbbb SuccessfulCreate"}, reason: "being replaced",
		},
		{
			name: "where the pod only continues to run, a pair ends but none begins", node: makeNode(nil, taint(corev1.TaintEffectNoSchedule)), ds: makeDS(surging),
			pods: []Pod{makePod(1, revA, ready)}, want: []string{}, reason: "not tolerated",
		},
	})
}

func TestGetUnavailableNumbers(t *testing.T) {
	i, p := intstr.FromInt32, intstr.FromString
	for _, c := range []struct {
		name                  string
		unavailable, surge    intstr.IntOrString
		desired               int
		wantUnavail, wantSurg int
	}{
		{"no hosts", i(0), i(0), 0, 0, 0},
		{"plain numbers", i(3), i(0), 10, 3, 0},
		{"a number is not scaled", i(30), i(0), 10, 30, 0},
		{"percent is rounded up", p("25%"), i(0), 10, 3, 0},
		{"small percent of one host", p("1%"), i(0), 1, 1, 0},
		{"both zero", i(0), i(0), 10, 1, 0},
		{"zero percent", p("0%"), p("0%"), 10, 1, 0},
		{"surge", i(0), i(2), 10, 0, 2},
		{"surge percent is rounded up", i(0), p("15%"), 10, 0, 2},
		{"not a number", p("many"), i(0), 10, 1, 0},
	} {
		ds := makeDS(func(ds *appsv1.DaemonSet) { ds.Spec.UpdateStrategy = rolling(c.unavailable, c.surge) })
		if u, s := budget(ds, c.desired); u != c.wantUnavail || s != c.wantSurg {
			t.Errorf("%s: got %d, %d, want %d, %d", c.name, u, s, c.wantUnavail, c.wantSurg)
		}
	}
	undefaulted := makeDS(func(ds *appsv1.DaemonSet) { ds.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{} })
	if u, s := budget(undefaulted, 3); u != 1 || s != 0 {
		t.Errorf("without a strategy: got %d, %d, want 1, 0", u, s)
	}
	if u, s := budget(makeDS(deleting), 3); u != 0 || s != 0 {
		t.Errorf("OnDelete: got %d, %d, want 0, 0", u, s)
	}
}

// TestUpdateNode: a change of labels or taints acts at the next plan (Kubernetes: TestUpdateNode).
func TestUpdateNode(t *testing.T) {
	ds := makeDS(selecting("disktype", "hdd"))
	if got := said(planOn(makeNode(nil), ds)); len(got) != 0 {
		t.Errorf("not selected: got %q", got)
	}
	if got := said(planOn(makeNode(map[string]string{"disktype": "hdd"}), ds)); !slices.Equal(got, []string{"create bbbb SuccessfulCreate"}) {
		t.Errorf("selected: got %q", got)
	}
	tainted := makeNode(nil, taint(corev1.TaintEffectNoSchedule))
	if got := said(planOn(tainted, makeDS())); len(got) != 0 {
		t.Errorf("tainted: got %q", got)
	}
}

// TestWithoutHistoryNothingIsReplaced: a history that was lost is not a history without this pod's revision.
func TestWithoutHistoryNothingIsReplaced(t *testing.T) {
	for name, c := range map[string]struct {
		ds     *appsv1.DaemonSet
		pods   []Pod
		want   []string
		reason string
	}{
		"none runs":    {makeDS(), nil, []string{}, "no pod runs yet: the DaemonSet has no revision history"},
		"one runs":     {makeDS(), []Pod{makePod(1, revA)}, []string{}, "pod web-1 is not ready"},
		"a pair runs":  {makeDS(surging), []Pod{makePod(1, revA, ready), makePod(2, revB, ready)}, []string{}, "pod web-1 runs the older revision aaaa: the DaemonSet has no revision history"},
		"none may run": {makeDS(selecting("disktype", "hdd")), []Pod{makePod(1, revA)}, []string{"delete uid-1 SuccessfulDelete"}, "node selector disktype=hdd does not match"},
	} {
		d := Plan(View{DaemonSet: c.ds, Generation: 1}, Self{Node: makeNode(nil)}, Observed{Pods: c.pods}, t0)
		if got := said(d); !slices.Equal(got, c.want) || d.Status.Reason != c.reason || d.Status.Updating {
			t.Errorf("%s: got %q, %+v, want %q, reason %q", name, got, d.Status, c.want, c.reason)
		}
	}
}

func TestPlanChangesNothingItIsGiven(t *testing.T) {
	pods := []Pod{makePod(3, revB), makePod(1, revA, ready), makePod(2, revB, failed)}
	evictions := map[string]Eviction{"other:NoExecute": {Since: t0}}
	ds, node := makeDS(tolerating(toleration("", 60))), makeNode(nil, taint(corev1.TaintEffectNoExecute))
	dsBefore, nodeBefore := ds.DeepCopy(), node.DeepCopy()
	Plan(View{DaemonSet: ds, Generation: 1, Revision: revB}, Self{Node: node}, Observed{Pods: pods, Evictions: evictions}, t0)
	if pods[0].Name != "web-3" || len(evictions) != 1 {
		t.Errorf("the observation was changed: %v, %v", pods, evictions)
	}
	assertEqual(t, ds, dsBefore)
	assertEqual(t, node, nodeBefore)
}

func TestEventType(t *testing.T) {
	if got := (Action{Reason: ReasonFailed}).EventType(); got != corev1.EventTypeWarning {
		t.Errorf("a failed pod is reported as %s", got)
	}
	if got := (Action{Reason: ReasonCreate}).EventType(); got != corev1.EventTypeNormal {
		t.Errorf("a new pod is reported as %s", got)
	}
}
