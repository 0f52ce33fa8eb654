package cluster

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/picketd/picket/cluster/clustertest"
)

// nameServer is a Resolver whose answers change.
type nameServer struct {
	mu     sync.Mutex
	hosts  map[string][]netip.Addr
	fails  bool
	silent bool // until the context ends
	asked  int
}

func (n *nameServer) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	addrs, fails, silent := slices.Clone(n.hosts[host]), n.fails, n.silent
	n.asked++
	n.mu.Unlock()
	switch {
	case silent:
		<-ctx.Done()
		return nil, ctx.Err()
	case fails || addrs == nil:
		return nil, errors.New("no such host")
	}
	return addrs, nil
}

func (n *nameServer) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// named is a fleet whose hosts join at fleet.lan.
func (f *testFleet) named(places ...string) *nameServer {
	n := &nameServer{hosts: map[string][]netip.Addr{}}
	f.change = func(c *MembershipConfig) { c.Gossip.Resolver, c.Gossip.Join = n, places }
	return n
}

func TestANameThatChangesItsAddresses(t *testing.T) {
	inFleet(t, 90, func(t *testing.T, f *testFleet) {
		names := f.named("dns+fleet.lan:9745")
		a, b := f.add("a"), f.add("b")
		names.set(func() { names.hosts["fleet.lan"] = []netip.Addr{a.host.Addr()} })
		f.within(10*time.Second, "the name leads to a", func() bool { return agree(a, b) })
		// a is gone for good, and the name leads to b.
		a.lose()
		names.set(func() { names.hosts["fleet.lan"] = []netip.Addr{b.host.Addr()} })
		c := f.add("c")
		f.within(10*time.Second, "the name leads to b", func() bool { return agree(b, c) })
		// All are cut off, forget each other's addresses, move, and meet by the name.
		for _, h := range []*testHost{b, c} {
			h.lose()
			h.db = openRosterDB(t)
		}
		b.move()
		c.move()
		names.set(func() { names.hosts["fleet.lan"] = []netip.Addr{c.host.Addr(), b.host.Addr()} })
		f.within(20*time.Second, "the name leads to both", func() bool { return agree(b, c) })
	})
}

func TestANameServerThatFails(t *testing.T) {
	inFleet(t, 91, func(t *testing.T, f *testFleet) {
		names := f.named("dns+fleet.lan:9745", "b.lan:9745")
		names.set(func() { names.silent = true })
		a := f.add("a")
		b := f.add("b")
		names.set(func() { names.hosts["fleet.lan"] = []netip.Addr{a.host.Addr()} })
		time.Sleep(time.Minute)
		if s := b.m.Stats(); agree(a, b) || s.FailedPlaces == 0 {
			t.Errorf("%+v", s)
		}
		names.set(func() { names.silent, names.fails = false, true })
		time.Sleep(time.Minute)
		if agree(a, b) {
			t.Error("there is no answer")
		}
		names.set(func() { names.fails = false })
		f.within(10*time.Second, "it answers", func() bool { return agree(a, b) })
		// Those who have met need it no more, not even when they lose each other.
		names.set(func() { names.silent = true })
		time.Sleep(time.Minute)
		f.net.Partition([]string{"a"}, []string{"b"})
		time.Sleep(10 * time.Minute)
		f.net.Heal()
		f.within(20*time.Second, "they find each other by what is on disk", func() bool { return agree(a, b) })
	})
}

func TestANameOfAHundredAddresses(t *testing.T) {
	inFleet(t, 92, func(t *testing.T, f *testFleet) {
		names := f.named("dns+fleet.lan:9745")
		var all []netip.Addr
		for range 99 {
			all = append(all, f.net.Host("nobody").Addr()) // refused at once
		}
		a, b := f.add("a"), f.add("b")
		all = append(all, a.host.Addr())
		names.set(func() { names.hosts["fleet.lan"] = all })
		most := uint64(0)
		took := f.within(5*time.Minute, "one of a hundred is a", func() bool {
			before := b.m.Stats().JoinsTried
			time.Sleep(b.m.profile.rejoinEvery/2 - 51*time.Millisecond)
			most = max(most, b.m.Stats().JoinsTried-before)
			return agree(a, b)
		})
		t.Logf("found after %v, %d calls at once at most", took, most)
		if most > joinAtOnce+1 { // and one to look around
			t.Errorf("%d calls at once", most)
		}
	})
}

func TestAFileOfSeedsThatChanges(t *testing.T) {
	inFleet(t, 93, func(t *testing.T, f *testFleet) {
		path := filepath.Join(t.TempDir(), "seeds")
		names := f.named("file:" + path)
		write := func(lines ...string) {
			t.Helper()
			if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		a, b := f.add("a"), f.add("b")
		write("# none yet")
		time.Sleep(20 * time.Second)
		if b.sees(a) || b.m.Stats().FailedPlaces > 2 {
			t.Errorf("a file without seeds is a file: %+v", b.m.Stats())
		}
		write("file:"+path, "no place at all", "dns+a.lan:9745", "  ")
		names.set(func() { names.hosts["a.lan"] = []netip.Addr{a.host.Addr()} })
		f.within(10*time.Second, "the good line leads to a", func() bool { return agree(a, b) })
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		if !agree(a, b) {
			t.Error("a file that is gone is no reason to part")
		}
		c := f.add("c")
		write(b.address())
		f.within(10*time.Second, "it is back, with another host", func() bool { return agree(a, b, c) })
	})
}

func TestProfiles(t *testing.T) {
	for n, p := range []struct {
		name                string
		joins, fails, heals time.Duration
		delay               time.Duration
	}{
		// memberlist's own: a host that missed what the others said finds out alone, in 18 s after it has asked.
		{"local", 5 * time.Second, 30 * time.Second, 10 * time.Second, time.Millisecond},
		{"lan", 5 * time.Second, 5 * time.Second, 10 * time.Second, time.Millisecond},
		{"wan", 20 * time.Second, 90 * time.Second, 40 * time.Second, 150 * time.Millisecond},
	} {
		t.Run(p.name, func(t *testing.T) {
			inFleet(t, 94+uint64(n), func(t *testing.T, f *testFleet) {
				f.net.SetFaults(clustertest.Faults{Delay: p.delay, Jitter: p.delay})
				f.change = func(c *MembershipConfig) { c.Gossip.Profile = p.name }
				hosts := f.addMany(5)
				t.Log("joined after", f.within(p.joins, "five agree", func() bool { return agree(hosts...) }))
				time.Sleep(time.Minute)
				if !agree(hosts...) {
					t.Error("one was lost")
				}
				lost := hosts[4]
				lost.stop()
				t.Log("failed after", f.within(p.fails, "all find it failed", func() bool {
					return !slices.ContainsFunc(hosts[:4], func(h *testHost) bool { return h.member(lost.name).Alive })
				}))
				lost.start()
				t.Log("returned after", f.within(p.joins, "it is back", func() bool { return agree(hosts...) }))
				f.net.Partition(names(hosts[:2]), names(hosts[2:]))
				time.Sleep(5 * time.Minute)
				f.net.Heal()
				t.Log("healed after", f.within(p.heals, "five agree again", func() bool { return agree(hosts...) }))
			})
		})
	}
}
