package agent

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/picketd/picket/cluster"
)

// testFleetSnapshot has a host of every state, and a different number for every figure.
func testFleetSnapshot() *FleetSnapshot {
	host := func(name string, listed, alive bool, state cluster.RosterState, keys ...string) cluster.Member {
		return cluster.Member{Standing: cluster.Standing{Node: name, State: state}, Listed: listed, Alive: alive, Keys: keys}
	}
	distribution := func(n uint64) cluster.Distribution {
		return cluster.Distribution{Count: n, Sum: float64(n) / 2, AtMost: map[float64]uint64{0.5: n - 1}}
	}
	return &FleetSnapshot{
		Hosts: cluster.Snapshot{
			Self: "a", Conflicts: []cluster.Conflict{{Node: "b"}},
			Members: []cluster.Member{
				host("a", true, true, cluster.RosterMember, "new", "old"), host("b", true, true, cluster.RosterMember, "old"),
				host("c", true, true, cluster.RosterReaped), host("d", true, false, cluster.RosterMember, "old"), host("e", true, false, cluster.RosterReaped),
				host("f", true, false, cluster.RosterLeft), host("g", true, false, cluster.RosterDeleted), host("h", false, true, cluster.RosterMember),
				host("i", false, false, cluster.RosterMember),
			},
		},
		Membership: cluster.Stats{
			Alive: 4, Listed: 3, Missing: 1, HealthScore: 2, Queued: 5, Incarnation: 6, KeyFingerprints: []string{"new", "old"},
			RefusedOversize: 7, DroppedQueued: 8, Received: 9, DroppedReceived: 10, Malformed: 11, RefusedTraffic: 12, RefusedAlive: 13, TurnedAway: 25, Conflicts: 14,
			JoinsTried: 15, JoinsAnswered: 16, FailedPlaces: 17, FailedCalls: 18, FalseDeaths: 19, Exchanges: 20, KeyErrors: 21,
			Roster: cluster.Refusals{Stale: 22, Malformed: 23, Unsigned: 24},
			Gossip: cluster.GossipStats{
				PacketsSent: distribution(30), PacketsReceived: distribution(31), StreamBytesSent: 32, StreamsOpened: 33, StreamsAccepted: 34, Queued: 35,
				Probes: distribution(36), Rounds: distribution(37), PushPulls: distribution(38), SaidAlive: 39, SaidSuspect: 40, SaidDead: 41,
				DegradedProbes: 42, LonelyDeaths: 43, Unknown: 44,
			},
		},
		Replication: cluster.ReplicationStats{
			Objects: 50, Statuses: 51, Behind: 52, Queued: 53, Rounds: 54, Differing: 55, BytesSent: 56, BytesTaken: 57, Pushes: 58, FailedCalls: 59,
			Served: 60, Busy: 61, Rejected: 62, Taken: 63, Refused: 64, Malformed: 65,
		},
	}
}

