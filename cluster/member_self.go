package cluster

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
)

// declared is what this host last said of itself, and how often it may do so: two hosts of one name would otherwise outbid each
// other for ever.
type declared struct {
	notice      Notice
	fingerprint [32]byte // of the certificate that it was, or could not be, said with
	count       int
	last        time.Time
}

// freeRaises are the first corrections in a row, which are made at once; after them the wait doubles.
const (
	freeRaises  = 3
	firstPause  = 10 * time.Second
	longestWait = 10 * time.Minute
)

func (d declared) mayRaise(self Signer, now time.Time) bool {
	if d.count < freeRaises || d.fingerprint != self.Fingerprint {
		return true
	}
	pause := min(firstPause<<min(d.count-freeRaises, 10), longestWait)
	return now.Sub(d.last) >= pause
}

// again counts a correction.
func (d *declared) again(self Signer, now time.Time) {
	if now.Sub(d.last) > 2*longestWait || d.fingerprint != self.Fingerprint {
		d.count = 0
	}
	d.count, d.last, d.fingerprint = d.count+1, now, self.Fingerprint
}

// settle makes this host's own word the highest of all about it: when it is new here, has come back, was reaped or admitted, has a
// new certificate, or lost its disk and hears what it said before. A host that is deleted stays silent.
func (m *Membership) settle() error {
	m.raising.Lock()
	defer m.raising.Unlock()
	if m.leaving.Load() {
		return nil
	}
	self, err := m.roster.auth.Self()
	if err != nil {
		return err
	}
	if !shouldRaise(m.roster.word(m.config.Node), m.declared.notice, self) || !m.declared.mayRaise(self, time.Now()) {
		return nil // the rejoin loop comes by again
	}
	return m.raise()
}

func shouldRaise(w word, said Notice, self Signer) bool {
	own, d := w[voiceSelf], w[voiceDoors]
	if d.State == RosterDeleted && d.Entry > 0 && self.Issued <= d.Issued {
		return false
	}
	return own.Entry == 0 || w.standing("").State != RosterMember || own.Entry < w.standing("").Entry || own.Fingerprint != self.Fingerprint || own.outdates(said)
}

// Raise makes this host's entry in the roster higher than all that was said of it, so that all agree about it anew
// (ROLLOUT.md), and tells the others. It returns when that is on disk.
func (m *Membership) Raise() error {
	m.raising.Lock()
	defer m.raising.Unlock()
	return m.raise()
}

// raise is called with raising held. The error is errOlderCertificate when this host may not speak for itself.
func (m *Membership) raise() error {
	self, err := m.roster.auth.Self()
	if err != nil {
		return err
	}
	n, err := m.roster.Say(m.config.Node, RosterMember)
	if err != nil && !errors.Is(err, errOlderCertificate) {
		return err
	}
	m.declared.again(self, time.Now())
	if err != nil {
		return err
	}
	m.declared.notice = n
	m.tell(n)
	m.changed()
	if m.list == nil || n.Fingerprint == m.signedBy { // at the start it is signed later
		return nil
	}
	if err := m.sign(); err != nil {
		return err
	}
	m.tellMeta()
	return nil
}

// tellMeta tells others what this host says of itself now; when too many are being called, the rejoin loop does so.
func (m *Membership) tellMeta() {
	started := m.calls.TryGo(func() error {
		if err := m.list.UpdateNode(m.profile.leaveTimeout); err != nil && m.ctx.Err() == nil {
			m.log.Warn("what this host says of itself is told late", "err", err)
		}
		return nil
	})
	m.untold.Store(!started)
}

// Delete takes another host out of the fleet: its certificate, and every older one, is refused from then on. This host must be a
// door.
func (m *Membership) Delete(node string) error { return m.judge(node, RosterDeleted) }

// Admit takes a deleted host back with the certificate it has. This host must be a door.
func (m *Membership) Admit(node string) error {
	if node == m.config.Node {
		return errors.New("cannot admit this host: another one must say so")
	}
	return m.judge(node, RosterMember)
}

func (m *Membership) judge(node string, state RosterState) error {
	n, err := m.roster.Say(node, state)
	if err != nil {
		return err
	}
	m.tell(n)
	m.changed()
	return nil
}

// tellAtOnce calls some hosts, so that the news does not depend on this host's staying.
func (m *Membership) tellAtOnce(ctx context.Context, n Notice) {
	m.tell(n)
	message := append([]byte{kindNotices}, encodeNotice(n)...)
	done := make(chan struct{}, joinAtOnce)
	told := 0
	for node, addr := range m.others() {
		if told == joinAtOnce {
			break
		}
		to := &memberlist.Node{Name: node, Addr: addr.Addr().AsSlice(), Port: addr.Port()}
		if m.calls.TryGo(func() error {
			_ = m.list.SendReliable(to, message)
			done <- struct{}{}
			return nil
		}) {
			told++
		}
	}
	for range told {
		select {
		case <-done:
		case <-ctx.Done():
			return
		case <-time.After(m.profile.leaveTimeout):
			return
		}
	}
}

// others are the hosts that are alive, in no order.
func (m *Membership) others() map[string]netip.AddrPort {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[string]netip.AddrPort{}
	for node, p := range m.peers {
		if p.alive && node != m.config.Node {
			all[node] = p.addr
		}
	}
	return all
}

func (m *Membership) ownAddress() netip.AddrPort {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.me
}

// live begins a new incarnation above floor, on disk before anybody is told.
func (m *Membership) live(floor uint64) error {
	incarnation, err := m.incarnation.NextAbove(floor)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.life = incarnation
	m.mu.Unlock()
	return m.sign()
}

// sign makes what this host says of itself (member_proof.go). It is called with raising held, but for the start.
func (m *Membership) sign() error {
	m.mu.Lock()
	about := meta{node: m.config.Node, api: m.config.API, incarnation: m.life, at: m.me}
	m.mu.Unlock()
	var by [32]byte
	signature, err := m.roster.auth.Sign(func(self Signer, _ []byte) []byte {
		by = self.Fingerprint
		return about.signedPart(m.config.Fleet)
	})
	if err != nil {
		return err
	}
	about.signature = string(signature)
	b, err := encodeMeta(about)
	if err != nil {
		return err
	}
	m.meta.Store(&b)
	m.signedBy = by
	return nil
}

// otherLife is an incarnation of this host, heard from others, that is not this one: above it, or any on an empty disk.
type otherLife struct{ incarnation uint64 }

// outlive begins a new life above one that others remember, with a new entry: the disk was lost, or is an old copy.
func (m *Membership) outlive(o otherLife) error {
	m.mu.Lock()
	life, newborn := m.life, m.newborn
	m.newborn = false
	m.mu.Unlock()
	if o.incarnation <= life && !newborn {
		return nil
	}
	if o.incarnation > life && o.incarnation-life > maxAhead {
		m.stats.refusedAlive.Add(1)
		return errors.New("others say that it is far ahead")
	}
	m.log.Warn("others remember another life of this host: its state was lost or is an old copy", "incarnation", o.incarnation)
	m.raising.Lock()
	defer m.raising.Unlock()
	if err := errors.Join(m.live(o.incarnation), m.raise()); err != nil {
		return err
	}
	m.tellMeta()
	return nil
}
