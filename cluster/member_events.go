package cluster

import (
	"errors"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
)

// NotifyJoin hears of a host that is alive, this one too.
func (d delegate) NotifyJoin(n *memberlist.Node) { d.m.note(n, true) }

// NotifyUpdate hears of a host that says something new of itself.
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.m.note(n, true) }

// NotifyLeave hears of a host that failed or left: memberlist does not say which, the roster does.
func (d delegate) NotifyLeave(n *memberlist.Node) { d.m.note(n, false) }

func (m *Membership) note(n *memberlist.Node, alive bool) {
	about, err := decodeMeta(n.Meta)
	if err != nil {
		return // NotifyAlive has refused and counted it
	}
	c := claimOf(n, about)
	standing, listed := m.roster.Standing(n.Name)
	proven := m.proven(n.Name, c) || n.Name == m.config.Node
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[n.Name]
	if p == nil {
		p = &peer{since: now}
		m.peers[n.Name] = p
	}
	if !alive && m.mayDoubt(p, standing, listed) && m.askAgain(n.Name, p) {
		return
	}
	was := p.alive
	p.doubted = false
	if alive {
		p.believe(c, listed, proven)
	} else {
		p.alive, p.held = false, false
	}
	if p.alive != was {
		p.since = now
	}
	switch {
	case n.Name == m.config.Node:
		m.me = p.addr
	case p.alive:
		p.heard = now
	case !listed:
		delete(m.peers, n.Name) // whoever has the gossip key can name as many as it likes
	}
	m.changed()
}

// NotifyPingComplete hears a host's own answer.
func (d delegate) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, _ []byte) {
	now := time.Now()
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if p := d.m.peers[n.Name]; p != nil && !p.held {
		p.heard, p.rtt = now, rtt
	}
}

// AckPayload is nothing.
func (delegate) AckPayload() []byte { return nil }

// Conflict is two addresses from which hosts of one name were heard.
type Conflict struct {
	Node      string
	Addresses [2]netip.AddrPort // the one that counts, and the other
	Since     time.Time
	Last      time.Time

	told time.Time
}

type conflict struct {
	node      string
	addresses [2]netip.AddrPort
}

// NotifyConflict hears of a host under another address than the known one, which is alive or was a moment ago.
func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.m.stats.conflicts.Add(1)
	c := conflict{node: existing.Name, addresses: [2]netip.AddrPort{addrPort(existing.Addr, existing.Port), addrPort(other.Addr, other.Port)}}
	offer(d.m.events, any(c), &d.m.stats.dropped)
}

const (
	// conflictEvery is how often a conflict is told, conflictGone how long after its last sign it is over.
	conflictEvery = 10 * time.Second
	conflictGone  = 45 * time.Second
	// conflictSettles is how long a host that came back with another address may take to be found failed at the old one.
	conflictSettles = 20 * time.Second
	// maxConflicts bounds what is remembered: names are cheap for whoever has the gossip key.
	maxConflicts = 64
)

// seeConflict says it here, and tells both hosts of the name: neither of them may have heard the other.
func (m *Membership) seeConflict(c conflict) {
	if !m.rememberConflict(c) || c.node == m.config.Node {
		return
	}
	b := append([]byte{kindConflict}, encodeConflict(c)...)
	for _, a := range c.addresses {
		if err := m.list.SendToAddress(memberlist.Address{Addr: a.String(), Name: c.node}, b); err != nil {
			m.log.Debug("a host was not told that its name is taken twice", "node", c.node, "err", err)
		}
	}
}

// hearConflict is another host's word that this one's name is taken twice.
func (m *Membership) hearConflict(b []byte) error {
	c, err := decodeConflict(b)
	if err == nil && c.node == m.config.Node {
		m.stats.conflicts.Add(1)
		m.rememberConflict(c)
	}
	return err
}

func encodeConflict(c conflict) []byte {
	b := appendBytes(nil, c.node)
	for _, a := range c.addresses {
		b = appendBytes(b, a.String())
	}
	return b
}

func decodeConflict(b []byte) (conflict, error) {
	r := &fields{rest: b}
	c := conflict{node: string(r.bytes())}
	var errs error
	for i := range c.addresses {
		var err error
		c.addresses[i], err = netip.ParseAddrPort(string(r.bytes()))
		errs = errors.Join(errs, err)
	}
	if errs != nil || r.bad || len(b) > packetSize {
		return conflict{}, errors.New("a conflict that cannot be read")
	}
	return c, nil
}

// rememberConflict logs, and is true, when it is time to tell it again.
func (m *Membership) rememberConflict(c conflict) bool {
	now := time.Now()
	m.mu.Lock()
	for node, known := range m.conflicts {
		if now.Sub(known.Last) > conflictGone {
			delete(m.conflicts, node)
		}
	}
	known, again := m.conflicts[c.node]
	if !again && len(m.conflicts) >= maxConflicts {
		m.mu.Unlock()
		return false
	}
	if !again {
		known = Conflict{Node: c.node, Since: now}
	}
	tell := now.Sub(known.told) >= conflictEvery
	if tell {
		known.told = now
	}
	known.Addresses, known.Last = c.addresses, now
	m.conflicts[c.node] = known
	m.mu.Unlock()
	if !tell {
		return false
	}
	m.changed()
	m.logConflict(known)
	return true
}

func (m *Membership) logConflict(c Conflict) {
	args := []any{"node", c.Node, "at", c.Addresses[0], "and", c.Addresses[1], "since", c.Since}
	switch {
	case c.Last.Sub(c.Since) < conflictSettles:
		m.log.Warn("a host is heard from two addresses: it has moved, or two hosts have one name", args...)
	case c.Node == m.config.Node:
		m.log.Error("another host has this host's name: give one of them another node.name", args...)
	default:
		m.log.Error("two hosts have one name: give one of them another node.name", args...)
	}
}