func TestMetricsOfTheFleet(t *testing.T) {
	reg, _ := register(MetricsSnapshot{Fleet: testFleetSnapshot()})
	expectSeries(t, reg, "picket_cluster", `picket_cluster_failed_calls_total 18
picket_cluster_failed_lookups_total 17
picket_cluster_false_alarms_total 19
picket_cluster_heard_members 4
picket_cluster_incarnation 6
picket_cluster_join_answers_total 16
picket_cluster_join_attempts_total 15
picket_cluster_members{state="alive"} 3
picket_cluster_members{state="deleted"} 1
picket_cluster_members{state="failed"} 1
picket_cluster_members{state="left"} 1
picket_cluster_members{state="reaped"} 1
picket_cluster_members{state="unlisted"} 1
picket_cluster_name_conflict_signs_total 14
picket_cluster_name_conflicts 1
picket_cluster_refused_hosts_total 13
picket_cluster_refused_notices_total{reason="malformed"} 23
picket_cluster_refused_notices_total{reason="stale"} 22
picket_cluster_refused_notices_total{reason="unsigned"} 24
picket_cluster_roster_exchanges_total 20
picket_cluster_roster_members 3
picket_cluster_turned_away_hosts_total 25
`)
	expectSeries(t, reg, "picket_replication", `picket_replication_behind_objects 52
picket_replication_differing_rounds_total 55
picket_replication_elements{set="objects"} 50
picket_replication_elements{set="statuses"} 51
picket_replication_failed_calls_total 59
picket_replication_malformed_broadcasts_total 65
picket_replication_pushes_total 58
picket_replication_queued_elements 53
picket_replication_received_bytes_total 57
picket_replication_refused_elements_total 64
picket_replication_refused_requests_total{reason="busy"} 61
picket_replication_refused_requests_total{reason="rejected"} 62
picket_replication_requests_total 60
picket_replication_rounds_total 54
picket_replication_sent_bytes_total 56
picket_replication_taken_elements_total 63
`)
	expectSeries(t, reg, "picket_gossip", `picket_gossip_degraded_probes_total 42
picket_gossip_dropped_broadcasts_total 8
picket_gossip_dropped_messages_total 10
picket_gossip_health_score 2
picket_gossip_host_news_total{word="alive"} 39
picket_gossip_host_news_total{word="dead"} 41
picket_gossip_host_news_total{word="suspect"} 40
picket_gossip_key_errors_total 21
picket_gossip_key_info{fingerprint="new",primary="true"} 1
picket_gossip_key_info{fingerprint="old",primary="false"} 1
picket_gossip_lonely_deaths_total 43
picket_gossip_malformed_messages_total 11
picket_gossip_messages_total 9
picket_gossip_other_keys_members 1
picket_gossip_oversize_broadcasts_total 7
picket_gossip_packet_size_bytes_bucket{direction="received",le="0.5"} 30
picket_gossip_packet_size_bytes_bucket{direction="received",le="+Inf"} 31
picket_gossip_packet_size_bytes_sum{direction="received"} 15.5
picket_gossip_packet_size_bytes_count{direction="received"} 31
picket_gossip_packet_size_bytes_bucket{direction="sent",le="0.5"} 29
picket_gossip_packet_size_bytes_bucket{direction="sent",le="+Inf"} 30
picket_gossip_packet_size_bytes_sum{direction="sent"} 15
picket_gossip_packet_size_bytes_count{direction="sent"} 30
picket_gossip_probe_duration_seconds_bucket{le="0.5"} 35
picket_gossip_probe_duration_seconds_bucket{le="+Inf"} 36
picket_gossip_probe_duration_seconds_sum 18
picket_gossip_probe_duration_seconds_count 36
picket_gossip_push_pull_duration_seconds_bucket{le="0.5"} 37
picket_gossip_push_pull_duration_seconds_bucket{le="+Inf"} 38
picket_gossip_push_pull_duration_seconds_sum 19
picket_gossip_push_pull_duration_seconds_count 38
picket_gossip_queued_broadcasts{of="memberlist"} 35
picket_gossip_queued_broadcasts{of="picket"} 5
picket_gossip_refused_traffic_total 12
picket_gossip_round_duration_seconds_bucket{le="0.5"} 36
picket_gossip_round_duration_seconds_bucket{le="+Inf"} 37
picket_gossip_round_duration_seconds_sum 18.5
picket_gossip_round_duration_seconds_count 37
picket_gossip_stream_sent_bytes_total 32
picket_gossip_streams_total{side="accepted"} 34
picket_gossip_streams_total{side="opened"} 33
picket_gossip_unknown_figures_total 44
`)
}

// TestEveryStatIsAMetric: a counter that package cluster gets must not be forgotten here.
func TestEveryStatIsAMetric(t *testing.T) {
	s, value, told := testFleetSnapshot(), 1000, map[string]string{}
	var number func(path string, v reflect.Value)
	number = func(path string, v reflect.Value) {
		switch {
		case path == ".Membership.Missing": // picket_cluster_members{state="failed"}
		case v.Kind() == reflect.Struct:
			for i := range v.NumField() {
				number(path+"."+v.Type().Field(i).Name, v.Field(i))
			}
		case v.CanConvert(reflect.TypeFor[float64]()):
			value++
			v.Set(reflect.ValueOf(value).Convert(v.Type()))
			told[path] = fmt.Sprintf(" %d\n", value)
		}
	}
	number(".Membership", reflect.ValueOf(&s.Membership).Elem())
	number(".Replication", reflect.ValueOf(&s.Replication).Elem())
	reg, _ := register(MetricsSnapshot{Fleet: s})
	text := series(t, reg, "picket_")
	for path, value := range told {
		if !strings.Contains(text, value) {
			t.Errorf("no metric tells %s", path)
		}
	}
	if len(told) < 50 {
		t.Errorf("only %d figures were looked at", len(told))
	}
}

