package pod

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/runtime"
)

// Stage is how far a worker may take its pod. It only goes on: images, prepared, run.
type Stage int

const (
	// StageRun is an ordinary pod.
	StageRun Stage = iota
	// StageImages: its images are pulled, one of them at a time on this host (Config.Prefetch), and nothing else is made.
	StageImages
	// StagePrepared is a warm pod: all is made that does not take anything from the pod whose place it will take, and nothing is
	// started. Host ports are not published. Of a pod with init containers only the first is made: the others may mount what it makes.
	StagePrepared
)

// Prepare lets a pod of StageImages become a warm one.
func (w *Worker) Prepare() {
	w.post(func(m *machine, _ time.Time) {
		if m.stage == StageImages {
			m.stage = StagePrepared
		}
	})
	w.want()
}

// Release lets a warm pod run: the one before it has ended. What is not made yet is made as for any new pod, at once.
func (w *Worker) Release() {
	w.post(func(m *machine, now time.Time) { m.released(now) })
	w.want()
}

// want ends the wait for a turn to prefetch.
func (w *Worker) want() { w.wantOnce.Do(func() { close(w.wanted) }) }

// released is the end of the wait.
func (m *machine) released(now time.Time) {
	if m.stage == StageRun || m.stop != nil {
		return
	}
	if m.stage == StagePrepared && m.sandbox.state != todo && hasHostPorts(m.pod) {
		m.ports = step{} // it was set up without them
	}
	m.stage, m.startTime = StageRun, now
	for _, r := range m.retries() {
		r.at, r.held = time.Time{}, false
	}
}

// hasHostPorts says whether the pod has ports published, which only one pod of a host can.
func hasHostPorts(pod *corev1.Pod) bool { return len(podConfig(pod, Host{}).Ports) > 0 }

// ahead are the containers that are made before the pod may run.
func (m *machine) ahead() []*container {
	if len(m.pod.Spec.InitContainers) > 0 {
		return m.containers[:1]
	}
	return m.containers
}

// preparedness says whether all is made that can be before the pod may run; if not, trouble is what keeps it from that, as
// "CamelCaseReason: message", or "" while it is on its way.
func (m *machine) preparedness() (prepared bool, trouble string) {
	if m.away {
		return false, troubled("", runtime.ErrUnavailable)
	}
	prepared = true
	for _, c := range m.containers {
		if i := m.images[c.image]; i.state != done {
			if i.err != nil {
				return false, troubled(imageFailure(i.err), i.err)
			}
			prepared = false
		}
	}
	if m.stage == StageImages {
		return prepared, ""
	}
	for _, s := range []struct {
		step   *step
		reason string
	}{{&m.sandbox, "FailedCreatePodSandBox"}, {&m.volumes, "FailedMount"}} {
		if s.step.state != done && s.step.err != nil {
			return false, troubled(s.reason, s.step.err)
		}
		prepared = prepared && s.step.state == done
	}
	for _, c := range m.ahead() {
		switch {
		case c.state == created && !c.inspect && !c.inspecting:
			continue
		case c.create.held:
			return false, troubled("", runtime.ErrUnavailable)
		case c.failure != nil:
			return false, c.failure.reason + ": " + c.failure.message
		}
		prepared = false
	}
	return prepared, ""
}

// troubled is an error under its reason; that containerd is away is one of its own.
func troubled(reason string, err error) string {
	if errors.Is(err, runtime.ErrUnavailable) {
		return "ContainerdUnavailable: containerd does not answer"
	}
	return reason + ": " + err.Error()
}

// publishWarm tells of a pod that may not run yet. Its events wait until it may, for there is no pod yet that they could be
// about; what went wrong is told as trouble instead.
func (p *publisher) publishWarm(m *machine) {
	m.news = slices.DeleteFunc(m.news, func(n news) bool { return n.kind != corev1.EventTypeNormal })
	m.news = slices.Compact(m.news) // of every try to pull an image
	prepared, trouble := m.preparedness()
	if p.told && prepared == p.prepared && trouble == p.trouble || m.stop != nil {
		return
	}
	p.told, p.prepared, p.trouble = true, prepared, trouble
	if f := p.worker.cfg.OnPrepared; f != nil {
		f(string(p.worker.pod.UID), prepared, trouble)
	}
}

// outdated are the containers that were created of ConfigMaps or Secrets which are others now.
func (w *Worker) outdated(m *machine) []*container {
	if m.stage != StagePrepared {
		return nil // with what runs it is as with a kubelet: the next attempt takes the new ones
	}
	var list []*container
	for _, c := range m.containers {
		if c.state == created && c.inputs != w.facts(m.ips).inputs(c.spec) {
			list = append(list, c)
		}
	}
	return list
}

// inputs stands for the content of the ConfigMaps and Secrets that a container keeps as it is when it is created: in its
// environment and under its subPaths. "" when something is missing.
func (f facts) inputs(c *corev1.Container) string {
	env, err := f.environment(c)
	if err != nil {
		return ""
	}
	sum := sha256.New()
	for _, e := range env.list() {
		sum.Write([]byte(strconv.Quote(e)))
	}
	v := volumes{facts: f}
	for _, vm := range c.VolumeMounts {
		volume := v.byName(vm.Name)
		if volume == nil || vm.SubPath == "" && vm.SubPathExpr == "" {
			continue
		}
		content, _, err := v.payloadOf(volume) // none for a volume of another kind
		if err != nil {
			return ""
		}
		for _, name := range slices.Sorted(maps.Keys(content)) {
			sum.Write([]byte(vm.Name + strconv.Quote(name) + strconv.Quote(string(content[name].data))))
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}
