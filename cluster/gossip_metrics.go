package cluster

import (
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-metrics"
)

// GossipStats are memberlist's own figures of one Membership, since its start. memberlist counts no packet that it sends again.
type GossipStats struct {
	PacketsSent, PacketsReceived   Distribution // bytes each. A transport of the caller's own may not count what it receives
	StreamBytesSent                uint64
	StreamsOpened, StreamsAccepted uint64 // for push/pulls; accepted ones for messages too
	Queued                         int    // of memberlist's own broadcasts, when it last looked

	Probes    Distribution // seconds from a ping to its answer, or to the end of waiting for one
	Rounds    Distribution // seconds it took to send a round of gossip
	PushPulls Distribution // seconds of those begun here

	SaidAlive, SaidSuspect, SaidDead uint64 // words on hosts that were taken in
	DegradedProbes                   uint64 // made more slowly because of the HealthScore
	LonelyDeaths                     uint64 // hosts called dead here that too few others doubted as well

	Unknown uint64 // what memberlist told and nobody here knows: it is of another version than this was written for
}

// Distribution is how many measured values there were and how large.
type Distribution struct {
	Count  uint64
	Sum    float64
	AtMost map[float64]uint64 // how many were at most so large
}

func newDistribution(bounds ...float64) Distribution {
	d := Distribution{AtMost: map[float64]uint64{}}
	for _, bound := range bounds {
		d.AtMost[bound] = 0
	}
	return d
}

func (d *Distribution) add(v float64) {
	d.Count++
	d.Sum += v
	for bound := range d.AtMost {
		if v <= bound {
			d.AtMost[bound]++
		}
	}
}

func (d Distribution) clone() Distribution {
	d.AtMost = maps.Clone(d.AtMost)
	return d
}

// gossipNames are all that memberlist tells, under its names, and what becomes of each; nil is known and left out:
//
//   - Stats has health.score anyway, and Snapshot what node.instances says, which is as old as the last push/pull;
//   - size.local is no size (memberlist reads four bytes of what it is about to send as one), size.remote is told with encryption only.
var gossipNames = map[string]func(s *GossipStats, v float64){
	"memberlist.udp.sent":         func(s *GossipStats, v float64) { s.PacketsSent.add(v) },
	"memberlist.udp.received":     func(s *GossipStats, v float64) { s.PacketsReceived.add(v) },
	"memberlist.tcp.sent":         func(s *GossipStats, v float64) { s.StreamBytesSent += uint64(v) },
	"memberlist.tcp.connect":      func(s *GossipStats, _ float64) { s.StreamsOpened++ },
	"memberlist.tcp.accept":       func(s *GossipStats, _ float64) { s.StreamsAccepted++ },
	"memberlist.queue.broadcasts": func(s *GossipStats, v float64) { s.Queued = int(v) },
	"memberlist.probeNode":        func(s *GossipStats, v float64) { s.Probes.add(v) },
	"memberlist.gossip":           func(s *GossipStats, v float64) { s.Rounds.add(v) },
	"memberlist.pushPullNode":     func(s *GossipStats, v float64) { s.PushPulls.add(v) },
	"memberlist.msg.alive":        func(s *GossipStats, _ float64) { s.SaidAlive++ },
	"memberlist.msg.suspect":      func(s *GossipStats, _ float64) { s.SaidSuspect++ },
	"memberlist.msg.dead":         func(s *GossipStats, _ float64) { s.SaidDead++ },
	"memberlist.degraded.probe":   func(s *GossipStats, _ float64) { s.DegradedProbes++ },
	"memberlist.degraded.timeout": func(s *GossipStats, _ float64) { s.LonelyDeaths++ },
	"memberlist.health.score":     nil,
	"memberlist.node.instances":   nil,
	"memberlist.size.local":       nil,
	"memberlist.size.remote":      nil,
}

// gossipMeter takes the figures of one Membership. memberlist calls with its locks held: nothing is called under mu.
type gossipMeter struct {
	id string

	mu    sync.Mutex
	stats GossipStats
}

// meterLabel is how a figure names the Membership it is of.
const meterLabel = "membership"

// gossipSink gives every gossipMeter what is of its Membership. memberlist can tell its figures only to the one sink that a process
// has, so there is one, from the first Membership on; tests have many Memberships in a process.
var gossipSink = sync.OnceValue(func() *meters {
	s := &meters{}
	config := metrics.Config{FilterDefault: true, TimerGranularity: time.Second}
	if _, err := metrics.NewGlobal(&config, s); err != nil {
		panic(err) // it has no error to return
	}
	return s
})

type meters struct {
	metrics.BlackholeSink
	last atomic.Uint64
	byID sync.Map // id -> *gossipMeter
}

// newGossipMeter listens until it is closed.
func newGossipMeter() *gossipMeter {
	const ms = 0.001
	times := func() Distribution { return newDistribution(0.5*ms, 2*ms, 8*ms, 32*ms, 128*ms, 512*ms, 2048*ms) }
	sizes := func() Distribution { return newDistribution(64, 128, 256, 512, 1024, packetSize) }
	s := gossipSink()
	m := &gossipMeter{id: strconv.FormatUint(s.last.Add(1), 10), stats: GossipStats{
		PacketsSent: sizes(), PacketsReceived: sizes(), Probes: times(), Rounds: times(), PushPulls: times(),
	}}
	s.byID.Store(m.id, m)
	return m
}

func (m *gossipMeter) close() { gossipSink().byID.Delete(m.id) }

// labels are what memberlist must tell its figures with.
func (m *gossipMeter) labels() []metrics.Label {
	return []metrics.Label{{Name: meterLabel, Value: m.id}}
}

func (m *gossipMeter) read() GossipStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	for _, d := range []*Distribution{&s.PacketsSent, &s.PacketsReceived, &s.Probes, &s.Rounds, &s.PushPulls} {
		*d = d.clone()
	}
	return s
}

func (m *gossipMeter) take(name string, v float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch add, known := gossipNames[name]; {
	case !known:
		m.stats.Unknown++
	case add != nil:
		add(&m.stats, v)
	}
}

// take drops what is of nobody: of a Membership that was closed, or of another library that uses go-metrics.
func (s *meters) take(key []string, v float32, labels []metrics.Label) {
	for _, label := range labels {
		if label.Name != meterLabel {
			continue
		}
		if m, ok := s.byID.Load(label.Value); ok {
			m.(*gossipMeter).take(strings.Join(key, "."), float64(v))
		}
		return
	}
}

func (s *meters) SetGaugeWithLabels(key []string, v float32, labels []metrics.Label) {
	s.take(key, v, labels)
}

func (s *meters) IncrCounterWithLabels(key []string, v float32, labels []metrics.Label) {
	s.take(key, v, labels)
}

func (s *meters) AddSampleWithLabels(key []string, v float32, labels []metrics.Label) {
	s.take(key, v, labels)
}
