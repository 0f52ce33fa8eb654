package pod

import (
	"math"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/picketd/picket/runtime"
)

// saved is status.json: what containerd cannot tell a restarted agent. It is written without fsync: after a power failure
// an old or missing one costs a restart count and a back-off, no more.
type saved struct {
	UID        string                    `json:"uid"`
	Status     corev1.PodStatus          `json:"status"`
	Containers map[string]savedContainer `json:"containers"`
	Images     []savedImage              `json:"images,omitempty"`
	// Initialized: the init containers have done their work.
	Initialized bool `json:"initialized,omitempty"`
}

type savedContainer struct {
	Attempt int `json:"attempt"`
	// Started: the attempt's process has been started.
	Started bool `json:"started"`
	// PostStarted, Up and Passing are about a running attempt: its hook has been run, its startup and readiness probes succeed.
	PostStarted bool                             `json:"postStarted,omitempty"`
	Up          bool                             `json:"up,omitempty"`
	Passing     bool                             `json:"passing,omitempty"`
	Inputs      string                           `json:"inputs,omitempty"`
	Terminated  *corev1.ContainerStateTerminated `json:"terminated,omitempty"`
	Last        *corev1.ContainerStateTerminated `json:"last,omitempty"`
	StartedAt   time.Time                        `json:"startedAt,omitzero"`
	Backoff     time.Duration                    `json:"backoff,omitempty"`
	NotBefore   time.Time                        `json:"notBefore,omitzero"`
}

type savedImage struct {
	Key   imageKey      `json:"key"`
	Image runtime.Image `json:"image"`
}

// save is the machine's state for status.json.
func (m *machine) save(status corev1.PodStatus) saved {
	s := saved{UID: string(m.pod.UID), Status: status, Containers: map[string]savedContainer{}, Initialized: m.initialized}
	for _, c := range m.containers {
		s.Containers[c.spec.Name] = savedContainer{
			Attempt: c.attempt, Started: c.state == running || c.state == exited, Inputs: c.inputs,
			PostStarted: c.postStart == done, Up: c.started, Passing: c.passing,
			Terminated: c.terminated.DeepCopy(), Last: c.last.DeepCopy(), StartedAt: c.startedAt,
			Backoff: c.backoff.Delay, NotBefore: c.notBefore,
		}
		if i := m.images[c.image]; i.state == done {
			s.Images = append(s.Images, savedImage{c.image, i.Image})
		}
	}
	return s
}

// restore brings a new machine to where an earlier agent left the pod. s is nil when nothing was saved, or nothing readable:
// then the containers alone tell.
func (m *machine) restore(s *saved, adopted []runtime.ContainerStatus, now time.Time) {
	if s != nil {
		m.restoreSaved(s, now)
	} else {
		for _, a := range adopted {
			if !a.CreatedAt.IsZero() && a.CreatedAt.Before(m.startTime) {
				m.startTime = a.CreatedAt
			}
		}
	}
	for _, c := range m.containers {
		m.adopt(c, s, adopted, now)
	}
	m.restoreInit(s, adopted)
	for _, a := range adopted {
		if m.byID(a.ID) == nil && m.remainOf(a.ID) == nil {
			alive := a.State == runtime.ContainerRunning
			m.remains = append(m.remains, &remain{id: a.ID, container: a.Name, attempt: a.Attempt, alive: alive})
		}
	}
}

// restoreInit decides how far the init containers were. When no task of the pod is left, as after a reboot, what they did may be
// gone as well, and they do it again, as a kubelet's do in a new sandbox.
func (m *machine) restoreInit(s *saved, adopted []runtime.ContainerStatus) {
	if len(m.pod.Spec.InitContainers) == 0 {
		return
	}
	left := slices.ContainsFunc(adopted, func(a runtime.ContainerStatus) bool { return a.State != runtime.ContainerUnknown })
	if s != nil {
		m.initialized = s.Initialized && left
	} else {
		main := func(a runtime.ContainerStatus) bool { c := m.byName(a.Name); return c != nil && c.role == roleMain }
		m.initialized = left && slices.ContainsFunc(adopted, main)
	}
	for _, c := range m.containers {
		ended := c.terminated != nil && c.terminated.ContainerID == statusID(c.id) && c.terminated.ExitCode == 0
		c.complete = left && c.role == roleInit && c.state == exited && ended
	}
}

func (m *machine) restoreSaved(s *saved, now time.Time) {
	if s.Status.StartTime != nil {
		m.startTime = s.Status.StartTime.Time
	}
	m.conditions = s.Status.Conditions
	for i := range m.conditions {
		if at := &m.conditions[i].LastTransitionTime; at.After(now) {
			*at = metav1.NewTime(now) // the clock was ahead then
		}
	}
	for _, ip := range s.Status.PodIPs {
		m.ips = append(m.ips, ip.IP)
	}
	for _, i := range s.Images {
		if known, ok := m.images[i.Key]; ok {
			known.succeed()
			known.Image = i.Image
		}
	}
	for _, c := range m.containers {
		k, ok := s.Containers[c.spec.Name]
		if !ok {
			continue
		}
		c.attempt, c.id, c.inputs = k.Attempt, containerID(m.pod, c.spec.Name, k.Attempt), k.Inputs
		c.terminated, c.last, c.startedAt = k.Terminated, k.Last, k.StartedAt
		c.backoff.Delay, c.notBefore = k.Backoff, k.NotBefore
		if latest := now.Add(restartDelayMax); c.notBefore.After(latest) {
			c.notBefore = latest // the clock was ahead then
		}
		c.crashLoop = c.terminated != nil && k.NotBefore.After(c.terminated.FinishedAt.Time)
	}
}

