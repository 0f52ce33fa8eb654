package daemonset

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
)

// became is what a DaemonSet's status says of its current revision.
func became(reason string) appsv1.DaemonSetStatus {
	return appsv1.DaemonSetStatus{DesiredNumberScheduled: 3, Conditions: []appsv1.DaemonSetCondition{{Type: ConditionProgressing, Reason: reason}}}
}

const (
	well   = "RolloutComplete"
	badly  = "ProgressDeadlineExceeded"
	midway = "RolloutInProgress"
)

// TestRollback: a revision is an image and what had become of it when the next one was written.
func TestRollback(t *testing.T) {
	for name, c := range map[string]struct {
		revisions []string // "image outcome"; the last is the current one
		want      string   // image, or why not
	}{
		"to the one before":                         {[]string{"a " + well, "b"}, "a"},
		"what became of it is not known":            {[]string{"a " + midway, "b"}, "a"},
		"the one before has failed":                 {[]string{"a " + well, "b " + badly, "c"}, "a"},
		"the one before was given up":               {[]string{"a " + well, "b " + midway, "c"}, "a"},
		"the newest that was available":             {[]string{"a " + well, "b " + well, "c " + badly, "d"}, "b"},
		"none is known to have been available":      {[]string{"a " + midway, "b " + midway, "c " + badly, "d"}, "b"},
		"it failed, and worked later":               {[]string{"a " + badly, "b " + well, "a " + well, "c"}, "a"},
		"it worked, and failed later":               {[]string{"a " + well, "b " + well, "a " + badly, "c"}, "b"},
		"after a rollback to one that is not known": {[]string{"a " + well, "b " + midway, "c " + badly, "b"}, "a"},
		"there is none":                             {[]string{"a"}, "there is no earlier revision"},
		"all have failed":                           {[]string{"a " + badly, "b " + badly, "c"}, "every earlier revision has failed, too"},
		"the current one was available before":      {[]string{"a " + well, "b " + well, "c " + badly, "b"}, "revision 4 was available on all hosts before, what is wrong is not its template"},
		"another write that leaves the template":    {[]string{"a " + well, "b " + well, "b"}, "revision 2 was available on all hosts before, what is wrong is not its template"},
	} {
		t.Run(name, func(t *testing.T) {
			var history []*appsv1.ControllerRevision
			var ds *appsv1.DaemonSet
			before := ""
			for _, r := range c.revisions {
				if before != "" {
					history = Judge(history, became(before))
				}
				var img string
				img, before, _ = strings.Cut(r, " ")
				ds = makeDS(image(img))
				history = NextHistory(history, ds, nil)
			}
			back, from, whyNot := Rollback(ds, history)
			got := whyNot
			if back != nil {
				got = back.Spec.Template.Spec.Containers[0].Image
				to := NextHistory(history, back, nil)
				if want := from + ">" + RevisionHash(to[len(to)-1]); back.Annotations[AnnotationRolledBack] != want || from != RevisionHash(history[len(history)-1]) {
					t.Errorf("annotated %q, want %q", back.Annotations[AnnotationRolledBack], want)
				}
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestJudge: nothing is noted of what nobody runs, and what was given is not changed.
func TestJudge(t *testing.T) {
	history := after("a", "b")
	nowhere := became(well)
	nowhere.DesiredNumberScheduled = 0
	if Judge(nil, became(well)) != nil || outcomeOf(Judge(history, nowhere)[1]) != "" {
		t.Error("it judges what is not there")
	}
	if got := Judge(history, became(badly)); outcomeOf(got[1]) != outcomeFailed || outcomeOf(got[0]) != "" || outcomeOf(history[1]) != "" {
		t.Errorf("got %v, and %v is left", got[1].Annotations, history[1].Annotations)
	}
}
