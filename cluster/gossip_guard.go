package cluster

import (
	"bufio"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// What memberlist 0.7 panics at, if it was encrypted with the right key: a payload of its first encryption, which no host of ours
// uses, with a wrong padding; and a stream that is encrypted and empty.
const (
	oldEncryption   = 0
	streamEncrypted = 10 // memberlist's encryptMsg
	labelMark       = 244
	emptyEncrypted  = 1 + 12 + 16 // version, nonce, tag
)

// maxStreams bounds the streams that others have open. Each may make memberlist reserve more than 100 MB, and is closed after
// seconds.
const maxStreams = 16

var errRefusedStream = errors.New("refused: what no host of the fleet sends")

// guard is a transport that keeps from memberlist what would end the agent.
type guard struct {
	memberlist.NodeAwareTransport
	keyed   bool
	refused *atomic.Uint64
	packets chan *memberlist.Packet
	streams chan net.Conn
	open    atomic.Int64 // streams that others opened
	pumps   sync.WaitGroup
	once    sync.Once
	closing chan struct{} // nothing is handed on any more
	closed  chan struct{} // nothing comes any more
}

func newGuard(inner memberlist.NodeAwareTransport, keyed bool, refused *atomic.Uint64) *guard {
	g := &guard{
		NodeAwareTransport: inner, keyed: keyed, refused: refused,
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
			if g.keyed && isOld(p.Buf) {
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

// guardedConn looks at how a stream begins before anybody reads of it.
type guardedConn struct {
	net.Conn
	guard   *guard
	head    *bufio.Reader
	looked  bool
	err     error
	once    sync.Once
	onClose func() // may be nil
}

func (g *guard) guardStream(c net.Conn) *guardedConn {
	return &guardedConn{Conn: c, guard: g, head: bufio.NewReader(c)}
}

// Read is for one reader, as memberlist's streams have.
func (c *guardedConn) Read(b []byte) (int, error) {
	if !c.looked && c.guard.keyed {
		if c.looked = true; c.isBad() {
			c.guard.refused.Add(1)
			c.err = errRefusedStream
		}
	}
	if c.err != nil {
		return 0, c.err
	}
	return c.head.Read(b)
}

// isBad waits for the first bytes. One that ends before is too short for harm.
func (c *guardedConn) isBad() bool {
	at := 0
	if mark, err := c.head.Peek(2); err == nil && mark[0] == labelMark {
		at = 2 + int(mark[1])
	}
	first, err := c.head.Peek(at + 6)
	if err != nil || first[at] != streamEncrypted {
		return false
	}
	return binary.BigEndian.Uint32(first[at+1:]) <= emptyEncrypted || first[at+5] == oldEncryption
}

func (c *guardedConn) Close() error {
	c.once.Do(func() {
		if c.onClose != nil {
			c.onClose()
		}
	})
	return c.Conn.Close()
}
