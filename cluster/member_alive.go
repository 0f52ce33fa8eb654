package cluster

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// maxStrangers bounds the hosts that are heard and in no roster yet: names are cheap for whoever has the gossip key, and
	// memberlist asks all of them in turn whether they are alive. A host's notice comes within a moment of the host; when many
	// join in one moment, those that were turned away are heard in the next round.
	maxStrangers = 32
	// strangerRest is how long a stranger that is gone takes its place: memberlist remembers it about that long.
	strangerRest = 2 * time.Minute
)

// NotifyAlive refuses hosts that were deleted and what no host of ours says, and hears what is said of this one.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	m := d.m
	about, err := plausible(n)
	switch {
	case err != nil:
	case n.Name == m.config.Node:
		m.hearOfSelf(addrPort(n.Addr, n.Port), about.incarnation)
	default:
		err = m.admissible(n.Name, claimOf(n, about))
	}
	switch {
	case errors.Is(err, errTurnedAway):
		m.turnedAway.Store(true)
		m.stats.turnedAway.Add(1)
	case err != nil:
		m.stats.refusedAlive.Add(1)
	}
	return err
}

var errTurnedAway = errors.New("too many hosts are heard that are in no roster")

// plausible refuses what no host of ours says of itself, whoever it is.
func plausible(n *memberlist.Node) (meta, error) {
	about, err := decodeMeta(n.Meta)
	switch {
	case err != nil:
		return meta{}, err
	case len(n.Meta) > memberlist.MetaMaxSize || len(n.Name) > maxNameLength:
		return meta{}, errors.New("it says too much of itself")
	case about.node != n.Name:
		return meta{}, fmt.Errorf("it says that its name is %q", about.node)
	case !addrPort(n.Addr, n.Port).IsValid():
		return meta{}, errors.New("its address is none")
	case !speaksOurs(n):
		// One host of another version would end all push/pulls of all who know it.
		return meta{}, errors.New("it speaks another version of memberlist's protocol")
	}
	return about, nil
}

func speaksOurs(n *memberlist.Node) bool {
	const protocol, ours = memberlist.ProtocolVersion2Compatible, 0 // of the delegate
	return n.PMin <= protocol && n.PCur == protocol && n.PMax >= protocol && n.DMin <= ours && n.DCur == ours
}

var errUnproven = errors.New("the host of this name has not signed in the roster that it is there")

// admissible refuses deleted hosts, strangers beyond a bound, another address of a host that answers at the known one, and what is
// said in the name of a host of the roster and is not proven; but a host that is alive may say so again.
func (m *Membership) admissible(node string, c claim) error {
	s, listed := m.roster.Standing(node)
	if listed && s.State == RosterDeleted {
		return errors.New("it was deleted")
	}
	proven := m.proven(node, c)
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[node]
	switch {
	case p != nil && p.doubted && p.addr != c.at:
		offer(m.events, any(conflict{node: node, addresses: [2]netip.AddrPort{p.addr, c.at}}), &m.stats.dropped)
		return errors.New("it answers at another address")
	case !listed:
		return m.meetStranger(node, time.Now())
	case proven, p != nil && p.alive && p.proven && p.addr == c.at:
		delete(m.strangers, node)
		return nil
	}
	m.refuse(node, c)
	return errUnproven
}

// refuse remembers what may turn out to be true, with mu held.
func (m *Membership) refuse(node string, c claim) {
	p := m.peers[node]
	if p == nil {
		p = &peer{since: time.Now()}
		m.peers[node] = p
	}
	p.refused = c
	if p.alive && p.addr != c.at {
		m.stats.conflicts.Add(1)
		offer(m.events, any(conflict{node: node, addresses: [2]netip.AddrPort{p.addr, c.at}}), &m.stats.dropped)
	}
}

// meetStranger is called with mu held.
func (m *Membership) meetStranger(node string, now time.Time) error {
	if _, met := m.strangers[node]; !met && len(m.strangers) >= maxStrangers {
		for name, at := range m.strangers {
			if p := m.peers[name]; (p == nil || !p.alive) && now.Sub(at) > strangerRest {
				delete(m.strangers, name)
			}
		}
		if len(m.strangers) >= maxStrangers {
			return errTurnedAway
		}
	}
	m.strangers[node] = now
	return nil
}

// hearOfSelf notices another life of this host.
func (m *Membership) hearOfSelf(at netip.AddrPort, incarnation uint64) {
	m.mu.Lock()
	later := m.me == at && incarnation > m.life
	earlier := m.newborn && incarnation != m.life
	m.mu.Unlock()
	if later || earlier {
		offer(m.events, any(otherLife{incarnation}), &m.stats.dropped)
	}
}
