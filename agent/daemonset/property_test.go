package daemonset

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
)

// drawDS draws the things of a DaemonSet that Plan looks at.
func drawDS(t *rapid.T) *appsv1.DaemonSet {
	return makeDS(
		minReady(rapid.SampledFrom([]int32{0, 0, 5, 60}).Draw(t, "minReadySeconds")),
		rapid.SampledFrom([]func(*appsv1.DaemonSet){func(*appsv1.DaemonSet) {}, surging, deleting, func(ds *appsv1.DaemonSet) {
			ds.Spec.UpdateStrategy = rolling(intstr.FromString("10%"), intstr.FromInt32(0))
		}}).Draw(t, "strategy"),
		func(ds *appsv1.DaemonSet) {
			if rapid.Bool().Draw(t, "paused") {
				pausing(ds)
			}
			if rapid.Bool().Draw(t, "tolerates") {
				tolerating(toleration("", rapid.SampledFrom([]int64{0, 10, 3600}).Draw(t, "for")))(ds)
			}
			if rapid.IntRange(0, 4).Draw(t, "select") == 0 {
				selecting("disktype", "hdd")(ds)
			}
		},
	)
}

func drawNode(t *rapid.T) *corev1.Node {
	node := makeNode(map[string]string{"disktype": rapid.SampledFrom([]string{"ssd", "hdd"}).Draw(t, "disktype")})
	if effect := rapid.SampledFrom([]corev1.TaintEffect{"", "", corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute}).Draw(t, "taint"); effect != "" {
		node.Spec.Taints = []corev1.Taint{taint(effect)}
	}
	return node
}

func drawPod(n int) *rapid.Generator[Pod] {
	return rapid.Custom(func(t *rapid.T) Pod {
		pod := makePod(n, rapid.SampledFrom([]string{revA, revB, "cccc"}).Draw(t, "revision"))
		pod.Phase = rapid.SampledFrom([]corev1.PodPhase{corev1.PodRunning, corev1.PodRunning, corev1.PodPending, corev1.PodFailed, corev1.PodSucceeded}).Draw(t, "phase")
		if pod.Phase == corev1.PodRunning && rapid.Bool().Draw(t, "ready") {
			readySince(t0.Add(-time.Duration(rapid.IntRange(0, 90).Draw(t, "for")) * time.Second))(&pod)
		}
		pod.Terminating = rapid.IntRange(0, 3).Draw(t, "terminating") == 0
		return pod
	})
}

func drawPods(t *rapid.T) []Pod {
	var pods []Pod
	for n := range rapid.IntRange(0, 4).Draw(t, "pods") {
		pods = append(pods, drawPod(n+1).Draw(t, fmt.Sprint("pod", n+1)))
	}
	return pods
}

// TestPlanProperties holds for every single decision.
func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ds, node, pods := drawDS(t), drawNode(t), drawPods(t)
		v, self := viewOf(ds), Self{Node: node}
		if rapid.IntRange(0, 5).Draw(t, "deleted") == 0 {
			v.DaemonSet = nil
		}
		o := Observed{Pods: pods, Warm: warmed, Failures: Failures{Generation: 1, Count: rapid.IntRange(0, 3).Draw(t, "failures"), Last: t0.Add(-time.Second)}}
		d := Plan(v, self, o, t0)

		shuffled := o
		shuffled.Pods = rapid.Permutation(pods).Draw(t, "order")
		if again := Plan(v, self, shuffled, t0); !reflect.DeepEqual(d, again) {
			t.Fatalf("another order of the pods makes another decision:\n%+v\n%+v", d, again)
		}
		if !d.WakeUp.IsZero() && !d.WakeUp.After(t0) {
			t.Fatalf("wake-up %v is not in the future of %v", d.WakeUp, t0)
		}
		if d.Status.Available && !d.Status.Ready || d.Status.Ready && !d.Status.HasPod {
			t.Fatalf("impossible status %+v", d.Status)
		}
		if placed := d.Status.Placed; placed && d.Status.Reason == "" != (d.Status.Available && d.Status.Updated) {
			t.Fatalf("a reason is given exactly when something is missing: %+v", d.Status)
		}
		checkActions(t, v, d, pods)
	})
}

