package cluster

import (
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
)

// Whoever has the gossip key can say in any host's name that it is alive, where, and where its API is. But a host's own notice in the
// roster, which it has signed, says so too, and of a host of the roster nothing else is believed. It is signed there and not in every
// sign of life, for these are most of what a fleet sends. A sign of life may come before its notice or after it: a host that was
// believed, and is where it was, stays alive meanwhile; one that was refused is called when its notice has come.

// claim is what was said in a host's name.
type claim struct {
	about meta
	at    netip.AddrPort
}

func claimOf(n *memberlist.Node, about meta) claim {
	return claim{about: about, at: addrPort(n.Addr, n.Port)}
}

// proves says whether the host itself has signed what is claimed. The incarnation is not signed: it is only shown.
func (n Notice) proves(c claim) bool { return n.Entry > 0 && n.At == c.at && n.API == c.about.api }

func (m *Membership) proven(node string, c claim) bool {
	return m.roster.word(node)[voiceSelf].proves(c)
}

// believe takes in memberlist's word that a host is alive; listed is that it is in the roster. mu is held.
func (p *peer) believe(c claim, listed, proven bool) {
	p.claim = c
	switch {
	case proven || !listed:
		p.alive, p.held, p.proven, p.addr, p.meta = true, false, proven, c.at, c.about
	case !p.alive || !p.proven: // it was let in before the roster said whose name it is
		p.alive, p.held, p.meta = false, true, meta{}
	}
}

// hearAgain looks once more at what was said in a host's name, after its notice has changed.
func (m *Membership) hearAgain(node string) {
	if node == m.config.Node {
		return
	}
	own, now := m.roster.word(node)[voiceSelf], time.Now()
	m.mu.Lock()
	p := m.peers[node]
	if p == nil {
		m.mu.Unlock()
		return
	}
	was := p.alive
	if p.alive || p.held {
		p.believe(p.claim, true, own.proves(p.claim))
	}
	if p.alive != was {
		p.since = now
	}
	call, taken, at := !p.alive && own.proves(p.refused), was && p.held, p.refused.at
	m.mu.Unlock()
	if taken {
		m.stats.refusedAlive.Add(1)
		m.log.Warn("somebody has taken a host's name", "node", node)
	}
	if call {
		m.call(at)
	}
}
