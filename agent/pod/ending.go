package pod

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// minimumGrace is what a process has at least between its stop signal and SIGKILL when its hook or those that end before it have
// used up the grace period; the kubelet's.
const minimumGrace = 2 * time.Second

// kill is a running container's end: its preStop hook, SIGTERM (its stop signal), then SIGKILL at the deadline.
type kill struct {
	reason   string // becomes the terminated reason; "" leaves it to the exit code
	deadline time.Time
	hook     stepState
	waited   bool      // for its hook or for others to end
	least    time.Time // SIGKILL does not come before
	inFlight bool
	termSent bool
	killSent bool
	retry    retry
}

// end has a running container ended, SIGKILL following at the deadline, and says so. An earlier deadline wins.
func (m *machine) end(c *container, reason, message string, deadline time.Time) {
	if c.kill != nil {
		if deadline.Before(c.kill.deadline) {
			c.kill.deadline = deadline
		}
		return
	}
	c.kill = &kill{reason: reason, deadline: deadline, hook: done}
	if l := c.spec.Lifecycle; l != nil && l.PreStop != nil {
		c.kill.hook = todo
	}
	m.report(corev1.EventTypeNormal, "Killing", "%s", message)
}

func stoppingMessage(c *container) string { return "Stopping container " + c.spec.Name }

// endNow takes the next step of a container's end that is due.
func (n *planner) endNow(c *container) {
	k := c.kill
	if k.inFlight || !n.due(k.retry.at) {
		return
	}
	switch {
	case k.killSent: // a process in the kernel does not hear it at once; ask and repeat
		c.inspect = true
		n.sigkill(c, "it does not end")
	case k.termSent:
		if n.due(later(k.deadline, k.least)) {
			n.sigkill(c, "its time to stop is over")
		}
	case n.beforeTerm(c):
	case n.due(k.deadline) && !k.waited:
		n.sigkill(c, "it has no time to stop")
	default:
		k.termSent = true
		if k.waited {
			k.least = n.now.Add(minimumGrace)
		}
		n.due(later(k.deadline, k.least))
		n.signal(c, stopSignal(c.spec), "pod or container is told to stop")
	}
}

// beforeTerm does what comes before a container's stop signal, and says whether that is still going on. It ends with the grace period.
func (n *planner) beforeTerm(c *container) bool {
	k := c.kill
	over := n.due(k.deadline)
	if k.hook == todo && !over {
		k.hook, k.waited = doing, true
		a := n.hook(actionPreStop, c, "container is told to stop")
		a.deadline = k.deadline
		n.do(a)
	}
	if k.hook != doing && n.mayEnd(c) {
		return false
	}
	k.waited = k.waited || !over
	return !over
}

// mayEnd says whether it is the container's turn to get its stop signal: in a pod that stops, a sidecar's comes when the main
// containers and the sidecars after it have ended.
func (m *machine) mayEnd(c *container) bool {
	if m.stop == nil || c.role != roleSidecar {
		return true
	}
	after := m.containers[slices.Index(m.containers, c)+1:]
	return !slices.ContainsFunc(after, func(o *container) bool {
		return o.role != roleInit && (o.state == running || o.state == creating || o.state == starting)
	})
}

func (n *planner) sigkill(c *container, reason string) {
	k := c.kill
	k.killSent = true
	k.retry.at = n.now.Add(stuckDelay)
	n.due(k.retry.at)
	n.signal(c, "SIGKILL", reason)
}

func (n *planner) signal(c *container, signal, reason string) {
	c.kill.inFlight = true
	n.do(action{kind: actionSignal, name: c.spec.Name, id: c.id, signal: signal, reason: reason})
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// stopping takes the pod down: all containers end in parallel, then host ports, containers, namespaces, volumes.
func (n *planner) stopping() {
	if n.gone {
		return
	}
	for _, c := range n.containers {
		switch c.state {
		case running:
			n.end(c, "", stoppingMessage(c), n.stop.Deadline)
			n.attend(c)
		case created, exited:
			n.abandon(c, false)
			c.state = waiting
		}
	}
	for _, c := range n.containers {
		if c.state != waiting {
			return
		}
	}
	if n.endedAt.IsZero() && !n.free() || !n.due(n.endedAt.Add(n.stop.Linger)) {
		return
	}
	n.removeRemains(true)
	if len(n.remains) > 0 || n.sandbox.state == doing || n.ports.state == doing || n.volumes.state == doing || n.refresh.state == doing {
		return
	}
	if n.ready(&n.tearDown) {
		n.do(action{kind: actionTearDownPod, reason: n.stop.Reason})
	}
	if n.tearDown.state == done && n.ready(&n.cleanUp) {
		n.do(action{kind: actionCleanUp, reason: n.stop.Reason})
	}
	n.gone = n.cleanUp.state == done
}

// free frees what the pod, whose containers have ended, still holds of the host; true: nothing any more.
func (n *planner) free() bool {
	if slices.ContainsFunc(n.remains, func(r *remain) bool { return r.alive }) {
		n.removeRemains(true)
		return false
	}
	if n.stage == StageRun && n.unpublish.state != done && hasHostPorts(n.pod) {
		if n.sandbox.state != doing && n.ports.state != doing && n.ready(&n.unpublish) {
			n.do(action{kind: actionUnpublishPorts, reason: n.stop.Reason})
		}
		return false
	}
	n.endedAt = n.now
	return true
}

// stopSignal is lifecycle.stopSignal, or "" for the image's.
func stopSignal(c *corev1.Container) string {
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		return string(*c.Lifecycle.StopSignal)
	}
	return ""
}

// preStopRan is the answer to actionPreStop. The container ends either way.
func (m *machine) preStopRan(id string, err error) {
	c := m.byID(id)
	if c == nil || c.kill == nil || c.kill.hook != doing {
		return
	}
	c.kill.hook = done
	if err != nil && c.state == running {
		m.report(corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed: %v", err)
	}
}

// postStartRan is the answer to actionPostStart. A container whose hook failed is ended, and started again.
func (m *machine) postStartRan(id string, err error, now time.Time) {
	c := m.byID(id)
	if c == nil || c.state != running || c.postStart != doing {
		return
	}
	c.postStart = done
	if err == nil || m.stop != nil {
		return
	}
	c.hookFailed = fmt.Sprintf("PostStartHook failed: %v", err)
	m.report(corev1.EventTypeWarning, "FailedPostStartHook", "%s", c.hookFailed)
	m.end(c, "", fmt.Sprintf("FailedPostStartHook: container %s will be restarted", c.spec.Name), now.Add(gracePeriod(m.pod)))
}
