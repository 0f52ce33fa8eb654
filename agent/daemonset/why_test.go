package daemonset

import (
	"reflect"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const whyUID = "6a1fd4c8-4cf2-5bd5-8a1c-0d8c1f0a7b9e"

// webInTwoRevisions is a DaemonSet of generation 2, with the hashes of its revisions 1 and 2.
func webInTwoRevisions(t *testing.T, change ...func(*appsv1.DaemonSet)) (q question, old, current string) {
	t.Helper()
	ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Generation: 2}}
	ds.Spec.Template.Labels = map[string]string{"app": "web"}
	history := NextHistory(nil, ds, nil)
	ds.Spec.Template.Annotations = map[string]string{"now": "new"}
	for _, c := range change {
		c(ds)
	}
	history = NextHistory(history, ds, nil)
	return question{ds: ds, history: history}, RevisionHash(history[0]), RevisionHash(history[1])
}

// whyWord is a host's word of generation 2, with an available pod.
func whyWord(node, revision string, updated bool, change ...func(*Status)) Status {
	w := Status{
		Node: node, Generation: 2, Placed: true, HasPod: true, Ready: true, Available: true, Updated: updated, Revision: revision, PodUID: whyUID, Phase: corev1.PodRunning,
	}
	for _, c := range change {
		c(&w)
	}
	return w
}

func gone(w *Status) { w.Silent = "no word from it since noon" }

func unheard(w *Status) { w.Unheard, w.Generation = true, 1 }

func says(code Code, detail string) func(*Status) {
	return func(w *Status) { w.Code, w.Detail = code, detail }
}

func updating(w *Status) { w.Updating, w.Ready, w.Available = true, false, false }

func TestWhyInOneSentence(t *testing.T) {
	_, old, current := webInTwoRevisions(t)
	annotated := func(ds *appsv1.DaemonSet) { ds.Annotations = map[string]string{AnnotationPaused: "true"} }
	onDelete := func(ds *appsv1.DaemonSet) { ds.Spec.UpdateStrategy.Type = appsv1.OnDeleteDaemonSetStrategyType }
	elsewhere := func(ds *appsv1.DaemonSet) { ds.Namespace = "shop" }
	stuck := func(w *Status) { updating(w); w.Stuck = true }
	aside := func(w *Status) { w.Aside = true }
	for _, tt := range []struct {
		name                    string
		change                  func(*appsv1.DaemonSet)
		words                   []Status
		state, message, command string
	}{
		{"done", nil, []Status{whyWord("a", current, true), whyWord("b", current, true)}, RolloutComplete, "complete: 2 of 2 pods are updated to revision 2 and available", ""},
		{"nowhere", nil, []Status{{Node: "a", Generation: 2}}, RolloutComplete, "complete: no host is to run it", ""},
		{"a turn", nil, []Status{whyWord("a", current, true), whyWord("b", old, false, updating), whyWord("c", old, false)}, RolloutProgressing, "1 of 3 pods are updated; b is updating", ""},
		{"two turns", nil, []Status{whyWord("a", old, false, updating), whyWord("b", old, false, updating)}, RolloutProgressing, "0 of 2 pods are updated; a, b are updating", ""},
		{"just written", nil, []Status{whyWord("a", old, false), whyWord("b", old, false, unheard)}, RolloutProgressing, "0 of 2 pods are updated; b has not told of generation 2 yet", ""},
		{"not ready yet", nil, []Status{whyWord("a", current, true), whyWord("b", current, true, func(w *Status) { w.Available = false })}, RolloutProgressing, "2 of 2 pods are updated, 1 available; not available: b", ""},
		{"paused", annotated, []Status{whyWord("a", current, true), whyWord("b", old, false)}, RolloutPaused, "paused: 1 of 2 pods are updated", "picket rollout resume ds/web"},
		{"on delete", onDelete, []Status{whyWord("a", current, true), whyWord("b", old, false)}, RolloutOnDelete, "1 of 2 pods are updated; the others are replaced when they are deleted (OnDelete)", "picket delete pod " + PodName("web", whyUID)},
		{
			"lost in its turn", nil,
			[]Status{whyWord("a", current, true), whyWord("b", old, false, updating, gone), whyWord("c", old, false, says(CodeFailed, "b"))},
			RolloutBlocked, "blocked: 1 of 3 pods are updated; b, lost in the update, may come back", "picket delete node b",
		},
		{"lost before the update", nil, []Status{whyWord("a", old, false, updating), whyWord("b", old, false, unheard, gone)}, RolloutProgressing, "0 of 2 pods are updated; a is updating", ""},
		{"stuck", elsewhere, []Status{whyWord("a", current, true, stuck), whyWord("b", old, false, says(CodeHalted, "a"))}, RolloutBlocked, "blocked: 1 of 2 pods are updated; a did not become available in time", "picket rollout undo ds/web -n shop"},
		{
			"stuck, and nothing to go back to", func(ds *appsv1.DaemonSet) {
				ds.Annotations = map[string]string{AnnotationOnFailure: "Rollback", AnnotationOutcome: outcomeAvailable}
			},
			[]Status{whyWord("a", current, true, stuck), whyWord("b", old, false, says(CodeHalted, "a"))},
			RolloutBlocked,
			"blocked: 1 of 2 pods are updated; a did not become available in time, and it is not rolled back: revision 2 was available on all hosts before, what is wrong is not its template",
			"picket rollout undo ds/web",
		},
		{
			"rolled back", func(ds *appsv1.DaemonSet) {
				ds.Annotations = map[string]string{AnnotationRolledBack: old + ">" + current}
			},
			[]Status{whyWord("a", current, true), whyWord("b", current, true)},
			RolloutComplete,
			"complete: 2 of 2 pods are updated to revision 2 and available; it was rolled back from revision 1, which was not available in time", "",
		},
		{"no host can", nil, []Status{whyWord("a", old, false, aside), whyWord("b", old, false, aside)}, RolloutBlocked, "blocked: 0 of 2 pods are updated; a, b cannot make the next pod", "picket rollout undo ds/web"},
		{"only one host cannot", nil, []Status{whyWord("a", old, false, aside), whyWord("b", current, true)}, RolloutBlocked, "blocked: 1 of 2 pods are updated; a cannot make the next pod", ""},
		{"one host cannot, the others go on", nil, []Status{whyWord("a", old, false, aside), whyWord("b", old, false, updating)}, RolloutProgressing, "0 of 2 pods are updated; b is updating", ""},
	} {
		var changes []func(*appsv1.DaemonSet)
		if tt.change != nil {
			changes = append(changes, tt.change)
		}
		q, _, _ := webInTwoRevisions(t, changes...)
		q.ds.Status, q.words = Sum(q.ds, tt.words), tt.words
		r := q.rollout()
		if r.State != tt.state || r.Message != tt.message || r.Command != tt.command {
			t.Errorf("%s:\n got %s %q %q\nwant %s %q %q", tt.name, r.State, r.Message, r.Command, tt.state, tt.message, tt.command)
		}
		if r.Revision != 2 || r.RevisionHash != current {
			t.Errorf("%s: revision %d %s", tt.name, r.Revision, r.RevisionHash)
		}
	}
}

