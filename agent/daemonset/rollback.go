package daemonset

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
)

// Outcomes of a revision, as AnnotationOutcome has them.
const (
	outcomeAvailable = "Available" // on all hosts
	outcomeFailed    = "Failed"    // on some host, by the deadline
)

// Judge notes on the current revision what has become of it, as far as that is known: it is asked when another takes its place. status is
// the DaemonSet's. history is sorted, see NextHistory; it is not changed.
func Judge(history []*appsv1.ControllerRevision, status appsv1.DaemonSetStatus) []*appsv1.ControllerRevision {
	outcome := ""
	switch reasonOf(status, ConditionProgressing) {
	case "RolloutComplete":
		outcome = outcomeAvailable
	case "ProgressDeadlineExceeded":
		outcome = outcomeFailed
	}
	last := len(history) - 1
	if last < 0 || outcome == "" || status.DesiredNumberScheduled == 0 || outcomeOf(history[last]) == outcome {
		return history
	}
	history = slices.Clone(history)
	history[last] = history[last].DeepCopy()
	annotate(&history[last].ObjectMeta.Annotations, AnnotationOutcome, outcome)
	return history
}

func outcomeOf(r *appsv1.ControllerRevision) string { return r.Annotations[AnnotationOutcome] }

func annotate(annotations *map[string]string, key, value string) {
	if *annotations == nil {
		*annotations = map[string]string{}
	}
	(*annotations)[key] = value
}

// Rollback is ds with the template of the newest earlier revision that has not failed itself, of one that was available on all hosts if
// that is known of any; from is the current revision's hash. It is nil, and whyNot says why, when there is none, or when the current one
// was available everywhere before: then it is not the template that is wrong. history is sorted, see NextHistory. Doors that roll back at
// once make equal objects.
func Rollback(ds *appsv1.DaemonSet, history []*appsv1.ControllerRevision) (back *appsv1.DaemonSet, from, whyNot string) {
	last := len(history) - 1
	if last < 1 {
		return nil, "", "there is no earlier revision"
	}
	current, earlier := history[last], slices.DeleteFunc(slices.Clone(history[:last]), func(r *appsv1.ControllerRevision) bool {
		return outcomeOf(r) == outcomeFailed
	})
	from = RevisionHash(current)
	switch {
	case outcomeOf(current) == outcomeAvailable:
		return nil, from, fmt.Sprintf("revision %d was available on all hosts before, what is wrong is not its template", current.Revision)
	case len(earlier) == 0:
		return nil, from, "every earlier revision has failed, too"
	}
	to := earlier[len(earlier)-1]
	for _, r := range earlier {
		if outcomeOf(r) == outcomeAvailable {
			to = r // the last is the newest
		}
	}
	template, err := Template(to)
	if err != nil {
		return nil, from, err.Error()
	}
	back = ds.DeepCopy()
	back.Spec.Template = *template
	annotate(&back.Annotations, AnnotationRolledBack, from+">"+RevisionHash(to))
	return back, from, ""
}
