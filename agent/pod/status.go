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
		if c.role == roleMain {
			s.ContainerStatuses = append(s.ContainerStatuses, m.containerStatus(c, now))
		} else {
			s.InitContainerStatuses = append(s.InitContainerStatuses, m.containerStatus(c, now))
		}
	}
	s.Phase = m.phase(s.ContainerStatuses)
	m.setConditions(now)
	s.Conditions = slices.Clone(m.conditions)
	s.Message = m.unreadyMessage()
	if s.Phase == corev1.PodPending {
		s.Message = m.podMessage()
	}
	return s
}

// phase follows the kubelet's getPhase for restartPolicy Always: Pending until the pod is initialized and every container has run.
func (m *machine) phase(containers []corev1.ContainerStatus) corev1.PodPhase {
	if !m.initialized {
		return corev1.PodPending
	}
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
	started := c.state == running && c.started
	s := corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: m.images[c.image].ID,
		Ready: c.ready(), Started: &started, RestartCount: c.restarts(),
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
			s.State.Waiting = &corev1.ContainerStateWaiting{Reason: m.creatingReason()}
		}
	}
	return s
}

// ready is the container's part in the pod's readiness: an init container's work is done, any other can be used.
func (c *container) ready() bool {
	if c.role == roleInit {
		return c.complete
	}
	return c.state == running && c.started && c.postStart == done && (c.spec.ReadinessProbe == nil || c.passing)
}

// creatingReason is why a container does not run yet when nothing is wrong.
func (m *machine) creatingReason() string {
	if len(m.pod.Spec.InitContainers) > 0 {
		return "PodInitializing"
	}
	return "ContainerCreating"
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
	case c.complete:
		return nil
	case c.failure != nil && (!c.failure.ofStart() || fresh || !c.crashLoop):
		return &corev1.ContainerStateWaiting{Reason: c.failure.reason, Message: c.failure.message}
	case i.reason != "" && i.state != done:
		return i.waiting(c.image.Ref, now)
	case c.crashLoop:
		message := fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", m.wait(c), c.spec.Name, m.fullName())
		return &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: message}
	}
	return nil
}

// ofStart is a failure that the restart back-off follows.
func (f *failure) ofStart() bool {
	return f.reason == "RunContainerError" || f.reason == "PostStartHookError"
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
func (m *machine) setConditions(now time.Time) {
	var unready, incomplete []string
	ran := false
	for _, c := range m.containers {
		if c.role != roleInit && !c.ready() {
			unready = append(unready, c.spec.Name)
		}
		if !m.initialized && c.role != roleMain && !c.opensTheWay() {
			incomplete = append(incomplete, c.spec.Name)
		}
		ran = ran || c.ready()
	}
	initialized := condition(incomplete, "ContainersNotInitialized", "containers with incomplete status: [%s]")
	ready := condition(unready, "ContainersNotReady", "containers with unready status: [%s]")
	sandbox := corev1.PodCondition{Status: corev1.ConditionFalse}
	// After an agent restart the namespaces of what runs are there before they have been found again.
	if (m.sandbox.state == done || ran) && m.tearDown.state == todo {
		sandbox.Status = corev1.ConditionTrue
	}
	m.setCondition(corev1.PodReadyToStartContainers, sandbox, now)
	m.setCondition(corev1.PodInitialized, initialized, now)
	m.setCondition(corev1.PodReady, ready, now)
	m.setCondition(corev1.ContainersReady, ready, now)
	m.setCondition(corev1.PodScheduled, corev1.PodCondition{Status: corev1.ConditionTrue}, now)
}

// condition holds when there are no containers that stand against it.
func condition(against []string, reason, format string) corev1.PodCondition {
	if len(against) == 0 {
		return corev1.PodCondition{Status: corev1.ConditionTrue}
	}
	return corev1.PodCondition{Status: corev1.ConditionFalse, Reason: reason, Message: fmt.Sprintf(format, strings.Join(against, " "))}
}

func (m *machine) setCondition(kind corev1.PodConditionType, c corev1.PodCondition, now time.Time) {
	c.Type, c.ObservedGeneration, c.LastTransitionTime = kind, m.pod.Generation, metav1.NewTime(now)
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
