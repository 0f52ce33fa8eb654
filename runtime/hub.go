package runtime

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// queueLimit is how many events wait for one reader before they are all replaced by "list anew".
const queueLimit = 1024

// hub hands events to whoever subscribed. It remembers whether containerd answers, for those who come later.
type hub struct {
	mu        sync.Mutex
	readers   []*reader
	connected bool
	closed    bool

	overflows atomic.Uint64
}

func newHub() *hub { return &hub{} }

// reader is one subscription; what it has not taken yet waits in its queue.
type reader struct {
	mu    sync.Mutex
	queue []Event
	bell  chan struct{} // there is something in the queue, or the hub is closed
	end   bool
}

// put queues an event. It reports false when the queue was full: its place is taken by one EventConnected, upon which the
// reader lists anew.
func (q *reader) put(e Event) bool {
	q.mu.Lock()
	fits := len(q.queue) < queueLimit
	if fits {
		q.queue = append(q.queue, e)
	} else {
		q.queue = []Event{{Kind: EventConnected, At: e.At}}
		if e.Kind == EventDisconnected {
			q.queue = append(q.queue, e)
		}
	}
	q.mu.Unlock()
	q.ring()
	return fits
}

func (q *reader) ring() {
	select {
	case q.bell <- struct{}{}:
	default:
	}
}

func (q *reader) take() (queue []Event, end bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	queue, q.queue = q.queue, nil
	return queue, q.end
}

// publish queues an event for every reader; it never waits.
func (h *hub) publish(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch e.Kind {
	case EventConnected:
		h.connected = true
	case EventDisconnected:
		h.connected = false
	}
	for _, q := range h.readers {
		if !q.put(e) {
			h.overflows.Add(1)
		}
	}
}

func (h *hub) join() *reader {
	q := &reader{bell: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.connected {
		q.put(Event{Kind: EventConnected, At: time.Now()})
	}
	q.end = h.closed
	h.readers = append(h.readers, q)
	return q
}

func (h *hub) leave(q *reader) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.readers = slices.DeleteFunc(h.readers, func(x *reader) bool { return x == q })
}

// close ends every subscription.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, q := range h.readers {
		q.mu.Lock()
		q.end = true
		q.mu.Unlock()
		q.ring()
	}
}

// Subscribe returns what happens to containers and to containerd: EventConnected first, as soon as containerd answers. A reader
// that is slow gets EventConnected in place of the events it missed. The channel is closed when ctx ends or with Close.
func (r *Runtime) Subscribe(ctx context.Context) <-chan Event {
	q := r.hub.join()
	q.ring()
	events := make(chan Event)
	go func() {
		defer close(events)
		defer r.hub.leave(q)
		for {
			select {
			case <-q.bell:
			case <-ctx.Done():
				return
			}
			queue, end := q.take()
			for _, e := range queue {
				select {
				case events <- e:
				case <-ctx.Done():
					return
				}
			}
			if end {
				return
			}
		}
	}()
	return events
}

// Overflows counts how often a reader of Subscribe was so slow that it had to list anew.
func (r *Runtime) Overflows() uint64 { return r.hub.overflows.Load() }
