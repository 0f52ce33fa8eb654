package pod

import (
	"context"
	"log/slog"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/picketd/picket/runtime"
)

// Worker runs one pod. Its goroutine is the only one that touches the machine; everybody else posts events to it and reads
// snapshots. Effects run on goroutines of their own, so that no event, least of all a stop, waits behind a slow pull.
type Worker struct {
	cfg *Config
	pod *corev1.Pod
	dir string // of this pod, under Config.Dir
	log *slog.Logger

	mu             sync.Mutex
	mail           []event
	objectsChanged bool
	status         corev1.PodStatus

	bell chan struct{} // there is mail
	done chan struct{}

	cancel       context.CancelFunc // ends every effect: Abandon
	cancelStarts context.CancelFunc // ends the effects that a stop makes pointless

	wanted   chan struct{} // closed when the images are needed now: no turn is waited for
	wantOnce sync.Once

	// files serialises status.json with the removal of the directory it is in.
	files   sync.Mutex
	removed bool
}

// event is something that happened, told to the machine on the worker's goroutine.
type event func(m *machine, now time.Time)

// Start begins a pod, or takes over what an earlier agent left of it. The worker calls back (OnStatus, OnEvent, OnGone, ...) from
// its own goroutine only.
func Start(cfg *Config, pod *corev1.Pod, begin Begin) *Worker {
	now := time.Now()
	w := &Worker{
		cfg: cfg, pod: pod.DeepCopy(), dir: filepath.Join(cfg.Dir, string(pod.UID)),
		log:  cfg.Log.With("pod", pod.Namespace+"/"+pod.Name),
		bell: make(chan struct{}, 1), done: make(chan struct{}), wanted: make(chan struct{}),
		objectsChanged: begin.Stage != StageRun && len(begin.Adopted) > 0, // perhaps, since they were made
	}
	m := newMachine(w.pod, now)
	m.stage = begin.Stage
	known, err := readSaved(w.dir, string(pod.UID))
	if err != nil {
		w.log.Warn("pod's state is rebuilt from its containers", "error", err)
		m.report(corev1.EventTypeWarning, "StateRebuilt", "%v", err)
	}
	if known != nil || len(begin.Adopted) > 0 {
		m.restore(known, begin.Adopted, now)
	}
	if begin.Stop != nil {
		m.stopped(*begin.Stop)
	}
	w.status = w.statusOf(m, now)

	all, cancel := context.WithCancel(context.Background())
	starts, cancelStarts := context.WithCancel(all)
	w.cancel, w.cancelStarts = cancel, cancelStarts
	go w.run(all, starts, m)
	return w
}

// Stop ends the pod: stop signal to all containers, SIGKILL at the deadline, then everything of it is removed and OnGone
// called. Called again it can only shorten the time.
func (w *Worker) Stop(s Stop) {
	w.post(func(m *machine, _ time.Time) { m.stopped(s) })
	w.cancelStarts() // after: what fails by it is not reported
}

// Event hands in news from containerd about one of the pod's containers, or about containerd itself.
func (w *Worker) Event(e runtime.Event) {
	w.post(func(m *machine, now time.Time) {
		switch e.Kind {
		case runtime.EventExit:
			m.exited(e.ContainerID, exit{code: e.ExitCode, at: happened(e.At, now)})
		case runtime.EventOOM:
			m.oomKilled(e.ContainerID)
		case runtime.EventLogWriterLost:
			m.logWriterLost(e.ContainerID, now)
		case runtime.EventConnected:
			m.connected()
		case runtime.EventDisconnected:
			m.away = true // nothing is known to have ended; effects fail with ErrUnavailable and wait
		}
	})
}

// ObjectsChanged says that some ConfigMap or Secret is new, changed or gone.
func (w *Worker) ObjectsChanged() {
	w.mu.Lock()
	w.objectsChanged = true
	w.mu.Unlock()
	w.ring()
}

// Status is the pod's status as it was last published; the caller owns it.
func (w *Worker) Status() corev1.PodStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return *w.status.DeepCopy()
}

// Abandon ends the worker and leaves the pod running: the agent shuts down. Wait for Done.
func (w *Worker) Abandon() { w.cancel() }

// Done is closed when the worker's last goroutine has ended.
func (w *Worker) Done() <-chan struct{} { return w.done }

func (w *Worker) post(e event) {
	w.mu.Lock()
	w.mail = append(w.mail, e)
	w.mu.Unlock()
	w.ring()
}

func (w *Worker) ring() {
	select {
	case w.bell <- struct{}{}:
	default: // it rings already
	}
}

