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
// new certificate or address, or lost its disk and hears what it said before. A host that is deleted stays silent.
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
	now := Notice{Fingerprint: self.Fingerprint, Issued: self.Issued, At: m.ownAddress(), API: m.config.API}
	if !shouldRaise(m.roster.word(m.config.Node), m.declared.notice, now) || !m.declared.mayRaise(self, time.Now()) {
		return nil // the rejoin loop comes by again
	}
	return m.raise()
}

// shouldRaise compares what others know with what this host said last and with what it would say now.
func shouldRaise(w word, said, now Notice) bool {
	own, d := w[voiceSelf], w[voiceDoors]
	if d.State == RosterDeleted && d.Entry > 0 && now.Issued <= d.Issued {
		return false
	}
	standing := w.standing("")
	return own.Entry == 0 || standing.State != RosterMember || own.Entry < standing.Entry || own.outdates(said) ||
		own.Fingerprint != now.Fingerprint || own.At != now.At || own.API != now.API
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
	return nil
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
	b, err := encodeMeta(meta{node: m.config.Node, api: m.config.API, incarnation: incarnation})
	if err != nil {
		return err
	}
	m.meta.Store(&b)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.life = incarnation
	return nil
}

// otherLife is an incarnation of this host, heard from others, that is not this one: above it, or any on an empty disk.
type otherLife struct{ incarnation uint64 }

// outlive begins a new life above one that others remember, with a new entry: the disk was lost, or is an old copy. That is anybody's
// word, so the entry is raised for it once and not again.
func (m *Membership) outlive(o otherLife) error {
	m.mu.Lock()
	life, newborn, outlived := m.life, m.newborn, m.outlived
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
	if err := m.live(o.incarnation); err != nil {
		return err
	}
	if !outlived {
		if err := m.Raise(); err != nil {
			return err
		}
		m.mu.Lock()
		m.outlived = true
		m.mu.Unlock()
	}
	m.calls.TryGo(func() error {
		if err := m.list.UpdateNode(m.profile.leaveTimeout); err != nil && m.ctx.Err() == nil {
			m.log.Warn("this host's new incarnation is told late", "err", err)
		}
		return nil
	})
	return nil
}
