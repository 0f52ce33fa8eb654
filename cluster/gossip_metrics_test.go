package cluster

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-metrics"
)

func TestTrap12EveryMembershipHasMemberlistsFiguresOfItsOwn(t *testing.T) {
	inFleet(t, 30, func(t *testing.T, f *testFleet) {
		hosts := f.addMany(3)
		alone := f.add("alone")
		f.within(10*time.Second, "three agree", func() bool { return agree(hosts...) })
		a, c := hosts[0].m, hosts[2]
		time.Sleep(time.Minute)
		synctest.Wait()
		sent := 0
		for _, h := range f.hosts {
			n := int(h.m.Stats().Gossip.PacketsSent.Count)
			if sent += n; h != alone && n < 100 {
				t.Errorf("%s counts %d packets", h.name, n)
			}
		}
		if crossed := f.net.Counts().Sent; sent != crossed {
			t.Errorf("the hosts count %d packets, the network %d", sent, crossed)
		}
		before := a.Stats().Gossip
		if s := before; s.PacketsSent.Sum < 1000 || s.StreamBytesSent == 0 || s.StreamsOpened+s.StreamsAccepted == 0 ||
			s.SaidAlive == 0 || s.Rounds.Count == 0 || s.PushPulls.Count == 0 || s.SaidDead != 0 || s.Unknown != 0 {
			t.Errorf("after a minute: %+v", s)
		}
		// A link takes 1 to 2 ms each way: no probe is answered sooner than in 2 ms, nor later than in 8.
		if p := before.Probes; p.Count < 50 || p.AtMost[0.0005] != 0 || p.AtMost[0.008] != p.Count || p.Sum < 0.002*float64(p.Count) || p.Sum > 0.004*float64(p.Count) {
			t.Errorf("probes: %+v", p)
		}
		if p := before.PacketsSent; p.AtMost[packetSize] != p.Count || p.AtMost[64] > p.AtMost[256] {
			t.Errorf("packets: %+v", p)
		}
		if s := alone.m.Stats().Gossip; s.PacketsSent.Count != 0 || s.SaidDead != 0 {
			t.Errorf("a host without others has others' figures: %+v", s)
		}
		c.lose()
		f.within(10*time.Second, "a finds c failed", func() bool { return !a.hears(c.name) })
		if s := a.Stats().Gossip; s.SaidDead == 0 || s.SaidSuspect == 0 || s.Unknown != 0 {
			t.Errorf("after a host has failed: %+v", s)
		}
		if before.SaidDead != 0 || before.Probes.Count == a.Stats().Gossip.Probes.Count {
			t.Error("what was read has changed afterwards")
		}
	})
}

func TestMetersAreBoundedAndForgotten(t *testing.T) {
	a, b := newGossipMeter(), newGossipMeter()
	defer b.close()
	metrics.IncrCounterWithLabels([]string{"memberlist", "udp", "sent"}, 100, a.labels())
	metrics.AddSampleWithLabels([]string{"memberlist", "probeNode"}, 3, a.labels())
	metrics.MeasureSinceWithLabels([]string{"memberlist", "gossip"}, time.Now().Add(-time.Hour), a.labels())
	metrics.SetGaugeWithLabels([]string{"memberlist", "node", "instances"}, 7, append(a.labels(), metrics.Label{Name: "node_state", Value: "alive"}))
	for _, name := range []string{"x", "y", "y"} {
		metrics.SetGaugeWithLabels([]string{"memberlist", name}, 1, a.labels())
	}
	metrics.IncrCounter([]string{"memberlist", "udp", "sent"}, 100) // of nobody
	metrics.IncrCounterWithLabels([]string{"memberlist", "udp", "sent"}, 100, []metrics.Label{{Name: meterLabel, Value: "none"}})
	s := a.read()
	if s.PacketsSent.Count != 1 || s.PacketsSent.Sum != 100 || s.PacketsSent.AtMost[64] != 0 || s.PacketsSent.AtMost[128] != 1 || s.Unknown != 3 {
		t.Errorf("%+v", s)
	}
	if s.Probes.Sum != 3 || s.Probes.Count != 1 || s.Rounds.Sum < 3599 || s.Rounds.Sum > 3660 {
		t.Errorf("times are seconds: %+v", s)
	}
	if s := b.read(); s.PacketsSent.Count != 0 || s.Unknown != 0 {
		t.Errorf("another's: %+v", s)
	}
	a.close()
	metrics.IncrCounterWithLabels([]string{"memberlist", "udp", "sent"}, 100, a.labels())
	if s := a.read(); s.PacketsSent.Count != 1 {
		t.Errorf("after its end: %+v", s)
	}
}
