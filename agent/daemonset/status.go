package daemonset

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// status is this host's word on the DaemonSet, with the decision already taken into account: a pod that is told to stop is
// neither ready nor available, so that nobody builds on it.
func (p *planner) status() Status {
	s := Status{Node: p.self.Node.Name, Generation: p.view.Generation, Placed: p.Placement.ShouldRun, HasPod: len(p.pods) > 0}
	pod, ok := p.spokesman()
	if ok {
		s.Revision = pod.Revision
		s.Updated = pod.Revision == p.view.Revision
		s.Since = pod.Created
		if pod.UnreadySince.After(pod.Created) {
			s.Since = pod.UnreadySince
		}
	}
	if p.view.DaemonSet != nil && ok && !p.leaving(pod) && pod.Ready {
		s.Ready, s.Since = true, pod.ReadySince
		if p.available(pod) {
			s.Available, s.Since = true, p.availableAt(pod)
		}
	}
	s.Updating = p.view.DaemonSet != nil && p.view.Revision != "" && p.updating() // placed or not: others wait for it either way
	s.Reason = p.explain(s, pod)
	return s
}

// spokesman is the pod the host is judged by: the oldest that stays, else the oldest.
func (p *planner) spokesman() (Pod, bool) {
	if len(p.pods) == 0 {
		return Pod{}, false
	}
	stays := func(pod Pod) bool { return !p.leaving(pod) }
	return p.pods[max(0, slices.IndexFunc(p.pods, stays))], true
}

// updating is whether a pod of an older revision is on its way out or has a newer one beside it.
func (p *planner) updating() bool {
	var oldLeaves, oldStays, newStays bool
	for _, pod := range p.pods {
		switch old := pod.Revision != p.view.Revision; {
		case old && p.leaving(pod):
			oldLeaves = true
		case old:
			oldStays = true
		case !p.leaving(pod):
			newStays = true
		}
	}
	return oldLeaves || (oldStays && newStays)
}

// explain says why the host is not available or not up to date; "" when it is both.
func (p *planner) explain(s Status, pod Pod) string {
	switch {
	case !s.Placed:
		return p.Placement.Reason
	case !s.HasPod && p.blocked != "":
		return "no pod runs yet: " + p.blocked
	case !s.HasPod:
		return "no pod runs yet"
	case p.leaving(pod):
		return fmt.Sprintf("pod %s is terminating", pod.Name)
	case pod.Phase == corev1.PodFailed || pod.Phase == corev1.PodSucceeded:
		return fmt.Sprintf("pod %s is %s, the next attempt (%d so far) is at %s",
			pod.Name, pod.Phase, p.Failures.Count, p.Failures.until().UTC().Format(time.RFC3339))
	case !s.Ready:
		return notReady(pod)
	case !s.Available:
		return fmt.Sprintf("pod %s is ready and counts as available at %s (minReadySeconds %d)",
			pod.Name, p.availableAt(pod).UTC().Format(time.RFC3339), p.view.DaemonSet.Spec.MinReadySeconds)
	case !s.Updated && p.blocked == "":
		return fmt.Sprintf("pod %s of the older revision %s is being replaced", pod.Name, s.Revision)
	case !s.Updated:
		return fmt.Sprintf("pod %s runs the older revision %s: %s", pod.Name, s.Revision, p.blocked)
	}
	return ""
}

func notReady(pod Pod) string {
	state := "is not ready"
	if pod.Phase == corev1.PodPending {
		state = "is pending"
	}
	if pod.Reason != "" {
		return fmt.Sprintf("pod %s %s: %s", pod.Name, state, pod.Reason)
	}
	return fmt.Sprintf("pod %s %s", pod.Name, state)
}
