package api

import (
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/picketd/picket/agent/daemonset"
	"github.com/picketd/picket/agent/manifest"
)

// annotationRestartedAt is what `kubectl rollout restart` writes into the pod template.
const annotationRestartedAt = "kubectl.kubernetes.io/restartedAt"

// operatorMayChange judges an operator's update by what it changes: labels and annotations, a node's spec.unschedulable, and of a
// DaemonSet's template the restart annotation or a return to a revision that an admin once wrote. The reason says what is too much.
func (s *Server) operatorMayChange(before, after Object) (refused string) {
	if before.GetAnnotations()[corev1.LastAppliedConfigAnnotation] != after.GetAnnotations()[corev1.LastAppliedConfigAnnotation] {
		return "operators may not change what the next apply compares with (" + corev1.LastAppliedConfigAnnotation + ")"
	}
	rest := after.DeepCopyObject().(Object)
	rest.SetLabels(before.GetLabels())
	rest.SetAnnotations(before.GetAnnotations())
	rest.SetManagedFields(before.GetManagedFields())
	rest.SetGeneration(before.GetGeneration())
	rest.SetResourceVersion(before.GetResourceVersion())
	allowed := "labels and annotations"
	switch was := before.(type) {
	case *corev1.Node:
		rest.(*corev1.Node).Spec.Unschedulable = was.Spec.Unschedulable
		allowed += ", and cordon"
	case *appsv1.DaemonSet:
		now := rest.(*appsv1.DaemonSet)
		if restartOnly(was, now) || s.isRevision(was, now) {
			now.Spec.Template = was.Spec.Template
		}
		allowed += ", restart and undo"
	}
	if !apiequality.Semantic.DeepEqual(before, rest) {
		return "operators may change " + allowed + " only"
	}
	return ""
}

// restartOnly tells whether the templates differ in the restart annotation at most.
func restartOnly(a, b *appsv1.DaemonSet) bool {
	return apiequality.Semantic.DeepEqual(withoutRestart(a), withoutRestart(b))
}

func withoutRestart(ds *appsv1.DaemonSet) *corev1.PodTemplateSpec {
	t := ds.Spec.Template
	t.Annotations = maps.Clone(t.Annotations)
	delete(t.Annotations, annotationRestartedAt)
	return &t
}

// isRevision tells whether the new template is one of the DaemonSet's own revisions.
func (s *Server) isRevision(was, now *appsv1.DaemonSet) bool {
	revisions := lookupResource(appsv1.SchemeGroupVersion, "controllerrevisions").GroupResource()
	for _, obj := range s.cache.List(revisions, was.Namespace, nil, nil) {
		rev, ok := obj.(*appsv1.ControllerRevision)
		if !ok || !metav1.IsControlledBy(rev, was) {
			continue
		}
		template, err := daemonset.Template(rev)
		if err != nil {
			continue
		}
		then := was.DeepCopy()
		then.Spec.Template = *template
		manifest.Default(then)
		if apiequality.Semantic.DeepEqual(then.Spec.Template, now.Spec.Template) {
			return true
		}
	}
	return false
}
