package pod

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/picketd/picket/runtime"
)

// model is a containerd that fails at will, with the machine under test and the actions it has begun.
type model struct {
	t          *rapid.T
	pod        *corev1.Pod
	m          *machine
	now        time.Time
	containers map[string]runtime.ContainerStatus
	begun      []action
	faults     bool
	everExited map[string]bool
	missed     bool            // an exit was not heard
	warm       bool            // the pod may not run yet
	published  bool            // its host ports are
	done       map[string]bool // init containers that have done their work since the host was booted
}

// drawPod has two containers, and perhaps init containers, hooks, probes and ports.
func drawPod(t *rapid.T) *corev1.Pod {
	pod := testPod("a", "b")
	if rapid.Bool().Draw(t, "ports") {
		pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80, ContainerPort: 80}}
	}
	for _, name := range []string{"init", "sidecar"} {
		if rapid.Bool().Draw(t, name) {
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, testPod(name).Spec.Containers...)
		}
	}
	always := corev1.ContainerRestartPolicyAlways
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.Name == "sidecar" {
			c.RestartPolicy = &always
			drawHooks(t, c)
		}
	}
	for i := range pod.Spec.Containers {
		drawHooks(t, &pod.Spec.Containers[i])
	}
	return pod
}

func drawHooks(t *rapid.T, c *corev1.Container) {
	c.Lifecycle = &corev1.Lifecycle{}
	if rapid.Bool().Draw(t, "postStart") {
		c.Lifecycle.PostStart = &corev1.LifecycleHandler{}
	}
	if rapid.Bool().Draw(t, "preStop") {
		c.Lifecycle.PreStop = &corev1.LifecycleHandler{}
	}
	if rapid.Bool().Draw(t, "startup probe") {
		c.StartupProbe = &corev1.Probe{}
	}
}

// TestMachineAlwaysGetsThere lets everything fail, get lost and be restarted in any order. Afterwards, when nothing fails any
// more, the pod runs, or is gone without a trace if it was stopped; and at no time is a container doubled or an id used twice.
func TestMachineAlwaysGetsThere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &model{
			t: t, pod: drawPod(t), warm: rapid.Bool().Draw(t, "warm"), now: time.Unix(1e9, 0), containers: map[string]runtime.ContainerStatus{},
			faults: true, everExited: map[string]bool{}, done: map[string]bool{},
		}
		w.m = w.newMachine()
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			w.step()
		}
		w.settle()
		if w.m.stop != nil {
			if !w.m.gone || len(w.containers) > 0 {
				t.Fatalf("stopped, but gone=%v, left: %v", w.m.gone, w.containers)
			}
			return
		}
		if got := w.m.status(testHost(), w.now); got.Phase != corev1.PodRunning || !w.m.initialized {
			t.Fatalf("phase %s: %s", got.Phase, w.describe())
		}
		for _, c := range w.m.containers {
			if got := w.containers[c.id]; !c.ready() || c.role != roleInit && got.State != runtime.ContainerRunning {
				t.Fatalf("%s: the machine says %s, containerd %s", c.id, c.state, got.State)
			}
		}
	})
}

func (w *model) step() {
	w.plan()
	switch rapid.IntRange(0, 12).Draw(w.t, "what") {
	case 12:
		w.reboot()
	case 11:
		w.probe(rapid.Bool().Draw(w.t, "passes"))
	case 10:
		w.release()
	case 0, 1, 2, 3, 4:
		w.performOne()
	case 5:
		w.exitOne(rapid.Bool().Draw(w.t, "heard"))
	case 6:
		w.now = w.now.Add(time.Duration(rapid.IntRange(0, 400).Draw(w.t, "seconds")) * time.Second)
	case 7:
		w.m.connected()
	case 8:
		w.restart()
	case 9:
		if rapid.IntRange(0, 3).Draw(w.t, "stop") == 0 {
			w.m.stopped(Stop{Deadline: w.now.Add(30 * time.Second)})
		}
	}
}

func (w *model) newMachine() *machine {
	m := newMachine(w.pod, w.now)
	if w.warm {
		m.stage = StagePrepared
	}
	return m
}

// release lets a warm pod run; one that is being dropped is never released.
func (w *model) release() {
	if w.m.stop == nil {
		w.warm = false
		w.m.released(w.now)
	}
}

func (w *model) plan() {
	actions := w.m.next(w.now)
	if !w.m.endedAt.IsZero() {
		w.mustHaveEnded()
	}
	for _, a := range actions {
		if w.warm && (a.kind == actionStart || a.kind == actionSignal || a.kind == actionPublishPorts || a.kind == actionSetUpPod && !a.withoutPorts) {
			w.t.Fatalf("%s %s of a pod that may not run yet", a.kind, a.id)
		}
		for _, b := range w.begun {
			if a.kind == b.kind && a.id == b.id && a.image == b.image {
				w.t.Fatalf("%s %s begun twice", a.kind, a.id)
			}
			// A signal, a look and a hook are about a container whose id nothing else will have: late, they find nothing.
			harmless := []actionKind{actionEnsureImage, actionReadMessage, actionSignal, actionInspect, actionPostStart, actionPreStop}
			if (a.kind == actionTearDownPod || a.kind == actionCleanUp) && !slices.Contains(harmless, b.kind) {
				w.t.Fatalf("%s begun while %s is on its way", a.kind, b.kind)
			}
		}
		w.begun = append(w.begun, a)
	}
}

