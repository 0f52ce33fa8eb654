package daemonset

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Conditions of a DaemonSet. Kubernetes defines none for it; the first two mean what a Deployment's of the same name mean.
const (
	// ConditionAvailable is True when every placed host has an available pod.
	ConditionAvailable appsv1.DaemonSetConditionType = "Available"
	// ConditionProgressing is True while an update moves on and when it is complete, Unknown while it is paused.
	ConditionProgressing appsv1.DaemonSetConditionType = "Progressing"
	// ConditionBlocked is True when an update does not go on by itself; its reason is one of the Blocked constants, its message names the
	// hosts and what to do.
	ConditionBlocked appsv1.DaemonSetConditionType = "RolloutBlocked"
)

// Reasons of ConditionBlocked, the gravest first.
const (
	BlockedByStuckHost  = "HostStuck"
	BlockedByLostHost   = "HostLost"
	BlockedByAsideHosts = "CannotMakePod"
	BlockedByPause      = "Paused"
)

// BlockedReasons are all of them.
var BlockedReasons = [...]string{BlockedByStuckHost, BlockedByLostHost, BlockedByAsideHosts, BlockedByPause}

// maxNamed bounds how many hosts a condition's message names, maxReason what is said of one, in bytes.
const (
	maxNamed  = 5
	maxReason = 200
)

// Sum adds the words of the fleet's hosts up to the DaemonSet's status (SEMANTICS.md 16): one word of each member, see Status.Silent
// and Status.Unheard. ds.Status is what was told before; of it only the conditions' transition times and the collision count are kept.
func Sum(ds *appsv1.DaemonSet, statuses []Status) appsv1.DaemonSetStatus {
	statuses = asOfNow(ds, statuses)
	sum := appsv1.DaemonSetStatus{CollisionCount: ds.Status.CollisionCount, ObservedGeneration: observedGeneration(ds, statuses)}
	for _, s := range statuses {
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
		since(ds, statuses, available(ds, sum, statuses)),
		since(ds, statuses, progressing(ds, sum, statuses)),
		since(ds, statuses, blocked(ds, sum, statuses)),
	}
	return sum
}

// asOfNow is what the words come to today. A host that is silent has nothing that could be relied on, though its pod may well run. And
// an old word of being up to date was said of another generation: it holds if its revision is the one that others call current now.
func asOfNow(ds *appsv1.DaemonSet, statuses []Status) []Status {
	current := ""
	for _, s := range statuses {
		if s.Generation == ds.Generation && s.HasPod && s.Updated {
			current = max(current, s.Revision) // all say the same, or one of them lies; then the order of the words decides nothing
		}
	}
	statuses = slices.Clone(statuses)
	for i := range statuses {
		s := &statuses[i]
		if s.Silent != "" {
			s.Ready, s.Available = false, false
		}
		if s.Generation != ds.Generation {
			s.Updated = current != "" && s.Revision == current
		}
	}
	return statuses
}

// observedGeneration is the generation that every host has acted on, as far as one is heard of: kubectl waits for it. A host that is
// silent is not waited for, or one dead machine would hold every rollout back.
func observedGeneration(ds *appsv1.DaemonSet, statuses []Status) int64 {
	observed, anybody := ds.Generation, false
	for _, s := range statuses {
		if s.Silent != "" {
			continue
		}
		anybody = true
		if s.Unheard {
			observed = min(observed, ds.Generation-1)
		}
		if !s.Unheard || s.Generation > 0 { // one that never spoke has not told how far behind it is
			observed = min(observed, s.Generation)
		}
	}
	if !anybody {
		return 0
	}
	return observed
}

func one(yes bool) int32 {
	if yes {
		return 1
	}
	return 0
}

func available(ds *appsv1.DaemonSet, sum appsv1.DaemonSetStatus, statuses []Status) appsv1.DaemonSetCondition {
	c := appsv1.DaemonSetCondition{Type: ConditionAvailable, Status: corev1.ConditionTrue, Reason: "AllPodsAvailable"}
	c.Message = fmt.Sprintf("%d of %d pods are available", sum.NumberAvailable, sum.DesiredNumberScheduled)
	if sum.NumberUnavailable > 0 {
		c.Status, c.Reason = corev1.ConditionFalse, "PodsUnavailable"
		missing := func(s Status) bool { return s.Placed && !s.Available }
		c.Message += hosts(statuses, missing, func(s Status) string { return cmp.Or(s.Silent, s.Explain(ds.Name)) })
	}
	return c
}

