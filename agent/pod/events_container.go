package pod

import (
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/picketd/picket/runtime"
)

// The events of one attempt of a container; as in events.go, each is harmless when it comes late or twice.

// madeOf notes what an attempt is being created of.
func (m *machine) madeOf(id, inputs string) {
	if c := m.byID(id); c != nil && c.state == creating {
		c.inputs = inputs
	}
}

// containerCreated is the answer to actionCreate.
func (m *machine) containerCreated(id string, err error, now time.Time) {
	c := m.byID(id)
	if c == nil || c.state != creating {
		return
	}
	switch {
	case err == nil:
		c.state = created
		m.report(corev1.EventTypeNormal, "Created", "Created container %s", c.spec.Name)
		if m.stage != StageRun {
			c.failure, c.create = nil, retry{}
		}
	case errors.Is(err, runtime.ErrStart) && m.stage == StageRun:
		m.startFailed(c, err, now)
	case errors.Is(err, runtime.ErrNotFound): // the image or the namespaces were removed from under the pod
		m.images[c.image].step, m.sandbox = step{}, step{}
		m.lost(c, err, now)
	default:
		c.state = waiting
		m.abandon(c, true)
		m.createFailed(c, err, now)
	}
}

func (m *machine) createFailed(c *container, err error, now time.Time) {
	spacing := createDelays
	if m.stage != StageRun {
		spacing = pullDelays // nobody waits for it: as far apart as restarts would be
	}
	c.create.failed(now, spacing, err)
	if c.create.held || m.stop != nil {
		return
	}
	reason := "CreateContainerError"
	switch {
	case errors.Is(err, runtime.ErrConfig):
		reason = "CreateContainerConfigError"
	case errors.Is(err, runtime.ErrStart):
		reason = "RunContainerError"
	}
	c.failure = &failure{reason, err.Error()}
	m.report(corev1.EventTypeWarning, "Failed", "Error: %v", err)
}

// startFailed ends an attempt whose process never ran.
func (m *machine) startFailed(c *container, err error, now time.Time) {
	at := metav1.NewTime(now)
	c.terminated = &corev1.ContainerStateTerminated{
		ExitCode: 128, Reason: "StartError", Message: err.Error(), FinishedAt: at, ContainerID: statusID(c.id),
	}
	c.state = exited
	m.spaceRestart(c, time.Time{}, now)
	c.failure = &failure{"RunContainerError", err.Error()}
	c.create = retry{failedAt: now}
	m.report(corev1.EventTypeWarning, "Failed", "Error: %v", err)
}

// containerStarted is the answer to actionStart.
func (m *machine) containerStarted(id string, err error, now time.Time) {
	c := m.byID(id)
	if c == nil || c.state != starting {
		return
	}
	early := c.early
	c.early = nil
	switch {
	case errors.Is(err, runtime.ErrUnavailable) && early == nil:
		// Whether the process runs is not known: containerd will tell.
		m.runs(c, now)
		c.inspect = true
		c.inspectRetry.failed(now, podDelays, err)
	case errors.Is(err, runtime.ErrNotFound) && early == nil:
		m.lost(c, err, now)
	case err != nil && early == nil:
		m.startFailed(c, err, now)
	default:
		m.runs(c, now)
		m.report(corev1.EventTypeNormal, "Started", "Started container %s", c.spec.Name)
		if early != nil {
			m.exited(id, *early)
		}
	}
}

// lost has a container made anew that lost what it was made of, or its task before it was started: at once, if that was the first time.
func (m *machine) lost(c *container, err error, now time.Time) {
	c.state, c.inspect = waiting, false
	m.abandon(c, true)
	m.createFailed(c, err, now)
	if c.create.failures == 1 {
		c.create.at = now
		if m.stage != StageRun {
			c.failure = nil // nobody need be troubled
		}
	}
}

// runs makes the current attempt a running one.
func (m *machine) runs(c *container, startedAt time.Time) {
	c.state, c.startedAt, c.hookFailed, c.failing = running, startedAt, "", ""
	c.started, c.passing, c.postStart = c.spec.StartupProbe == nil, false, done
	if l := c.spec.Lifecycle; l != nil && l.PostStart != nil {
		c.postStart = todo
	}
	if c.terminated != nil {
		c.last, c.terminated = c.terminated, nil
	}
	c.failure, c.create, c.crashLoop = nil, retry{}, false
}

// exited: the process of attempt id ended.
func (m *machine) exited(id string, e exit) {
	c := m.byID(id)
	if c == nil {
		return
	}
	switch c.state {
	case starting:
		c.early = &e
		return
	case created:
		m.lost(c, errLost, e.at)
		return
	case running:
	default:
		return
	}
	e.oom = e.oom || c.oom
	if e.reason == "" && c.kill != nil {
		e.reason = c.kill.reason
	}
	c.terminated = &corev1.ContainerStateTerminated{
		ExitCode: e.code, Reason: e.why(), StartedAt: metav1.NewTime(c.startedAt), FinishedAt: metav1.NewTime(e.at),
		ContainerID: statusID(id),
	}
	c.state, c.kill, c.inspect = exited, nil, false
	m.messages[id] = &message{container: c.spec, attempt: c.attempt, code: e.code}
	if c.complete = c.role == roleInit && e.code == 0; c.complete {
		return
	}
	m.spaceRestart(c, c.startedAt, e.at)
	if c.hookFailed != "" {
		c.failure, c.create = &failure{"PostStartHookError", c.hookFailed}, retry{failedAt: e.at}
	}
}