// newest returns the container's latest attempt below a number, nil when there is none.
func newest(adopted []runtime.ContainerStatus, name string, below int) *runtime.ContainerStatus {
	var found *runtime.ContainerStatus
	for i, a := range adopted {
		if a.Name == name && a.Attempt < below && (found == nil || a.Attempt > found.Attempt) {
			found = &adopted[i]
		}
	}
	return found
}

// adopt judges what containerd has of one container against what was saved.
func (m *machine) adopt(c *container, s *saved, adopted []runtime.ContainerStatus, now time.Time) {
	a := newest(adopted, c.spec.Name, math.MaxInt)
	known := savedContainer{Attempt: -1}
	if s != nil {
		if k, ok := s.Containers[c.spec.Name]; ok {
			known = k
		}
	}
	if a == nil || a.Attempt < known.Attempt { // the one before is over: its number is not given out again
		m.adoptNothing(c, known, now)
		return
	}
	if i := m.images[c.image]; i.state != done {
		// It ran from this image: nobody needs to be asked again.
		i.succeed()
		i.Image = runtime.Image{Ref: a.ImageRef}
	}
	if a.Attempt != c.attempt {
		c.attempt, c.id = a.Attempt, a.ID
	}
	before := newest(adopted, c.spec.Name, a.Attempt)
	if before != nil && before.State == runtime.ContainerExited && (c.terminated == nil || c.terminated.ContainerID != statusID(a.ID)) {
		m.remember(c, before, now)
	}
	ended := c.terminated != nil && c.terminated.ContainerID == statusID(a.ID)
	if m.stage != StageRun && a.State != runtime.ContainerCreated {
		c.state = waiting // its task is gone, and it was never started
		m.abandon(c, true)
		return
	}
	switch a.State {
	case runtime.ContainerRunning:
		m.adoptRunning(c, a)
		m.restoreRunning(c, known, s != nil)
	case runtime.ContainerCreated:
		c.state = created
	case runtime.ContainerExited:
		if ended {
			c.state = exited
			return
		}
		m.adoptRunning(c, a)
		m.exited(c.id, exitOf(*a, now))
	case runtime.ContainerUnknown:
		m.adoptWithoutTask(c, a, known, s != nil, ended, now)
	}
}

// remember takes the end of the attempt before from its container, which is still there.
func (m *machine) remember(c *container, before *runtime.ContainerStatus, now time.Time) {
	id := statusID(before.ID)
	if c.terminated != nil && c.terminated.ContainerID == id || c.last != nil && c.last.ContainerID == id {
		return
	}
	e := exitOf(*before, now)
	c.terminated = &corev1.ContainerStateTerminated{
		ExitCode: e.code, Reason: e.why(), StartedAt: metav1.NewTime(before.StartedAt), FinishedAt: metav1.NewTime(e.at), ContainerID: id,
	}
}

func (m *machine) adoptRunning(c *container, a *runtime.ContainerStatus) {
	started := a.StartedAt
	if started.IsZero() {
		started = c.startedAt
	}
	if started.IsZero() {
		started = a.CreatedAt
	}
	m.runs(c, started)
	c.oom = a.OOMKilled
}

// restoreRunning: what runs keeps what its probes have found out. Its hook is run again unless it is known to have been run.
func (m *machine) restoreRunning(c *container, known savedContainer, readable bool) {
	switch {
	case !readable:
		c.postStart, c.started = done, true
	case known.Attempt == c.attempt:
		c.started, c.passing = c.started || known.Up, known.Passing
		if known.PostStarted {
			c.postStart = done
		}
	}
}

// adoptWithoutTask: the host or the shim went down with it, or the agent before it was complete.
func (m *machine) adoptWithoutTask(c *container, a *runtime.ContainerStatus, known savedContainer, readable, ended bool, now time.Time) {
	if ended {
		c.state, c.notBefore, c.crashLoop = exited, now, false
		return
	}
	if readable && (known.Attempt < a.Attempt || !known.Started) {
		c.state = waiting
		m.abandon(c, true) // never ran: made again under the same number
		return
	}
	m.adoptRunning(c, a)
	m.exited(c.id, exit{code: 255, at: now, reason: "Unknown"})
	c.notBefore, c.crashLoop = now, false
}

// adoptNothing: containerd has no trace of the attempt that was saved.
func (m *machine) adoptNothing(c *container, known savedContainer, now time.Time) {
	if !known.Started {
		return // attempt known.Attempt was never made
	}
	c.state = exited
	if c.terminated != nil {
		return
	}
	c.last = known.Last
	c.terminated = &corev1.ContainerStateTerminated{
		ExitCode: 255, Reason: "Unknown", StartedAt: metav1.NewTime(known.StartedAt), FinishedAt: metav1.NewTime(now),
		ContainerID: statusID(c.id),
	}
	c.notBefore = now
}
