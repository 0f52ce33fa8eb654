package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/picketd/picket/cluster/clustertest"
)

// The churn of a fleet: what happens to hosts in years, in hours. PICKET_SEED repeats one run; PICKET_SOAK makes it a day.

const (
	churnHosts = 8
	// churnCalm is how often everything is mended and the fleet must be right.
	churnCalm = 30 * time.Minute
	// churnSettles is how long that may take: hosts that had a twin wait up to ten minutes before they correct the roster.
	churnSettles = 15 * time.Minute
)

func TestChurn(t *testing.T) {
	seed, hours := uint64(8), 2*time.Hour
	if s, err := strconv.ParseUint(os.Getenv("PICKET_SEED"), 10, 64); err == nil {
		seed = s
	}
	if os.Getenv("PICKET_SOAK") != "" {
		hours = 24 * time.Hour
	}
	inFleet(t, seed, func(t *testing.T, f *testFleet) {
		c := newChurn(t, f, seed)
		defer c.report()
		for time.Since(c.begun) < hours {
			for calm := time.Now(); time.Since(calm) < churnCalm; {
				time.Sleep(5*time.Second + rand2(c.random, 50*time.Second))
				c.step()
			}
			c.calm()
		}
	})
}

// churn is one run. What it draws comes from the seed; what goroutines draw from the network does not.
type churn struct {
	t      *testing.T
	f      *testFleet
	seed   uint64
	random *rand.Rand
	begun  time.Time
	trace  []string
	counts map[string]int

	hosts   []*testHost
	twins   map[*testHost]*testHost
	deleted map[*testHost]bool
	files   map[string]string // a host's name, or its twin's: its file of keys
	keys    []byte            // what the administrator wants in them
	old     map[*testHost]bool
	noNames bool // the resolver fails
}

func newChurn(t *testing.T, f *testFleet, seed uint64) *churn {
	c := &churn{
		t: t, f: f, seed: seed, random: rand.New(rand.NewPCG(seed, 1)), begun: time.Now(), counts: map[string]int{},
		twins: map[*testHost]*testHost{}, deleted: map[*testHost]bool{}, files: map[string]string{}, keys: []byte{1}, old: map[*testHost]bool{},
	}
	f.change = func(config *MembershipConfig) {
		config.Gossip.Resolver, config.Gossip.Join = c, []string{"dns+fleet.lan:9745"}
		config.Gossip.KeyFile = c.files[config.Node]
	}
	for i := range churnHosts {
		name := fmt.Sprintf("host-%d", i)
		c.files[name] = keyPath(t, c.keys...)
		c.hosts = append(c.hosts, f.add(name))
	}
	return c
}

func rand2(r *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(most)))
}

// LookupNetIP has the first three hosts, where they are now, up or not.
func (c *churn) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	if c.noNames {
		return nil, errors.New("no answer")
	}
	var all []netip.Addr
	for _, h := range c.hosts[:min(3, len(c.hosts))] {
		all = append(all, h.host.Addr())
	}
	return all, nil
}

func (c *churn) say(what string, args ...any) {
	line := fmt.Sprintf(what, args...)
	c.trace = append(c.trace, fmt.Sprintf("%8s %s", time.Since(c.begun).Round(time.Second), line))
}

func (c *churn) report() {
	if c.t.Failed() || testing.Verbose() {
		c.t.Logf("PICKET_SEED=%d; %v\n%s", c.seed, c.counts, strings.Join(c.trace, "\n"))
	}
}