// checkActions: what a decision may never do.
func checkActions(t *rapid.T, v View, d Decision, pods []Pod) {
	creates, deleted := 0, map[string]bool{}
	for _, a := range d.Actions {
		switch a.Kind {
		case Create:
			creates++
			continue
		case Prepare, Prefetch, Discard:
			continue
		}
		i := slices.IndexFunc(pods, func(p Pod) bool { return p.UID == a.UID })
		if i < 0 || pods[i].Terminating || deleted[a.UID] {
			t.Fatalf("deletes what is not there or told already: %+v", a)
		}
		deleted[a.UID] = true
		if a.Reason != ReasonUpdate {
			continue
		}
		healthy := pods[i].Ready && !t0.Before(pods[i].ReadySince.Add(time.Duration(v.DaemonSet.Spec.MinReadySeconds)*time.Second))
		if pods[i].Revision == v.Revision || onDelete(v.DaemonSet) || (healthy && Paused(v.DaemonSet)) {
			t.Fatalf("an update deletes %+v", pods[i])
		}
	}
	most := 1
	if v.DaemonSet != nil && surges(v.DaemonSet) {
		most = 2
	}
	if creates > 0 && (creates > 1 || !d.Placement.ShouldRun || len(pods)+creates > most) {
		t.Fatalf("creates %d beside %d pods (at most %d), placement %+v", creates, len(pods), most, d.Placement)
	}
	if (v.DaemonSet == nil || !d.Placement.ShouldContinue) && slices.ContainsFunc(pods, func(p Pod) bool { return !p.Terminating && !deleted[p.UID] }) {
		t.Fatalf("pods stay where none may run: %v", said(d))
	}
}

// world is one host on which decisions are carried out.
type world struct {
	host
	now  time.Time
	pods []Pod
	warm []Warm
	made int
}

func (w *world) observed() Observed {
	return Observed{Pods: w.pods, Warm: w.warm, Failures: w.failures, Evictions: w.evictions, Memory: w.memory, Said: w.said}
}

// step plans, carries out, and lets one thing happen; it reports whether anything did.
func (w *world) step(t *rapid.T) bool {
	d := Plan(w.view, Self{Node: w.node}, w.observed(), w.now)
	checkLater(t, d, w.now)
	w.failures, w.evictions, w.memory, w.said = d.Failures, d.Evictions, d.Memory, d.Said
	for _, a := range d.Actions {
		w.made++
		uid := fmt.Sprint("warm-", w.made)
		switch a.Kind {
		case Create:
			pod := makePod(100+w.made, a.Revision)
			pod.Phase, pod.Created = corev1.PodPending, w.now
			w.pods, w.warm = append(w.pods, pod), nil
			continue
		case Prepare, Prefetch:
			w.warm = append(w.warm, Warm{UID: uid, Since: w.now, Revision: a.Revision, ImagesOnly: a.Kind == Prefetch, Prepared: true})
			continue
		case Discard:
			w.warm = slices.DeleteFunc(w.warm, func(warm Warm) bool { return warm.UID == a.UID })
			continue
		}
		i := slices.IndexFunc(w.pods, func(p Pod) bool { return p.UID == a.UID })
		w.pods[i].Terminating = true
	}
	w.checkPods(t)
	if len(d.Actions) > 0 {
		return true
	}
	if i := slices.IndexFunc(w.pods, func(p Pod) bool { return p.Terminating }); i >= 0 {
		w.pods = slices.Delete(w.pods, i, i+1)
		return true
	}
	// What is not on its way out becomes ready in the end; failed pods stay failed.
	for i := range w.pods {
		if p := &w.pods[i]; !p.Ready && (p.Phase == corev1.PodPending || p.Phase == corev1.PodRunning) {
			p.Phase, p.Ready, p.ReadySince = corev1.PodRunning, true, w.now
			return true
		}
	}
	if !d.WakeUp.IsZero() {
		w.now = d.WakeUp
		return true
	}
	return false
}

