package cluster

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Snapshot is the fleet as this host sees it. It is the caller's own.
type Snapshot struct {
	Self      string
	Members   []Member // all hosts of the roster and all that are heard, sorted by name
	Conflicts []Conflict
}

// Member is one host.
type Member struct {
	Standing
	Listed bool // it has a Standing: it signed that it is in the fleet
	// Alive is memberlist's opinion; this host is alive. A host that is not has failed, or left: see State.
	Alive bool
	Since time.Time // it is alive, or is not; when it was not seen since the start: of the start
	// Heard is the last direct word, or one that somebody relayed and the agent told (Membership.Heard).
	Heard       time.Time
	RTT         time.Duration // of the last ping; 0 is none
	Gossip      netip.AddrPort
	API         string
	Incarnation uint64   // of its agent's life
	Keys        []string // fingerprints of its gossip keys when it last compared states with this host
}

// Quiet says whether there was no word of the host for d: it may be suspected, which memberlist does not tell.
func (m Member) Quiet(now time.Time, d time.Duration) bool { return now.Sub(m.Heard) >= d }

// Quiet are the hosts that are alive and of which there was no word for as long as there should have been one: least, or two rounds of
// gossip, which asks one host after the other.
func (m *Membership) Quiet(least time.Duration) map[string]bool {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	quiet := map[string]bool{}
	d := max(least, 2*m.profile.list().ProbeInterval*time.Duration(len(m.peers)))
	for node, p := range m.peers {
		if p.alive && node != m.config.Node && now.Sub(p.heard) >= d {
			quiet[node] = true
		}
	}
	return quiet
}

// Ask asks one host for a sign of life in the background; then is called when it has given one. It does nothing while as many as may
// be are asked.
func (m *Membership) Ask(node string, then func()) {
	m.calls.TryGo(func() error {
		if _, err := m.Ping(node); err == nil {
			then()
		}
		return nil
	})
}

// Missing says whether a host should be there and is not.
func (m Member) Missing() bool { return m.Listed && m.State == RosterMember && !m.Alive }

// Snapshot is a picture of this moment.
func (m *Membership) Snapshot() Snapshot {
	standings := m.roster.All()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Snapshot{Self: m.config.Node, Conflicts: slices.Collect(maps.Values(m.conflicts))}
	s.Conflicts = slices.DeleteFunc(s.Conflicts, func(c Conflict) bool { return time.Since(c.Last) > conflictGone })
	slices.SortFunc(s.Conflicts, func(a, b Conflict) int { return strings.Compare(a.Node, b.Node) })
	members := map[string]Member{}
	for _, standing := range standings {
		members[standing.Node] = Member{Standing: standing, Listed: true}
	}
	for node, p := range m.peers {
		member := members[node]
		member.Node = node
		member.Alive, member.Since, member.Heard, member.RTT = p.alive, p.since, p.heard, p.rtt
		member.Gossip, member.API, member.Incarnation, member.Keys = p.addr, p.meta.api, p.meta.incarnation, slices.Clone(p.keys)
		if node == m.config.Node {
			member.Heard, member.Keys = time.Now(), m.keys.fingerprints()
		}
		members[node] = member
	}
	s.Members = slices.SortedFunc(maps.Values(members), func(a, b Member) int { return strings.Compare(a.Node, b.Node) })
	return s
}

// Stats are counters since the start, and a few figures of this moment. The agent makes metrics of them.
type Stats struct {
	Alive, Listed, Missing int // hosts; Missing should be alerted on
	HealthScore            int // memberlist's doubt in this host itself; 0 is healthy
	Queued                 int // broadcasts that wait for room in a packet
	Incarnation            uint64
	KeyFingerprints        []string // the first encrypts

	RefusedOversize, DroppedQueued uint64 // broadcasts
	Received, DroppedReceived      uint64 // messages of others; dropped because nobody took them
	Malformed                      uint64 // messages that could not be read
	RefusedTraffic                 uint64 // packets and streams with another label or key, cut off, or made to do harm
	RefusedAlive                   uint64 // hosts that were deleted, said what no host says, or what the host of that name did not sign
	TurnedAway                     uint64 // hosts that were not heard at once because many others were in no roster
	Conflicts                      uint64 // signs that a name is taken twice
	JoinsTried, JoinsAnswered      uint64
	FailedPlaces                   uint64 // look-ups of cluster.join
	FailedCalls                    uint64
	FalseDeaths                    uint64 // hosts that memberlist had dead and that answered
	Exchanges                      uint64 // comparisons that found another roster different
	KeyErrors                      uint64
	Roster                         Refusals
	Gossip                         GossipStats
}

type counters struct {
	received, dropped, malformed, refusedAlive, conflicts   atomic.Uint64
	joinsTried, joinsAnswered, failedPlaces, failedCalls    atomic.Uint64
	exchanges, keyErrors, stale, badNotices, unsignedNotice atomic.Uint64
	refusedTraffic, falseDeaths, turnedAway                 atomic.Uint64
}

func (c *counters) refuse(r Refusals) {
	c.stale.Add(r.Stale)
	c.badNotices.Add(r.Malformed)
	c.unsignedNotice.Add(r.Unsigned)
}

// Stats are of this moment.
func (m *Membership) Stats() Stats {
	c := &m.stats
	s := Stats{
		HealthScore: m.list.GetHealthScore(), Queued: m.queues.waiting(), KeyFingerprints: m.keys.fingerprints(),
		RefusedOversize: m.queues.refused.Load(), DroppedQueued: m.queues.dropped.Load(),
		Received: c.received.Load(), DroppedReceived: c.dropped.Load(), Malformed: c.malformed.Load(),
		RefusedTraffic: c.refusedTraffic.Load(), TurnedAway: c.turnedAway.Load(),
		RefusedAlive: c.refusedAlive.Load(), Conflicts: c.conflicts.Load(),
		JoinsTried: c.joinsTried.Load(), JoinsAnswered: c.joinsAnswered.Load(),
		FailedPlaces: c.failedPlaces.Load(), FailedCalls: c.failedCalls.Load(), FalseDeaths: c.falseDeaths.Load(),
		Exchanges: c.exchanges.Load(), KeyErrors: c.keyErrors.Load(),
		Roster: Refusals{Stale: c.stale.Load(), Malformed: c.badNotices.Load(), Unsigned: c.unsignedNotice.Load()},
		Gossip: m.gossip.read(),
	}
	for _, member := range m.Snapshot().Members {
		s.Alive += count(member.Alive)
		s.Listed += count(member.Listed && member.State == RosterMember)
		s.Missing += count(member.Missing())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.Incarnation = m.life
	return s
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}