func TestWhyOfAHost(t *testing.T) {
	q, old, current := webInTwoRevisions(t)
	noon := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	pod := PodName("web", whyUID)
	since := func(w *Status) { w.Since = noon }
	no := func(change func(*Status)) func(*Status) {
		return func(w *Status) { w.Ready, w.Available = false, false; change(w) }
	}
	for _, tt := range []struct {
		name string
		word Status
		want WhyHost
	}{
		{"available", whyWord("a", current, true, since), WhyHost{Placed: true, Pod: pod, Revision: 2, RevisionHash: current, Current: true, State: "Available", Since: &metav1.Time{Time: noon}}},
		{
			"its turn has not come", whyWord("a", old, false, says(CodeBefore, "b")),
			WhyHost{Placed: true, Pod: pod, Revision: 1, RevisionHash: old, State: "Available", Message: "waiting for b"},
		},
		{"a revision that is not in the history", whyWord("a", "lost", false), WhyHost{Placed: true, Pod: pod, RevisionHash: "lost", State: "Available"}},
		{"minReadySeconds", whyWord("a", current, true, func(w *Status) { w.Available = false }), WhyHost{Placed: true, Pod: pod, Revision: 2, RevisionHash: current, Current: true, State: "Ready"}},
		{
			"crash loop", whyWord("a", current, true, no(says(CodeCrashLoopBackOff, ""))),
			WhyHost{Placed: true, Pod: pod, Revision: 2, RevisionHash: current, Current: true, State: "NotReady", Message: "CrashLoopBackOff"},
		},
		{"turn", whyWord("a", old, false, updating), WhyHost{Placed: true, Pod: pod, Revision: 1, RevisionHash: old, State: "Updating"}},
		{"stuck", whyWord("a", current, true, updating, func(w *Status) { w.Stuck = true }), WhyHost{Placed: true, Pod: pod, Revision: 2, RevisionHash: current, Current: true, State: "Failed"}},
		{"stops", whyWord("a", current, true, no(func(w *Status) { w.Terminating = true })), WhyHost{Placed: true, Pod: pod, Revision: 2, RevisionHash: current, Current: true, State: "Terminating"}},
		{"no pod", Status{Node: "a", Generation: 2, Placed: true, Code: CodeNoPod}, WhyHost{Placed: true, State: "NoPod", Message: "no pod runs yet"}},
		{
			"lost", whyWord("a", old, false, gone, since, func(w *Status) { w.SilentSince = noon.Add(time.Hour) }),
			WhyHost{Placed: true, Pod: pod, Revision: 1, RevisionHash: old, State: "Silent", Since: &metav1.Time{Time: noon.Add(time.Hour)}, Message: "no word from it since noon"},
		},
		{"never spoke", Status{Node: "a", Unheard: true}, WhyHost{Placed: true, Guess: true, State: "NoPod", Message: "it has not told of generation 2 yet"}},
		{
			"config changed under the same template", whyWord("a", current, false, says(CodeBefore, "b")),
			WhyHost{Placed: true, Pod: pod, Revision: 2, RevisionHash: current, State: "Available", Message: "waiting for b"},
		},
	} {
		got := q.host(tt.word, &corev1.Node{})
		if !strings.Contains(got.Message, tt.want.Message) || tt.want.Message == "" && got.Message != "" {
			t.Errorf("%s: it says %q, want %q", tt.name, got.Message, tt.want.Message)
		}
		tt.want.Host, tt.want.Message = "a", got.Message
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", tt.name, got, tt.want)
		}
	}
}

