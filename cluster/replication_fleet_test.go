package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/picketd/picket/cluster/clustertest"
	"github.com/picketd/picket/cluster/pki"
	"go.etcd.io/bbolt"
)

// agents are whole hosts of package cluster, membership, store, statuses and replication, with real certificates, over a network in
// memory, in a synctest bubble.
type agents struct {
	t         testing.TB
	net       *clustertest.Network
	authority *pki.Authority
	list      []*agent
	streams   atomic.Int64 // bytes in all streams, both ways
	packets   func() int
	permit    func(Signer, string) error // of hosts that start

	mu    sync.Mutex
	dials map[string]int // of addresses
}

// agent is one of them; what is above the line survives restarts.
type agent struct {
	f    *agents
	name string
	door bool
	dir  string // of its certificates
	db   *bbolt.DB
	host *clustertest.Host

	store    *Store
	roster   *Roster
	statuses *Statuses
	m        *Membership
	peers    *Peers
	r        *Replication // nil when it is down
	server   *http.Server
	serving  *pki.Serving
	verified atomic.Int64 // signatures of objects that were looked at
}

const (
	gossipPort = 9745
	apiPort    = 9746
)

func withAgents(t *testing.T, seed uint64, faults clustertest.Faults, f func(t *testing.T, f *agents)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fleet := newAgents(t, seed)
		fleet.net.SetFaults(faults)
		defer func() {
			for _, a := range fleet.list {
				a.stop()
			}
			time.Sleep(time.Minute) // for memberlist's last probes; then nothing may be left, or the bubble panics
		}()
		f(t, fleet)
	})
}

func newAgents(t testing.TB, seed uint64) *agents {
	t.Helper()
	authority, err := pki.NewAuthority("fleet", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	n := clustertest.NewNetwork(seed)
	return &agents{t: t, net: n, authority: authority, dials: map[string]int{}, packets: func() int { return n.Counts().Bytes }}
}

// add starts a host that joins at the given ones.
func (f *agents) add(name string, door bool, seeds ...*agent) *agent {
	f.t.Helper()
	db, err := bbolt.Open(filepath.Join(f.t.TempDir(), "state.db"), 0o600, &bbolt.Options{NoSync: true, NoFreelistSync: true})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { db.Close() })
	return f.addWith(name, door, db, seeds...)
}

// addWith starts a host whose state is in a certain file.
func (f *agents) addWith(name string, door bool, db *bbolt.DB, seeds ...*agent) *agent {
	f.t.Helper()
	a := &agent{f: f, name: name, door: door, dir: f.t.TempDir(), db: db, host: f.net.Host(name)}
	a.certify(f.authority)
	f.list = append(f.list, a)
	a.start(seeds...)
	return a
}

func (f *agents) addMany(n int) []*agent {
	f.t.Helper()
	list := []*agent{f.add("host-00", true)}
	for i := 1; i < n; i++ {
		list = append(list, f.add(fmt.Sprintf("host-%02d", i), true, list[0]))
	}
	return list
}

// certify gives the host a new certificate.
func (a *agent) certify(authority *pki.Authority) {
	a.f.t.Helper()
	pair, err := authority.IssueHost(pki.Host{Node: a.name, Door: a.door}, time.Now())
	if err != nil {
		a.f.t.Fatal(err)
	}
	if err := (pki.HostKit{CA: authority.TrustedPEM(), Pair: pair}).Write(a.dir, true); err != nil {
		a.f.t.Fatal(err)
	}
}

func (a *agent) identity() *pki.Identity { return a.serving.Identity() }

