package daemonset

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// Tolerations are those that a daemon pod of this template has: the template's own, and what Kubernetes adds so that trouble
// of a node does not drive its daemons away (SEMANTICS.md 2). spec is not changed: the added ones are no part of a revision.
func Tolerations(spec *corev1.PodSpec) []corev1.Toleration {
	tolerations := slices.Clone(spec.Tolerations)
	add := func(key string, effect corev1.TaintEffect) {
		tolerations = addOrUpdate(tolerations, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect})
	}
	add(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute)
	add(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute)
	add(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	if spec.HostNetwork {
		add(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule)
	}
	return tolerations
}

// addOrUpdate appends t, or puts it in the place of those that differ from it only in tolerationSeconds.
func addOrUpdate(tolerations []corev1.Toleration, t corev1.Toleration) []corev1.Toleration {
	found := false
	for i := range tolerations {
		if !t.MatchToleration(&tolerations[i]) {
			continue
		}
		found = true
		if !equality.Semantic.DeepEqual(tolerations[i], t) {
			tolerations[i] = t
		}
	}
	if found {
		return tolerations
	}
	return append(tolerations, t)
}