func checkLater(t *rapid.T, d Decision, now time.Time) {
	if !d.WakeUp.IsZero() && !d.WakeUp.After(now) {
		t.Fatalf("wake-up %v is not after %v: the loop would spin", d.WakeUp, now)
	}
}

// checkPods: what Plan made stays within one pod a host, or one of each revision when it surges.
func (w *world) checkPods(t *rapid.T) {
	live := map[string]int{}
	for _, p := range w.pods {
		if p.Created.Before(t0) { // drawn, not made by Plan
			continue
		}
		live[p.Revision]++
	}
	if live[revB] > 1 || (!surges(w.view.DaemonSet) && w.made > 0 && len(live) > 1) {
		t.Fatalf("too many pods on the host: %+v", w.pods)
	}
}

// TestPlanConverges: from any state, carrying the decisions out over and over ends, and ends where it should.
func TestPlanConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := world{now: t0, pods: drawPods(t)}
		w.view, w.node = viewOf(drawDS(t)), drawNode(t)
		steps := 0
		for ; w.step(t); steps++ {
			if steps > 200 {
				t.Fatalf("still busy after %d steps: %+v", steps, w.pods)
			}
		}
		d := Plan(w.view, Self{Node: w.node}, w.observed(), w.now)
		switch {
		case d.Placement.ShouldRun:
			held := onDelete(w.view.DaemonSet) || Paused(w.view.DaemonSet)
			if !d.Status.Available || (!held && !d.Status.Updated) {
				t.Fatalf("not done: %+v with %+v", d.Status, w.pods)
			}
			if len(w.pods) != 1 && !(surges(w.view.DaemonSet) && held && len(w.pods) == 2) {
				t.Fatalf("%d pods run: %+v", len(w.pods), w.pods)
			}
		case !d.Placement.ShouldContinue && len(w.pods) > 0:
			t.Fatalf("pods are left where none may run: %+v", w.pods)
		}
	})
}

// drawWords draws what the hosts of a fleet say of generation 3.
func drawWords(t *rapid.T) []Status {
	var list []Status
	for n := range rapid.IntRange(0, 12).Draw(t, "hosts") {
		s := drawStatus(t)
		s.Node, s.Generation = fmt.Sprintf("host-%02d", n), int64(rapid.IntRange(1, 4).Draw(t, "generation"))
		s.Revision = rapid.SampledFrom([]string{revA, revB}).Draw(t, "revision")
		s.Ready = s.Ready && s.HasPod
		s.Available, s.Updated = s.Available && s.Ready, s.HasPod && (s.Generation == 3) == (s.Revision == revB)
		switch rapid.IntRange(0, 5).Draw(t, "known") {
		case 0:
			s.Silent = "no word from it since then"
		case 1:
			s = Status{Node: s.Node, Unheard: true}
		case 2:
			s = Status{Node: s.Node, Unheard: true, Silent: "no word from it at all"}
		}
		list = append(list, s)
	}
	return list
}

// TestSumProperties holds for every fleet.
func TestSumProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ds := drawDS(t)
		ds.Generation = 3
		words := drawWords(t)
		sum := Sum(ds, words)
		if again := Sum(ds, rapid.Permutation(words).Draw(t, "order")); !reflect.DeepEqual(sum, again) {
			t.Fatalf("another order of the hosts makes another status:\n%+v\n%+v", sum, again)
		}
		if sum.NumberAvailable > sum.NumberReady || sum.NumberReady > sum.CurrentNumberScheduled || sum.CurrentNumberScheduled > sum.DesiredNumberScheduled ||
			sum.UpdatedNumberScheduled > sum.CurrentNumberScheduled || sum.NumberUnavailable != sum.DesiredNumberScheduled-sum.NumberAvailable {
			t.Fatalf("impossible status %s", numbers(sum))
		}
		waits := slices.ContainsFunc(words, func(s Status) bool { return s.Silent == "" && (s.Unheard || s.Generation < 3) })
		anybody := slices.ContainsFunc(words, func(s Status) bool { return s.Silent == "" })
		if (sum.ObservedGeneration == 3) != (anybody && !waits) || sum.ObservedGeneration > 3 {
			t.Fatalf("observed %d of 3 by %+v", sum.ObservedGeneration, words)
		}
		for _, c := range sum.Conditions {
			if len(c.Message) > maxNamed*(maxReason+20)+100 {
				t.Fatalf("%d bytes: %s", len(c.Message), c.Message)
			}
		}
		checkSilence(t, ds, words, sum)
	})
}

