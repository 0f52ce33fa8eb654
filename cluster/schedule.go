package cluster

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"
)

// listed says whether a host is in the fleet. Whoever has the gossip key can make hosts appear, as many as it likes: they are nobody.
func (r *Replication) listed(node string) bool {
	standing, ok := r.config.Membership.roster.Standing(node)
	return ok && standing.State < RosterLeft
}

// neighbours are those of this moment. With hosts that have become neighbours a comparison is due.
func (r *Replication) neighbours() []string {
	epoch := r.config.Membership.epoch.Load()
	r.mu.Lock()
	near, at, looked := r.near, r.nearAt, r.looked
	r.mu.Unlock()
	if at == epoch+1 || time.Since(looked) < lookEvery {
		return near
	}
	r.reconsider()
	now := neighbours(r.config.Node, r.members())
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, node := range now {
		if !slices.Contains(r.near, node) {
			r.dealt(node).renewed(time.Now())
		}
	}
	r.forgive()
	r.near, r.nearAt, r.looked = now, epoch+1, time.Now() // 0 is before the first look
	return now
}

// forgive lets calls begin anew with hosts that have raised their entry, and with all when this host has: it may be admitted, or have
// a new certificate. The lock is held.
func (r *Replication) forgive() {
	roster := r.config.Membership.roster
	own, _ := roster.Standing(r.config.Node)
	for node, d := range r.hosts {
		is, _ := roster.Standing(node)
		if d.failures > 0 && (is.Entry != d.entry || own.Entry != r.entry) {
			d.renewed(time.Now())
		}
		d.entry = is.Entry
	}
	r.entry = own.Entry
}

// lookedSince says whether the neighbours are those of an epoch of the Membership.
func (r *Replication) lookedSince(epoch uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nearAt == epoch+1
}

// members are the other hosts of the fleet that are heard, sorted.
func (r *Replication) members() []string {
	var names []string
	for node := range r.config.Membership.others() {
		if r.listed(node) {
			names = append(names, node)
		}
	}
	slices.Sort(names)
	return names
}

// compareNext makes the regular comparison due.
func (r *Replication) compareNext(now time.Time) {
	near := r.neighbours()
	members := r.members()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next++
	switch {
	case len(near) == 0:
	case r.next%strangerEvery == 0:
		r.dealt(members[rand.N(len(members))]).dueBy(now)
	default:
		r.dealt(near[r.next%len(near)]).dueBy(now)
	}
}

// compareSoon makes a comparison due that somebody hinted at; it may be called from anywhere.
func (r *Replication) compareSoon(node string) {
	if node == r.config.Node || !r.listed(node) {
		return
	}
	r.mu.Lock()
	r.dealt(node).hinted(time.Now(), 0)
	r.mu.Unlock()
	r.wake()
}

// dealt needs the lock. The host is listed, and so they are bounded.
func (r *Replication) dealt(node string) *dealings {
	d := r.hosts[node]
	if d == nil {
		d = &dealings{patience: maxPatience}
		r.hosts[node] = d
	}
	return d
}

func (r *Replication) wake() {
	select {
	case r.ring <- struct{}{}:
	default:
	}
}

// compareDue begins what is due now, what has been due for longest first, and returns when to look again, by regular at the latest.
func (r *Replication) compareDue(now, regular time.Time) time.Time {
	digest := r.digest()
	r.mu.Lock()
	defer r.mu.Unlock()
	var due []string
	for node, d := range r.hosts {
		switch {
		case !r.config.Membership.hears(node) || !r.listed(node):
			d.due, d.doubt = time.Time{}, doubt{} // when it returns it may be a neighbour, and its push/pull tells what it has
		case d.doubt.digest == digest:
			d.doubt = doubt{}
		case d.doubted() && !now.Before(d.doubt.at):
			d.doubt = doubt{}
			d.dueBy(now)
		case d.doubted():
			regular = earlier(regular, d.doubt.at)
		}
		if !d.due.IsZero() && !d.comparing {
			due = append(due, node)
		}
	}
	slices.SortFunc(due, func(a, b string) int { return r.hosts[a].due.Compare(r.hosts[b].due) })
	for _, node := range due {
		d := r.hosts[node]
		if now.Before(d.due) {
			return earlier(regular, d.due)
		}
		r.begin(node, d) // when there is no room, compareOnce rings
	}
	return regular
}

// begin compares with a host if there is room. Hosts that did not answer well last time have room of their own, and wait for each
// other only.
func (r *Replication) begin(node string, d *dealings) {
	running := 0
	for _, o := range r.hosts {
		if o.comparing && (o.failures > 0) == (d.failures > 0) {
			running++
		}
	}
	if running < maxRetrying || running < maxComparing && d.failures == 0 {
		d.due, d.comparing = time.Time{}, true
		r.calls.Go(func() error { r.compareOnce(node, d); return nil })
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (r *Replication) compareOnce(node string, d *dealings) {
	ctx, cancel := context.WithTimeout(r.ctx, 2*callWithin)
	defer cancel()
	began := time.Now()
	differed, gained, err := r.compare(ctx, node)
	r.mu.Lock()
	d.comparing = false
	d.ended(time.Now(), outcome{took: time.Since(began), differed: differed, gained: gained, err: err})
	r.mu.Unlock()
	switch {
	case err == nil:
		r.syncOnce.Do(func() { close(r.synced) })
	case r.ctx.Err() == nil:
		r.stats.failedCalls.Add(1)
		r.log.Debug("cannot compare with another host", "host", node, "err", err)
	}
	r.wake()
}
