package runtime

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"
)

const (
	// followPause bounds how long after containerd went away it is tried again.
	followPauseMin = 50 * time.Millisecond
	followPauseMax = 2 * time.Second
	// listenPause is between two tries to hear oneself.
	listenPause = 50 * time.Millisecond
)

// topicListening is published by us and for us alone: once it comes back the subscription is known to be in place.
const topicListening = "/picket/listening"

// errSilent ends a session with a containerd that accepts calls and does not answer them.
var errSilent = errors.New("containerd does not answer")

// follow keeps a session with containerd until ctx ends.
func (r *Runtime) follow(ctx context.Context) {
	pause := followPauseMin
	for ctx.Err() == nil {
		connected, err := r.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if connected {
			pause = followPauseMin
			r.hub.publish(Event{Kind: EventDisconnected, At: time.Now()})
		}
		r.log.Debug("no session with containerd", "error", err, "again", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, followPauseMax)
	}
}

// session follows containerd's events until the stream breaks. It reports whether it ever said that containerd is connected.
func (r *Runtime) session(ctx context.Context) (connected bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ns := strconv.Quote(r.cfg.Namespace)
	envelopes, errs := r.client.EventService().Subscribe(ctx,
		`namespace==`+ns+`,topic=="/tasks/exit"`, `namespace==`+ns+`,topic=="/tasks/oom"`, `namespace==`+ns+`,topic=="`+topicListening+`"`)
	early, err := r.listening(ctx, envelopes, errs)
	if err != nil {
		return false, err
	}
	running, err := r.recognise(ctx)
	if err != nil {
		return false, err
	}
	r.hub.publish(Event{Kind: EventConnected, At: time.Now()})
	for _, e := range early {
		r.heard(ctx, e)
	}
	for key, pid := range running {
		r.watchLogWriter(key, pid)
	}
	return true, r.listen(ctx, envelopes, errs)
}

// listening waits until the subscription is in place: an exit between the caller's list and the subscription would be lost for
// ever. It returns the events that came before.
func (r *Runtime) listening(ctx context.Context, envelopes <-chan *events.Envelope, errs <-chan error) ([]*events.Envelope, error) {
	token := strconv.FormatInt(time.Now().UnixNano(), 36)
	var early []*events.Envelope
	timeout := time.NewTimer(r.cfg.Pulse)
	defer timeout.Stop()
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-again.C:
			if err := r.client.EventService().Publish(r.ctx(ctx), topicListening, &apievents.NamespaceUpdate{Name: token}); err != nil {
				return nil, fmt.Errorf("cannot publish to containerd: %w", err)
			}
			again.Reset(listenPause)
		case e := <-envelopes:
			if e.Topic != topicListening {
				early = append(early, e)
				continue
			}
			if event, err := typeurl.UnmarshalAny(e.Event); err == nil && event.(*apievents.NamespaceUpdate).Name == token {
				return early, nil
			}
		case err := <-errs:
			return nil, fmt.Errorf("cannot subscribe to containerd's events: %w", err)
		case <-timeout.C:
			return nil, errSilent
		}
	}
}

// listen hands on events until the stream breaks or containerd falls silent.
func (r *Runtime) listen(ctx context.Context, envelopes <-chan *events.Envelope, errs <-chan error) error {
	ticker := time.NewTicker(r.cfg.Pulse)
	defer ticker.Stop()
	silent := make(chan error, 1)
	for {
		select {
		case e := <-envelopes:
			r.heard(ctx, e)
		case err := <-errs:
			return fmt.Errorf("stream of containerd's events broke: %w", err)
		case err := <-silent:
			return err
		case <-ticker.C:
			r.done.Go(func() { r.feelPulse(ctx, silent) })
		}
	}
}

// feelPulse reports a containerd that does not answer.
func (r *Runtime) feelPulse(ctx context.Context, silent chan<- error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Pulse)
	defer cancel()
	if _, err := r.client.Version(ctx); err != nil {
		select {
		case silent <- fmt.Errorf("%w: %w", errSilent, err):
		default:
		}
	}
}

// heard turns an event of containerd's into one of ours.
func (r *Runtime) heard(ctx context.Context, envelope *events.Envelope) {
	event, err := typeurl.UnmarshalAny(envelope.Event)
	if err != nil {
		r.log.Warn("cannot read an event of containerd's", "topic", envelope.Topic, "error", err)
		return
	}
	switch e := event.(type) {
	case *apievents.TaskExit:
		if e.ID != e.ContainerID {
			return // of an exec
		}
		at := envelope.Timestamp
		if e.ExitedAt != nil {
			at = e.ExitedAt.AsTime()
		}
		c := r.known.get(e.ContainerID)
		if c.reaper {
			r.log.Debug("the reaper of a shared process namespace ended", "pod", c.podUID, "code", e.ExitStatus)
			return // the ends of the pod's containers tell
		}
		r.hub.publish(Event{Kind: EventExit, ContainerID: c.id, PodUID: c.podUID, ExitCode: int32(e.ExitStatus), At: at})
	case *apievents.TaskOOM:
		c := r.known.get(e.ContainerID)
		if c.reaper {
			return
		}
		r.hub.publish(Event{Kind: EventOOM, ContainerID: c.id, PodUID: c.podUID, At: envelope.Timestamp})
		r.rememberOOM(ctx, e.ContainerID)
	}
}

// rememberOOM notes on the container that the kernel killed in it, for agents to come.
func (r *Runtime) rememberOOM(ctx context.Context, key string) {
	if r.known.oom(key) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Pulse)
	defer cancel()
	_, err := r.client.ContainerService().Update(ctx, containers.Container{ID: key, Labels: map[string]string{labelOOM: "true"}}, "labels."+labelOOM)
	if err != nil {
		r.log.Warn("cannot note an out-of-memory kill", "container", key, "error", err)
	}
}
