package daemonset

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// AnnotationPaused, when "true", keeps an update from taking healthy pods down.
const AnnotationPaused = "picket.io/paused"

// mayTakeDown answers the one question of a rolling update: may this host, whose pod of an older revision is available, start
// to replace it now? When not, it says why. One host need not wait for others; the rule of ROLLOUT.md, which
// reads the other hosts' statuses in the view, belongs here and nowhere else.
func mayTakeDown(v View) (ok bool, why because) {
	if paused(v.DaemonSet) {
		return false, because{code: CodePaused}
	}
	return true, because{}
}

// paused is strict about the value so that "false" means what it says.
func paused(ds *appsv1.DaemonSet) bool {
	return strings.EqualFold(ds.Annotations[AnnotationPaused], "true")
}

// onDelete: pods are replaced only when somebody deletes them.
func onDelete(ds *appsv1.DaemonSet) bool {
	return ds.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType
}

// budget scales maxUnavailable and maxSurge of a rolling update to the number of hosts the DaemonSet is placed on, rounding
// up. Where both come to zero, maxUnavailable is 1: an update must be able to move (SEMANTICS.md 10).
func budget(ds *appsv1.DaemonSet, desired int) (maxUnavailable, maxSurge int) {
	if onDelete(ds) {
		return 0, 0
	}
	if r := ds.Spec.UpdateStrategy.RollingUpdate; r != nil {
		maxUnavailable, maxSurge = scaled(r.MaxUnavailable, desired), scaled(r.MaxSurge, desired)
	}
	if desired > 0 && maxUnavailable == 0 && maxSurge == 0 {
		maxUnavailable = 1
	}
	return maxUnavailable, maxSurge
}

// scaled is 0 for what is absent or, against validation, no number.
func scaled(n *intstr.IntOrString, of int) int {
	value, err := intstr.GetScaledValueFromIntOrPercent(n, of, true)
	if err != nil {
		return 0
	}
	return value
}

// surges: an update starts the new pod beside the old one.
func surges(ds *appsv1.DaemonSet) bool {
	_, maxSurge := budget(ds, 1)
	return maxSurge > 0
}
