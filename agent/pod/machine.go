package pod

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/runtime"
)

// machine is the pure half of a worker: what a pod is, what exists of it, and what to do next. It has no clock, does no I/O
// and starts no goroutine. Facts come in through one method per event (events.go), outstanding work goes out as data (next).
//
// Invariants:
//   - one container at a time is being created or started, in the order of the template, as the kubelet does: init containers
//     first, each to its end or, as a sidecar, until it has started;
//   - every id that was ever handed to CreateContainer is a container's current one or in remains until it is removed;
//   - an exit is only believed for the attempt that is current.
type machine struct {
	pod *corev1.Pod

	images     map[imageKey]*image
	stage      Stage
	sandbox    step // namespaces and network
	ports      step // host ports, of a pod that was set up without them
	volumes    step
	refresh    step         // live update of configMap, secret, ... volumes
	stale      bool         // a refresh is due
	containers []*container // init containers first
	remains    []*remain
	// initialized: the init containers have done their work; they do it again only when nothing of the pod was left running.
	initialized bool

	stop      *Stop
	endedAt   time.Time // no process is left of a stopped pod, and its host ports are free
	unpublish step
	tearDown  step
	cleanUp   step // volumes, files and logs
	gone      bool
	away      bool // containerd is

	ips       []string // of the pod; the host's with hostNetwork
	startTime time.Time
	// conditions keep their transition times; see status.go.
	conditions []corev1.PodCondition

	// messages are attempts whose termination message is to be read (todo) or being read (doing).
	messages map[string]*message

	// wake is when next has something to do although nothing happened; zero: never. It is set by next.
	wake time.Time
	// news are the events that happened since the worker took them.
	news []news
}

// imageKey is what containers may share: one pull serves all that ask for the same.
type imageKey struct {
	Ref    string
	Policy corev1.PullPolicy
}

type image struct {
	step
	runtime.Image
	reason    string // ErrImagePull, InvalidImageName, ErrImageNeverPull
	message   string
	since     time.Time // when the pull began
	announced bool      // the event Pulling is out
}

// stepState is where an effect that happens once is.
type stepState int

const (
	todo stepState = iota
	doing
	done
)

// step is an effect on the whole pod, tried until it succeeds.
type step struct {
	state stepState
	retry retry
	err   error // of the last try
}

func (s *step) begin() { s.state = doing }

func (s *step) succeed() { *s = step{state: done} }

func (s *step) fail(now time.Time, d delays, err error) {
	s.state, s.err = todo, err
	s.retry.failed(now, d, err)
}

// containerState is where the current attempt of a container is.
type containerState string

const (
	// waiting: nothing of this attempt exists.
	waiting containerState = "waiting"
	// creating, starting: the effect is on its way; only its result leaves the state.
	creating containerState = "creating"
	// created: the task exists and can be started.
	created  containerState = "created"
	starting containerState = "starting"
	running  containerState = "running"
	// exited: the attempt is over, notBefore says when the next may come.
	exited containerState = "exited"
)

// role is what a container is for in its pod.
type role string

const (
	roleMain role = "main"
	// roleInit runs to its end before the next one begins.
	roleInit role = "init"
	// roleSidecar is an init container with restartPolicy Always: the next one begins when it has started.
	roleSidecar role = "sidecar"
)

// container is one container of the template.
type container struct {
	spec  *corev1.Container
	role  role
	image imageKey

	state   containerState
	attempt int
	id      string // of attempt
	inputs  string // what the attempt was created of, see facts.inputs

	startedAt time.Time
	postStart stepState // the hook, of a running attempt; done without one
	started   bool      // a running attempt's startup probe has succeeded, or there is none
	passing   bool      // its readiness probe does
	failing   string    // why its readiness probe failed the last time
	// hookFailed is why a running attempt is being ended.
	hookFailed string
	complete   bool // of roleInit: it ended well
	// terminated is how the newest attempt that ended did so, nil while one runs; last is the one before.
	terminated *corev1.ContainerStateTerminated
	last       *corev1.ContainerStateTerminated
	backoff    restartBackoff
	notBefore  time.Time
	crashLoop  bool // notBefore is a real wait

	// failure is why the attempt could not be made, with the retry that follows.
	failure *failure
	create  retry
	// kill is set while a running attempt is told to end.
	kill *kill
	// oom: the kernel killed a process of the attempt.
	oom bool
	// early is an exit that was heard before the start's own result.
	early *exit
	// inspect: containerd was away; ask what became of the attempt.
	inspect      bool
	inspecting   bool
	inspectRetry retry
}

