package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/hashicorp/memberlist"
)

// The kinds of messages, the first byte of each.
const (
	kindNotices  = 1  // notices of the roster
	kindConflict = 2  // two hosts have the receiver's name
	kindSummary  = 3  // what the sender has of the roster
	kindUser     = 16 // a broadcast of the agent's
)

// delegate is what memberlist calls. It calls with its own locks held and in its packet loop: nothing here blocks, calls
// memberlist or writes to disk; what is to be done goes to the loop. Only MergeRemoteState comes in a goroutine of its own.
type delegate struct{ m *Membership }

var _ interface {
	memberlist.Delegate
	memberlist.EventDelegate
	memberlist.ConflictDelegate
	memberlist.PingDelegate
	memberlist.AliveDelegate
} = delegate{}

// NodeMeta is what others hear with this host's name. Its size was checked when it was made.
func (d delegate) NodeMeta(int) []byte { return *d.m.meta.Load() }

// NotifyMsg copies: memberlist uses the memory again.
func (d delegate) NotifyMsg(b []byte) {
	m := d.m
	m.stats.received.Add(1)
	switch {
	case len(b) == 0 || len(b) > maxBulk:
		m.stats.malformed.Add(1)
	case b[0] == kindUser && len(b) > packetSize:
		m.stats.malformed.Add(1) // nobody broadcasts it: it came over a stream
	case b[0] == kindUser:
		offer(m.user, slices.Clone(b[1:]), &m.stats.dropped)
	case len(b) > packetSize:
		offer(m.bulk, slices.Clone(b), &m.stats.dropped)
	default:
		offer(m.inbox, slices.Clone(b), &m.stats.dropped)
	}
}

// offer hands over or counts.
func offer[T any](to chan<- T, v T, dropped *atomic.Uint64) {
	select {
	case to <- v:
	default:
		dropped.Add(1)
	}
}

func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.m.queues.take(overhead, limit)
}

// LocalState goes along with every push/pull: no state, but what shows whether any is missing.
func (d delegate) LocalState(bool) []byte {
	m := d.m
	m.mu.Lock()
	me := m.me
	m.mu.Unlock()
	return encodeHello(hello{node: m.config.Node, addr: me, digest: m.roster.Digest(), has: m.replicaDigest(), keys: m.keys.fingerprints()})
}

func (d delegate) MergeRemoteState(b []byte, _ bool) {
	h, err := decodeHello(b)
	if err != nil {
		d.m.stats.malformed.Add(1)
		return
	}
	offer(d.m.events, any(h), &d.m.stats.dropped)
}

// handle is the loop: it alone writes to disk what others say.
func (m *Membership) handle() {
	for {
		select {
		case b := <-m.inbox:
			m.receive(b)
		case b := <-m.bulk:
			m.receive(b)
		case e := <-m.events:
			m.react(e)
		case <-m.ctx.Done():
			return
		}
	}
}

func (m *Membership) receive(b []byte) {
	var err error
	switch b[0] {
	case kindNotices:
		err = m.learn(b[1:])
	case kindConflict:
		err = m.hearConflict(b[1:])
	case kindSummary:
		err = m.answerSummary(b[1:])
	default:
		err = fmt.Errorf("it has kind %d", b[0])
	}
	if err != nil {
		m.stats.malformed.Add(1)
		m.log.Debug("a message from another host is not used", "err", err)
	}
}

func (m *Membership) react(event any) {
	switch e := event.(type) {
	case hello:
		m.greet(e)
	case conflict:
		m.seeConflict(e)
	case saidDead:
		m.doubts.Go(func() { m.resolveDoubt(e) })
	case otherLife:
		if err := m.outlive(e); err != nil {
			m.log.Error("this host's incarnation cannot be raised", "err", err)
		}
	}
}

// maxRelayed is how much news at once is told on; beyond it hosts find it by comparing.
const maxRelayed = 64

