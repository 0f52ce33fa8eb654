package agent

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/picketd/picket/cluster"
)

// FleetSnapshot is the fleet as this host sees it, and what its part in it has cost.
type FleetSnapshot struct {
	Hosts       cluster.Snapshot
	Membership  cluster.Stats
	Replication cluster.ReplicationStats
}

// snapshot is nil before join.
func (f *fleet) snapshot() *FleetSnapshot {
	if f.membership == nil {
		return nil
	}
	return &FleetSnapshot{Hosts: f.membership.Snapshot(), Membership: f.membership.Stats(), Replication: f.replication.Stats()}
}

// memberStates are what a host of the roster can be; docs/metrics.md tells what each asks for.
var memberStates = []string{"alive", "failed", "reaped", "left", "deleted", "unlisted"}

// memberState is "" for a host that was heard once and never said that it is in the fleet.
func memberState(m cluster.Member) string {
	switch {
	case m.Alive && !m.Listed:
		return "unlisted"
	case !m.Listed:
		return ""
	case m.State >= cluster.RosterLeft, m.State == cluster.RosterReaped && !m.Alive:
		return m.State.String()
	case m.Alive:
		return "alive"
	}
	return "failed"
}

func (s *FleetSnapshot) byState() map[string]int {
	n := map[string]int{}
	for _, m := range s.Hosts.Members {
		n[memberState(m)]++
	}
	return n
}

// otherKeys counts the hosts that had other gossip keys than this one when they last compared.
func (s *FleetSnapshot) otherKeys() (n int) {
	for _, m := range s.Hosts.Members {
		if m.Alive && len(m.Keys) > 0 && !slices.Equal(m.Keys, s.Membership.KeyFingerprints) {
			n++
		}
	}
	return n
}

// fleetFigure makes one metric of a snapshot.
type fleetFigure struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string
	read       func(s *FleetSnapshot, put func(value float64, labels ...string))
}

// level is a figure of this moment, total one that only grows.
func level[N int | uint64](name, help string, read func(*FleetSnapshot) N) fleetFigure {
	return fleetFigure{name: name, help: help, kind: prometheus.GaugeValue, read: func(s *FleetSnapshot, put func(float64, ...string)) { put(float64(read(s))) }}
}

func total(name, help string, read func(*FleetSnapshot) uint64) fleetFigure {
	f := level(name, help, read)
	f.kind = prometheus.CounterValue
	return f
}

// fleetFigures say in their help what to alert on.
var fleetFigures = slices.Concat(memberFigures, gossipFigures, replicationFigures)

var memberFigures = []fleetFigure{
	{
		"picket_cluster_members", "Hosts by state. Alert on failed (not heard, may be down) and on unlisted (heard, but nothing that a certificate signed) that last.",
		prometheus.GaugeValue,
		[]string{"state"},
		func(s *FleetSnapshot, put func(float64, ...string)) {
			n := s.byState()
			for _, state := range memberStates {
				put(float64(n[state]), state)
			}
		},
	},
	level("picket_cluster_roster_members", "Hosts that are in the fleet by the roster, heard or not. Alert when it differs between hosts for minutes.", func(s *FleetSnapshot) int { return s.Membership.Listed }),
	level("picket_cluster_heard_members", "Hosts that are heard, this one included. Alert when it stays below picket_cluster_roster_members.", func(s *FleetSnapshot) int { return s.Membership.Alive }),
	level("picket_cluster_name_conflicts", "Names that two hosts use at this time. Alert on any.", func(s *FleetSnapshot) int { return len(s.Hosts.Conflicts) }),
	total("picket_cluster_name_conflict_signs_total", "Signs that two hosts use one name.", func(s *FleetSnapshot) uint64 { return s.Membership.Conflicts }),
	level("picket_cluster_incarnation", "Life of this agent; it grows with every start.", func(s *FleetSnapshot) uint64 { return s.Membership.Incarnation }),
	total("picket_cluster_join_attempts_total", "Calls to hosts that are not heard. It grows for ever while a host is missing.", func(s *FleetSnapshot) uint64 { return s.Membership.JoinsTried }),
	total("picket_cluster_join_answers_total", "Calls to hosts that were not heard, and that answered.", func(s *FleetSnapshot) uint64 { return s.Membership.JoinsAnswered }),
	total("picket_cluster_failed_lookups_total", "Entries of cluster.join that led to no address. Alert when it grows for long.", func(s *FleetSnapshot) uint64 { return s.Membership.FailedPlaces }),
	total("picket_cluster_failed_calls_total", "Messages about the roster that could not be sent.", func(s *FleetSnapshot) uint64 { return s.Membership.FailedCalls }),
	total("picket_cluster_false_alarms_total", "Hosts that gossip called dead and that answered when asked once more. When it grows the network loses packets, or a host is overloaded.", func(s *FleetSnapshot) uint64 { return s.Membership.FalseDeaths }),
	total("picket_cluster_roster_exchanges_total", "Comparisons that found another host's roster different.", func(s *FleetSnapshot) uint64 { return s.Membership.Exchanges }),
	{
		"picket_cluster_refused_notices_total", "Words on hosts that were not taken. Alert on unsigned and malformed; stale is ordinary.", prometheus.CounterValue,
		[]string{"reason"},
		func(s *FleetSnapshot, put func(float64, ...string)) {
			put(float64(s.Membership.Roster.Stale), "stale")
			put(float64(s.Membership.Roster.Malformed), "malformed")
			put(float64(s.Membership.Roster.Unsigned), "unsigned")
		},
	},
	total("picket_cluster_refused_hosts_total", "Times that a host was not let in: it was deleted, or said what no host says. Alert when it grows: it still runs there.", func(s *FleetSnapshot) uint64 { return s.Membership.RefusedAlive }),
	total("picket_cluster_turned_away_hosts_total", "Times that a host was not heard at once because many that are heard are in no roster. Alert when it grows for long: a stranger has the gossip key.", func(s *FleetSnapshot) uint64 { return s.Membership.TurnedAway }),
}