// scrape is what a host's metrics listener tells.
func (h *fleetHost) scrape() prometheus.Gatherer {
	reg := prometheus.NewRegistry()
	newMetrics(reg, "", (&Agent{cfg: h.cfg, loop: h.loop, fleet: h.loop.fleet, runtime: h.fake, files: newFiles(h.loop)}).snapshot)
	return reg
}

// has says whether a scrape has these lines.
func (h *fleetHost) has(lines ...string) bool {
	text := series(h.t, h.scrape(), "picket_")
	for _, line := range lines {
		if !strings.Contains(text, line+"\n") {
			return false
		}
	}
	return true
}

// TestEveryPodAndNodeIsToldByItsOwnHost: each has the whole fleet in its cache, and all are scraped.
func TestEveryPodAndNodeIsToldByItsOwnHost(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		f.hosts[1].apply(webOf("busybox", ""))
		f.within(time.Minute, "web runs and is shown everywhere", func() bool {
			return f.everywhere(func(h *fleetHost) bool { return h.webReady(3, 3) })
		})
		for _, h := range f.hosts {
			for _, metric := range []string{"kube_pod_info", "kube_node_info", "picket_container_restarts_total"} {
				told := series(t, h.scrape(), metric)
				if strings.Count(told, "\n") != 1 || metric != "picket_container_restarts_total" && !strings.Contains(told, fmt.Sprintf("node=%q", h.cfg.Node.Name)) {
					t.Errorf("%s tells\n%s", h.cfg.Node.Name, told)
				}
			}
			if !h.has(`picket_pods{phase="Running"} 1`, `picket_objects{kind="Node"} 3`) {
				t.Errorf("%s tells\n%s", h.cfg.Node.Name, series(t, h.scrape(), "picket_"))
			}
			if expiry := series(t, h.scrape(), "picket_certificate"); strings.Count(expiry, "\n") != 2 || strings.Contains(expiry, "} -") {
				t.Errorf("certificates: %s", expiry)
			}
		}
	})
}

func TestFleetMetricsShowAHostThatFailsAndOneThatIsDeleted(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		first, second, third := f.hosts[0], f.hosts[1], f.hosts[2]
		f.within(time.Minute, "everybody has everything", func() bool {
			return f.everywhere(func(h *fleetHost) bool {
				return h.has(`picket_cluster_members{state="alive"} 3`, `picket_cluster_members{state="failed"} 0`, "picket_cluster_roster_members 3",
					"picket_cluster_heard_members 3", `picket_replication_elements{set="statuses"} 3`, "picket_replication_behind_objects 0", "picket_gossip_health_score 0")
			})
		})
		third.kill()
		f.within(time.Minute, "it is missed", func() bool {
			return first.has(`picket_cluster_members{state="alive"} 2`, `picket_cluster_members{state="failed"} 1`, "picket_cluster_roster_members 3", "picket_cluster_heard_members 2")
		})
		if err := first.loop.fleet.delete(third.cfg.Node.Name); err != nil {
			t.Fatal(err)
		}
		f.within(time.Minute, "it is missed no more", func() bool {
			return second.has(`picket_cluster_members{state="failed"} 0`, `picket_cluster_members{state="deleted"} 1`, "picket_cluster_roster_members 2")
		})
		if first.has("picket_replication_rounds_total 0") || first.has("picket_replication_sent_bytes_total 0") || first.has("picket_replication_pushes_total 0") ||
			first.has("picket_gossip_probe_duration_seconds_count 0") || !first.has("picket_gossip_unknown_figures_total 0") {
			t.Errorf("after a minute\n%s", series(t, first.scrape(), "picket_"))
		}
	})
}

// TestEveryMetricOfOursIsDocumented holds docs/metrics.md against what is exported, both ways.
func TestEveryMetricOfOursIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(picket_\\w+)(\\{[a-z,]+\\})?` \\|").FindAllStringSubmatch(string(text), -1) {
		documented[row[1]] = true
	}
	s := testSnapshot()
	s.Fleet = testFleetSnapshot()
	reg, _ := register(s)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if name := family.GetName(); strings.HasPrefix(name, "picket_") && !documented[name] {
			t.Errorf("docs/metrics.md has no line on %s", name)
		} else {
			delete(documented, name)
		}
	}
	for name := range documented {
		t.Errorf("docs/metrics.md tells of %s, which is not there", name)
	}
}
