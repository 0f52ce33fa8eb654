package pod

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubectl/pkg/util/qos"
)

// idScheme is what Kubernetes puts before a container's id in a pod's status.
const idScheme = "containerd://"

// statusID is a container's id as Kubernetes shows it.
func statusID(id string) string { return idScheme + id }

// ContainerID is the runtime's id of what a pod's status calls containerID.
func ContainerID(inStatus string) string { return strings.TrimPrefix(inStatus, idScheme) }

// AttemptOf is the attempt's number in a status' containerID; ok is false when there is none.
func AttemptOf(inStatus string) (attempt int, ok bool) {
	attempt, err := strconv.Atoi(inStatus[strings.LastIndexByte(inStatus, '-')+1:])
	return attempt, err == nil
}

// status is what the API shows at now. It notes transitions of the conditions.
func (m *machine) status(host Host, now time.Time) corev1.PodStatus {
	s := corev1.PodStatus{
		ObservedGeneration: m.pod.Generation,
		QOSClass:           qos.ComputePodQOS(m.pod),
		StartTime:          &metav1.Time{Time: m.startTime},
	}
	for i, ip := range host.IPs {
		if i == 0 {
			s.HostIP = ip
		}
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: ip})
	}
	for i, ip := range m.ips {
		if i == 0 {
			s.PodIP = ip
		}
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip})
	}
	for _, c := range m.containers {
		s.ContainerStatuses = append(s.ContainerStatuses, m.containerStatus(c, now))
	}
	s.Phase = m.phase(s.ContainerStatuses)
	m.setConditions(s.ContainerStatuses, now)
	s.Conditions = slices.Clone(m.conditions)
	if s.Phase == corev1.PodPending {
		s.Message = m.podMessage()
	}
	return s
}

// phase follows the kubelet's getPhase for restartPolicy Always: Pending until every container has run.
func (m *machine) phase(containers []corev1.ContainerStatus) corev1.PodPhase {
	for _, c := range containers {
		if c.State.Waiting != nil && c.LastTerminationState.Terminated == nil {
			return corev1.PodPending
		}
	}
	return corev1.PodRunning
}

// podMessage says what the whole pod waits for, when that is not a container's fault.
func (m *machine) podMessage() string {
	switch {
	case m.stop != nil:
		return ""
	case m.sandbox.state != done && m.sandbox.err != nil:
		return "cannot set up the pod's network: " + m.sandbox.err.Error()
	case m.ports.state != done && m.ports.err != nil:
		return "cannot publish the pod's ports: " + m.ports.err.Error()
	case m.volumes.state != done && m.volumes.err != nil:
		return "cannot mount volumes: " + m.volumes.err.Error()
	}
	return ""
}

func (m *machine) containerStatus(c *container, now time.Time) corev1.ContainerStatus {
	started := c.state == running
	s := corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: m.images[c.image].ID,
		Ready: started, Started: &started, RestartCount: c.restarts(),
	}
	switch {
	case c.state == running:
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(c.startedAt)}
		s.LastTerminationState.Terminated = c.last.DeepCopy()
		s.ContainerID = statusID(c.id)
	case c.terminated != nil:
		s.ContainerID = c.terminated.ContainerID
		s.LastTerminationState.Terminated = c.terminated.DeepCopy()
		if w := m.waitingFor(c, now); w != nil && m.stop == nil {
			s.State.Waiting = w
			break
		}
		s.State.Terminated = c.terminated.DeepCopy()
		s.LastTerminationState.Terminated = c.last.DeepCopy()
	default:
		s.State.Waiting = m.waitingFor(c, now)
		if s.State.Waiting == nil {
			s.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
		}
	}
	return s
}

// restarts counts the attempts before the newest one that exists or has ended.
func (c *container) restarts() int32 {
	n := c.attempt
	if n > 0 && c.state != running && c.state != exited && (c.terminated == nil || c.terminated.ContainerID != statusID(c.id)) {
		n--
	}
	return int32(n)
}

// waitingFor is the reason a container does not run, nil when it is merely on its way.
func (m *machine) waitingFor(c *container, now time.Time) *corev1.ContainerStateWaiting {
	i := m.images[c.image]
	fresh := now.Before(c.create.failedAt.Add(failureShown))
	switch {
	case c.failure != nil && (c.failure.reason != "RunContainerError" || fresh || !c.crashLoop):
		return &corev1.ContainerStateWaiting{Reason: c.failure.reason, Message: c.failure.message}
	case i.reason != "" && i.state != done:
		return i.waiting(c.image.Ref, now)
	case c.crashLoop:
		message := fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", m.wait(c), c.spec.Name, m.fullName())
		return &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: message}
	}
	return nil
}

// wait is the length of the back-off a container is in.
func (m *machine) wait(c *container) time.Duration {
	return c.notBefore.Sub(c.terminated.FinishedAt.Time).Round(time.Second)
}

func (i *image) waiting(ref string, now time.Time) *corev1.ContainerStateWaiting {
	if i.reason == "ErrImagePull" && !now.Before(i.retry.failedAt.Add(failureShown)) {
		message := fmt.Sprintf("Back-off pulling image %q: %s: %s", ref, i.reason, i.message)
		return &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: message}
	}
	return &corev1.ContainerStateWaiting{Reason: i.reason, Message: i.message}
}

// setConditions brings the pod's conditions up to date; a transition takes now.
func (m *machine) setConditions(containers []corev1.ContainerStatus, now time.Time) {
	var unready []string
	for _, c := range containers {
		if !c.Ready {
			unready = append(unready, c.Name)
		}
	}
	reason, message := "", ""
	if len(unready) > 0 {
		reason, message = "ContainersNotReady", fmt.Sprintf("containers with unready status: [%s]", strings.Join(unready, " "))
	}
	// After an agent restart the namespaces of what runs are there before they have been found again.
	sandbox := (m.sandbox.state == done || len(unready) < len(containers)) && m.tearDown.state == todo
	m.setCondition(corev1.PodReadyToStartContainers, sandbox, "", "", now)
	m.setCondition(corev1.PodInitialized, true, "", "", now)
	m.setCondition(corev1.PodReady, len(unready) == 0, reason, message, now)
	m.setCondition(corev1.ContainersReady, len(unready) == 0, reason, message, now)
	m.setCondition(corev1.PodScheduled, true, "", "", now)
}

func (m *machine) setCondition(kind corev1.PodConditionType, value bool, reason, message string, now time.Time) {
	c := corev1.PodCondition{
		Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message,
		ObservedGeneration: m.pod.Generation, LastTransitionTime: metav1.NewTime(now),
	}
	if value {
		c.Status = corev1.ConditionTrue
	}
	i := slices.IndexFunc(m.conditions, func(o corev1.PodCondition) bool { return o.Type == kind })
	if i < 0 {
		m.conditions = append(m.conditions, c)
		return
	}
	if m.conditions[i].Status == c.Status {
		c.LastTransitionTime = m.conditions[i].LastTransitionTime
	}
	m.conditions[i] = c
}
