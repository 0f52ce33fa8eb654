package daemonset

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// What Kubernetes' own tests of a rolling update claim of its controller (SEMANTICS.md 10 to 14), claimed here of hosts that decide
// alone: each plans on what the others say. The names are Kubernetes'. Those that one host's plan shows are in plan_test.go.

// planFleet is hosts that hear each other at once.
type planFleet struct {
	t     *testing.T
	view  View // what all agree on
	hosts []*planHost
	made  int // pods, ever
}

type planHost struct {
	node *corev1.Node
	o    Observed
	word Status
}

// newPlanFleet has a ready pod of the DaemonSet on every host.
func newPlanFleet(t *testing.T, n int, change ...func(*appsv1.DaemonSet)) *planFleet {
	f := &planFleet{t: t, view: viewOf(makeDS(change...))}
	for i := range n {
		node := makeNode(nil)
		node.Name = fmt.Sprintf("host-%02d", i+1)
		f.view.Common.Roster[node.Name] = Entry{Number: 1}
		f.hosts = append(f.hosts, &planHost{node: node})
	}
	f.view.Digest = f.view.Common.Digest()
	f.expect("the first pods", n, 0)
	f.ready()
	f.expect("all is well", 0, 0)
	return f
}

// update writes another revision, or, with the present one, only something else.
func (f *planFleet) update(revision string, change ...func(*appsv1.DaemonSet)) {
	f.view.DaemonSet = f.view.DaemonSet.DeepCopy()
	for _, c := range change {
		c(f.view.DaemonSet)
	}
	f.view.Generation++
	f.view.Revision = revision
	f.view.Common.Generation++
	f.view.Digest = f.view.Common.Digest()
}

// expect lets all hosts talk and act until nothing more happens, with no pod becoming ready or ending meanwhile.
func (f *planFleet) expect(when string, creates, deletes int) {
	f.t.Helper()
	created, deleted := 0, 0
	for range 3 * len(f.hosts) {
		for _, h := range f.hosts {
			c, d := f.plan(h)
			created, deleted = created+c, deleted+d
		}
	}
	if created != creates || deleted != deletes {
		f.t.Errorf("%s: %d pods are made and %d deleted, want %d and %d", when, created, deleted, creates, deletes)
	}
	for _, h := range f.hosts {
		live := map[string]int{}
		for _, p := range h.o.Pods {
			live[p.Revision] += int(one(!p.Terminating))
			if live[p.Revision] > 1 {
				f.t.Errorf("%s: %s runs two pods of revision %s", when, h.node.Name, p.Revision)
			}
		}
	}
}

// plan is one host's plan, carried out.
func (f *planFleet) plan(h *planHost) (created, deleted int) {
	view := f.view
	view.Common.Roster = maps.Clone(view.Common.Roster)
	view.Others = map[string]Word{}
	for _, o := range f.hosts {
		if o != h {
			view.Others[o.node.Name] = Word{Told: o.word.Node != "", Status: o.word}
		}
	}
	h.o.Warm = []Warm{{Revision: view.Revision, Prepared: true}}
	d := Plan(view, Self{Node: h.node}, h.o, t0)
	h.o.Memory, h.o.Said, h.o.Failures, h.word = d.Memory, d.Said, d.Failures, d.Status
	for _, a := range d.Actions {
		switch a.Kind {
		case Create:
			f.made, created = f.made+1, created+1
			h.o.Pods = append(h.o.Pods, makePod(f.made, a.Revision))
		case Delete:
			deleted++
			for i := range h.o.Pods {
				h.o.Pods[i].Terminating = h.o.Pods[i].Terminating || h.o.Pods[i].UID == a.UID
			}
		}
	}
	return created, deleted
}

// gone ends the pods that were told to stop.
func (f *planFleet) gone() {
	for _, h := range f.hosts {
		h.o.Pods = slices.DeleteFunc(h.o.Pods, func(p Pod) bool { return p.Terminating })
	}
}

