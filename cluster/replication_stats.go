package cluster

import (
	"maps"
	"sync/atomic"
	"time"
)

// ReplicationStats are counters since the start, and a few figures of this moment.
type ReplicationStats struct {
	Objects, Statuses int
	// Behind is how many objects others were seen to have in a higher version.
	Behind                 int
	Queued                 int    // elements that wait to be sent to neighbours
	Rounds, Differing      uint64 // comparisons begun here; those that found a difference
	BytesSent, BytesTaken  uint64 // of comparisons and news begun here
	Pushes, FailedCalls    uint64
	Served, Busy, Rejected uint64 // requests of other hosts: all, refused because of too many, refused because of who or what
	Taken, Refused         uint64 // elements of others that were new, or were not to be taken
	Malformed              uint64 // broadcasts
}

type replicationCounters struct {
	rounds, differing, sent, taken, pushes, failedCalls, served, busy, rejected, merged, refused, malformed atomic.Uint64
}

// Stats are of this moment.
func (r *Replication) Stats() ReplicationStats {
	c := &r.stats
	s := ReplicationStats{
		Rounds: c.rounds.Load(), Differing: c.differing.Load(), BytesSent: c.sent.Load(), BytesTaken: c.taken.Load(), Pushes: c.pushes.Load(),
		FailedCalls: c.failedCalls.Load(), Served: c.served.Load(), Busy: c.busy.Load(), Rejected: c.rejected.Load(),
		Taken: c.merged.Load(), Refused: c.refused.Load(), Malformed: c.malformed.Load(),
	}
	r.sets[setObjects].view(func(k *sketch) { s.Objects = k.count })
	r.sets[setStatuses].view(func(k *sketch) { s.Statuses = k.count })
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Behind = r.behind(time.Now())
	for _, o := range r.outboxes {
		s.Queued += len(o.pending)
	}
	return s
}

// maxAheadKeys bounds what is remembered of what others have, aheadFor how long: who has it says so with every comparison.
const (
	maxAheadKeys = 4096
	aheadFor     = 3 * compareEvery
)

// ahead is a version that another host was seen to have.
type ahead struct {
	generation uint64
	at         time.Time
}

// noteAhead remembers that another host has an object in a version that is not here.
func (r *Replication) noteAhead(i item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.ahead[i.key]; known || len(r.ahead) < maxAheadKeys {
		r.ahead[i.key] = ahead{i.order, time.Now()}
	}
}

// behind counts the objects of which others have a higher version; the lock is held.
func (r *Replication) behind(now time.Time) int {
	maps.DeleteFunc(r.ahead, func(key string, a ahead) bool {
		o, ok := r.config.Store.Get(key)
		return now.Sub(a.at) > aheadFor || ok && o.Version.Generation >= a.generation
	})
	return len(r.ahead)
}
