package daemonset

import (
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Annotations of a DaemonSet that a rolling update goes by.
const (
	// AnnotationPaused, when "true", keeps an update from taking healthy pods down.
	AnnotationPaused = "picket.io/paused"
	// AnnotationOnFailure is Halt or Rollback: what happens when a host is stuck in its turn. Halt is the default.
	AnnotationOnFailure = "picket.io/on-failure"
	// AnnotationDeadline is how many seconds a host may take in its turn until it counts as stuck; 600 is the default.
	AnnotationDeadline = "picket.io/progress-deadline"
	// AnnotationUnreachable is Exclude or Count: whether an update goes on without hosts that were lost before it came to them. Exclude
	// is the default.
	AnnotationUnreachable = "picket.io/unreachable"
	// AnnotationRestartOnConfig, when "true", makes a change of a ConfigMap or Secret that the template names a reason to update.
	AnnotationRestartOnConfig = "picket.io/restart-on-config"
	// AnnotationConfig is on pods: what stood for the contents of their ConfigMaps and Secrets when they were made.
	AnnotationConfig = "picket.io/config"
	// AnnotationRolledBack is written by an automatic rollback: the revision that failed, ">" and the one that took its place.
	AnnotationRolledBack = "picket.io/rolled-back"
	// AnnotationOutcome is on revisions: what had become of one when another took its place.
	AnnotationOutcome = "picket.io/outcome"
)

const defaultDeadline = 600 * time.Second

// deadline is how long a host may take in its turn.
func deadline(ds *appsv1.DaemonSet) time.Duration {
	n, err := strconv.ParseInt(strings.TrimSuffix(ds.Annotations[AnnotationDeadline], "s"), 10, 64)
	if err != nil || n <= 0 {
		return defaultDeadline
	}
	return seconds(n)
}

func rollsBack(ds *appsv1.DaemonSet) bool {
	return strings.EqualFold(ds.Annotations[AnnotationOnFailure], "Rollback")
}

func countsLost(ds *appsv1.DaemonSet) bool {
	return strings.EqualFold(ds.Annotations[AnnotationUnreachable], "Count")
}

// RestartsOnConfig says whether the contents of ConfigMaps and Secrets belong to the DaemonSet's revision.
func RestartsOnConfig(ds *appsv1.DaemonSet) bool {
	return strings.EqualFold(ds.Annotations[AnnotationRestartOnConfig], "true")
}

// Paused is strict about the value so that "false" means what it says.
func Paused(ds *appsv1.DaemonSet) bool {
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
