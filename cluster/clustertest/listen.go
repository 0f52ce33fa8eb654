package clustertest

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// Listen is net.Listen on a port of the machine, for servers that are not memberlist.
func (h *Host) Listen(port uint16) (net.Listener, error) {
	t, err := h.Transport(port)
	if err != nil {
		return nil, err
	}
	return &listener{transport: t}, nil
}

type listener struct {
	transport *Transport
	once      sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.transport.streams:
		return conn, nil
	case <-l.transport.closed:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: net.ErrClosed}
	}
}

func (l *listener) Addr() net.Addr { return tcpAddr(l.transport) }

// Close also resets the connections that were accepted.
func (l *listener) Close() (err error) {
	l.once.Do(func() { err = l.transport.Shutdown() })
	return err
}

// dialWithin is the time-out of a dial whose context has none.
const dialWithin = 2 * time.Minute

// Dial opens a stream to a port of another machine, from any free port of this one.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	limit := dialWithin
	if deadline, ok := ctx.Deadline(); ok {
		limit = time.Until(deadline)
	}
	t, err := h.anyPort()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = t.Shutdown() })
	near, err := t.DialTimeout(address, limit)
	if !stop() {
		err = errors.Join(err, ctx.Err())
	}
	if err != nil {
		return nil, errors.Join(err, t.Shutdown())
	}
	return &dialled{Conn: near, transport: t}, nil
}

func (h *Host) anyPort() (*Transport, error) {
	h.network.mu.Lock()
	for h.ephemeral < firstEphemeral || h.ports[h.ephemeral] != nil {
		h.ephemeral = max(h.ephemeral+1, firstEphemeral)
	}
	port := h.ephemeral
	h.ephemeral++
	h.network.mu.Unlock()
	return h.Transport(port)
}

const firstEphemeral = 32768

// dialled gives its port back when it is closed.
type dialled struct {
	net.Conn
	transport *Transport
}

func (d *dialled) Close() error {
	return errors.Join(d.Conn.Close(), d.transport.Shutdown())
}
