package pod

import (
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/runtime"
)

// actionKind is one effect; the worker has a function for each.
type actionKind string

const (
	actionEnsureImage    actionKind = "ensure image"
	actionSetUpPod       actionKind = "set up pod"
	actionPublishPorts   actionKind = "publish ports"
	actionMountVolumes   actionKind = "mount volumes"
	actionRefreshVolumes actionKind = "refresh volumes"
	actionCreate         actionKind = "create container"
	actionStart          actionKind = "start container"
	actionPostStart      actionKind = "run postStart hook"
	actionPreStop        actionKind = "run preStop hook"
	actionSignal         actionKind = "signal container"
	actionInspect        actionKind = "inspect container"
	actionRemove         actionKind = "remove container"
	actionReadMessage    actionKind = "read termination message"
	actionUnpublishPorts actionKind = "unpublish ports"
	actionTearDownPod    actionKind = "tear down pod"
	actionCleanUp        actionKind = "clean up files"
)

// action is an effect to be launched now. Its answer is one of the machine's events; until then next does not ask again.
type action struct {
	kind   actionKind
	reason string // for people

	image    imageKey // EnsureImage
	prefetch bool     // EnsureImage: it is not needed yet

	withoutPorts bool // SetUpPod

	container *corev1.Container // Create, PostStart, PreStop, ReadMessage
	name      string            // of the container
	attempt   int
	id        string
	ref       runtime.Image // Create
	ips       []string      // Create, PostStart, PreStop, MountVolumes, RefreshVolumes: the pod's addresses
	signal    string        // Signal; "": the container's own stop signal
	deadline  time.Time     // PreStop: the hook is given up then
	code      int32         // ReadMessage: the exit code
}

// next returns what to do at now and notes it as begun; m.wake is when to call again at the latest.
func (m *machine) next(now time.Time) []action {
	m.wake = time.Time{}
	n := &planner{machine: m, now: now}
	if m.stop != nil {
		n.stopping()
	} else {
		n.running()
	}
	return n.actions
}

// planner is one call of next.
type planner struct {
	*machine
	now     time.Time
	actions []action
}

func (n *planner) do(a action) { n.actions = append(n.actions, a) }

// due says whether a time has come; if not, the machine wakes up for it. The zero time is always due.
func (n *planner) due(at time.Time) bool {
	if !at.After(n.now) {
		return true
	}
	if n.wake.IsZero() || at.Before(n.wake) {
		n.wake = at
	}
	return false
}

// ready begins a step that is to be done and not waiting for its retry.
func (n *planner) ready(s *step) bool {
	if s.state != todo || !n.due(s.retry.at) {
		return false
	}
	s.begin()
	return true
}

func (n *planner) running() {
	for _, c := range n.containers {
		n.ensureImage(c.image)
	}
	if n.stage == StageImages {
		return
	}
	if n.ready(&n.sandbox) {
		n.do(action{kind: actionSetUpPod, withoutPorts: n.stage != StageRun, reason: "pod needs namespaces and network"})
	}
	if n.stage == StageRun && n.sandbox.state == done && n.ready(&n.ports) {
		n.do(action{kind: actionPublishPorts, reason: "the host ports are free"})
	}
	// downwardAPI volumes may ask for the pod's addresses.
	if (n.sandbox.state == done || !needsPodIP(n.pod)) && n.ready(&n.volumes) {
		n.do(action{kind: actionMountVolumes, reason: "pod needs its volumes", ips: n.ips})
	}
	if n.volumes.state == done && n.stale && n.refresh.state != doing && n.due(n.refresh.retry.at) {
		n.stale = false
		n.refresh.begin()
		n.do(action{kind: actionRefreshVolumes, reason: "a ConfigMap or Secret changed", ips: n.ips})
	}
	for _, c := range n.containers {
		n.attend(c)
	}
	n.advanceAll()
	n.readMessages()
	n.removeRemains(false)
}

// advanceAll takes the containers on in their order.
func (n *planner) advanceAll() {
	n.initialized = n.initialized || n.initComplete()
	for _, c := range n.containers {
		if n.initialized && c.role == roleInit {
			continue
		}
		if n.advance(c) || !n.initialized && c.role != roleMain && !c.opensTheWay() {
			return
		}
	}
}

// initComplete says whether all init containers have done what the others wait for.
func (m *machine) initComplete() bool {
	return !slices.ContainsFunc(m.containers, func(c *container) bool { return c.role != roleMain && !c.opensTheWay() })
}

// opensTheWay says whether an init container has come so far that the next one may begin.
func (c *container) opensTheWay() bool {
	return c.complete || c.role == roleSidecar && c.state == running && c.started && c.postStart == done
}