// learn merges notices and tells on what was new.
func (m *Membership) learn(b []byte) error {
	notices, err := decodeNotices(b)
	if err != nil {
		return err
	}
	changed, refused, err := m.roster.Merge(notices)
	m.stats.refuse(refused)
	if err != nil {
		m.log.Error("news of the roster is not kept", "err", err)
		return nil
	}
	for _, n := range changed {
		if n.voice() == voiceSelf {
			m.hearAgain(n.Node)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	if len(changed) <= maxRelayed {
		for _, n := range changed {
			m.tell(n)
		}
	}
	if err := m.settle(); err != nil {
		m.log.Error("this host's place in the roster cannot be kept", "err", err)
	}
	m.changed()
	return nil
}

// tell spreads a notice by gossip. One that is too large for that is found by comparing, and counted.
func (m *Membership) tell(n Notice) {
	name := fmt.Sprintf("%d/%d/%s", n.voice(), n.Issued, n.Node) // a word of an older certificate takes nobody's place
	if err := m.queues.add(&m.queues.roster, name, kindNotices, encodeNotice(n)); err != nil {
		m.log.Warn("a notice of the roster is not told by gossip", "node", n.Node, "err", err)
	}
}

// hello is a host's part of a push/pull.
type hello struct {
	node   string
	addr   netip.AddrPort
	digest [32]byte         // of its roster
	has    [digestSize]byte // of its replicated sets
	keys   []string         // fingerprints of its gossip keys, the first encrypts
}

const (
	helloFormat = 1
	// maxFingerprint bounds what a host says of one of its keys.
	maxFingerprint = 64
	maxHello       = 4 << 10
)

func encodeHello(h hello) []byte {
	b := appendBytes([]byte{helloFormat}, h.node)
	b = appendBytes(b, h.addr.String())
	b = append(b, h.digest[:]...)
	b = append(b, h.has[:]...)
	b = binary.AppendUvarint(b, uint64(len(h.keys)))
	for _, key := range h.keys {
		b = appendBytes(b, key)
	}
	return b
}

func decodeHello(b []byte) (hello, error) {
	if len(b) == 0 || len(b) > maxHello || b[0] != helloFormat {
		return hello{}, errors.New("a push/pull of another format")
	}
	r := &fields{rest: b[1:]}
	h := hello{node: string(r.bytes())}
	addr := string(r.bytes())
	copy(h.digest[:], r.take(uint64(len(h.digest))))
	copy(h.has[:], r.take(uint64(len(h.has))))
	n := r.uvarint()
	for i := uint64(0); i < n && i < maxKeys && !r.bad; i++ {
		h.keys = append(h.keys, string(r.bytes()))
	}
	long := slices.ContainsFunc(h.keys, func(key string) bool { return len(key) > maxFingerprint })
	var err error
	if h.addr, err = netip.ParseAddrPort(addr); err != nil || r.bad || n > maxKeys || long || h.node == "" || len(h.node) > maxNameLength {
		return hello{}, errors.New("a push/pull that cannot be read")
	}
	return h, nil
}

// greet looks what another host has that this one has not.
func (m *Membership) greet(h hello) {
	if h.node == m.config.Node {
		return // a push/pull with itself, or with a twin
	}
	m.once.Do(func() { close(m.joined) })
	m.compareKeys(h)
	if c := m.comparison.Load(); c != nil && c.digest() != h.has {
		c.differs(h.node)
	}
	if h.digest == m.roster.Digest() {
		return
	}
	m.stats.exchanges.Add(1)
	b := encodeSummary(m.config.Node, m.ownAddress(), m.roster.summary())
	m.send(h.node, h.addr, append([]byte{kindSummary}, b...))
}

// compareKeys says when two hosts have different gossip keys: a stale file must not win, or lose, in silence.
func (m *Membership) compareKeys(h hello) {
	mine := m.keys.fingerprints()
	m.mu.Lock()
	p := m.peers[h.node]
	told := p == nil || slices.Equal(p.keys, h.keys)
	if p != nil {
		p.keys = h.keys // but it is no sign of life: whoever has the gossip key can say it
	}
	m.mu.Unlock()
	if !told && !slices.Equal(mine, h.keys) {
		m.log.Warn("another host has other gossip keys: a change is under way, or one of the files is stale", "node", h.node, "its", h.keys, "mine", mine)
	}
}

// encodeSummary is of a host's roster, with where the host is.
func encodeSummary(node string, addr netip.AddrPort, marks []byte) []byte {
	return append(appendBytes(appendBytes(nil, node), addr.String()), marks...)
}

func decodeSummary(b []byte) (node string, addr netip.AddrPort, marks map[mark]bool, err error) {
	r := &fields{rest: b}
	node = string(r.bytes())
	if addr, err = netip.ParseAddrPort(string(r.bytes())); err != nil || r.bad || len(node) > maxNameLength {
		return "", addr, nil, errors.New("a summary that cannot be read")
	}
	marks, err = decodeMarks(r.rest)
	return node, addr, marks, err
}

// answerSummary sends what the other lacks. What this host lacks the other sends by itself: it got the same push/pull.
func (m *Membership) answerSummary(b []byte) error {
	node, addr, marks, err := decodeSummary(b)
	if err != nil {
		return err
	}
	batch := []byte{kindNotices}
	for _, n := range m.roster.lacking(marks) {
		batch = append(batch, encodeNotice(n)...)
		if len(batch) > maxBulk/2 {
			m.send(node, addr, batch)
			batch = []byte{kindNotices}
		}
	}
	if len(batch) > 1 {
		m.send(node, addr, batch)
	}
	return nil
}

// send calls another host and gives it a message; what cannot be sent, or is too much, waits for the next comparison.
func (m *Membership) send(node string, addr netip.AddrPort, message []byte) {
	to := &memberlist.Node{Name: node, Addr: addr.Addr().AsSlice(), Port: addr.Port()}
	started := m.calls.TryGo(func() error {
		if err := m.list.SendReliable(to, message); err != nil && m.ctx.Err() == nil {
			m.stats.failedCalls.Add(1)
			m.log.Debug("a message was not sent", "node", node, "err", err)
		}
		return nil
	})
	if !started {
		m.stats.failedCalls.Add(1)
	}
}