// performOne answers one begun action, well or badly. A failure may have had its effect nevertheless.
func (w *model) performOne() {
	if len(w.begun) == 0 {
		return
	}
	i := rapid.IntRange(0, len(w.begun)-1).Draw(w.t, "which")
	a := w.begun[i]
	w.begun = slices.Delete(w.begun, i, i+1)
	var err error
	effect := true
	if w.faults && rapid.IntRange(0, 2).Draw(w.t, "fails") == 0 {
		err = rapid.SampledFrom([]error{errors.New("broken"), runtime.ErrUnavailable, runtime.ErrStart}).Draw(w.t, "error")
		effect = errors.Is(err, runtime.ErrUnavailable) && rapid.Bool().Draw(w.t, "effect")
	}
	w.answer(a, effect, err)
}

func (w *model) answer(a action, effect bool, err error) {
	m, now := w.m, w.now
	switch a.kind {
	case actionEnsureImage:
		m.imageEnsured(a.image, runtime.Image{Ref: "x"}, err, now)
	case actionSetUpPod:
		w.published = w.published || err == nil && !a.withoutPorts
		m.podSetUp([]string{"10.0.0.1"}, err, now)
	case actionPublishPorts:
		w.published = w.published || err == nil
		m.portsPublished(err, now)
	case actionUnpublishPorts:
		w.published = w.published && err != nil
		m.portsUnpublished(err, now)
	case actionMountVolumes:
		m.volumesMounted(err, now)
	case actionRefreshVolumes:
		m.volumesRefreshed(err, now)
	case actionReadMessage:
		m.terminationMessage(a.id, "bye")
	case actionTearDownPod:
		if len(w.containers) > 0 {
			w.t.Fatalf("torn down under %v", w.containers)
		}
		m.tornDown(err, now)
	case actionCleanUp:
		m.cleanedUp(err, now)
	default:
		w.answerContainer(a, effect, err)
	}
}

func (w *model) answerContainer(a action, effect bool, err error) {
	m, now := w.m, w.now
	c, exists := w.containers[a.id]
	switch a.kind {
	case actionCreate:
		if exists || w.everExited[a.id] {
			w.t.Fatalf("%s created twice", a.id)
		}
		if effect {
			w.containers[a.id] = runtime.ContainerStatus{
				ID: a.id, Name: a.name, Attempt: a.attempt, State: runtime.ContainerCreated, CreatedAt: now, ImageRef: "x",
			}
		}
		m.containerCreated(a.id, err, now)
	case actionStart:
		if !exists {
			err = runtime.ErrNotFound
		} else if effect && c.State == runtime.ContainerCreated {
			w.mustBeAlone(a)
			w.mustBePrepared(a)
			if hasHostPorts(w.pod) && !w.published {
				w.t.Fatalf("%s started before its ports were published", a.id)
			}
			c.State, c.StartedAt = runtime.ContainerRunning, now
			w.containers[a.id] = c
		}
		m.containerStarted(a.id, err, now)
	case actionPostStart:
		m.postStartRan(a.id, err, now)
	case actionPreStop:
		m.preStopRan(a.id, err)
	case actionSignal:
		w.mustBeItsTurn(a)
		if !exists || c.State != runtime.ContainerRunning {
			err = runtime.ErrNotFound
		} else if effect {
			w.end(a.id, 3, true)
		}
		m.signalled(a.id, err, now)
	case actionInspect:
		if !exists && err == nil {
			err = runtime.ErrNotFound
		}
		m.inspected(a.id, c, err, now)
	case actionRemove:
		if effect {
			delete(w.containers, a.id)
		}
		m.removed(a.id, err, now)
	}
}

func (w *model) mustBeAlone(a action) {
	for _, c := range w.containers {
		if c.Name == a.name && c.State == runtime.ContainerRunning {
			w.t.Fatalf("%s started beside %s", a.id, c.ID)
		}
	}
}

func (w *model) mustHaveEnded() {
	for _, c := range w.containers {
		if c.State == runtime.ContainerRunning {
			w.t.Fatalf("ended while %s runs", c.ID)
		}
	}
	if w.published && hasHostPorts(w.pod) {
		w.t.Fatalf("ended while its ports are published")
	}
}

// mustBePrepared: what init containers do is done when a main container starts.
func (w *model) mustBePrepared(a action) {
	for i, c := range w.pod.Spec.InitContainers {
		if w.m.byName(a.name).role == roleInit && w.pod.Spec.InitContainers[i].Name == a.name {
			return
		}
		if w.m.byName(c.Name).role == roleInit && !w.done[c.Name] {
			w.t.Fatalf("%s started before %s was done", a.name, c.Name)
		}
	}
}

