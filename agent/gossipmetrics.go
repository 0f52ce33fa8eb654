package agent

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/picketd/picket/cluster"
)

// What gossip does: this host's own queues and refusals, and memberlist's figures (cluster.GossipStats).
var gossipFigures = []fleetFigure{
	level("picket_gossip_health_score", "How much this host doubts itself: 0 is healthy. Alert when it stays above 0: it is overloaded, or its network loses packets.", func(s *FleetSnapshot) int { return s.Membership.HealthScore }),
	{
		"picket_gossip_queued_broadcasts", "Broadcasts that wait for a packet. Alert when it stays in the thousands.", prometheus.GaugeValue,
		[]string{"of"},
		func(s *FleetSnapshot, put func(float64, ...string)) {
			put(float64(s.Membership.Queued), "picket")
			put(float64(s.Membership.Gossip.Queued), "memberlist")
		},
	},
	total("picket_gossip_oversize_broadcasts_total", "Broadcasts that fit into no packet and were refused. Alert on any: it is a defect.", func(s *FleetSnapshot) uint64 { return s.Membership.RefusedOversize }),
	total("picket_gossip_dropped_broadcasts_total", "Broadcasts that made room for others. Alert when it grows.", func(s *FleetSnapshot) uint64 { return s.Membership.DroppedQueued }),
	total("picket_gossip_messages_total", "Messages of other hosts.", func(s *FleetSnapshot) uint64 { return s.Membership.Received }),
	total("picket_gossip_dropped_messages_total", "Messages of other hosts that nobody took in time. Alert when it grows: this host is overloaded.", func(s *FleetSnapshot) uint64 { return s.Membership.DroppedReceived }),
	total("picket_gossip_malformed_messages_total", "Messages of other hosts that could not be read. Alert when it grows.", func(s *FleetSnapshot) uint64 { return s.Membership.Malformed }),
	total("picket_gossip_refused_traffic_total", "Packets and streams with another cluster's name or key, cut off, or made to do harm. Alert when it grows: a stale key, or a stranger.", func(s *FleetSnapshot) uint64 { return s.Membership.RefusedTraffic }),
	{
		"picket_gossip_key_info", "Fingerprints of this host's gossip keys, the primary one encrypts; always 1. Alert when hosts have different ones for long.", prometheus.GaugeValue,
		[]string{"fingerprint", "primary"},
		func(s *FleetSnapshot, put func(float64, ...string)) {
			for i, fingerprint := range s.Membership.KeyFingerprints {
				put(1, fingerprint, strconv.FormatBool(i == 0))
			}
		},
	},
	level("picket_gossip_other_keys_members", "Hosts that are heard and had other gossip keys than this one when they last compared. Alert when it lasts longer than a rotation.", func(s *FleetSnapshot) int { return s.otherKeys() }),
	total("picket_gossip_key_errors_total", "Files of gossip keys that could not be used; the keys of before stayed. Alert on any.", func(s *FleetSnapshot) uint64 { return s.Membership.KeyErrors }),
	total("picket_gossip_stream_sent_bytes_total", "Bytes that memberlist sent over TCP, for push/pulls and long messages.", func(s *FleetSnapshot) uint64 { return s.Membership.Gossip.StreamBytesSent }),
	{
		"picket_gossip_streams_total", "TCP connections of memberlist: those opened for a push/pull, those accepted for whatever.", prometheus.CounterValue,
		[]string{"side"},
		func(s *FleetSnapshot, put func(float64, ...string)) {
			put(float64(s.Membership.Gossip.StreamsOpened), "opened")
			put(float64(s.Membership.Gossip.StreamsAccepted), "accepted")
		},
	},
	{
		"picket_gossip_host_news_total", "Words on hosts that memberlist took. Much suspect and no dead is a network that loses packets.", prometheus.CounterValue,
		[]string{"word"},
		func(s *FleetSnapshot, put func(float64, ...string)) {
			put(float64(s.Membership.Gossip.SaidAlive), "alive")
			put(float64(s.Membership.Gossip.SaidSuspect), "suspect")
			put(float64(s.Membership.Gossip.SaidDead), "dead")
		},
	},
	total("picket_gossip_degraded_probes_total", "Probes that were made more slowly because of the health score.", func(s *FleetSnapshot) uint64 { return s.Membership.Gossip.DegradedProbes }),
	total("picket_gossip_lonely_deaths_total", "Hosts called dead here that too few other hosts doubted as well. Alert when it grows: this host may be cut off.", func(s *FleetSnapshot) uint64 { return s.Membership.Gossip.LonelyDeaths }),
	total("picket_gossip_unknown_figures_total", "What memberlist measured and picket does not know: they do not fit together.", func(s *FleetSnapshot) uint64 { return s.Membership.Gossip.Unknown }),
}

// gossipDistributions are the histograms.
var gossipDistributions = []struct {
	name, help string
	labels     []string
	read       func(s *cluster.GossipStats, put func(d cluster.Distribution, labels ...string))
}{
	{
		"picket_gossip_packet_size_bytes", "Sizes of gossip's UDP packets.",
		[]string{"direction"},
		func(s *cluster.GossipStats, put func(cluster.Distribution, ...string)) {
			put(s.PacketsSent, "sent")
			put(s.PacketsReceived, "received")
		},
	},
	{
		"picket_gossip_probe_duration_seconds", "From a ping of another host to its answer, or to the end of waiting. Alert when the 99th percentile nears the profile's time-out (lan: 0.3).", nil,
		func(s *cluster.GossipStats, put func(cluster.Distribution, ...string)) { put(s.Probes) },
	},
	{
		"picket_gossip_round_duration_seconds", "Time it took to send a round of gossip.", nil,
		func(s *cluster.GossipStats, put func(cluster.Distribution, ...string)) { put(s.Rounds) },
	},
	{
		"picket_gossip_push_pull_duration_seconds", "Time of a push/pull that this host began.", nil,
		func(s *cluster.GossipStats, put func(cluster.Distribution, ...string)) { put(s.PushPulls) },
	},
}

func (s sender) distribution(d *prometheus.Desc, v cluster.Distribution, labels ...string) {
	metric, err := prometheus.NewConstHistogram(d, v.Count, v.Sum, v.AtMost, labels...)
	if err != nil {
		metric = prometheus.NewInvalidMetric(d, err)
	}
	s <- metric
}