func progressing(ds *appsv1.DaemonSet, sum appsv1.DaemonSetStatus, statuses []Status) appsv1.DaemonSetCondition {
	c := appsv1.DaemonSetCondition{Type: ConditionProgressing, Status: corev1.ConditionTrue}
	c.Message = fmt.Sprintf("%d of %d pods are updated", sum.UpdatedNumberScheduled, sum.DesiredNumberScheduled)
	complete := complete(ds, sum)
	named := func(s Status) bool { return behind(ds, s) || (s.Placed && !s.Updated) }
	switch {
	case slices.ContainsFunc(statuses, func(s Status) bool { return stuck(ds, s) }):
		c.Status, c.Reason = corev1.ConditionFalse, "ProgressDeadlineExceeded"
		named = func(s Status) bool { return stuck(ds, s) }
	case complete && sum.NumberUnavailable == 0:
		c.Reason = "RolloutComplete"
	case complete:
		c.Reason = "WaitingForAvailability"
		c.Message += fmt.Sprintf(", %d of them available", sum.NumberAvailable)
	case Paused(ds):
		c.Status, c.Reason = corev1.ConditionUnknown, "RolloutPaused"
	case onDelete(ds):
		c.Reason = "WaitingForDelete"
	default:
		c.Reason = "RolloutInProgress"
	}
	c.Message += hosts(statuses, named, func(s Status) string {
		switch {
		case s.Silent != "":
			return s.Silent
		case behind(ds, s):
			return fmt.Sprintf("it has not told of generation %d yet", ds.Generation)
		}
		return s.Explain(ds.Name)
	})
	return c
}

func complete(ds *appsv1.DaemonSet, sum appsv1.DaemonSetStatus) bool {
	return sum.ObservedGeneration >= ds.Generation && sum.UpdatedNumberScheduled == sum.DesiredNumberScheduled
}

// stuck: the host was not available in time in its turn, and a version that is newer has not come to it.
func stuck(ds *appsv1.DaemonSet, s Status) bool { return s.Stuck && !behind(ds, s) }

// lostInTurn: the host is not heard, and may be so because of the update: it is not gone on without.
func lostInTurn(ds *appsv1.DaemonSet, s Status) bool {
	return s.Silent != "" && (s.Updating || s.Placed && !behind(ds, s))
}

// blocked says what a person has to look at when an update does not go on.
func blocked(ds *appsv1.DaemonSet, sum appsv1.DaemonSetStatus, statuses []Status) appsv1.DaemonSetCondition {
	c := appsv1.DaemonSetCondition{Type: ConditionBlocked, Status: corev1.ConditionFalse, Reason: "NotBlocked", Message: "nothing is in the way"}
	explain := func(s Status) string { return cmp.Or(s.Silent, s.Explain(ds.Name)) }
	for _, cause := range []struct {
		reason, message string
		match           func(Status) bool
	}{
		{BlockedByStuckHost, "halted: not available within the progress deadline; apply a version that works, or kubectl rollout undo", func(s Status) bool { return stuck(ds, s) }},
		{BlockedByLostHost, "waiting for hosts that were lost in the update; kubectl delete node gives one up", func(s Status) bool { return lostInTurn(ds, s) }},
		{BlockedByAsideHosts, "hosts cannot make the next pod and keep the one they have", func(s Status) bool { return s.Aside && s.Placed && !s.Updated }},
		{BlockedByPause, "the update is paused; picket rollout resume goes on", func(s Status) bool { return Paused(ds) && s.Placed && !s.Updated }},
	} {
		if slices.ContainsFunc(statuses, cause.match) && (!complete(ds, sum) || cause.reason == BlockedByStuckHost) {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, cause.reason, cause.message+hosts(statuses, cause.match, explain)
			break
		}
	}
	return c
}

// behind: the host has not acted on the present generation, as far as is known.
func behind(ds *appsv1.DaemonSet, s Status) bool { return s.Unheard || s.Generation < ds.Generation }

// hosts lists those that match and why, in the order of their names.
func hosts(statuses []Status, match func(Status) bool, why func(Status) string) string {
	var matching []Status
	for _, s := range statuses {
		if match(s) {
			matching = append(matching, s)
		}
	}
	if len(matching) == 0 {
		return ""
	}
	slices.SortFunc(matching, func(a, b Status) int { return cmp.Compare(a.Node, b.Node) })
	var named []string
	for _, s := range matching[:min(len(matching), maxNamed)] {
		named = append(named, s.Node+": "+brief(why(s), maxReason))
	}
	if more := len(matching) - len(named); more > 0 {
		named = append(named, fmt.Sprintf("and %d more", more))
	}
	return " (" + strings.Join(named, "; ") + ")"
}

// since completes a condition with its transition time: the one it had when it does not change, else the latest thing that a
// host told, but never one before the last transition. No clock is read, so every host that heard the same shows the same.
func since(ds *appsv1.DaemonSet, statuses []Status, c appsv1.DaemonSetCondition) appsv1.DaemonSetCondition {
	var latest time.Time
	for _, s := range statuses {
		for _, at := range []time.Time{s.Since, s.SilentSince} {
			if at.After(latest) {
				latest = at
			}
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