func TestWhyAHostIsChosen(t *testing.T) {
	ssd := func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.NodeSelector = map[string]string{"disktype": "ssd"} }
	zone := func(ds *appsv1.DaemonSet) {
		ds.Spec.Template.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
				{Key: "zone", Operator: corev1.NodeSelectorOpExists}, {Key: "virtual", Operator: corev1.NodeSelectorOpDoesNotExist},
			}}},
		}}}
	}
	anywhere := func(ds *appsv1.DaemonSet) {
		ds.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	}
	labels := map[string]string{"disktype": "ssd", "zone": "a", "rack": "r1"}
	gpu := corev1.Taint{Key: "example.com/dedicated-to-the-gpu", Value: "gpu", Effect: corev1.TaintEffectNoSchedule}
	away := says(CodeTaint, "…/dedicated-to-the-gpu=…")
	unplaced := func(w *Status) { w.Placed = false }
	for _, tt := range []struct {
		name          string
		change        func(*appsv1.DaemonSet)
		labels        map[string]string
		taints        []corev1.Taint
		word          func(*Status)
		placed, guess bool
		by            string
	}{
		{"everywhere", nil, labels, nil, nil, true, false, ""},
		{"by label", ssd, labels, nil, nil, true, false, "disktype=ssd"},
		{"by affinity", zone, labels, nil, nil, true, false, "zone=a"},
		{"by both, and a toleration", func(ds *appsv1.DaemonSet) { ssd(ds); zone(ds); anywhere(ds) }, labels, []corev1.Taint{gpu}, nil, true, false, "disktype=ssd, zone=a, tolerates example.com/dedicated-to-the-gpu=gpu:NoSchedule"},
		{"without the label", ssd, nil, nil, unplaced, false, false, "node selector disktype=ssd does not match"},
		{"a taint, in full", nil, labels, []corev1.Taint{gpu}, func(w *Status) { unplaced(w); away(w) }, false, false, "taint example.com/dedicated-to-the-gpu=gpu:NoSchedule is not tolerated"},
		{"a reason that its Node does not show", nil, labels, nil, func(w *Status) { unplaced(w); says(CodeEvicted, "broken:NoExecute")(w) }, false, false, "taint broken:NoExecute is tolerated for a limited time only; the pod stays away until the taint is removed"},
		{"a guess: yes", ssd, labels, nil, func(w *Status) { unplaced(w); unheard(w) }, true, true, "disktype=ssd"},
		{"a guess: no", ssd, nil, nil, unheard, false, true, "node selector disktype=ssd does not match"},
	} {
		var changes []func(*appsv1.DaemonSet)
		if tt.change != nil {
			changes = append(changes, tt.change)
		}
		q, _, current := webInTwoRevisions(t, changes...)
		word := whyWord("a", current, true)
		if tt.word != nil {
			tt.word(&word)
		}
		h := q.host(word, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: tt.labels}, Spec: corev1.NodeSpec{Taints: tt.taints}})
		if h.Placed != tt.placed || h.Guess != tt.guess || h.By != tt.by {
			t.Errorf("%s: placed %t (guess %t) by %q, want %t (%t) %q", tt.name, h.Placed, h.Guess, h.By, tt.placed, tt.guess, tt.by)
		}
	}
}
