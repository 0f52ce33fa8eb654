package clustertest

import (
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// windowSize is how many bytes of a stream may be on their way before a Write waits.
const windowSize = 1 << 20

// conn is one end of a stream. What is written while the link is cut arrives when it is mended.
type conn struct {
	local, remote *Transport
	in, out       *flow
	once          sync.Once
	readBy        *deadline
	writeBy       *deadline
}

func newPipe(a, b *Transport) (*conn, *conn) {
	there, back := newFlow(a.host, b.host), newFlow(b.host, a.host)
	near := &conn{local: a, remote: b, in: back, out: there, readBy: newDeadline(), writeBy: newDeadline()}
	far := &conn{local: b, remote: a, in: there, out: back, readBy: newDeadline(), writeBy: newDeadline()}
	a.keep(near)
	b.keep(far)
	return near, far
}

// Read waits for bytes until the other end or this one is closed, or the deadline.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.in.read(b, c.readBy)
	if err != nil && err != io.EOF {
		err = &net.OpError{Op: "read", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
	}
	return n, err
}

// Write waits for room.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.out.write(b, c.writeBy)
	if err != nil {
		err = &net.OpError{Op: "write", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
	}
	return n, err
}

// Close ends both directions. What was written still arrives.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.local.forget(c)
		c.out.finish(io.EOF)
		c.in.abandon(net.ErrClosed)
	})
	return nil
}

// reset is Close of a host that is gone: what was not read is lost.
func (c *conn) reset() {
	c.once.Do(func() {
		c.out.abandon(syscall.ECONNRESET)
		c.in.abandon(net.ErrClosed)
	})
}

func (c *conn) LocalAddr() net.Addr  { return tcpAddr(c.local) }
func (c *conn) RemoteAddr() net.Addr { return tcpAddr(c.remote) }

func tcpAddr(t *Transport) net.Addr { return &net.TCPAddr{IP: t.addr().IP, Port: t.addr().Port} }

func (c *conn) SetDeadline(t time.Time) error {
	c.readBy.set(t)
	c.writeBy.set(t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.readBy.set(t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.writeBy.set(t)
	return nil
}

// deadline is a time that may be changed while somebody waits for it.
type deadline struct {
	mu      sync.Mutex
	at      time.Time
	changed chan struct{}
}

func newDeadline() *deadline { return &deadline{changed: make(chan struct{})} }

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = t
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *deadline) get() (time.Time, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.at, d.changed
}

// wait returns when one of the channels is closed, the moment has come (zero: never) or the deadline was changed; it fails when
// the deadline has passed.
func (d *deadline) wait(moment time.Time, a, b <-chan struct{}) error {
	at, changed := d.get()
	if !at.IsZero() && !time.Now().Before(at) {
		return os.ErrDeadlineExceeded
	}
	if !at.IsZero() && (moment.IsZero() || at.Before(moment)) {
		moment = at
	}
	var come <-chan time.Time
	if !moment.IsZero() {
		timer := time.NewTimer(time.Until(moment))
		defer timer.Stop()
		come = timer.C
	}
	select {
	case <-a:
	case <-b:
	case <-changed:
	case <-come:
	}
	return nil
}

// flow is one direction of a stream.
type flow struct {
	from, to *Host

	mu      sync.Mutex
	chunks  []chunk
	length  int
	ended   error // what a reader gets after the last chunk
	gone    error // what a writer gets
	changed chan struct{}
}

type chunk struct {
	at   time.Time // when it arrives
	data []byte
}

func newFlow(from, to *Host) *flow { return &flow{from: from, to: to, changed: make(chan struct{})} }

func (f *flow) tellLocked() {
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *flow) read(b []byte, by *deadline) (int, error) {
	for {
		open, mended := f.from.network.passes(f.from, f.to)
		n, moment, changed, err := f.take(b, open)
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		if err := by.wait(moment, changed, mended); err != nil {
			return 0, err
		}
	}
}

// take reads what has arrived; when nothing has, it says when to look again.
func (f *flow) take(b []byte, open bool) (n int, moment time.Time, changed <-chan struct{}, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case len(f.chunks) == 0:
		// A host off the network cannot even say that it is gone.
		if f.ended != nil && (open || f.ended == net.ErrClosed) {
			return 0, moment, nil, f.ended
		}
	case !open:
	case time.Now().Before(f.chunks[0].at):
		moment = f.chunks[0].at
	default:
		n = copy(b, f.chunks[0].data)
		f.length -= n
		if f.chunks[0].data = f.chunks[0].data[n:]; len(f.chunks[0].data) == 0 {
			f.chunks = f.chunks[1:]
		}
		f.tellLocked()
	}
	return n, moment, f.changed, nil
}

func (f *flow) write(b []byte, by *deadline) (int, error) {
	written := 0
	for {
		n, changed, err := f.put(b[written:])
		written += n
		if err != nil || written == len(b) {
			return written, err
		}
		if err := by.wait(time.Time{}, changed, nil); err != nil {
			return written, err
		}
	}
}

func (f *flow) put(b []byte) (n int, changed <-chan struct{}, err error) {
	at := time.Now().Add(f.from.network.delay())
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone != nil || f.ended != nil {
		return 0, nil, net.ErrClosed
	}
	if last := len(f.chunks) - 1; last >= 0 && at.Before(f.chunks[last].at) {
		at = f.chunks[last].at // a stream keeps its order
	}
	if n = min(len(b), windowSize-f.length); n > 0 {
		f.chunks = append(f.chunks, chunk{at: at, data: slices.Clone(b[:n])})
		f.length += n
		f.tellLocked()
	}
	return n, f.changed, nil
}

// finish is the writer's end.
func (f *flow) finish(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended == nil {
		f.ended = err
	}
	f.tellLocked()
}

// abandon ends the flow at once, for both.
func (f *flow) abandon(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.chunks, f.length = nil, 0
	if f.ended == nil {
		f.ended = err
	}
	f.gone = err
	f.tellLocked()
}