func (n *planner) readMessages() {
	for id, m := range n.messages {
		if m.state != todo {
			continue
		}
		m.state = doing
		n.do(action{
			kind: actionReadMessage, container: m.container, name: m.container.Name, attempt: m.attempt, id: id, code: m.code,
			reason: "container ended",
		})
	}
}

func (n *planner) ensureImage(key imageKey) {
	i := n.images[key]
	if i.state == doing && !i.announced && n.due(i.since.Add(pullShown)) {
		i.announced = true
		n.report(corev1.EventTypeNormal, "Pulling", "Pulling image %q", key.Ref)
	}
	if i.state == todo && i.retry.failures > 0 {
		n.due(i.retry.failedAt.Add(failureShown)) // the reason changes then
	}
	if errors.Is(i.err, runtime.ErrInvalidImageName) || !n.ready(&i.step) {
		return
	}
	i.since, i.announced = n.now, false
	n.due(n.now.Add(pullShown))
	n.do(action{kind: actionEnsureImage, image: key, prefetch: n.stage == StageImages, reason: "containers need the image"})
}

// pullShown is how long looking for an image may take before it is called pulling.
const pullShown = time.Second

// attend looks after what runs: hooks and signals that are due, and doubts after containerd was away.
func (n *planner) attend(c *container) {
	if c.state != running && (c.state != created || n.stage == StageRun) {
		return
	}
	if c.inspect && !c.inspecting && n.due(c.inspectRetry.at) {
		c.inspect, c.inspecting = false, true
		n.do(action{kind: actionInspect, name: c.spec.Name, id: c.id, reason: "containerd may have missed its exit"})
	}
	if c.kill != nil {
		n.endNow(c)
		return
	}
	if c.state == running && c.postStart == todo && !c.inspect && !c.inspecting { // it does run
		c.postStart = doing
		n.do(n.hook(actionPostStart, c, "container runs"))
	}
}

func (n *planner) hook(kind actionKind, c *container, reason string) action {
	return action{kind: kind, container: c.spec, name: c.spec.Name, attempt: c.attempt, id: c.id, ips: n.ips, reason: reason}
}

// advance takes a container one step towards running. It returns true when those after it must wait.
func (n *planner) advance(c *container) bool {
	switch c.state {
	case creating, starting:
		return true
	case running:
		return c.postStart != done
	case created:
		if n.stage != StageRun {
			return false
		}
		if n.sandbox.state != done || n.ports.state != done { // an adopted one may lack its ports
			return true
		}
		c.state = starting
		n.do(action{kind: actionStart, name: c.spec.Name, attempt: c.attempt, id: c.id, reason: "container is created"})
		return true
	case exited:
		if c.complete {
			return false
		}
		if c.failure != nil {
			n.due(c.create.failedAt.Add(failureShown)) // the reason changes then
		}
		if !n.due(c.notBefore) {
			return false
		}
		// A failed start left nothing worth keeping.
		n.newAttempt(c, c.terminated != nil && c.terminated.Reason == "StartError")
		return n.advance(c)
	case waiting:
		return n.create(c)
	}
	return false
}

// create begins a container when all it needs is there.
func (n *planner) create(c *container) bool {
	i := n.images[c.image]
	if i.state != done {
		return i.state == doing // as the kubelet: the next container waits for this one's pull, not for its back-off
	}
	if n.sandbox.state != done || n.volumes.state != done {
		return true
	}
	if r := n.remainOf(c.id); r != nil {
		return false // half made before: removed first
	}
	if !n.due(c.create.at) {
		return false
	}
	c.state = creating
	n.do(action{
		kind: actionCreate, container: c.spec, name: c.spec.Name, attempt: c.attempt, id: c.id, ref: i.Image, ips: n.ips,
		reason: createReason(c),
	})
	return true
}

func createReason(c *container) string {
	if c.terminated == nil {
		return "container is not there"
	}
	return "the previous attempt ended: " + c.terminated.Reason
}

// removeRemains removes what old attempts left: all when the pod goes, else what a running replacement has made superfluous,
// and only while nothing is being created, which is what a user waits for.
func (n *planner) removeRemains(all bool) {
	for _, c := range n.containers {
		if !all && (c.state == creating || c.state == created && n.stage == StageRun || c.state == starting) {
			return
		}
	}
	newest := map[string]int{}
	for _, r := range n.remains {
		newest[r.container] = max(newest[r.container], r.attempt)
	}
	for _, r := range n.remains {
		c := n.byName(r.container)
		replaced := c == nil || c.state == running || r.attempt < newest[r.container]
		if r.removing || n.messages[r.id] != nil && !all || !(all || r.now || replaced) || !n.due(r.retry.at) {
			continue
		}
		r.removing = true
		n.do(action{kind: actionRemove, name: r.container, attempt: r.attempt, id: r.id, reason: "attempt is over"})
	}
}
