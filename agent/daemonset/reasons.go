package daemonset

import corev1 "k8s.io/api/core/v1"

// Reasons of actions: the names that Kubernetes' controllers give the same events.
const (
	ReasonCreate    = "SuccessfulCreate"
	ReasonDelete    = "SuccessfulDelete"
	ReasonFailed    = "FailedDaemonPod"
	ReasonSucceeded = "SucceededDaemonPod"
	ReasonEviction  = "TaintManagerEviction"
	// ReasonUpdate has no counterpart: Kubernetes does not tell an update's deletions from others.
	ReasonUpdate = "RollingUpdate"
	// ReasonPrepare is for what is done ahead of an update; nobody sees it but in the log.
	ReasonPrepare = "Preparing"
)

// EventType is the type of the event that reports the action: Warning when something is wrong, else Normal.
func (a Action) EventType() string {
	if a.Reason == ReasonFailed {
		return corev1.EventTypeWarning
	}
	return corev1.EventTypeNormal
}
