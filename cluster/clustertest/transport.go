package clustertest

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// What a host buffers. Packets beyond are dropped, as a kernel does; streams beyond are refused.
const (
	packetBuffer = 1024
	streamBuffer = 128
)

// Transport is one listening port of a Host, for packets and streams.
type Transport struct {
	host    *Host
	port    uint16
	packets chan *memberlist.Packet
	streams chan net.Conn
	closed  chan struct{}

	mu    sync.Mutex
	conns map[*conn]struct{} // open ones of this end
}

var _ memberlist.NodeAwareTransport = (*Transport)(nil)

func newTransport(h *Host, port uint16) *Transport {
	return &Transport{
		host: h, port: port, packets: make(chan *memberlist.Packet, packetBuffer), streams: make(chan net.Conn, streamBuffer),
		closed: make(chan struct{}), conns: map[*conn]struct{}{},
	}
}

// Address is host:port.
func (t *Transport) Address() string { return netip.AddrPortFrom(t.host.addr, t.port).String() }

func (t *Transport) addr() *net.UDPAddr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(t.host.addr, t.port))
}

// FinalAdvertiseAddr is where others reach it, whatever was configured.
func (t *Transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.host.addr.AsSlice(), int(t.port), nil
}

// WriteTo sends a packet. That it was lost is no error.
func (t *Transport) WriteTo(b []byte, address string) (time.Time, error) {
	if t.isClosed() {
		return time.Time{}, &net.OpError{Op: "write", Net: "udp", Err: net.ErrClosed}
	}
	return time.Now(), t.host.network.send(t, b, address)
}

// WriteToAddress is WriteTo.
func (t *Transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

// PacketCh has the packets that arrived.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// take is called with the network's lock held and never blocks.
func (t *Transport) take(b []byte, from net.Addr) bool {
	select {
	case t.packets <- &memberlist.Packet{Buf: b, From: from, Timestamp: time.Now()}:
		return true
	default:
		return false
	}
}

// DialAddressTimeout is DialTimeout.
func (t *Transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// DialTimeout opens a stream. Where nobody listens it is refused at once; where nobody answers it takes the whole time-out, or
// until the link is mended.
func (t *Transport) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	n := t.host.network
	n.mu.Lock()
	to, port, err := n.at(address)
	n.mu.Unlock()
	if err != nil {
		return nil, dialError(err)
	}
	expired := time.NewTimer(timeout)
	defer expired.Stop()
	if err := t.reach(to, expired.C); err != nil {
		return nil, dialError(err)
	}
	n.mu.Lock()
	peer := to.ports[port]
	n.mu.Unlock()
	if peer == nil {
		return nil, dialError(syscall.ECONNREFUSED)
	}
	near, far := newPipe(t, peer)
	select {
	case peer.streams <- far:
		return near, nil
	default:
		near.reset()
		far.reset()
		return nil, dialError(syscall.ECONNREFUSED)
	}
}

// reach waits until both directions of a link are open and a round trip has passed.
func (t *Transport) reach(to *Host, expired <-chan time.Time) error {
	n := t.host.network
	for to != nil {
		there, changed := n.passes(t.host, to)
		back, _ := n.passes(to, t.host)
		if there && back {
			break
		}
		select {
		case <-changed:
		case <-expired:
			return os.ErrDeadlineExceeded
		case <-t.closed:
			return net.ErrClosed
		}
	}
	var arrived <-chan time.Time
	if to != nil {
		arrived = time.After(n.delay() + n.delay())
	}
	select {
	case <-arrived:
		return nil
	case <-expired:
		return os.ErrDeadlineExceeded
	case <-t.closed:
		return net.ErrClosed
	}
}

func dialError(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }

// StreamCh has the streams that others opened.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown frees the port, and resets the streams of this end.
func (t *Transport) Shutdown() error {
	n := t.host.network
	n.mu.Lock()
	if t.host.ports[t.port] == t {
		delete(t.host.ports, t.port)
		close(t.closed)
	}
	n.mu.Unlock()
	t.mu.Lock()
	conns := t.conns
	t.conns = nil
	t.mu.Unlock()
	for c := range conns {
		c.reset()
	}
	return nil
}

func (t *Transport) isClosed() bool {
	select {
	case <-t.closed:
		return true
	default:
		return false
	}
}

func (t *Transport) keep(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns != nil {
		t.conns[c] = struct{}{}
	}
}

func (t *Transport) forget(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, c)
}
