package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// The replicated sets, as messages name them.
const (
	setObjects = iota
	setStatuses
	setCount
)

const (
	// compareEvery is how often a host compares its sets with a neighbour's, when nothing tells it to do so sooner.
	compareEvery = 10 * time.Second
	// doubtAfter is how long what was heard of another host's sets may differ from this one's: news are on their way.
	doubtAfter = time.Second
	// retryAfter is when a comparison that failed is tried again.
	retryAfter = 2 * time.Second
	// callWithin bounds one call to another host.
	callWithin = 10 * time.Second
	// maxComparing bounds the comparisons at one time, maxDoubts the hosts whose word is remembered.
	maxComparing = 4
	maxDoubts    = 64
)

// ReplicationConfig is what replication works on.
type ReplicationConfig struct {
	Node       string
	Store      *Store // with a Seal
	Statuses   *Statuses
	Membership *Membership
	Peers      *Peers
	Log        *slog.Logger
}

// Replication carries objects and statuses between hosts. What is new goes at once, over kept connections, to a few neighbours,
// which pass it on; what got lost on the way is found by comparing, with neighbours now and then and with whoever is heard to have
// something else. Any goroutine may call its methods.
type Replication struct {
	config ReplicationConfig
	log    *slog.Logger
	sets   [setCount]replica
	stats  replicationCounters

	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	loops sync.WaitGroup
	calls errgroup.Group

	ring     chan struct{} // something is due
	synced   chan struct{}
	syncOnce sync.Once
	serving  chan struct{} // slots of requests of others

	mu        sync.Mutex
	closed    bool
	outboxes  map[string]*outbox
	due       map[string]time.Time // when to compare with whom
	comparing map[string]bool
	doubts    map[string]doubt
	near      []string // neighbours when last looked
	nearAt    uint64   // the Membership's epoch then
	next      int      // which of them is compared with next
}

// doubt is what another host was heard to have.
type doubt struct {
	digest [digestSize]byte
	at     time.Time // when to act on it
}

const digestSize = setCount * len(imprint{})

// StartReplication begins to carry. The Membership must not be closed before it.
func StartReplication(config ReplicationConfig) *Replication {
	r := &Replication{
		config: config, log: config.Log, ring: make(chan struct{}, 1), synced: make(chan struct{}), serving: make(chan struct{}, maxServing),
		outboxes: map[string]*outbox{}, due: map[string]time.Time{}, comparing: map[string]bool{}, doubts: map[string]doubt{},
	}
	r.sets[setObjects], r.sets[setStatuses] = objectReplica{config.Store}, statusReplica{config.Statuses}
	r.ctx, r.stop = context.WithCancel(context.Background())
	config.Membership.compareBy(r.digest, func(node string) { r.compareSoon(node, 0) })
	r.loops.Go(r.run)
	return r
}

// Close ends what is under way; nothing of it runs when Close returns.
func (r *Replication) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.stop()
	r.loops.Wait()
	_ = r.calls.Wait()
	r.config.Peers.Close()
}

// Synced is closed when this host has compared all it has with another one, and has got what it lacked.
func (r *Replication) Synced() <-chan struct{} { return r.synced }

// Tell spreads objects that were written here.
func (r *Replication) Tell(objects []Object) {
	keys := make([]string, 0, len(objects))
	for _, o := range objects {
		keys = append(keys, o.Key)
	}
	r.spread(setObjects, keys, "")
}

// TellStatus spreads statuses that were said here.
func (r *Replication) TellStatus(statuses ...Status) {
	keys := make([]string, 0, len(statuses))
	for _, st := range statuses {
		keys = append(keys, st.id().key())
	}
	r.spread(setStatuses, keys, "")
}

// digest stands for all that this host has.
func (r *Replication) digest() (d [digestSize]byte) {
	for i, set := range r.sets {
		set.view(func(s *sketch) { copy(d[i*len(imprint{}):], s.all[:]) })
	}
	return d
}

// run is the loop: it lets comparisons begin when they are due, and hears what others have.
func (r *Replication) run() {
	timer := time.NewTimer(rand.N(compareEvery))
	defer timer.Stop()
	regular := time.Now().Add(time.Second)
	for {
		select {
		case <-r.ctx.Done():
			return
		case message := <-r.config.Membership.Messages():
			r.hear(message)
		case <-r.ring:
		case <-timer.C:
		}
		now := time.Now()
		r.neighbours()
		if !now.Before(regular) {
			r.renew()
			r.compareNext(now)
			regular = now.Add(compareEvery*3/4 + rand.N(compareEvery/2))
		}
		timer.Reset(max(time.Until(r.compareDue(now, regular)), time.Millisecond))
	}
}

// renew signs this host's statuses anew when its certificate has changed.
func (r *Replication) renew() {
	renewed, err := r.config.Statuses.Renew()
	if err != nil {
		r.log.Error("this host's statuses cannot be signed with its new certificate", "err", err)
	}
	r.TellStatus(renewed...)
}

// neighbours are those of this moment. With hosts that have become neighbours a comparison is due.
func (r *Replication) neighbours() []string {
	epoch := r.config.Membership.epoch.Load()
	r.mu.Lock()
	near, at := r.near, r.nearAt
	r.mu.Unlock()
	if at == epoch+1 {
		return near
	}
	now := neighbours(r.config.Node, slices.Collect(maps.Keys(r.config.Membership.others())))
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, node := range now {
		if !slices.Contains(r.near, node) {
			r.dueBy(node, time.Now())
		}
	}
	r.near, r.nearAt = now, epoch+1 // 0 is before the first look
	return now
}

