package daemonset

import (
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Conditions of a DaemonSet. Kubernetes defines none for it; these mean what a Deployment's of the same name mean.
// RolloutBlocked joins them with the rolling update of a fleet.
const (
	// ConditionAvailable is True when every placed host has an available pod.
	ConditionAvailable appsv1.DaemonSetConditionType = "Available"
	// ConditionProgressing is True while an update moves on and when it is complete, Unknown while it is paused.
	ConditionProgressing appsv1.DaemonSetConditionType = "Progressing"
)

// maxNamed bounds how many hosts a condition's message names.
const maxNamed = 5

// Sum adds the hosts' words up to the DaemonSet's status (SEMANTICS.md 16). ds.Status is what was told before; of it only the
// conditions' transition times and the collision count are kept.
func Sum(ds *appsv1.DaemonSet, statuses []Status) appsv1.DaemonSetStatus {
	sum := appsv1.DaemonSetStatus{CollisionCount: ds.Status.CollisionCount}
	for i, s := range statuses {
		if i == 0 || s.Generation < sum.ObservedGeneration {
			sum.ObservedGeneration = s.Generation // the view that everybody has acted on
		}
		if !s.Placed {
			sum.NumberMisscheduled += one(s.HasPod)
			continue
		}
		sum.DesiredNumberScheduled++
		sum.CurrentNumberScheduled += one(s.HasPod)
		sum.NumberReady += one(s.HasPod && s.Ready)
		sum.NumberAvailable += one(s.HasPod && s.Available)
		sum.UpdatedNumberScheduled += one(s.HasPod && s.Updated)
	}
	sum.NumberUnavailable = sum.DesiredNumberScheduled - sum.NumberAvailable
	sum.Conditions = []appsv1.DaemonSetCondition{
		since(ds, statuses, available(sum, statuses)),
		since(ds, statuses, progressing(ds, sum, statuses)),
	}
	return sum
}

func one(yes bool) int32 {
	if yes {
		return 1
	}
	return 0
}

func available(sum appsv1.DaemonSetStatus, statuses []Status) appsv1.DaemonSetCondition {
	c := appsv1.DaemonSetCondition{Type: ConditionAvailable, Status: corev1.ConditionTrue, Reason: "AllPodsAvailable"}
	c.Message = fmt.Sprintf("%d of %d pods are available", sum.NumberAvailable, sum.DesiredNumberScheduled)
	if sum.NumberUnavailable > 0 {
		c.Status, c.Reason = corev1.ConditionFalse, "PodsUnavailable"
		c.Message += hosts(statuses, func(s Status) bool { return s.Placed && !s.Available })
	}
	return c
}

func progressing(ds *appsv1.DaemonSet, sum appsv1.DaemonSetStatus, statuses []Status) appsv1.DaemonSetCondition {
	c := appsv1.DaemonSetCondition{Type: ConditionProgressing, Status: corev1.ConditionTrue}
	c.Message = fmt.Sprintf("%d of %d pods are updated", sum.UpdatedNumberScheduled, sum.DesiredNumberScheduled)
	complete := sum.ObservedGeneration >= ds.Generation && sum.UpdatedNumberScheduled == sum.DesiredNumberScheduled
	switch {
	case complete && sum.NumberUnavailable == 0:
		c.Reason = "RolloutComplete"
		return c
	case complete:
		c.Reason = "WaitingForAvailability"
		c.Message += fmt.Sprintf(", %d of them available", sum.NumberAvailable)
		return c
	case paused(ds):
		c.Status, c.Reason = corev1.ConditionUnknown, "RolloutPaused"
	case onDelete(ds):
		c.Reason = "WaitingForDelete"
	default:
		c.Reason = "RolloutInProgress"
	}
	c.Message += hosts(statuses, func(s Status) bool { return s.Placed && !s.Updated })
	return c
}

// hosts lists those that match with their reasons, in the order of their names.
func hosts(statuses []Status, match func(Status) bool) string {
	var named []string
	for _, s := range statuses {
		if match(s) {
			named = append(named, s.Node+": "+s.Reason)
		}
	}
	slices.Sort(named)
	more := ""
	if len(named) > maxNamed {
		more = fmt.Sprintf("; and %d more", len(named)-maxNamed)
		named = named[:maxNamed]
	}
	if len(named) == 0 {
		return ""
	}
	return " (" + strings.Join(named, "; ") + more + ")"
}

// since completes a condition with its transition time: the one it had when it does not change, else the latest thing that a
// host told, but never one before the last transition. No clock is read, so every host that heard the same shows the same.
func since(ds *appsv1.DaemonSet, statuses []Status, c appsv1.DaemonSetCondition) appsv1.DaemonSetCondition {
	var latest time.Time
	for _, s := range statuses {
		if s.Since.After(latest) {
			latest = s.Since
		}
	}
	c.LastTransitionTime = metav1.NewTime(latest)
	for _, before := range ds.Status.Conditions {
		if before.Type == c.Type && (before.Status == c.Status || latest.Before(before.LastTransitionTime.Time)) {
			c.LastTransitionTime = before.LastTransitionTime
		}
	}
	return c
}
