package daemonset

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
)

// Rollback is ds with the template of the revision before the current one, and the current one's hash; nil when there is none, or
// when the current one is itself what a rollback went to: what has failed is not tried again by itself. history is sorted, see
// NextHistory. Doors that roll back at once make equal objects.
func Rollback(ds *appsv1.DaemonSet, history []*appsv1.ControllerRevision) (back *appsv1.DaemonSet, from string) {
	if len(history) < 2 {
		return nil, ""
	}
	current, previous := history[len(history)-1], history[len(history)-2]
	from, to := RevisionHash(current), RevisionHash(previous)
	if _, last, _ := strings.Cut(ds.Annotations[AnnotationRolledBack], ">"); last == from {
		return nil, ""
	}
	template, err := Template(previous)
	if err != nil {
		return nil, ""
	}
	back = ds.DeepCopy()
	back.Spec.Template = *template
	if back.Annotations == nil {
		back.Annotations = map[string]string{}
	}
	back.Annotations[AnnotationRolledBack] = from + ">" + to
	return back, from
}
