// Package clustertest is a network in memory that loses, delays, reorders and doubles packets, for tests of many agents in a
// testing/synctest bubble. Network.Host makes a machine, Host.Transport what memberlist needs of it.
//
// Nothing in it blocks for ever and it has no goroutine of its own: packets wait in timers or in bounded channels, and what does
// not fit is dropped and counted. Whatever is random comes from the seed, but the order in which goroutines ask for it does not.
// Make the network inside of the bubble that uses it.
package clustertest

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Faults are what happens to packets. Streams are only delayed: they repair the rest, as TCP does.
type Faults struct {
	Loss      float64 // the part of the packets that is lost
	Duplicate float64 // the part that arrives twice
	Reorder   float64 // the part that waits, up to ReorderBy, and is overtaken
	ReorderBy time.Duration
	Delay     time.Duration // one way
	Jitter    time.Duration // at most that much on top of Delay
}

// Counts are of packets. Delivered counts what a host took; the others never arrived.
type Counts struct {
	Sent, Bytes, Delivered, Lost, Cut, Overflow int
}

// Network connects hosts. Any goroutine may call its methods.
type Network struct {
	mu      sync.Mutex
	random  *rand.Rand
	faults  Faults
	counts  Counts
	last    netip.Addr
	hosts   []*Host
	cut     map[link]bool
	changed chan struct{} // closed, and replaced, when links change
}

// link is one direction between two hosts.
type link struct{ from, to string }

// NewNetwork makes a network without faults.
func NewNetwork(seed uint64) *Network {
	return &Network{
		random: rand.New(rand.NewPCG(seed, seed)), last: netip.AddrFrom4([4]byte{10, 0, 0, 0}),
		cut: map[link]bool{}, changed: make(chan struct{}),
	}
}

// SetFaults is for packets sent from now on.
func (n *Network) SetFaults(f Faults) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults = f
}

// Counts are those since the network was made.
func (n *Network) Counts() Counts {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.counts
}

// Host makes a machine with an address that no other has or had. The machine's name is for Cut and Partition; a machine that
// comes back with another address is another Host of the same name.
func (n *Network) Host(name string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last = n.last.Next()
	h := &Host{network: n, name: name, addr: n.last, ports: map[uint16]*Transport{}}
	n.hosts = append(n.hosts, h)
	return h
}

// Cut stops everything from one machine to another; the other direction goes on.
func (n *Network) Cut(from, to string) {
	n.change(func() { n.cut[link{from, to}] = true })
}

// Mend ends a Cut.
func (n *Network) Mend(from, to string) {
	n.change(func() { delete(n.cut, link{from, to}) })
}

// Partition cuts both ways between machines of different groups. Machines in no group keep all their links.
func (n *Network) Partition(groups ...[]string) {
	n.change(func() {
		for i, a := range groups {
			for _, b := range slices.Concat(groups[i+1:]...) {
				for _, name := range a {
					n.cut[link{name, b}], n.cut[link{b, name}] = true, true
				}
			}
		}
	})
}

// Heal ends all cuts.
func (n *Network) Heal() { n.change(func() { clear(n.cut) }) }

func (n *Network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
}

// passes says whether the link is open, and what is closed when that may have changed.
func (n *Network) passes(from, to *Host) (bool, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.passesLocked(from, to), n.changed
}

func (n *Network) passesLocked(from, to *Host) bool {
	return !from.unplugged && !to.unplugged && !n.cut[link{from.name, to.name}]
}

// at finds the machine with an address; nil when there is none.
func (n *Network) at(address string) (*Host, uint16, error) {
	parsed, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, 0, err
	}
	for _, h := range n.hosts {
		if h.addr == parsed.Addr() {
			return h, parsed.Port(), nil
		}
	}
	return nil, parsed.Port(), nil
}

// send decides what becomes of one packet.
func (n *Network) send(from *Transport, b []byte, address string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	to, port, err := n.at(address)
	if err != nil {
		return err
	}
	n.counts.Sent++
	n.counts.Bytes += len(b)
	switch {
	case to == nil || !n.passesLocked(from.host, to):
		n.counts.Cut++
		return nil
	case n.random.Float64() < n.faults.Loss:
		n.counts.Lost++
		return nil
	}
	copies := 1
	if n.random.Float64() < n.faults.Duplicate {
		copies = 2
	}
	for range copies {
		packet := slices.Clone(b)
		time.AfterFunc(n.delayLocked(true), func() { n.deliver(from, to, port, packet) })
	}
	return nil
}

func (n *Network) delayLocked(reorder bool) time.Duration {
	d := n.faults.Delay
	if n.faults.Jitter > 0 {
		d += time.Duration(n.random.Int64N(int64(n.faults.Jitter)))
	}
	if reorder && n.faults.ReorderBy > 0 && n.random.Float64() < n.faults.Reorder {
		d += time.Duration(n.random.Int64N(int64(n.faults.ReorderBy)))
	}
	return d
}

func (n *Network) delay() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.delayLocked(false)
}

// deliver hands a packet over, unless the link was cut while it was on its way.
func (n *Network) deliver(from *Transport, to *Host, port uint16, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := to.ports[port]
	if t == nil || !n.passesLocked(from.host, to) {
		n.counts.Cut++
		return
	}
	if t.take(b, from.addr()) {
		n.counts.Delivered++
	} else {
		n.counts.Overflow++
	}
}

// Host is one machine.
type Host struct {
	network *Network
	name    string
	addr    netip.Addr
	// Guarded by the network's lock.
	unplugged bool
	ports     map[uint16]*Transport
	ephemeral uint16
}

// Addr is the machine's only address.
func (h *Host) Addr() netip.Addr { return h.addr }

// Unplug takes the machine off the network without a word to anybody, as a power cut does; what runs on it may still be closed.
// It is for ever: make another Host of the same name.
func (h *Host) Unplug() { h.network.change(func() { h.unplugged = true }) }

// Transport listens on a port, until it is shut down.
func (h *Host) Transport(port uint16) (*Transport, error) {
	h.network.mu.Lock()
	defer h.network.mu.Unlock()
	if h.ports[port] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: errors.New("address already in use")}
	}
	t := newTransport(h, port)
	h.ports[port] = t
	return t, nil
}