var replicationFigures = []fleetFigure{
	{
		"picket_replication_elements", "What is replicated, by set; objects that were deleted are counted. Alert when it differs between hosts for minutes.", prometheus.GaugeValue,
		[]string{"set"},
		func(s *FleetSnapshot, put func(float64, ...string)) {
			put(float64(s.Replication.Objects), "objects")
			put(float64(s.Replication.Statuses), "statuses")
		},
	},
	level("picket_replication_behind_objects", "Objects of which another host has a newer version. Alert when it is not 0 for minutes: this host acts on old orders.", func(s *FleetSnapshot) int { return s.Replication.Behind }),
	level("picket_replication_queued_elements", "What waits to be sent to neighbours. Alert when it stays high: a neighbour takes nothing.", func(s *FleetSnapshot) int { return s.Replication.Queued }),
	total("picket_replication_rounds_total", "Comparisons with other hosts that began here. Alert when it does not grow in a fleet of several.", func(s *FleetSnapshot) uint64 { return s.Replication.Rounds }),
	total("picket_replication_differing_rounds_total", "Comparisons that found a difference: news got lost on their way. Alert when most rounds do.", func(s *FleetSnapshot) uint64 { return s.Replication.Differing }),
	total("picket_replication_sent_bytes_total", "Bytes of news and comparisons that began here, sent.", func(s *FleetSnapshot) uint64 { return s.Replication.BytesSent }),
	total("picket_replication_received_bytes_total", "Bytes of the answers to news and comparisons that began here.", func(s *FleetSnapshot) uint64 { return s.Replication.BytesTaken }),
	total("picket_replication_pushes_total", "Times that news were given to a neighbour.", func(s *FleetSnapshot) uint64 { return s.Replication.Pushes }),
	total("picket_replication_failed_calls_total", "Calls to other hosts that failed. Alert when it grows while all hosts are heard: a port is closed, or a certificate is refused.", func(s *FleetSnapshot) uint64 { return s.Replication.FailedCalls }),
	total("picket_replication_requests_total", "Requests of other hosts, refused ones included.", func(s *FleetSnapshot) uint64 { return s.Replication.Served }),
	{
		"picket_replication_refused_requests_total", "Requests of other hosts that were refused. Alert on rejected: a certificate or a message that is not to be taken.", prometheus.CounterValue,
		[]string{"reason"},
		func(s *FleetSnapshot, put func(float64, ...string)) {
			put(float64(s.Replication.Busy), "busy")
			put(float64(s.Replication.Rejected), "rejected")
		},
	},
	total("picket_replication_taken_elements_total", "Objects and statuses of other hosts that were new here.", func(s *FleetSnapshot) uint64 { return s.Replication.Taken }),
	total("picket_replication_refused_elements_total", "Objects and statuses of other hosts that were not to be taken. Alert when it grows: who signed them may not.", func(s *FleetSnapshot) uint64 { return s.Replication.Refused }),
	total("picket_replication_malformed_broadcasts_total", "Gossip about what is replicated that could not be read. Alert when it grows.", func(s *FleetSnapshot) uint64 { return s.Replication.Malformed }),
}

// fleetDescs are the descriptions of one collector.
type fleetDescs struct {
	figures       []*prometheus.Desc // as fleetFigures
	distributions []*prometheus.Desc // as gossipDistributions
}

func newFleetDescs() fleetDescs {
	var d fleetDescs
	for _, f := range fleetFigures {
		d.figures = append(d.figures, describe(f.name, f.help, f.labels...))
	}
	for _, g := range gossipDistributions {
		d.distributions = append(d.distributions, describe(g.name, g.help, g.labels...))
	}
	return d
}

func (d *fleetDescs) describe(out chan<- *prometheus.Desc) {
	for _, desc := range slices.Concat(d.figures, d.distributions) {
		out <- desc
	}
}

// send tells nothing while the host has not joined.
func (d *fleetDescs) send(send sender, s *FleetSnapshot) {
	if s == nil {
		return
	}
	for i, f := range fleetFigures {
		f.read(s, func(value float64, labels ...string) { send.send(d.figures[i], f.kind, value, labels) })
	}
	for i, g := range gossipDistributions {
		g.read(&s.Membership.Gossip, func(v cluster.Distribution, labels ...string) { send.distribution(d.distributions[i], v, labels...) })
	}
}
