package cluster

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/picketd/picket/cluster/clustertest"
	"go.etcd.io/bbolt"
)

// testFleet is agents' memberships over a network in memory, in a synctest bubble.
type testFleet struct {
	t      *testing.T
	net    *clustertest.Network
	hosts  []*testHost
	change func(*MembershipConfig) // of the next starts
}

// testHost is one agent; what is in it survives restarts.
type testHost struct {
	f    *testFleet
	name string
	auth Authenticator
	db   *bbolt.DB
	log  *logBook

	host   *clustertest.Host
	lost   bool // its machine has no power
	roster *Roster
	m      *Membership // nil when it is down
}

// inFleet runs a test in a bubble, which fails when a goroutine is left.
func inFleet(t *testing.T, seed uint64, f func(t *testing.T, f *testFleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fleet := &testFleet{t: t, net: clustertest.NewNetwork(seed)}
		fleet.net.SetFaults(clustertest.Faults{Delay: time.Millisecond, Jitter: time.Millisecond})
		defer fleet.stopAll()
		f(t, fleet)
	})
}

// stopAll also waits for memberlist's last probes, which Shutdown does not do. What is still there then is a leak, and the bubble
// panics.
func (f *testFleet) stopAll() {
	for _, h := range f.hosts {
		h.stop()
	}
	time.Sleep(time.Minute)
}

// add starts a host that joins at the given ones.
func (f *testFleet) add(name string, seeds ...*testHost) *testHost {
	f.t.Helper()
	h := &testHost{f: f, name: name, auth: newPlainKeys(name, true, ""), db: openRosterDB(f.t), log: &logBook{}}
	f.hosts = append(f.hosts, h)
	h.host = f.net.Host(name)
	h.start(seeds...)
	return h
}

// addMany starts hosts that join at the first.
func (f *testFleet) addMany(n int) []*testHost {
	f.t.Helper()
	first := f.add("host-00")
	hosts := []*testHost{first}
	for i := 1; i < n; i++ {
		hosts = append(hosts, f.add(fmt.Sprintf("host-%02d", i), first))
	}
	return hosts
}

func (h *testHost) start(seeds ...*testHost) {
	h.f.t.Helper()
	transport, err := h.host.Transport(9745)
	if err != nil {
		h.f.t.Fatal(err)
	}
	h.roster = openRoster(h.f.t, h.db, h.auth)
	config := MembershipConfig{
		Node: h.name, Fleet: "fleet", API: h.host.Addr().String() + ":9746", DB: h.db, Roster: h.roster, Log: slog.New(h.log),
		Gossip: GossipConfig{Bind: "0.0.0.0:9745", Profile: "lan", Transport: transport},
	}
	for _, s := range seeds {
		config.Gossip.Join = append(config.Gossip.Join, s.address())
	}
	if h.f.change != nil {
		h.f.change(&config)
	}
	if h.m, err = StartMembership(config); err != nil {
		h.f.t.Fatal(err)
	}
}

func (h *testHost) address() string { return h.host.Addr().String() + ":9745" }

// stop ends the agent without a word.
func (h *testHost) stop() {
	if h.m == nil {
		return
	}
	if err := h.m.Close(); err != nil {
		h.f.t.Error(err)
	}
	h.m = nil
}

// lose pulls the plug.
func (h *testHost) lose() {
	h.host.Unplug()
	h.lost = true
	h.stop()
}

// powered gives a machine that lost power another address.
func (h *testHost) powered() {
	if h.lost {
		h.host, h.lost = h.f.net.Host(h.name), false
	}
}

// move brings the host back with another address.
func (h *testHost) move(seeds ...*testHost) {
	h.f.t.Helper()
	h.powered()
	h.start(seeds...)
}

func (h *testHost) member(name string) Member {
	for _, m := range h.m.Snapshot().Members {
		if m.Node == name {
			return m
		}
	}
	return Member{}
}

func (h *testHost) sees(others ...*testHost) bool {
	members := map[string]Member{}
	for _, m := range h.m.Snapshot().Members {
		members[m.Node] = m
	}
	for _, o := range others {
		m := members[o.name]
		if !m.Alive || !m.Listed || m.State != RosterMember || m.Gossip.String() != o.address() {
			return false
		}
	}
	return true
}

// agree says whether all see each other and have one roster.
func agree(hosts ...*testHost) bool {
	for _, h := range hosts {
		if !h.sees(hosts...) || h.roster.Digest() != hosts[0].roster.Digest() {
			return false
		}
	}
	return true
}

// within waits for something in virtual time and returns how long that took.
func (f *testFleet) within(d time.Duration, what string, is func() bool) time.Duration {
	f.t.Helper()
	begun := time.Now()
	for time.Since(begun) <= d {
		if is() {
			return time.Since(begun)
		}
		time.Sleep(50 * time.Millisecond)
	}
	f.t.Fatalf("not within %v: %s", d, what)
	return 0
}

func names(hosts []*testHost) []string {
	var all []string
	for _, h := range hosts {
		all = append(all, h.name)
	}
	return all
}

// logBook is a slog.Handler that keeps what is said.
type logBook struct {
	mu    sync.Mutex
	lines []string
}

func (l *logBook) Enabled(context.Context, slog.Level) bool { return true }
func (l *logBook) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logBook) WithGroup(string) slog.Handler            { return l }

func (l *logBook) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return nil
}

func (l *logBook) has(parts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.lines, func(line string) bool {
		return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) })
	})
}

// last are the newest lines, at most n.
func (l *logBook) last(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines[max(0, len(l.lines)-n):])
}

// keyFile writes keys made of single bytes, in order.
func keyFile(t *testing.T, path string, keys ...byte) {
	t.Helper()
	var content string
	for _, k := range keys {
		content += base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{k}, 32)) + "\n"
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func keyPath(t *testing.T, keys ...byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gossip.keys")
	keyFile(t, path, keys...)
	return path
}