type failure struct{ reason, message string }

// message is where an attempt's termination message is looked for.
type message struct {
	state     stepState
	container *corev1.Container
	attempt   int
	code      int32
}

// exit is how an attempt ended.
type exit struct {
	code   int32
	at     time.Time
	oom    bool
	reason string // "" is derived from code and oom
}

// remain is an attempt that is over, or was never finished, and whose container must be removed.
type remain struct {
	id        string
	container string
	attempt   int
	removing  bool
	alive     bool // its process may run
	// now: nothing is worth keeping. Otherwise it stays until the replacement runs.
	now   bool
	retry retry
}

// news is an event as kubectl describe shows it.
type news struct{ kind, reason, message string }

func newMachine(pod *corev1.Pod, now time.Time) *machine {
	m := &machine{pod: pod, images: map[imageKey]*image{}, messages: map[string]*message{}, startTime: now, ports: step{state: done}}
	for i := range pod.Spec.InitContainers {
		m.add(&pod.Spec.InitContainers[i], initRole(&pod.Spec.InitContainers[i]))
	}
	for i := range pod.Spec.Containers {
		m.add(&pod.Spec.Containers[i], roleMain)
	}
	m.initialized = len(pod.Spec.InitContainers) == 0
	return m
}

// initRole is what an init container is for.
func initRole(c *corev1.Container) role {
	if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
		return roleSidecar
	}
	return roleInit
}

func (m *machine) add(spec *corev1.Container, r role) {
	c := &container{spec: spec, role: r, state: waiting, image: imageKey{spec.Image, spec.ImagePullPolicy}}
	c.id = containerID(m.pod, spec.Name, 0)
	m.containers = append(m.containers, c)
	m.images[c.image] = &image{}
}

// containerID names one attempt of one container, once and for ever.
func containerID(pod *corev1.Pod, name string, attempt int) string {
	return fmt.Sprintf("%s-%s-%d", pod.UID, name, attempt)
}

func (m *machine) byID(id string) *container {
	for _, c := range m.containers {
		if c.id == id {
			return c
		}
	}
	return nil
}

func (m *machine) byName(name string) *container {
	for _, c := range m.containers {
		if c.spec.Name == name {
			return c
		}
	}
	return nil
}

func (m *machine) remainOf(id string) *remain {
	i := slices.IndexFunc(m.remains, func(r *remain) bool { return r.id == id })
	if i < 0 {
		return nil
	}
	return m.remains[i]
}

func (m *machine) report(kind, reason, format string, args ...any) {
	m.news = append(m.news, news{kind, reason, fmt.Sprintf(format, args...)})
}

// newAttempt leaves the current attempt behind; now: nothing of it is worth keeping.
func (m *machine) newAttempt(c *container, now bool) {
	m.abandon(c, now)
	c.attempt++
	c.id = containerID(m.pod, c.spec.Name, c.attempt)
	c.state = waiting
	c.oom, c.early, c.kill, c.complete = false, nil, nil, false
	c.inspect, c.inspecting, c.inspectRetry = false, false, retry{} // an answer on its way is for the old id
}

// abandon has what exists of the current attempt removed.
func (m *machine) abandon(c *container, now bool) {
	if m.remainOf(c.id) == nil {
		m.remains = append(m.remains, &remain{id: c.id, container: c.spec.Name, attempt: c.attempt, now: now})
	}
}