// take empties the mailbox.
func (w *Worker) take() []event {
	w.mu.Lock()
	defer w.mu.Unlock()
	mail := w.mail
	w.mail = nil
	if w.objectsChanged {
		w.objectsChanged = false
		mail = append(mail, func(m *machine, _ time.Time) { m.objectsChanged(w.outdated(m)) })
	}
	return mail
}

// run is the worker's goroutine. It ends when the pod is gone or abandoned and no effect is on its way.
func (w *Worker) run(all, starts context.Context, m *machine) {
	defer close(w.done)
	defer w.cancel()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	p := &publisher{worker: w}
	probes := newProber(w.cfg, func(x probed) { w.post(func(m *machine, now time.Time) { m.probed(x, now) }) })
	defer func() { <-probes.stop() }()
	inFlight := 0
	abandoned := all.Done()
	for {
		now := time.Now()
		if all.Err() == nil {
			for _, a := range m.next(now) {
				inFlight++
				go w.effect(all, starts, a, func() { inFlight-- })
			}
			probes.want(m.probings())
			p.publish(m, now)
		}
		if inFlight == 0 && !p.saving && (m.gone || all.Err() != nil) {
			p.last(m, now)
			return
		}
		if wake := m.wake; wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(wake.Sub(now))
		}
		select {
		case <-w.bell:
		case <-timer.C: // next finds out what is due; a late one finds nothing
		case <-abandoned:
			abandoned = nil
		}
		now = time.Now()
		for _, e := range w.take() {
			e(m, now)
		}
	}
}

// publisher tells the world what changed, in the worker's goroutine.
type publisher struct {
	worker *Worker
	saved  saved // as last handed to the disk
	saving bool
	ended  bool
	gone   bool
	told   bool // OnStatus was called before; of a pod that may not run yet, OnPrepared

	prepared bool // as last told
	trouble  string
}

func (p *publisher) publish(m *machine, now time.Time) {
	w := p.worker
	if m.stage == StageRun {
		p.publishPod(m, now)
	} else {
		p.publishWarm(m)
	}
	p.save(m, w.Status())
	if m.gone && !p.gone {
		p.gone = true
		w.log.Info("pod is gone")
		if w.cfg.OnGone != nil {
			w.cfg.OnGone(string(w.pod.UID))
		}
	}
}

// publishPod tells of a pod. That it has ended comes first: it is what others wait for.
func (p *publisher) publishPod(m *machine, now time.Time) {
	w := p.worker
	if !m.endedAt.IsZero() && !p.ended {
		p.ended = true
		if w.cfg.OnEnded != nil {
			w.cfg.OnEnded(string(w.pod.UID))
		}
	}
	for _, n := range m.news {
		if w.cfg.OnEvent != nil {
			w.cfg.OnEvent(w.pod, n.kind, n.reason, n.message)
		}
	}
	m.news = nil
	status := m.status(w.cfg.Host(), now)
	w.mu.Lock()
	changed := !equality.Semantic.DeepEqual(w.status, status)
	w.status = status
	w.mu.Unlock()
	if (changed || !p.told) && w.cfg.OnStatus != nil {
		p.told = true
		w.cfg.OnStatus(string(w.pod.UID), *status.DeepCopy())
	}
}

// statusOf is empty for a pod that may not run yet: nothing of it has begun.
func (w *Worker) statusOf(m *machine, now time.Time) corev1.PodStatus {
	if m.stage != StageRun {
		return corev1.PodStatus{}
	}
	return m.status(w.cfg.Host(), now)
}

// save writes status.json off the goroutine, one write at a time, when something in it changed.
func (p *publisher) save(m *machine, status corev1.PodStatus) {
	s := m.save(status)
	if p.saving || m.gone || m.stage == StageImages || reflect.DeepEqual(s, p.saved) {
		return
	}
	p.saved, p.saving = s, true
	go func() {
		p.worker.saveFile(s)
		p.worker.post(func(*machine, time.Time) { p.saving = false })
	}()
}

// last brings status.json up to date before the worker ends.
func (p *publisher) last(m *machine, now time.Time) {
	if !m.gone && m.stage != StageImages {
		p.worker.saveFile(m.save(p.worker.statusOf(m, now)))
	}
}

// saveFile writes status.json unless the pod's directory has been removed. A failure costs the next agent a restart count.
func (w *Worker) saveFile(s saved) {
	w.files.Lock()
	defer w.files.Unlock()
	if w.removed {
		return
	}
	if err := writeSaved(w.dir, s); err != nil {
		w.log.Warn("pod's state is not kept", "error", err)
	}
}
