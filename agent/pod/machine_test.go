package pod

import (
	"encoding/json"
	"errors"
	"fmt"
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
	missed     bool // an exit was not heard
	warm       bool // the pod may not run yet
	published  bool // its host ports are
}

// TestMachineAlwaysGetsThere lets everything fail, get lost and be restarted in any order. Afterwards, when nothing fails any
// more, the pod runs, or is gone without a trace if it was stopped; and at no time is a container doubled or an id used twice.
func TestMachineAlwaysGetsThere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &model{
			t: t, pod: testPod("a", "b"), warm: rapid.Bool().Draw(t, "warm"), now: time.Unix(1e9, 0), containers: map[string]runtime.ContainerStatus{},
			faults: true, everExited: map[string]bool{},
		}
		if rapid.Bool().Draw(t, "ports") {
			w.pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80, ContainerPort: 80}}
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
		if len(w.containers) != 2 {
			t.Fatalf("containers: %v", w.containers)
		}
		for _, c := range w.m.containers {
			if got := w.containers[c.id]; c.state != running || got.State != runtime.ContainerRunning {
				t.Fatalf("%s: the machine says %s, containerd %s", c.id, c.state, got.State)
			}
		}
	})
}

func (w *model) step() {
	w.plan()
	switch rapid.IntRange(0, 10).Draw(w.t, "what") {
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
		if rapid.IntRange(0, 9).Draw(w.t, "stop") == 0 {
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
			// A signal and a look are about a container whose id nothing else will have: late, they find nothing.
			harmless := []actionKind{actionEnsureImage, actionReadMessage, actionSignal, actionInspect}
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
			if hasHostPorts(w.pod) && !w.published {
				w.t.Fatalf("%s started before its ports were published", a.id)
			}
			c.State, c.StartedAt = runtime.ContainerRunning, now
			w.containers[a.id] = c
		}
		m.containerStarted(a.id, err, now)
	case actionSignal:
		if !exists || c.State != runtime.ContainerRunning {
			err = runtime.ErrNotFound
		} else if effect {
			w.end(a.id, true)
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

func (w *model) end(id string, heard bool) {
	c := w.containers[id]
	c.State, c.ExitCode, c.FinishedAt = runtime.ContainerExited, 3, w.now
	w.containers[id] = c
	w.everExited[id] = true
	w.missed = w.missed || !heard
	if heard {
		w.m.exited(id, exit{code: 3, at: w.now})
	}
}

func (w *model) exitOne(heard bool) {
	for _, name := range []string{"a", "b"} {
		for id, c := range w.containers {
			if c.Name == name && c.State == runtime.ContainerRunning && rapid.Bool().Draw(w.t, "exits") {
				w.end(id, heard)
				return
			}
		}
	}
}

// restart is a new agent; what was begun is cut off, and status.json may be lost.
func (w *model) restart() {
	known := w.m.save(w.m.status(testHost(), w.now))
	stop := w.m.stop
	for _, a := range w.begun { // what was on its way may still arrive
		if a.kind == actionCreate || a.kind == actionStart || a.kind == actionRemove {
			w.answer(a, rapid.Bool().Draw(w.t, "arrives"), runtime.ErrUnavailable)
		}
	}
	w.begun = nil
	w.m = w.newMachine()
	var adopted []runtime.ContainerStatus
	for _, name := range []string{"a", "b"} {
		for attempt := range 1000 {
			if c, ok := w.containers[containerID(w.pod, name, attempt)]; ok {
				adopted = append(adopted, c)
			}
		}
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
