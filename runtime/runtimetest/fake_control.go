package runtimetest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/picketd/picket/runtime"
)

// The methods in this file are for the test: what happens to containers, and what was asked.

// SetFail has every call that begins with prefix ("create web-0", "image"; "" is all) fail with err; nil ends it.
func (f *Fake) SetFail(prefix string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		delete(f.fail, prefix)
		return
	}
	f.fail[prefix] = err
}

// SetHang keeps calls that begin with prefix until their context ends.
func (f *Fake) SetHang(prefix string, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !on {
		delete(f.hang, prefix)
		return
	}
	f.hang[prefix] = true
}

// SetDeaf makes a container ("web-0") ignore its stop signal.
func (f *Fake) SetDeaf(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deaf[name] = true
}

// SetExec is what Exec does; without it every command succeeds silently.
func (f *Fake) SetExec(exec func(id string, e runtime.ExecConfig) (int, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.exec = exec
}

// SetCollection is what CollectImages does.
func (f *Fake) SetCollection(c runtime.ImageCollection) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.collection = c
}

// SetLayer is how many bytes a container ("web-0") has written to its own file system.
func (f *Fake) SetLayer(name string, bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.layers[name] = bytes
}

// SetSend has events handed to a function, besides those who subscribed.
func (f *Fake) SetSend(send func(runtime.Event)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.send = send
}

// SetDown takes containerd away, or back: calls fail with ErrUnavailable, subscribers hear of it.
func (f *Fake) SetDown(down bool) {
	f.mu.Lock()
	changed := f.down != down
	f.down = down
	f.mu.Unlock()
	switch {
	case !changed:
	case down:
		f.emit(runtime.Event{Kind: runtime.EventDisconnected, At: time.Now()})
	default:
		f.emit(runtime.Event{Kind: runtime.EventConnected, At: time.Now()})
	}
}

// Emit sends an event as if it came from containerd.
func (f *Fake) Emit(e runtime.Event) { f.emit(e) }

func (f *Fake) emit(e runtime.Event) {
	f.mu.Lock()
	send := f.send
	for s := range f.subscribers {
		s.put(e)
	}
	f.mu.Unlock()
	send(e)
}

// QuietExit ends a container without telling anybody; it returns what would have been told.
func (f *Fake) QuietExit(id string, code int32) runtime.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.containers[id]
	c.State, c.ExitCode, c.FinishedAt = runtime.ContainerExited, code, time.Now()
	return runtime.Event{Kind: runtime.EventExit, ContainerID: id, PodUID: c.PodUID, ExitCode: code, At: c.FinishedAt}
}

// Exit ends a container.
func (f *Fake) Exit(id string, code int32) { f.emit(f.QuietExit(id, code)) }

// Reboot leaves containers without tasks.
func (f *Fake) Reboot() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.containers {
		c.State, c.StartedAt, c.FinishedAt, c.ExitCode = runtime.ContainerUnknown, time.Time{}, time.Time{}, 0
	}
}

// Add puts a container in, as an earlier agent may have left it.
func (f *Fake) Add(c runtime.ContainerStatus) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.containers[c.ID] = &c
}

// Forget loses a container.
func (f *Fake) Forget(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.containers, id)
	delete(f.configs, id)
}

// List is what there is, in the order of the ids.
func (f *Fake) List() []runtime.ContainerStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []runtime.ContainerStatus
	for _, c := range f.containers {
		all = append(all, *c)
	}
	slices.SortFunc(all, func(a, b runtime.ContainerStatus) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// Config is what a container was created with.
func (f *Fake) Config(id string) runtime.ContainerConfig {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.configs[id]
}

// Asked are the images that were asked for.
func (f *Fake) Asked() []runtime.ImageRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.images)
}

// Take returns the calls since the last time, without the ones that only look.
func (f *Fake) Take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls, f.at = nil, nil
	return calls
}

// When returns the time of the first call with that text.
func (f *Fake) When(t testing.TB, text string) time.Time {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.Index(f.calls, text)
	if i < 0 {
		t.Fatalf("no call %q in %q", text, f.calls)
	}
	return f.at[i]
}

// subscriber is one reader of events; what it has not read yet waits in queue.
type subscriber struct {
	mu    sync.Mutex
	queue []runtime.Event
	bell  chan struct{}
}

func (s *subscriber) put(e runtime.Event) {
	s.mu.Lock()
	s.queue = append(s.queue, e)
	s.mu.Unlock()
	select {
	case s.bell <- struct{}{}:
	default:
	}
}

func (s *subscriber) take() []runtime.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	queue := s.queue
	s.queue = nil
	return queue
}

// Subscribe sends EventConnected first, or when SetDown brings containerd back.
func (f *Fake) Subscribe(ctx context.Context) <-chan runtime.Event {
	s := &subscriber{bell: make(chan struct{}, 1)}
	f.mu.Lock()
	f.subscribers[s] = true
	if !f.down {
		s.put(runtime.Event{Kind: runtime.EventConnected, At: time.Now()})
	}
	f.mu.Unlock()
	events := make(chan runtime.Event)
	go func() {
		defer close(events)
		defer func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(f.subscribers, s)
		}()
		for {
			for _, e := range s.take() {
				select {
				case events <- e:
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-s.bell:
			case <-ctx.Done():
				return
			}
		}
	}()
	return events
}