// compareNext makes the regular comparison due.
func (r *Replication) compareNext(now time.Time) {
	r.neighbours()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.near) > 0 {
		r.next = (r.next + 1) % len(r.near)
		r.dueBy(r.near[r.next], now)
	}
}

// compareSoon makes a comparison due; it may be called from anywhere.
func (r *Replication) compareSoon(node string, after time.Duration) {
	if node == r.config.Node {
		return
	}
	r.mu.Lock()
	r.dueBy(node, time.Now().Add(after))
	r.mu.Unlock()
	r.wake()
}

// dueBy needs the lock. Names are cheap for whoever has the gossip key: what is due is bounded by the members.
func (r *Replication) dueBy(node string, at time.Time) {
	if old, ok := r.due[node]; !ok || at.Before(old) {
		r.due[node] = at
	}
}

func (r *Replication) wake() {
	select {
	case r.ring <- struct{}{}:
	default:
	}
}

// compareDue begins what is due now and returns when to look again, by regular at the latest.
func (r *Replication) compareDue(now, regular time.Time) time.Time {
	digest := r.digest()
	r.mu.Lock()
	defer r.mu.Unlock()
	for node, d := range r.doubts {
		switch {
		case d.digest == digest:
			delete(r.doubts, node)
		case !now.Before(d.at):
			delete(r.doubts, node)
			r.dueBy(node, now)
		case d.at.Before(regular):
			regular = d.at
		}
	}
	for node, at := range r.due {
		switch {
		case !r.config.Membership.hears(node):
			delete(r.due, node) // when it returns, its push/pull tells what it has
		case now.Before(at):
			regular = earlier(regular, at)
		case len(r.comparing) < maxComparing && !r.comparing[node]:
			delete(r.due, node)
			r.comparing[node] = true
			r.calls.Go(func() error { r.compareOnce(node); return nil })
		default: // compareOnce rings when there is room
		}
	}
	return regular
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (r *Replication) compareOnce(node string) {
	ctx, cancel := context.WithTimeout(r.ctx, 2*callWithin)
	defer cancel()
	err := r.compare(ctx, node)
	r.mu.Lock()
	delete(r.comparing, node)
	if err != nil && r.ctx.Err() == nil {
		r.dueBy(node, time.Now().Add(retryAfter))
	}
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

// kindDigest is a broadcast: kind 1 | digest 32 | node.
const kindDigest = 1

// tellDigest lets others know that this host has something else than before: who does not have it will ask.
func (r *Replication) tellDigest() {
	d := r.digest()
	message := append(append([]byte{kindDigest}, d[:]...), r.config.Node...)
	if err := r.config.Membership.Broadcast("digest", message); err != nil {
		r.log.Warn("what this host has is not told by gossip", "err", err)
	}
}

// hear takes in a broadcast. It is a hint and no more: anybody with the gossip key may have sent it.
func (r *Replication) hear(message []byte) {
	if len(message) <= 1+digestSize || message[0] != kindDigest {
		r.stats.malformed.Add(1)
		return
	}
	digest, node := [digestSize]byte(message[1:]), string(message[1+digestSize:])
	if !r.config.Membership.hears(node) || digest == r.digest() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.doubts[node]; ok {
		r.doubts[node] = doubt{digest: digest, at: old.at}
	} else if len(r.doubts) < maxDoubts {
		r.doubts[node] = doubt{digest: digest, at: time.Now().Add(doubtAfter)}
	}
}

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

	behind sync.Map // key -> highest generation seen elsewhere
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
	c.behind.Range(func(key, generation any) bool {
		if o, ok := r.config.Store.Get(key.(string)); ok && o.Version.Generation >= generation.(uint64) {
			c.behind.Delete(key)
		} else {
			s.Behind++
		}
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.outboxes {
		s.Queued += len(o.pending)
	}
	return s
}

// call posts a message to another host's replication, and counts the bytes.
func (r *Replication) call(ctx context.Context, node, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	r.stats.sent.Add(uint64(len(body)))
	answer, err := r.config.Peers.post(ctx, node, path, body, maxMessage)
	r.stats.taken.Add(uint64(len(answer)))
	return answer, err
}

// take merges records of another host and passes on what was new.
func (r *Replication) take(from string, records []record) error {
	var errs []error
	for set := range r.sets {
		mine := slices.DeleteFunc(slices.Clone(records), func(rec record) bool { return int(rec.set) != set })
		if len(mine) == 0 {
			continue
		}
		changed, refused, err := r.sets[set].merge(from, mine)
		r.stats.merged.Add(uint64(len(changed)))
		r.stats.refused.Add(uint64(refused))
		if refused > 0 && err != nil { // statuses of a host that the roster does not have yet are no reason
			r.log.Warn("another host sends what is not to be taken", "host", from, "err", err)
			err = nil
		}
		errs = append(errs, err)
		r.spread(set, changed, from)
	}
	return errors.Join(errs...)
}

var _ http.Handler = (*Replication)(nil)

func appendUint16(b []byte, v uint16) []byte { return binary.BigEndian.AppendUint16(b, v) }
