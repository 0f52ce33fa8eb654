package cluster

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
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
	// compareEvery is how often a host compares its sets with a neighbour's, when nothing tells it to do so sooner, and strangerEvery
	// how many such comparisons are between two with a host that is no neighbour: neighbours may all be silent on purpose.
	compareEvery  = 10 * time.Second
	strangerEvery = 8
	// lookEvery is how long members may change without neighbours being looked for anew: while many join that is much work.
	lookEvery = 50 * time.Millisecond
	// callWithin bounds one call to another host.
	callWithin = 10 * time.Second
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
	gate     gate // of requests of others

	mu       sync.Mutex
	closed   bool
	outboxes map[string]*outbox
	hosts    map[string]*dealings
	ahead    map[string]ahead // objects that others were seen to have in a higher version
	near     []string         // neighbours when last looked
	nearAt   uint64           // the Membership's epoch then
	looked   time.Time        // when that was
	entry    uint64           // this host's in the roster then
	next     int              // which of them is compared with next
}

const digestSize = setCount * sumSize

// StartReplication begins to carry. The Membership must not be closed before it.
func StartReplication(config ReplicationConfig) *Replication {
	r := &Replication{
		config: config, log: config.Log, ring: make(chan struct{}, 1), synced: make(chan struct{}), gate: gate{hosts: map[string]load{}},
		outboxes: map[string]*outbox{}, hosts: map[string]*dealings{}, ahead: map[string]ahead{},
	}
	r.sets[setObjects], r.sets[setStatuses] = objectReplica{config.Store}, statusReplica{config.Statuses}
	r.reconsider()
	r.ctx, r.stop = context.WithCancel(context.Background())
	config.Membership.compareBy(comparison{digest: r.digest, differs: r.compareSoon, changed: r.wake})
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

// TellStatus spreads a status that was said here. The hosts that wait for it are told directly, whoever else is on the way to them.
func (r *Replication) TellStatus(st Status, waiting ...string) {
	key := st.id().key()
	near := r.neighbours()
	for _, node := range waiting {
		if node != r.config.Node && r.listed(node) && !slices.Contains(near, node) {
			r.send(node, setStatuses, []string{key})
		}
	}
	r.spread(setStatuses, []string{key}, "")
}

// digest stands for all that this host has.
func (r *Replication) digest() (d [digestSize]byte) {
	for i, set := range r.sets {
		set.view(func(s *sketch) {
			sum := s.digest()
			copy(d[i*sumSize:], sum[:])
		})
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
			r.reconsider()
			r.compareNext(now)
			regular = now.Add(compareEvery*3/4 + rand.N(compareEvery/2))
		}
		next := r.compareDue(now, regular)
		if !r.lookedSince(r.config.Membership.epoch.Load()) {
			next = earlier(next, now.Add(lookEvery))
		}
		timer.Reset(max(time.Until(next), time.Millisecond))
	}
}

// renew signs this host's statuses anew when its certificate has changed.
func (r *Replication) renew() {
	renewed, err := r.config.Statuses.Renew()
	if err != nil {
		r.log.Error("this host's statuses cannot be signed with its new certificate", "err", err)
	}
	for _, st := range renewed {
		r.TellStatus(st)
	}
}

// reconsider looks anew what other hosts take, and tells when that has changed: the roster or the authorities did.
func (r *Replication) reconsider() {
	before := r.digest()
	for _, set := range r.sets {
		set.reconsider()
	}
	if r.digest() != before {
		r.tellDigest()
	}
}

// failed notes that another host could not be told something.
func (r *Replication) failed(node, what string, err error) {
	r.stats.failedCalls.Add(1)
	r.log.Debug(what, "host", node, "err", err)
	if !r.listed(node) {
		return
	}
	r.mu.Lock()
	d := r.dealt(node)
	d.dueBy(time.Now().Add(max(d.pause(), retryAfter)))
	r.mu.Unlock()
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
	if node == r.config.Node || !r.config.Membership.hears(node) || !r.listed(node) || digest == r.digest() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dealt(node).doubts(digest, time.Now())
}

// call posts a message to another host's replication, and counts the bytes.
func (r *Replication) call(ctx context.Context, node, path string, body []byte, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	r.stats.sent.Add(uint64(len(body)))
	answer, err := r.config.Peers.post(ctx, node, path, body, limit)
	r.stats.taken.Add(uint64(len(answer)))
	return answer, err
}

// take merges records of another host and passes on what was new; gained says how many were.
func (r *Replication) take(from string, records []record) (gained int, err error) {
	for set := range r.sets {
		mine := slices.DeleteFunc(slices.Clone(records), func(rec record) bool { return int(rec.set) != set })
		if len(mine) == 0 {
			continue
		}
		m := r.sets[set].merge(from, mine, r.patienceWith(from, 0))
		r.patienceWith(from, m.forged)
		r.stats.merged.Add(uint64(len(m.changed)))
		r.stats.refused.Add(uint64(m.refused))
		if m.why != nil { // statuses of a host that the roster does not have yet are no reason
			r.warn(from, m)
		}
		if len(m.changed) > 0 {
			r.useful(from)
		}
		gained += len(m.changed)
		err = errors.Join(err, m.err)
		r.spread(set, m.changed, from)
	}
	return gained, err
}

// useful notes that a host has sent something new.
func (r *Replication) useful(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := r.hosts[node]; d != nil {
		d.idle = 0
	}
}

// warn says that a host sends what is not to be taken, now and then.
func (r *Replication) warn(from string, m merged) {
	level, now := slog.LevelDebug, time.Now()
	r.mu.Lock()
	if d := r.hosts[from]; d != nil && now.Sub(d.warned) > warnEvery {
		d.warned, level = now, slog.LevelWarn
	}
	r.mu.Unlock()
	r.log.Log(r.ctx, level, "another host sends what is not to be taken", "host", from, "elements", m.refused, "err", m.why)
}

// patienceWith takes off wrong signatures that a host sent and returns how many more it may send now.
func (r *Replication) patienceWith(node string, forged int) int {
	if !r.listed(node) {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dealt(node).spend(time.Now(), forged)
}

var _ http.Handler = (*Replication)(nil)
