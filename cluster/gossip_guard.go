package cluster

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// oldEncryption is memberlist's first, which no host of ours uses: memberlist 0.7 panics when its padding is wrong.
const oldEncryption = 0

// maxStreams bounds the streams that others have open; memberlist closes them after seconds.
const maxStreams = 16

// guard is a transport that keeps from memberlist what would end the agent.
type guard struct {
	memberlist.NodeAwareTransport
	keys    *keyring // nil is no encryption, and nothing is looked at
	label   string
	refused *atomic.Uint64
	packets chan *memberlist.Packet
	streams chan net.Conn
	open    atomic.Int64 // streams that others opened
	pumps   sync.WaitGroup
	once    sync.Once
	closing chan struct{} // nothing is handed on any more
	closed  chan struct{} // nothing comes any more
}

func newGuard(inner memberlist.NodeAwareTransport, keys *keyring, label string, refused *atomic.Uint64) *guard {
	g := &guard{
		NodeAwareTransport: inner, keys: keys, label: label, refused: refused,
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), closing: make(chan struct{}), closed: make(chan struct{}),
	}
	g.pumps.Go(g.pumpPackets)
	g.pumps.Go(g.pumpStreams)
	return g
}

func (g *guard) PacketCh() <-chan *memberlist.Packet { return g.packets }
func (g *guard) StreamCh() <-chan net.Conn           { return g.streams }

// Shutdown takes what still comes: the transport within may wait for that.
func (g *guard) Shutdown() (err error) {
	g.once.Do(func() {
		close(g.closing)
		err = g.NodeAwareTransport.Shutdown()
		close(g.closed)
		g.pumps.Wait()
	})
	return err
}

func (g *guard) pumpPackets() {
	for {
		select {
		case p := <-g.NodeAwareTransport.PacketCh():
			if g.keys != nil && isOld(p.Buf) {
				g.refused.Add(1)
				continue
			}
			select {
			case g.packets <- p:
			case <-g.closing:
			}
		case <-g.closed:
			return
		}
	}
}

func isOld(packet []byte) bool {
	rest, _, err := memberlist.RemoveLabelHeaderFromPacket(packet)
	return err == nil && len(rest) > 0 && rest[0] == oldEncryption
}

func (g *guard) pumpStreams() {
	for {
		select {
		case c := <-g.NodeAwareTransport.StreamCh():
			if g.open.Add(1) > maxStreams {
				g.refused.Add(1)
				g.open.Add(-1)
				_ = c.Close()
				continue
			}
			guarded := g.guardStream(c)
			guarded.onClose = func() { g.open.Add(-1) }
			select {
			case g.streams <- guarded:
			case <-g.closing:
				_ = guarded.Close()
			}
		case <-g.closed:
			return
		}
	}
}

func (g *guard) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return g.dialled(g.NodeAwareTransport.DialTimeout(addr, timeout))
}

func (g *guard) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return g.dialled(g.NodeAwareTransport.DialAddressTimeout(a, timeout))
}

func (g *guard) dialled(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return g.guardStream(c), nil
}

// guardedConn reads a whole message before anybody else does.
type guardedConn struct {
	net.Conn
	guard   *guard
	in      io.Reader // what memberlist is given
	err     error     // or why it is given nothing
	once    sync.Once
	onClose func() // may be nil
}

func (g *guard) guardStream(c net.Conn) *guardedConn { return &guardedConn{Conn: c, guard: g} }

// Read is for one reader, as memberlist's streams have.
func (c *guardedConn) Read(b []byte) (int, error) {
	if c.in == nil {
		if c.in, c.err = c.begin(); c.err != nil {
			c.guard.refused.Add(1)
		}
	}
	if c.err != nil {
		return 0, c.err
	}
	return c.in.Read(b)
}

// begin looks at the first message of a stream; a stream of memberlist's has one each way. What is cut off, not encrypted or
// encrypted with another key is left to memberlist, which refuses it.
func (c *guardedConn) begin() (io.Reader, error) {
	if c.guard.keys == nil {
		return c.Conn, nil
	}
	in := bufio.NewReader(c.Conn)
	at := 0
	if mark, err := in.Peek(2); err == nil && mark[0] == messageLabel {
		at = 2 + int(mark[1])
	}
	head, err := in.Peek(at + 5)
	if err != nil || head[at] != messageEncrypted {
		return in, nil //nolint:nilerr // memberlist finds the same error
	}
	length := binary.BigEndian.Uint32(head[at+1:])
	if length <= emptyEncrypted || length > maxStream {
		return in, errRefusedStream
	}
	var whole bytes.Buffer
	if _, err := io.CopyN(&whole, in, int64(at)+5+int64(length)); err != nil {
		return io.MultiReader(&whole, failing{err}), nil
	}
	sealed := whole.Bytes()[at+5:]
	if sealed[0] == oldEncryption {
		return in, errRefusedStream
	}
	plain, opened := openSealed(c.guard.keys.ring.GetKeys(), sealed, slices.Concat(whole.Bytes()[at:at+5], []byte(c.guard.label)))
	if opened {
		err = affordable(plain)
	}
	return io.MultiReader(&whole, in), err
}

// failing is a reader.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func (c *guardedConn) Close() error {
	c.once.Do(func() {
		if c.onClose != nil {
			c.onClose()
		}
	})
	return c.Conn.Close()
}
