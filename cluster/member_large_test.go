package cluster

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/picketd/picket/cluster/clustertest"
)

func TestFiftyHostsStartSplitAndHealOverALossyNetwork(t *testing.T) {
	inFleet(t, 50, func(t *testing.T, f *testFleet) {
		f.net.SetFaults(clustertest.Faults{Loss: 0.05, Reorder: 0.2, ReorderBy: 20 * time.Millisecond, Duplicate: 0.02, Delay: time.Millisecond, Jitter: 2 * time.Millisecond})
		hosts := f.addMany(50)
		t.Log("joined after", f.within(2*time.Minute, "fifty agree", func() bool { return agree(hosts...) }))
		time.Sleep(time.Minute)
		before, begun := f.net.Counts(), time.Now()
		time.Sleep(2 * time.Minute)
		after := f.net.Counts()
		t.Logf("idle: %.0f bytes of packets a second and host", float64(after.Bytes-before.Bytes)/time.Since(begun).Seconds()/50)
		if !agree(hosts...) {
			t.Error("a host was lost without a reason")
		}
		f.net.Partition(names(hosts[:25]), names(hosts[25:]))
		time.Sleep(3 * time.Minute)
		if hosts[0].sees(hosts[49]) {
			t.Fatal("there is no split")
		}
		f.net.Heal()
		t.Log("healed after", f.within(20*time.Second, "fifty agree again", func() bool { return agree(hosts...) }))
	})
}

func TestAOneWayCutIsNoSplit(t *testing.T) {
	inFleet(t, 30, func(t *testing.T, f *testFleet) {
		hosts := f.addMany(5)
		f.within(10*time.Second, "five agree", func() bool { return agree(hosts...) })
		f.net.Cut(hosts[1].name, hosts[2].name)
		time.Sleep(time.Minute)
		if !hosts[0].sees(hosts...) {
			t.Error("others relay, so nobody is failed")
		}
		f.net.Heal()
		f.within(20*time.Second, "five agree again", func() bool { return agree(hosts...) })
	})
}

func TestLeavingAndComingBack(t *testing.T) {
	inFleet(t, 31, func(t *testing.T, f *testFleet) {
		hosts := f.addMany(4)
		f.within(10*time.Second, "four agree", func() bool { return agree(hosts...) })
		a, d := hosts[0], hosts[3]
		if err := d.m.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.stop()
		f.within(5*time.Second, "it has left", func() bool {
			m := a.member(d.name)
			return !m.Alive && m.State == RosterLeft && !m.Missing()
		})
		time.Sleep(time.Minute)
		tried := a.m.Stats().JoinsTried
		time.Sleep(time.Minute)
		if a.m.Stats().JoinsTried != tried {
			t.Error("a host that left is still looked for")
		}
		d.start(a)
		f.within(10*time.Second, "it is back", func() bool { return agree(hosts...) })
	})
}

func TestADeletedHostStaysOutUntilItIsAdmitted(t *testing.T) {
	inFleet(t, 32, func(t *testing.T, f *testFleet) {
		hosts := f.addMany(4)
		f.within(10*time.Second, "four agree", func() bool { return agree(hosts...) })
		a, d := hosts[0], hosts[3]
		if err := a.m.Delete(d.name); err != nil {
			t.Fatal(err)
		}
		f.within(10*time.Second, "it hears so", func() bool { return d.member(d.name).State == RosterDeleted })
		d.stop()
		time.Sleep(time.Minute)
		d.start(a)
		time.Sleep(time.Minute)
		if a.member(d.name).Alive || a.member(d.name).State != RosterDeleted || a.m.Stats().RefusedAlive == 0 {
			t.Errorf("%+v", a.member(d.name))
		}
		if err := a.m.Admit(d.name); err != nil {
			t.Fatal(err)
		}
		f.within(2*time.Minute, "it is back", func() bool { return agree(hosts...) })
	})
}

func TestAHostOutOfReachIsReapedAndComesBack(t *testing.T) {
	inFleet(t, 33, func(t *testing.T, f *testFleet) {
		f.change = func(c *MembershipConfig) { c.ReapAfter = time.Hour }
		hosts := f.addMany(3)
		f.within(10*time.Second, "three agree", func() bool { return agree(hosts...) })
		a, c := hosts[0], hosts[2]
		f.net.Partition(names(hosts[:2]), names(hosts[2:]))
		time.Sleep(30 * time.Minute)
		if a.member(c.name).State != RosterMember {
			t.Error("too early")
		}
		time.Sleep(31 * time.Minute)
		if a.member(c.name).State != RosterReaped {
			t.Errorf("%+v", a.member(c.name))
		}
		f.net.Heal()
		f.within(20*time.Second, "all are members again", func() bool { return agree(hosts...) })
	})
}

func TestAnotherFleetIsNotHeard(t *testing.T) {
	inFleet(t, 34, func(t *testing.T, f *testFleet) {
		a := f.add("a")
		f.change = func(c *MembershipConfig) { c.Fleet = "another" }
		b := f.add("b", a)
		time.Sleep(time.Minute)
		if len(a.m.Snapshot().Members) != 1 || len(b.m.Snapshot().Members) != 1 {
			t.Error("two fleets met")
		}
	})
}

type names4 map[string][]netip.Addr

func (n names4) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if n[host] == nil {
		return nil, errors.New("no such host")
	}
	return n[host], nil
}

func TestJoinByNameAndByFile(t *testing.T) {
	inFleet(t, 35, func(t *testing.T, f *testFleet) {
		resolver := names4{}
		f.change = func(c *MembershipConfig) { c.Gossip.Resolver = resolver }
		a := f.add("a")
		path := filepath.Join(t.TempDir(), "hosts")
		byFile := func(c *MembershipConfig) {
			c.Gossip.Resolver, c.Gossip.Join = resolver, []string{"file:" + path, "dns+later.lan:9745"}
		}
		f.change = byFile
		b, c := f.add("b"), f.add("c")
		time.Sleep(time.Minute)
		if b.sees(a) || b.m.Stats().FailedPlaces == 0 {
			t.Fatalf("nothing leads there yet: %+v", b.m.Stats())
		}
		// The file and the name come later than the agents.
		if err := os.WriteFile(path, []byte("# seeds\n\n"+a.address()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		f.within(20*time.Second, "the file leads to a", func() bool { return agree(a, b, c) })
		resolver["later.lan"] = []netip.Addr{a.host.Addr(), b.host.Addr()}
		f.change = func(c *MembershipConfig) {
			c.Gossip.Resolver, c.Gossip.Join = resolver, []string{"dns+later.lan:9745"}
		}
		d := f.add("d")
		f.within(10*time.Second, "the name leads there", func() bool { return agree(a, b, c, d) })
	})
}

func TestCheckJoin(t *testing.T) {
	for place, good := range map[string]bool{
		"10.0.0.1:9745": true, "dns+picket.lan:9745": true, "file:/etc/picket/hosts": true, "[::1]:9745": true, "name:9745": true,
		"": false, "10.0.0.1": false, "10.0.0.1:0": false, "10.0.0.1:x": false, ":9745": false, "file:": false, "dns+:1": false,
	} {
		if err := CheckJoin(place); (err == nil) != good {
			t.Errorf("%q: %v", place, err)
		}
	}
}