// one draws one of the hosts for which something holds; nil when there is none.
func (c *churn) one(is func(h *testHost) bool) *testHost {
	var fit []*testHost
	for _, h := range c.hosts {
		if is(h) {
			fit = append(fit, h)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	return fit[c.random.IntN(len(fit))]
}

func up(h *testHost) bool   { return h.m != nil }
func down(h *testHost) bool { return h.m == nil }

// churnEvents are drawn by their weights. One that does not apply to any host is nothing.
var churnEvents = []struct {
	name   string
	weight int
	to     func(h *testHost) bool // nil is the whole fleet
	do     func(c *churn, h *testHost)
}{
	{"crash", 8, up, func(_ *churn, h *testHost) { h.stop() }},
	{"power cut", 4, up, func(_ *churn, h *testHost) { h.lose() }},
	{"restart", 8, up, func(c *churn, h *testHost) { h.stop(); c.start(h) }},
	{"restart with a new address", 6, up, func(c *churn, h *testHost) { h.lose(); c.start(h) }},
	{"restart with an empty disk", 4, up, func(c *churn, h *testHost) { h.stop(); h.db = openRosterDB(c.t); c.start(h) }},
	{"leave", 4, up, func(c *churn, h *testHost) { c.leave(h) }},
	{"start again", 20, down, func(c *churn, h *testHost) { c.start(h) }},
	{"delete", 3, nil, func(c *churn, _ *testHost) { c.delete() }},
	{"admit", 6, nil, func(c *churn, _ *testHost) { c.admit() }},
	{"twin", 3, up, func(c *churn, h *testHost) { c.twin(h) }},
	{"partition", 4, nil, func(c *churn, _ *testHost) { c.partition() }},
	{"one way cut", 5, nil, func(c *churn, _ *testHost) { c.cut() }},
	{"heal", 8, nil, func(c *churn, _ *testHost) { c.f.net.Heal() }},
	{"other faults", 4, nil, func(c *churn, _ *testHost) { c.faults(c.random.Float64() / 10) }},
	{"names fail or do not", 3, nil, func(c *churn, _ *testHost) { c.noNames = !c.noNames }},
	{"next step of a key rotation", 5, nil, func(c *churn, _ *testHost) { c.rotate() }},
	{"late keys", 12, func(h *testHost) bool { return h.m != nil }, func(c *churn, h *testHost) { c.deploy(h) }},
}

func (c *churn) step() {
	total := 0
	for _, e := range churnEvents {
		total += e.weight
	}
	drawn := c.random.IntN(total)
	for _, e := range churnEvents {
		if drawn -= e.weight; drawn >= 0 {
			continue
		}
		var h *testHost
		if e.to != nil {
			if h = c.one(e.to); h == nil {
				return
			}
			c.say("%s: %s", e.name, h.name)
		} else {
			c.say("%s", e.name)
		}
		c.counts[e.name]++
		e.do(c, h)
		return
	}
}

// start brings a host up, with another address if its machine lost power.
func (c *churn) start(h *testHost) {
	if down := rand2(c.random, 90*time.Second); c.random.IntN(2) == 0 {
		time.Sleep(down)
	}
	h.powered()
	if !c.old[h] { // a file of keys is late now and then
		c.old[h] = c.random.IntN(3) == 0
	}
	if !c.old[h] {
		c.deploy(h)
	}
	h.start()
}

func (c *churn) leave(h *testHost) {
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
	defer cancel()
	if err := h.m.Leave(ctx); err != nil {
		c.say("  %v", err)
	}
	h.stop()
}

func (c *churn) delete() {
	door, h := c.one(up), c.one(func(h *testHost) bool { return !c.deleted[h] })
	if door == nil || h == nil || door == h || c.deleted[door] || len(c.deleted) > 1 {
		return
	}
	c.say("  %s deletes %s", door.name, h.name)
	if err := door.m.Delete(h.name); err != nil {
		c.say("  %v", err)
		return
	}
	c.deleted[h] = true
}

func (c *churn) admit() {
	for _, h := range c.hosts {
		door := c.one(func(d *testHost) bool { return up(d) && d != h && d.member(h.name).State == RosterDeleted })
		if !c.deleted[h] || door == nil {
			continue
		}
		c.say("  %s admits %s", door.name, h.name)
		if err := door.m.Admit(h.name); err != nil {
			c.say("  %v", err)
			continue
		}
		delete(c.deleted, h)
	}
}

// twin starts a second host of a name for a while.
func (c *churn) twin(h *testHost) {
	if len(c.twins) > 0 {
		return
	}
	twin := &testHost{f: c.f, name: h.name, auth: newPlainKeys(h.name, true, "twin"), db: openRosterDB(c.t), log: &logBook{}}
	twin.host = c.f.net.Host(h.name)
	c.f.hosts = append(c.f.hosts, twin)
	twin.start()
	c.twins[h] = twin
	c.say("  until its twin is found out")
	time.Sleep(30*time.Second + rand2(c.random, 3*time.Minute))
	c.endTwins()
}

func (c *churn) endTwins() {
	for h, twin := range c.twins {
		twin.stop()
		delete(c.twins, h)
	}
}

func (c *churn) partition() {
	var a, b []string
	for _, h := range c.hosts {
		if c.random.IntN(2) == 0 {
			a = append(a, h.name)
		} else {
			b = append(b, h.name)
		}
	}
	c.say("  %v and %v", a, b)
	c.f.net.Partition(a, b)
}

func (c *churn) cut() {
	a, b := c.hosts[c.random.IntN(len(c.hosts))], c.hosts[c.random.IntN(len(c.hosts))]
	c.say("  from %s to %s", a.name, b.name)
	c.f.net.Cut(a.name, b.name)
}

func (c *churn) faults(loss float64) {
	c.say("  loss %.3f", loss)
	c.f.net.SetFaults(clustertest.Faults{Loss: loss, Reorder: 2 * loss, ReorderBy: 20 * time.Millisecond, Duplicate: loss / 2, Delay: time.Millisecond, Jitter: 5 * time.Millisecond})
}

// rotate makes the next of three steps: the new key beside the old one, before it, and alone. Hosts that are down, and a third of
// the others, get the file later.
func (c *churn) rotate() {
	last := c.keys[len(c.keys)-1]
	switch {
	case len(c.keys) == 1:
		c.keys = append(c.keys, last+1)
	case c.keys[0] < c.keys[1]:
		c.keys = []byte{c.keys[1], c.keys[0]}
	default:
		c.keys = c.keys[:1]
	}
	c.say("  keys %v", c.keys)
	for _, h := range c.hosts {
		if c.old[h] = true; up(h) && c.random.IntN(3) > 0 {
			c.deploy(h)
		}
	}
}

// deploy brings a host's file of keys up to date.
func (c *churn) deploy(h *testHost) {
	keyFile(c.t, c.files[h.name], c.keys...)
	delete(c.old, h)
	if h.m != nil {
		if err := h.m.ReloadKeys(); err != nil {
			c.t.Error(err)
		}
	}
}

// calm mends everything and waits for the fleet to be right.
func (c *churn) calm() {
	c.say("calm")
	c.f.net.Heal()
	c.faults(0)
	c.noNames = false
	c.endTwins()
	for _, h := range c.hosts {
		c.deploy(h)
		if down(h) {
			h.powered()
			h.start()
		}
	}
	begun := time.Now()
	for !c.right() {
		if c.admit(); time.Since(begun) > churnSettles {
			c.t.Fatalf("not right within %v:\n%s", churnSettles, c.differences())
		}
		time.Sleep(time.Second)
	}
	c.say("  right after %v", time.Since(begun).Round(time.Second))
	time.Sleep(3 * time.Minute)
	c.check()
}

// right says whether all see each other, have one roster, and in it each by its own certificate and not by its twin's.
func (c *churn) right() bool {
	return agree(c.hosts...) && !slices.ContainsFunc(c.hosts, func(h *testHost) bool {
		self, err := h.auth.Self()
		return err != nil || c.hosts[0].member(h.name).Fingerprint != self.Fingerprint
	})
}

// check looks at a fleet that was left alone for minutes.
func (c *churn) check() {
	if !c.right() {
		c.t.Fatalf("it did not stay right:\n%s", c.differences())
	}
	for _, h := range c.hosts {
		snapshot, stats := h.m.Snapshot(), h.m.Stats()
		if len(snapshot.Members) != len(c.hosts) || len(snapshot.Conflicts) > 0 {
			c.t.Errorf("%s sees %d hosts and conflicts %v", h.name, len(snapshot.Members), snapshot.Conflicts)
		}
		if stats.HealthScore > 0 || stats.Missing > 0 || stats.Queued > churnHosts*voices || stats.DroppedQueued > 0 || stats.Malformed > 0 {
			c.t.Errorf("%s: %+v", h.name, stats)
		}
		if !slices.Equal(stats.KeyFingerprints, c.hosts[0].m.Stats().KeyFingerprints) {
			c.t.Errorf("%s has keys %v", h.name, stats.KeyFingerprints)
		}
	}
}

// differences is what keeps a fleet from being right.
func (c *churn) differences() string {
	text := ""
	for _, h := range c.hosts {
		digest := h.roster.Digest()
		text += fmt.Sprintf("%s at %s, roster %x, %+v\n", h.name, h.address(), digest[:4], h.m.Stats())
		for _, o := range c.hosts {
			if m := h.member(o.name); !h.sees(o) {
				text += fmt.Sprintf("   sees %s alive %t, listed %t, %s at entry %d, at %s\n", o.name, m.Alive, m.Listed, m.State, m.Entry, m.Gossip)
			}
		}
		for _, line := range h.log.last(8) {
			text += "   " + line + "\n"
		}
	}
	return text
}
