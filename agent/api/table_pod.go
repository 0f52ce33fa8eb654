package api

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

var podTable = tablePrinter{
	columns: []metav1.TableColumnDefinition{
		nameColumn,
		column("Ready", "Ready containers of all containers."),
		column("Status", "What the pod is doing, or why it is not."),
		column("Restarts", "Restarts of the containers, and when the last one was."),
		ageColumn,
		wide(column("IP", "Address of the pod.")),
		wide(column("Node", "Host it runs on.")),
		wide(column("Nominated Node", "Not used: pods of DaemonSets are bound to their host.")),
		wide(column("Readiness Gates", "Conditions beyond the containers' readiness.")),
	},
	row: func(obj Object, now time.Time) []any {
		pod := obj.(*corev1.Pod)
		s := summarize(pod)
		restarts := strconv.Itoa(s.restarts)
		if s.restarts > 0 && !s.lastRestart.IsZero() {
			restarts += fmt.Sprintf(" (%s ago)", duration.HumanDuration(now.Sub(s.lastRestart)))
		}
		return []any{
			pod.Name, fmt.Sprintf("%d/%d", s.ready, s.containers), s.status, restarts, age(pod.CreationTimestamp, now),
			orNone(pod.Status.PodIP), orNone(pod.Spec.NodeName), orNone(pod.Status.NominatedNodeName), readinessGates(pod),
		}
	},
}

// podSummary is a pod's line in a table.
type podSummary struct {
	status      string
	ready       int
	containers  int
	restarts    int
	lastRestart time.Time
}

// summarize computes the Status column of SEMANTICS.md 17 with its counts, as Kubernetes' printer does.
func summarize(pod *corev1.Pod) podSummary {
	s := podSummary{status: string(pod.Status.Phase), containers: len(pod.Spec.Containers)}
	if pod.Status.Reason != "" {
		s.status = pod.Status.Reason
	}
	sidecars := map[string]bool{}
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sidecars[c.Name] = true
			s.containers++
		}
	}
	initializing := s.addInit(pod, sidecars)
	if !initializing || podCondition(pod, corev1.PodInitialized) {
		s.addMain(pod, sidecars)
	}
	switch {
	case pod.DeletionTimestamp == nil:
	case pod.Status.Reason == "NodeLost":
		s.status = "Unknown"
	case pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed:
		s.status = "Terminating"
	}
	return s
}

// addInit counts init containers and reports whether one of them holds the pod up; that one names the status.
func (s *podSummary) addInit(pod *corev1.Pod, sidecars map[string]bool) (initializing bool) {
	for i := range pod.Status.InitContainerStatuses {
		c := &pod.Status.InitContainerStatuses[i]
		s.addRestarts(c)
		done := c.State.Terminated != nil && c.State.Terminated.ExitCode == 0
		started := sidecars[c.Name] && c.Started != nil && *c.Started
		if started && c.Ready {
			s.ready++
		}
		if done || started {
			continue
		}
		switch {
		case c.State.Terminated != nil:
			s.status = "Init:" + terminatedReason(c.State.Terminated)
		case c.State.Waiting != nil && c.State.Waiting.Reason != "" && c.State.Waiting.Reason != "PodInitializing":
			s.status = "Init:" + c.State.Waiting.Reason
		default:
			s.status = fmt.Sprintf("Init:%d/%d", i, len(pod.Spec.InitContainers))
		}
		return true
	}
	return false
}

// addMain counts the main containers. The first one that waits or has ended names the status; restarts of plain init
// containers no longer count once these run.
func (s *podSummary) addMain(pod *corev1.Pod, sidecars map[string]bool) {
	s.restarts, s.lastRestart = 0, time.Time{}
	for i := range pod.Status.InitContainerStatuses {
		if c := &pod.Status.InitContainerStatuses[i]; sidecars[c.Name] {
			s.addRestarts(c)
		}
	}
	running := false
	for i := len(pod.Status.ContainerStatuses) - 1; i >= 0; i-- {
		c := &pod.Status.ContainerStatuses[i]
		s.addRestarts(c)
		switch {
		case c.State.Waiting != nil && c.State.Waiting.Reason != "":
			s.status = c.State.Waiting.Reason
		case c.State.Terminated != nil:
			s.status = terminatedReason(c.State.Terminated)
		case c.Ready && c.State.Running != nil:
			running = true
			s.ready++
		}
	}
	if s.status == "Completed" && running {
		s.status = "NotReady"
		if podCondition(pod, corev1.PodReady) {
			s.status = "Running"
		}
	}
}

func (s *podSummary) addRestarts(c *corev1.ContainerStatus) {
	s.restarts += int(c.RestartCount)
	if last := c.LastTerminationState.Terminated; last != nil && last.FinishedAt.After(s.lastRestart) {
		s.lastRestart = last.FinishedAt.Time
	}
}

func terminatedReason(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	default:
		return fmt.Sprintf("ExitCode:%d", t.ExitCode)
	}
}

func podCondition(pod *corev1.Pod, kind corev1.PodConditionType) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == kind {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func readinessGates(pod *corev1.Pod) string {
	if len(pod.Spec.ReadinessGates) == 0 {
		return "<none>"
	}
	met := 0
	for _, gate := range pod.Spec.ReadinessGates {
		if podCondition(pod, gate.ConditionType) {
			met++
		}
	}
	return fmt.Sprintf("%d/%d", met, len(pod.Spec.ReadinessGates))
}