func (a *agent) start(seeds ...*agent) {
	t := a.f.t
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	var err error
	a.serving, err = pki.NewServing(a.dir, time.Now, nil)
	must(err)
	auth := Certificates(a.identity)
	a.roster, err = OpenRoster(a.db, "fleet", auth)
	must(err)
	a.store, err = OpenStore(a.db, a.name, time.Now)
	must(err)
	a.store.SealWith(&Seal{Fleet: "fleet", Auth: watched{auth, &a.verified}, Permit: a.f.permit, Revoked: func(node string, issued int64) bool { return a.roster.Refused(node, time.Unix(issued, 0)) }})
	a.statuses, err = OpenStatuses(a.db, "fleet", a.name, auth, a.roster)
	must(err)
	transport, err := a.host.Transport(gossipPort)
	must(err)
	config := MembershipConfig{
		Node: a.name, Fleet: "fleet", API: fmt.Sprintf("%s:%d", a.host.Addr(), apiPort), DB: a.db, Roster: a.roster, Log: log,
		Gossip: GossipConfig{Bind: "0.0.0.0:9745", Profile: "lan", Transport: countedTransport{transport, &a.f.streams}},
	}
	for _, s := range seeds {
		config.Gossip.Join = append(config.Gossip.Join, fmt.Sprintf("%s:%d", s.host.Addr(), gossipPort))
	}
	a.m, err = StartMembership(config)
	must(err)
	a.peers = NewPeers(PeersConfig{Identity: a.identity, Roster: a.roster, Address: a.m.API, Heard: a.m.Heard, Dial: a.dial})
	a.r = StartReplication(ReplicationConfig{Node: a.name, Store: a.store, Statuses: a.statuses, Membership: a.m, Peers: a.peers, Log: log})
	listener, err := a.host.Listen(apiPort)
	must(err)
	a.server = &http.Server{Handler: a.r, TLSConfig: a.serving.TLSConfig(), ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	server := a.server
	go func() { _ = server.ServeTLS(listener, "", "") }()
}

func (a *agent) dial(ctx context.Context, network, address string) (net.Conn, error) {
	a.f.mu.Lock()
	a.f.dials[address]++
	a.f.mu.Unlock()
	conn, err := a.host.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return countedConn{conn, &a.f.streams}, nil
}

// watched counts what is verified.
type watched struct {
	Authenticator
	n *atomic.Int64
}

func (w watched) Verify(credential, message, signature []byte) (Signer, error) {
	w.n.Add(1)
	return w.Authenticator.Verify(credential, message, signature)
}

// stop ends the agent without a word.
func (a *agent) stop() {
	if a.r == nil {
		return
	}
	a.r.Close()
	_ = a.server.Close()
	if err := a.m.Close(); err != nil {
		a.f.t.Error(err)
	}
	a.r = nil
}

// put writes objects and tells of them.
func (a *agent) put(writes ...Write) ([]Object, error) {
	stored, err := a.store.PutAll(writes)
	if err == nil {
		a.r.Tell(stored)
	}
	return stored, err
}

func (a *agent) mustPut(key, content string) Object {
	a.f.t.Helper()
	stored, err := a.put(Write{Key: key, Body: []byte(content), Hash: hashOf(content), Author: "tester@" + a.name})
	if err != nil {
		a.f.t.Fatal(err)
	}
	return stored[0]
}

func (a *agent) say(unit, body string) {
	a.f.t.Helper()
	st, _, err := a.statuses.Say(unit, []byte(body))
	if err != nil {
		a.f.t.Fatal(err)
	}
	a.r.TellStatus(st)
}

func (a *agent) has(key, content string) bool {
	o, ok := a.store.Get(key)
	return ok && !o.Deleted && string(o.Body) == content
}

// alike says whether all hosts have the same objects, statuses and rosters.
func alike(list []*agent) bool {
	for _, a := range list {
		if a.r.digest() != list[0].r.digest() || a.roster.Digest() != list[0].roster.Digest() {
			return false
		}
	}
	return true
}

func (f *agents) everyone(ok func(a *agent) bool) bool {
	return !slices.ContainsFunc(f.list, func(a *agent) bool { return a.r != nil && !ok(a) })
}

// met says whether every host sees every other one.
func (f *agents) met() bool {
	return f.everyone(func(a *agent) bool {
		for _, b := range f.list {
			if b.r != nil && b != a && !a.m.hears(b.name) {
				return false
			}
		}
		return a.roster.Digest() == f.list[0].roster.Digest()
	})
}

// within waits in virtual time and tells how long it took.
func (f *agents) within(limit time.Duration, what string, ok func() bool) time.Duration {
	f.t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			f.t.Fatalf("not within %s: %s\n%s", limit, what, f.report())
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

func (f *agents) report() string {
	text := ""
	for _, a := range f.list {
		if a.r == nil {
			text += a.name + " is down\n"
			continue
		}
		d, s := a.r.digest(), a.r.Stats()
		text += fmt.Sprintf("%s hears %d, digest %x, %+v\n", a.name, len(a.m.others()), d[:4], s)
	}
	return text
}

// countedTransport and countedConn count what the dialling end writes and reads.
type countedTransport struct {
	*clustertest.Transport
	bytes *atomic.Int64
}

func (c countedTransport) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	conn, err := c.Transport.DialTimeout(address, timeout)
	if err != nil {
		return nil, err
	}
	return countedConn{conn, c.bytes}, nil
}

func (c countedTransport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return c.DialTimeout(a.Addr, timeout)
}

type countedConn struct {
	net.Conn
	bytes *atomic.Int64
}

func (c countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.bytes.Add(int64(n))
	return n, err
}

func (c countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.bytes.Add(int64(n))
	return n, err
}