// ready makes all pods ready.
func (f *planFleet) ready() {
	for _, h := range f.hosts {
		for i := range h.o.Pods {
			ready(&h.o.Pods[i])
		}
	}
}

// unready makes the pods of the hosts from a to b not ready, counted from 0.
func (f *planFleet) unready(a, b int) {
	for _, h := range f.hosts[a:b] {
		for i := range h.o.Pods {
			h.o.Pods[i].Ready = false
		}
	}
}

func unavailableUpTo(n int32) func(*appsv1.DaemonSet) {
	return func(ds *appsv1.DaemonSet) {
		ds.Spec.UpdateStrategy = rolling(intstr.FromInt32(n), intstr.FromInt32(0))
	}
}

func surgingUpTo(n int32) func(*appsv1.DaemonSet) {
	return func(ds *appsv1.DaemonSet) {
		ds.Spec.UpdateStrategy = rolling(intstr.FromInt32(0), intstr.FromInt32(n))
	}
}

func TestDaemonSetUpdatesPods(t *testing.T) {
	f := newPlanFleet(t, 5)
	f.update("cccc", unavailableUpTo(2))
	for _, n := range []int{2, 2, 1, 0} {
		f.expect("as many as may be down stop", 0, n)
		f.gone()
		f.expect("and are made anew", n, 0)
		f.ready()
	}
}

func TestDaemonSetUpdatesPodsOfAPercentage(t *testing.T) {
	f := newPlanFleet(t, 5)
	f.update("cccc", func(ds *appsv1.DaemonSet) {
		ds.Spec.UpdateStrategy = rolling(intstr.FromString("30%"), intstr.FromInt32(0))
	})
	f.expect("30% of 5 is 2", 0, 2)
}

func TestDaemonSetUpdatesPodsWithMaxSurge(t *testing.T) {
	f := newPlanFleet(t, 5)
	f.update("cccc", surgingUpTo(2))
	for _, n := range []int{2, 2, 1, 0} {
		f.expect("as many as may surge start beside the old ones", n, 0)
		f.ready()
		f.expect("old ones go, and more may surge once they are gone", 0, n)
		f.gone()
	}
}

func TestDaemonSetUpdatesWhenNewPosIsNotReady(t *testing.T) {
	f := newPlanFleet(t, 5)
	f.update("cccc", unavailableUpTo(3))
	f.expect("three stop", 0, 3)
	f.gone()
	f.expect("three start", 3, 0)
	f.expect("they do not get ready: nothing more happens", 0, 0)
}

func TestDaemonSetUpdatesAllOldPodsNotReady(t *testing.T) {
	f := newPlanFleet(t, 5)
	f.unready(0, 5)
	f.update("cccc", unavailableUpTo(3))
	f.expect("none is available: all stop, whatever the budget", 0, 5)
	f.gone()
	f.expect("and start", 5, 0)
}

func TestDaemonSetUpdatesAllOldPodsNotReadyMaxSurge(t *testing.T) {
	f := newPlanFleet(t, 5)
	f.unready(0, 5)
	f.update("cccc", surgingUpTo(3))
	f.expect("none is available: all get a new one, and the old ones go", 5, 5)
}

func TestDaemonSetUpdatesSomeOldPodsNotReady(t *testing.T) {
	f := newPlanFleet(t, 5)
	f.unready(3, 5)
	f.update("cccc", unavailableUpTo(3))
	f.expect("two are not available, so one that is may stop too", 0, 3)
	f.gone()
	f.expect("and start", 3, 0)
}

func TestDaemonSetUpdatesSaveOldHealthyPods(t *testing.T) {
	f := newPlanFleet(t, 10)
	f.unready(0, 5)
	f.update("cccc", unavailableUpTo(3))
	f.expect("five are not available: they stop, and none that is", 0, 5)
	f.gone()
	f.expect("five start", 5, 0)
	f.expect("none of them gets ready: the healthy ones stay", 0, 0)
	f.update("dddd")
	f.expect("another revision is tried where nothing is lost", 0, 5)
	f.gone()
	f.expect("five start", 5, 0)
	f.ready()
	f.expect("it works: the others follow by three", 0, 3)
}