// mustBeItsTurn: in a pod that stops, a sidecar ends after the others unless time is up.
func (w *model) mustBeItsTurn(a action) {
	if w.m.stop == nil || a.name != "sidecar" || !w.now.Before(w.m.stop.Deadline) {
		return
	}
	for _, c := range w.containers {
		if c.State == runtime.ContainerRunning && w.m.byID(c.ID) != nil && w.m.byID(c.ID).role == roleMain && w.m.byID(c.ID).state == running {
			w.t.Fatalf("the sidecar is ended before %s", c.ID)
		}
	}
}

func (w *model) end(id string, code int32, heard bool) {
	c := w.containers[id]
	c.State, c.ExitCode, c.FinishedAt = runtime.ContainerExited, code, w.now
	w.containers[id] = c
	w.everExited[id] = true
	w.missed = w.missed || !heard
	if code == 0 {
		w.done[c.Name] = true
	}
	if heard {
		w.m.exited(id, exit{code: code, at: w.now})
	}
}

func (w *model) exitOne(heard bool) {
	for _, id := range slices.Sorted(maps.Keys(w.containers)) {
		if w.containers[id].State == runtime.ContainerRunning && rapid.Bool().Draw(w.t, "exits") {
			w.end(id, rapid.SampledFrom([]int32{0, 3}).Draw(w.t, "code"), heard)
			return
		}
	}
}

// probe has every probe that is to be run answer.
func (w *model) probe(passes bool) {
	for _, p := range w.m.probings() {
		w.m.probed(probed{id: p.id, kind: p.kind, passing: passes, failed: !passes, gaveUp: !passes}, w.now)
	}
}

// reboot leaves containers without tasks, and a new agent.
func (w *model) reboot() {
	w.cutOff()
	for id, c := range w.containers {
		w.everExited[id] = w.everExited[id] || c.State == runtime.ContainerRunning
		c.State = runtime.ContainerUnknown
		w.containers[id] = c
	}
	clear(w.done)
	w.published = false
	w.begin()
}

// restart is a new agent; what was begun is cut off, and status.json may be lost.
func (w *model) restart() {
	w.cutOff()
	w.begin()
}

// cutOff ends what was begun, done or not.
func (w *model) cutOff() {
	for _, a := range w.begun { // what was on its way may still arrive
		if a.kind == actionCreate || a.kind == actionStart || a.kind == actionRemove {
			w.answer(a, rapid.Bool().Draw(w.t, "arrives"), runtime.ErrUnavailable)
		}
	}
	w.begun = nil
}

func (w *model) begin() {
	known := w.m.save(w.m.status(testHost(), w.now))
	stop := w.m.stop
	w.m = w.newMachine()
	var adopted []runtime.ContainerStatus
	for _, id := range slices.Sorted(maps.Keys(w.containers)) {
		adopted = append(adopted, w.containers[id])
	}
	data, err := json.Marshal(known)
	if err != nil {
		w.t.Fatal(err)
	}
	read := &saved{}
	if err := json.Unmarshal(data, read); err != nil {
		w.t.Fatal(err)
	}
	w.m.restore(read, adopted, w.now)
	w.m.stop = stop
}

// settle ends all faults and lets time pass until nothing is left to do.
func (w *model) settle() {
	w.faults = false
	w.release()
	if w.missed {
		w.m.connected() // package runtime promises it after it has lost events
	}
	for range 200 {
		for w.plan(); len(w.begun) > 0; w.plan() {
			w.performOne()
		}
		w.m.status(testHost(), w.now)
		if w.m.stop == nil && w.workOn() {
			continue
		}
		if w.m.wake.IsZero() {
			return
		}
		if !w.m.wake.After(w.now) {
			w.t.Fatalf("woken for the past: now %v, wake %v", w.now, w.m.wake)
		}
		w.now = w.m.wake
	}
	w.t.Fatalf("still waiting for %v: %s", w.m.wake, w.describe())
}

// workOn lets what runs do what it is for: init containers end well, probes succeed.
func (w *model) workOn() (more bool) {
	for _, id := range slices.Sorted(maps.Keys(w.containers)) {
		if c := w.m.byID(id); c != nil && c.role == roleInit && c.state == running && c.kill == nil && w.containers[id].State == runtime.ContainerRunning {
			w.end(id, 0, true)
			more = true
		}
	}
	for _, p := range w.m.probings() {
		more = more || p.kind == startupProbe
	}
	w.probe(true)
	return more
}

func (w *model) describe() string {
	text := fmt.Sprintf("begun %v", w.begun)
	for _, c := range w.m.containers {
		text += fmt.Sprintf("\n%s %s kill=%+v inspect=%v %v; containerd: %s", c.id, c.state, c.kill, c.inspect, c.inspecting, w.containers[c.id].State)
	}
	for _, r := range w.m.remains {
		text += fmt.Sprintf("\nremain %+v", *r)
	}
	return text
}
