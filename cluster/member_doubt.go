package cluster

import (
	"net/netip"
	"time"
)

// memberlist's word that a host is dead is anybody's word: whoever has the gossip key can say it of any host at any time, and so
// can a host with a bad link. So a member is asked once more, where it was last, before it is failed here. One that answers is
// doubted: it stays alive as long as it answers, and states are exchanged with it until memberlist has it back.

// pingsOfDoubt are sent to a host before it is failed, pingApart after each other: all of them are lost more seldom than one.
const (
	pingsOfDoubt = 3
	pingApart    = 50 * time.Millisecond
)

// callEvery is after how many rounds, of a probe interval each, states are exchanged with it again.
const callEvery = 10

// saidDead is an event: memberlist has this host dead.
type saidDead struct {
	node string
	addr netip.AddrPort
}

// mayDoubt says whether a host that memberlist has dead is worth asking, with mu held. Strangers, and hosts that said with their
// signature that they leave, are not.
func (m *Membership) mayDoubt(p *peer, standing Standing, listed bool) bool {
	return p.alive && listed && standing.State < RosterLeft && p.addr.IsValid() && !m.leaving.Load() && m.ctx.Err() == nil
}

// askAgain is called with mu held; false when it cannot be asked now.
func (m *Membership) askAgain(node string, p *peer) bool {
	select {
	case m.events <- saidDead{node: node, addr: p.addr}:
		p.doubted = true
	default:
		m.stats.dropped.Add(1)
	}
	return p.doubted
}

// resolveDoubt ends when the host is failed, has left, moved, or is back.
func (m *Membership) resolveDoubt(d saidDead) {
	for round := 0; ; round++ {
		answered := m.answers(d)
		if m.ctx.Err() != nil || !m.stillDoubted(d) {
			return
		}
		if s, _ := m.roster.Standing(d.node); !answered || s.State >= RosterLeft {
			m.fail(d)
			return
		}
		if round == 0 {
			m.stats.falseDeaths.Add(1)
			m.log.Warn("memberlist has a host dead that answers: its link is bad, or somebody says it falsely", "node", d.node, "at", d.addr)
		}
		if round%callEvery == 0 { // once may not be enough: the call is lost, or somebody says it again
			m.call(d.addr)
		}
		select {
		case <-time.After(m.profile.list().ProbeInterval):
		case <-m.ctx.Done():
		}
	}
}

// answers asks a host a few times at once.
func (m *Membership) answers(d saidDead) bool {
	answer := make(chan bool, pingsOfDoubt)
	for i := range pingsOfDoubt {
		m.doubts.Go(func() {
			time.Sleep(time.Duration(i) * pingApart)
			_, err := m.Ping(d.node)
			answer <- err == nil
		})
	}
	for range pingsOfDoubt {
		if <-answer {
			return true
		}
	}
	return false
}

func (m *Membership) stillDoubted(d saidDead) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[d.node]
	return p != nil && p.doubted && p.addr == d.addr
}

// fail is memberlist's word, believed.
func (m *Membership) fail(d saidDead) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[d.node]; p != nil && p.doubted {
		p.doubted, p.alive, p.since = false, false, time.Now()
		m.changed()
	}
}
