package daemonset

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// containers fills in the states of the template's containers, as far as a status tells them. It counts restarts for all of them
// together: they stand with the first main container, or the init container the pod is at, where every column and sum finds them.
func (b *Blueprint) containers(s Status, status *corev1.PodStatus) {
	spec := &b.pod.Spec
	status.InitContainerStatuses = b.statuses(s, spec.InitContainers, 0, b.initState)
	status.ContainerStatuses = b.statuses(s, spec.Containers, len(spec.InitContainers), b.mainState)
	list := status.ContainerStatuses
	if !b.initialized(s) {
		list = status.InitContainerStatuses[slices.IndexFunc(spec.InitContainers, b.notReady(s)):]
	}
	if len(list) == 0 {
		return
	}
	list[0].RestartCount = s.Restarts
	if !s.LastRestart.IsZero() {
		list[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{FinishedAt: metav1.NewTime(s.LastRestart)}
	}
}

// statuses are those of a list of containers, the first of which has bit offset in a status.
func (b *Blueprint) statuses(
	s Status, specs []corev1.Container, offset int, state func(s Status, i int, ready bool) corev1.ContainerState,
) []corev1.ContainerStatus {
	if len(specs) == 0 {
		return nil
	}
	list := make([]corev1.ContainerStatus, len(specs))
	for i := range list {
		c := &list[i]
		c.Name, c.Image = specs[i].Name, specs[i].Image
		c.Ready = s.readyContainer(offset + i)
		c.State = state(s, i, c.Ready)
		started := c.State.Running != nil
		c.Started = &started
	}
	return list
}

func (s Status) readyContainer(i int) bool { return s.Ready || (i < 16 && s.ReadyContainers>>i&1 == 1) }

func (b *Blueprint) mainState(s Status, _ int, ready bool) corev1.ContainerState {
	switch {
	case !b.initialized(s):
		return waitingFor(CodePodInitializing.String())
	case ready, s.Phase == corev1.PodRunning && !s.Code.ofContainer():
		return s.running()
	}
	return waitingFor(b.waitingReason(s))
}

// initState of a plain init container is that it is done, or the one the pod is at, or still to come; of a sidecar that it runs.
func (b *Blueprint) initState(s Status, i int, ready bool) corev1.ContainerState {
	sidecar := isSidecar(b.pod.Spec.InitContainers[i])
	switch {
	case sidecar && (ready || b.initialized(s)):
		return s.running()
	case ready || b.initialized(s):
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: CodeCompleted.String()}}
	case slices.IndexFunc(b.pod.Spec.InitContainers, b.notReady(s)) != i, s.Code == CodePodInitializing:
		return waitingFor(CodePodInitializing.String())
	}
	return waitingFor(b.waitingReason(s))
}

// notReady finds init containers by their bit; they are asked for in order.
func (b *Blueprint) notReady(s Status) func(corev1.Container) bool {
	i := -1
	return func(corev1.Container) bool {
		i++
		return !s.readyContainer(i)
	}
}

func isSidecar(c corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// initialized is whether the init containers have done their work, as far as the host tells.
func (b *Blueprint) initialized(s Status) bool {
	return s.Phase != corev1.PodPending || !slices.ContainsFunc(b.pod.Spec.InitContainers, b.notReady(s))
}

// longLived are the containers that a pod's readiness is about.
func (b *Blueprint) longLived(status *corev1.PodStatus) []corev1.ContainerStatus {
	var list []corev1.ContainerStatus
	for i, c := range status.InitContainerStatuses {
		if isSidecar(b.pod.Spec.InitContainers[i]) {
			list = append(list, c)
		}
	}
	return append(list, status.ContainerStatuses...)
}

func waitingFor(reason string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
}

func (s Status) running() corev1.ContainerState {
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(s.startedBy())}}
}

// startedBy is the time by which a running container had started; when exactly is not told.
func (s Status) startedBy() time.Time {
	if s.LastRestart.After(s.Created) {
		return s.LastRestart
	}
	return s.Created
}

// waitingReason is why a container does not run, as kubectl shows it.
func (b *Blueprint) waitingReason(s Status) string {
	switch {
	case s.Code.ofContainer():
		return s.Code.String()
	case s.Code == CodeOther && s.Detail != "" && !strings.ContainsAny(s.Detail, " :"):
		return s.Detail
	}
	if len(b.pod.Spec.InitContainers) > 0 {
		return CodePodInitializing.String()
	}
	return CodeContainerCreating.String()
}
