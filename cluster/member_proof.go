package cluster

import (
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
)

// Whoever has the gossip key can say in any host's name that it is alive, where, and where its API is. So a host signs that, with the
// certificate of its own notice in the roster, and what is not signed so is not believed of a host that is in the roster. Words of a
// certificate that was just replaced may come before its notice or after it: a host that was believed, and is where it was, stays
// alive meanwhile, with what it said last; one that was refused is called when its notice has come.

// claim is what was said in a host's name.
type claim struct {
	raw   string // of about, as it came
	about meta
	at    netip.AddrPort
}

func claimOf(n *memberlist.Node, about meta) claim {
	return claim{raw: string(n.Meta), about: about, at: addrPort(n.Addr, n.Port)}
}

// proof is that a host said something: with which certificate it was signed.
type proof struct {
	raw string // "" is none
	by  [32]byte
}

// proven says whether the host itself says so. It is not called with mu held: to look at a signature takes a while.
func (m *Membership) proven(node string, c claim) (proof, bool) {
	own := m.roster.word(node)[voiceSelf]
	if own.Entry == 0 || c.about.at != c.at || c.about.node != node {
		return proof{}, false
	}
	found := proof{raw: c.raw, by: own.Fingerprint}
	m.mu.Lock()
	p := m.peers[node]
	known := p != nil && p.proof == found
	m.mu.Unlock()
	if known {
		return found, true
	}
	by, err := m.roster.auth.Verify(own.Credential, c.about.signedPart(m.config.Fleet), []byte(c.about.signature))
	return found, err == nil && by.Node == node
}

// believe takes in memberlist's word that a host is alive; trusted is that the host says so, or that it is in no roster. mu is held.
func (p *peer) believe(c claim, trusted bool, by proof) {
	p.claim = c
	switch {
	case trusted:
		p.alive, p.held, p.addr, p.meta, p.proof = true, false, c.at, c.about, by
	case p.alive && p.proof.raw != "":
	default:
		p.holdBack()
	}
}

// holdBack is for who was let in before the roster said whose name it is. mu is held.
func (p *peer) holdBack() { p.alive, p.held, p.meta = false, true, meta{} }

// hearAgain looks once more at what was said in a host's name, after its notice has changed.
func (m *Membership) hearAgain(node string) {
	m.mu.Lock()
	var was peer
	if p := m.peers[node]; p != nil {
		was = *p
	}
	m.mu.Unlock()
	if node == m.config.Node {
		return
	}
	if was.alive || was.held {
		by, proven := m.proven(node, was.claim)
		m.judgeAgain(node, was.claim, by, proven)
	}
	if _, proven := m.proven(node, was.refused); proven && !was.alive {
		m.call(was.refused.at)
	}
}

func (m *Membership) judgeAgain(node string, c claim, by proof, proven bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[node]
	if p == nil || p.claim != c || !p.alive && !p.held {
		return
	}
	alive, now := p.alive, time.Now()
	if p.believe(c, proven, by); p.alive != alive {
		p.since = now
	}
	if p.held {
		m.stats.refusedAlive.Add(1)
		m.log.Warn("somebody takes a host's name", "node", node, "at", c.at)
	}
}
