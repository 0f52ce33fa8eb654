package pod

import (
	"context"
	"time"

	"github.com/picketd/picket/runtime"
)

// effectTimeout bounds every effect but pulls and hooks: containerd may accept a call and never answer.
const effectTimeout = 2 * time.Minute

// effect performs an action and posts its answer; finished is called on the worker's goroutine, after the answer.
func (w *Worker) effect(all, starts context.Context, a action, finished func()) {
	ctx := all
	switch a.kind {
	case actionEnsureImage, actionSetUpPod, actionPublishPorts, actionMountVolumes, actionRefreshVolumes, actionCreate, actionPostStart:
		ctx = starts
	}
	bounded, cancel := bound(ctx, a)
	defer cancel()
	ctx = bounded
	began := time.Now()
	answer, err := w.perform(ctx, a)
	log := w.log.With("action", string(a.kind), "reason", a.reason, "took", time.Since(began))
	if a.name != "" {
		log = log.With("container", a.name, "attempt", a.attempt)
	}
	if a.image.Ref != "" {
		log = log.With("image", a.image.Ref)
	}
	if err != nil {
		log.Debug("pod action failed", "error", err) // what users should know of it is an event
	} else {
		log.Debug("pod action done")
	}
	w.post(func(m *machine, now time.Time) {
		answer(m, now)
		finished()
	})
}

// bound gives an effect the time it has: a pull and a postStart hook take as long as they like, a preStop hook until its deadline.
func bound(ctx context.Context, a action) (context.Context, context.CancelFunc) {
	switch a.kind {
	case actionEnsureImage, actionPostStart:
		return context.WithCancel(ctx)
	case actionPreStop:
		return context.WithDeadline(ctx, a.deadline)
	}
	return context.WithTimeout(ctx, effectTimeout)
}

// perform does what an action asks for. The error is only logged; the machine hears it from the answer.
func (w *Worker) perform(ctx context.Context, a action) (event, error) {
	switch a.kind {
	case actionEnsureImage:
		img, err := w.ensureImage(ctx, a)
		return func(m *machine, now time.Time) { m.imageEnsured(a.image, img, err, now) }, err
	case actionSetUpPod:
		ips, err := w.setUpPod(ctx, a.withoutPorts)
		omitted := w.facts(ips).omissions(etc)
		return func(m *machine, now time.Time) {
			m.podSetUp(ips, err, now)
			if err == nil {
				m.news = append(m.news, omitted...)
			}
		}, err
	case actionPublishPorts:
		_, err := w.setUpPod(ctx, false)
		return func(m *machine, now time.Time) { m.portsPublished(err, now) }, err
	case actionMountVolumes:
		err := w.volumes(a.ips).mount(ctx)
		return func(m *machine, now time.Time) { m.volumesMounted(err, now) }, err
	case actionRefreshVolumes:
		err := w.volumes(a.ips).refresh(ctx)
		return func(m *machine, now time.Time) { m.volumesRefreshed(err, now) }, err
	case actionReadMessage:
		message := w.terminationMessage(ctx, a)
		return func(m *machine, _ time.Time) { m.terminationMessage(a.id, message) }, nil
	case actionUnpublishPorts:
		err := w.cfg.Runtime.UnpublishPorts(ctx, podConfig(w.pod, w.cfg.Host()))
		return func(m *machine, now time.Time) { m.portsUnpublished(err, now) }, err
	case actionTearDownPod:
		err := w.cfg.Runtime.TearDownPod(ctx, podConfig(w.pod, w.cfg.Host()))
		return func(m *machine, now time.Time) { m.tornDown(err, now) }, err
	case actionCleanUp:
		err := w.cleanUp()
		return func(m *machine, now time.Time) { m.cleanedUp(err, now) }, err
	}
	return w.performOnContainer(ctx, a)
}

func (w *Worker) performOnContainer(ctx context.Context, a action) (event, error) {
	switch a.kind {
	case actionCreate:
		inputs := w.facts(a.ips).inputs(a.container) // before it is made of them
		err := w.create(ctx, a)
		return func(m *machine, now time.Time) {
			m.madeOf(a.id, inputs)
			m.containerCreated(a.id, err, now)
		}, err
	case actionStart:
		err := w.cfg.Runtime.StartContainer(ctx, a.id)
		return func(m *machine, now time.Time) { m.containerStarted(a.id, err, now) }, err
	case actionPostStart:
		err := w.runHook(ctx, *a.container.Lifecycle.PostStart, a.id, a.container, first(a.ips))
		return func(m *machine, now time.Time) { m.postStartRan(a.id, err, now) }, err
	case actionPreStop:
		err := w.runHook(ctx, *a.container.Lifecycle.PreStop, a.id, a.container, first(a.ips))
		return func(m *machine, _ time.Time) { m.preStopRan(a.id, err) }, err
	case actionSignal:
		err := w.cfg.Runtime.SignalContainer(ctx, a.id, a.signal)
		return func(m *machine, now time.Time) { m.signalled(a.id, err, now) }, err
	case actionInspect:
		s, err := w.cfg.Runtime.ContainerStatus(ctx, a.id)
		return func(m *machine, now time.Time) { m.inspected(a.id, s, err, now) }, err
	case actionRemove:
		err := w.remove(ctx, a)
		return func(m *machine, now time.Time) { m.removed(a.id, err, now) }, err
	}
	panic("pod: no effect for action " + string(a.kind))
}

func (w *Worker) ensureImage(ctx context.Context, a action) (runtime.Image, error) {
	if a.prefetch && w.cfg.Prefetch != nil {
		select {
		case w.cfg.Prefetch <- struct{}{}:
			defer func() { <-w.cfg.Prefetch }()
		case <-w.wanted:
		case <-ctx.Done():
			return runtime.Image{}, ctx.Err()
		}
	}
	return w.cfg.Runtime.EnsureImage(ctx, runtime.ImageRequest{
		Ref: a.image.Ref, Policy: runtime.PullPolicy(a.image.Policy), Credentials: w.credentials(),
	})
}

func (w *Worker) setUpPod(ctx context.Context, withoutPorts bool) ([]string, error) {
	host := w.cfg.Host()
	if err := w.facts(nil).checkHostname(); err != nil {
		return nil, err
	}
	config := podConfig(w.pod, host)
	if withoutPorts {
		config.Ports = nil
	}
	s, err := w.cfg.Runtime.SetUpPod(ctx, config)
	if err != nil {
		return nil, err
	}
	if w.pod.Spec.HostNetwork {
		return host.IPs, nil
	}
	return s.IPs, nil
}