func TestDaemonSetUpdatesAllOldNotReadyPodsAndNewNotReadyPods(t *testing.T) {
	f := newPlanFleet(t, 5)
	f.unready(0, 5)
	f.update("cccc", unavailableUpTo(3))
	f.expect("none is available: all stop", 0, 5)
	f.gone()
	f.expect("and start", 5, 0)
	f.update("dddd")
	f.expect("the new ones are not available either: all stop again", 0, 5)
	f.gone()
	f.expect("and start", 5, 0)
}

func TestDaemonSetUpdatesNoTemplateChanged(t *testing.T) {
	f := newPlanFleet(t, 5)
	f.update(revB, unavailableUpTo(3))
	f.expect("only maxUnavailable has changed", 0, 0)
}

// TestUpdateOnDelete: "should not update pod when spec was updated and update strategy is OnDelete".
func TestUpdateOnDelete(t *testing.T) {
	f := newPlanFleet(t, 3)
	f.update("cccc", deleting)
	f.expect("nothing stops by itself", 0, 0)
	f.hosts[1].o.Pods[0].Terminating = true
	f.expect("somebody deletes a pod", 0, 0)
	f.gone()
	f.expect("another takes its place", 1, 0)
	if got := f.hosts[1].o.Pods[0].Revision; got != "cccc" {
		t.Errorf("it has revision %s", got)
	}
}

// TestRollbackWithoutUnnecessaryRestarts: "should rollback without unnecessary restarts".
func TestRollbackWithoutUnnecessaryRestarts(t *testing.T) {
	f := newPlanFleet(t, 5)
	f.update("cccc", unavailableUpTo(2))
	f.expect("two stop", 0, 2)
	f.gone()
	f.expect("two start, and do not get ready", 2, 0)
	f.update(revB)
	f.expect("the two go back at once", 0, 2)
	f.gone()
	f.expect("and start", 2, 0)
	f.ready()
	f.expect("nobody else is restarted", 0, 0)
	for _, h := range f.hosts {
		if got := h.o.Pods[0].Revision; got != revB {
			t.Errorf("%s has revision %s", h.node.Name, got)
		}
	}
}

// TestUpdateCountsMinReadySeconds: a new pod that is ready is not available before minReadySeconds, and nobody follows.
func TestUpdateCountsMinReadySeconds(t *testing.T) {
	f := newPlanFleet(t, 3, minReady(30))
	f.update("cccc")
	f.expect("one stops", 0, 1)
	f.gone()
	f.expect("one starts", 1, 0)
	pod := &f.hosts[0].o.Pods[0]
	pod.Ready, pod.ReadySince = true, t0.Add(-29*time.Second)
	f.expect("ready for 29 s", 0, 0)
	pod.ReadySince = t0.Add(-30 * time.Second)
	f.expect("ready for 30 s: the next one stops", 0, 1)
}

// TestUpdateDoesNotCountHostsThatDoNotRunIt: pods on hosts with a taint go on running, and those hosts take no turn.
func TestUpdateDoesNotCountHostsThatDoNotRunIt(t *testing.T) {
	f := newPlanFleet(t, 5)
	for _, h := range f.hosts[:3] {
		h.node.Spec.Taints = append(h.node.Spec.Taints, taint(corev1.TaintEffectNoSchedule))
	}
	f.update("cccc", func(ds *appsv1.DaemonSet) {
		ds.Spec.UpdateStrategy = rolling(intstr.FromString("50%"), intstr.FromInt32(0))
	})
	f.expect("half of two", 0, 1)
	f.gone()
	f.expect("it starts", 1, 0)
	f.ready()
	f.expect("the other one", 0, 1)
	f.gone()
	f.expect("it starts", 1, 0)
	f.ready()
	f.expect("the tainted ones keep their pods", 0, 0)
}