// checkSilence: a host that falls silent makes nothing better, takes no pod away, and is never waited for.
func checkSilence(t *rapid.T, ds *appsv1.DaemonSet, words []Status, before appsv1.DaemonSetStatus) {
	if len(words) < 2 {
		return
	}
	silent := slices.Clone(words)
	i := rapid.IntRange(0, len(words)-1).Draw(t, "falls silent")
	silent[i].Silent = "no word from it since now"
	after := Sum(ds, silent)
	if after.DesiredNumberScheduled != before.DesiredNumberScheduled || after.CurrentNumberScheduled != before.CurrentNumberScheduled ||
		after.UpdatedNumberScheduled != before.UpdatedNumberScheduled || after.NumberReady > before.NumberReady || after.NumberAvailable > before.NumberAvailable {
		t.Fatalf("%s falls silent: %s becomes %s", words[i].Node, numbers(before), numbers(after))
	}
	others := slices.ContainsFunc(silent, func(s Status) bool { return s.Silent == "" })
	if others && after.ObservedGeneration < before.ObservedGeneration {
		t.Fatalf("%s falls silent, and observedGeneration goes back from %d to %d", words[i].Node, before.ObservedGeneration, after.ObservedGeneration)
	}
}

// TestHistoryProperties holds for every sequence of templates, limits and running pods.
func TestHistoryProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var history []*appsv1.ControllerRevision
		for range rapid.IntRange(1, 30).Draw(t, "writes") {
			limit := int32(rapid.IntRange(0, 4).Draw(t, "limit"))
			ds := makeDS(image(rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g"}).Draw(t, "image")), func(ds *appsv1.DaemonSet) { ds.Spec.RevisionHistoryLimit = &limit })
			var live []string
			for _, r := range history {
				if rapid.IntRange(0, 3).Draw(t, "runs") == 0 {
					live = append(live, RevisionHash(r))
				}
			}
			next := NextHistory(rapid.Permutation(history).Draw(t, "order"), ds, live)
			checkHistory(t, history, next, ds, live)
			if again := NextHistory(next, ds, live); !reflect.DeepEqual(again, next) {
				t.Fatal("the same DaemonSet again changes the history")
			}
			history = next
		}
	})
}

func checkHistory(t *rapid.T, before, next []*appsv1.ControllerRevision, ds *appsv1.DaemonSet, live []string) {
	current := next[len(next)-1]
	if data, err := revisionData(&ds.Spec.Template); err != nil || !bytes.Equal(current.Data.Raw, data) {
		t.Fatalf("the last revision is not the current template: %s", current.Data.Raw)
	}
	hashes := map[string]bool{}
	for i, r := range next {
		if i > 0 && next[i-1].Revision >= r.Revision {
			t.Fatalf("revision %d follows %d", r.Revision, next[i-1].Revision)
		}
		hashes[RevisionHash(r)] = true
	}
	if len(hashes) != len(next) {
		t.Fatalf("%d revisions with %d names", len(next), len(hashes))
	}
	for _, hash := range live {
		if !hashes[hash] {
			t.Fatalf("revision %s was dropped though it runs", hash)
		}
	}
	for _, r := range before {
		kept := slices.IndexFunc(next, func(n *appsv1.ControllerRevision) bool { return n.Name == r.Name })
		if kept >= 0 && !bytes.Equal(next[kept].Data.Raw, r.Data.Raw) {
			t.Fatalf("revision %s changed its content", r.Name)
		}
	}
	if old := len(next) - 1; old > int(*ds.Spec.RevisionHistoryLimit) && old > len(live) {
		t.Fatalf("%d old revisions are kept with limit %d and %d live", old, *ds.Spec.RevisionHistoryLimit, len(live))
	}
}