// errLost: a created task is gone.
var errLost = errors.New("its process ended before it was started")

func (e exit) why() string {
	switch {
	case e.reason != "":
		return e.reason
	case e.oom && e.code != 0:
		return "OOMKilled"
	case e.code == 0:
		return "Completed"
	}
	return "Error"
}

// spaceRestart decides when the next attempt may start.
func (m *machine) spaceRestart(c *container, startedAt, finishedAt time.Time) {
	c.notBefore = c.backoff.exited(startedAt, finishedAt)
	c.crashLoop = c.notBefore.After(finishedAt)
	if c.crashLoop && m.stop == nil {
		m.report(corev1.EventTypeWarning, "BackOff", "Back-off restarting failed container %s in pod %s", c.spec.Name, m.fullName())
	}
}

// oomKilled: the kernel killed a process of attempt id. It may be heard after the exit.
func (m *machine) oomKilled(id string) {
	c := m.byID(id)
	if c == nil {
		return
	}
	c.oom = true
	for _, t := range []*corev1.ContainerStateTerminated{c.terminated, c.last} {
		if t != nil && t.ContainerID == statusID(id) && t.Reason == "Error" {
			t.Reason = "OOMKilled"
		}
	}
}

// terminationMessage is the answer to actionReadMessage: what attempt id left behind.
func (m *machine) terminationMessage(id, message string) {
	delete(m.messages, id)
	for _, c := range m.containers {
		for _, t := range []*corev1.ContainerStateTerminated{c.terminated, c.last} {
			if t != nil && t.ContainerID == statusID(id) && message != "" {
				t.Message = message
			}
		}
	}
}

// logWriterLost: nobody reads the container's output any more, and nobody can be put in its place.
func (m *machine) logWriterLost(id string, now time.Time) {
	c := m.byID(id)
	if c == nil || c.state != running || c.kill != nil {
		return
	}
	m.end(c, "LogWriterLost", stoppingMessage(c), now.Add(gracePeriod(m.pod)))
	m.report(corev1.EventTypeWarning, "LogWriterLost", "The log writer of container %s died, the container will be restarted", c.spec.Name)
}

// signalled is the answer to actionSignal.
func (m *machine) signalled(id string, err error, now time.Time) {
	c := m.byID(id)
	if c == nil || c.kill == nil {
		return
	}
	k := c.kill
	k.inFlight = false
	if err == nil {
		return
	}
	if errors.Is(err, runtime.ErrNotFound) {
		c.inspect = true // no process any more; its exit was missed
		return
	}
	k.retry.failed(now, podDelays, err)
	if k.killSent {
		k.killSent = false
	} else {
		k.termSent = false
	}
}

// inspected is the answer to actionInspect.
func (m *machine) inspected(id string, s runtime.ContainerStatus, err error, now time.Time) {
	c := m.byID(id)
	if c == nil {
		return
	}
	c.inspecting = false
	lost := exit{code: 255, at: now, reason: "Unknown"}
	switch {
	case errors.Is(err, runtime.ErrNotFound):
		m.exited(id, lost)
	case err != nil:
		c.inspect = true
		c.inspectRetry.failed(now, podDelays, err)
		return
	case s.State == runtime.ContainerExited:
		m.exited(id, exitOf(s, now))
	case s.State == runtime.ContainerUnknown:
		m.exited(id, lost)
	case s.State == runtime.ContainerCreated && c.state == running:
		c.state, c.kill = created, nil // the start never arrived
	}
	c.inspectRetry = retry{}
}

// exitOf reads an exit that containerd remembers.
func exitOf(s runtime.ContainerStatus, now time.Time) exit {
	return exit{code: s.ExitCode, at: happened(s.FinishedAt, now), oom: s.OOMKilled}
}

// happened is a time that containerd gives, on the clock of now: not after it, and not moved by a clock that is set later.
func happened(at, now time.Time) time.Time {
	if at.IsZero() {
		return now
	}
	return now.Add(-max(now.Sub(at), 0))
}

// removed is the answer to actionRemove.
func (m *machine) removed(id string, err error, now time.Time) {
	r := m.remainOf(id)
	if r == nil {
		return
	}
	r.removing = false
	if err == nil || errors.Is(err, runtime.ErrNotFound) {
		m.remains = slices.DeleteFunc(m.remains, func(x *remain) bool { return x == r })
		return
	}
	r.retry.failed(now, podDelays, err)
	if !r.retry.held {
		m.report(corev1.EventTypeWarning, "FailedKillPod", "cannot remove container %s: %v", r.container, err)
	}
}
