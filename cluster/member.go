package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/picketd/picket/cluster/pki"
	"go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"
)

// MembershipConfig is how this host takes part in a fleet.
type MembershipConfig struct {
	Node      string // its name, stable for ever
	Fleet     string // the cluster's name: hosts of another fleet are not heard
	API       string // host:port of this host's API, for others
	Gossip    GossipConfig
	ReapAfter time.Duration // how long a member is out of reach before it is reaped; 0 is never
	DB        *bbolt.DB
	Roster    *Roster
	Log       *slog.Logger
}

// GossipConfig is how hosts reach each other.
type GossipConfig struct {
	Bind      string // host:port; 0.0.0.0 wants Advertise or a seed
	Advertise string // host or host:port; default: the bound address, or the one from which the first seed is reached
	Profile   string // lan, wan or local
	// Join is where other hosts may be: host:port, dns+name:port (all addresses of the name), file:PATH (such lines in a file).
	Join    []string
	KeyFile string // gossip keys; "" is no encryption
	// For tests; nil is the real thing.
	Resolver  Resolver
	Transport memberlist.NodeAwareTransport
}

const (
	// incarnationMargin is how many lives of the agent, or corrections of a life, one write to disk is for.
	incarnationMargin = 16
	incarnationName   = "incarnation"

	// inboxSize bounds the small messages that wait for the loop, bulkSize the large ones, which may have up to maxBulk bytes.
	inboxSize = 1024
	bulkSize  = 4
	maxBulk   = 4 << 20
	// userSize bounds the broadcasts of others that the agent has not taken yet.
	userSize = 1024
	// maxCalls bounds the calls to other hosts at one time.
	maxCalls = 16
)

// Membership is this host's place in the fleet. Any goroutine may call its methods.
type Membership struct {
	config      MembershipConfig
	profile     profile
	log         *slog.Logger
	roster      *Roster
	incarnation *Counter
	addresses   *addressBook // of the rejoin loop
	keys        *keyring
	queues      *queues
	list        *memberlist.Memberlist
	stats       counters
	gossip      *gossipMeter

	ctx   context.Context // ends with Close; memberlist's callbacks have none of their own
	stop  context.CancelFunc
	loops sync.WaitGroup
	// doubts are begun by the loops and by each other.
	doubts sync.WaitGroup
	calls  errgroup.Group

	meta atomic.Pointer[[]byte]
	// comparison is of what is replicated; nil while nothing is.
	comparison atomic.Pointer[comparison]
	inbox      chan []byte
	bulk       chan []byte
	events     chan any
	user       chan []byte
	changes    chan struct{}
	joined     chan struct{}

	leaving atomic.Bool
	// turnedAway is set when a host was not heard because too many are in no roster.
	turnedAway atomic.Bool
	epoch      atomic.Uint64 // counts changes
	once       sync.Once     // of joined

	raising  sync.Mutex // held while this host's own word changes; taken before mu
	declared declared

	// mu is taken inside of memberlist's own lock: nothing of memberlist may be called while it is held.
	mu        sync.Mutex
	peers     map[string]*peer
	me        netip.AddrPort
	life      uint64 // this life's incarnation
	newborn   bool   // it began with an empty disk and has not heard of an earlier life
	outlived  bool   // it has heard of another life
	seeds     []string
	conflicts map[string]Conflict
	strangers map[string]time.Time // heard, and in no roster: when last
	dialing   map[netip.AddrPort]bool
	reached   map[netip.AddrPort]time.Time // when a seed last answered
}

// peer is what is known of a host, this one included. It stays when the host fails.
type peer struct {
	// addr and meta are what is believed: of a host of the roster, what it has signed.
	addr netip.AddrPort
	meta meta
	// claim is what memberlist has, refused what it was not given last.
	claim, refused claim
	proven         bool // it was alive where it says that it is
	alive          bool
	// held is one that memberlist has alive and that is not believed.
	held bool
	// doubted is one that memberlist has dead and that answers, or is being asked.
	doubted bool
	since   time.Time // alive or not
	heard   time.Time
	rtt     time.Duration
	keys    []string
}

// StartMembership takes this host into the fleet and returns; that others were found is told by Joined. A fleet of one is one
// that has found nobody yet.
func StartMembership(config MembershipConfig) (_ *Membership, err error) {
	m := &Membership{
		config: config, roster: config.Roster, log: config.Log,
		inbox: make(chan []byte, inboxSize), bulk: make(chan []byte, bulkSize), events: make(chan any, inboxSize),
		user: make(chan []byte, userSize), changes: make(chan struct{}, 1), joined: make(chan struct{}),
		peers: map[string]*peer{}, conflicts: map[string]Conflict{}, strangers: map[string]time.Time{}, seeds: config.Gossip.Join,
		dialing: map[netip.AddrPort]bool{}, reached: map[netip.AddrPort]time.Time{}, gossip: newGossipMeter(),
	}
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.calls.SetLimit(maxCalls)
	defer func() {
		if err != nil {
			m.stop()
			m.gossip.close()
			err = fmt.Errorf("cannot take part in the cluster: %w", err)
		}
	}()
	if err := m.prepare(); err != nil {
		return nil, err
	}
	if err := m.create(); err != nil {
		return nil, err
	}
	m.loops.Go(m.handle)
	m.loops.Go(m.rejoin)
	return m, nil
}

// prepare does what can fail before anybody hears of this host.
func (m *Membership) prepare() (err error) {
	c := m.config
	if c.Node == "" || len(c.Node) > maxNameLength {
		return fmt.Errorf("%q is no name for a node", c.Node)
	}
	if c.Fleet == "" || len(c.Fleet) > maxFleetName {
		return fmt.Errorf("%q is no name for a cluster: it has 1 to %d bytes", c.Fleet, maxFleetName)
	}
	if m.profile, err = profileOf(c.Gossip.Profile); err != nil {
		return err
	}
	if c.Gossip.KeyFile != "" {
		file, err := pki.ReadGossipKeys(c.Gossip.KeyFile)
		if err != nil {
			return err
		}
		if m.keys, err = newKeyring(file.Keys); err != nil {
			return err
		}
	}
	if m.incarnation, err = OpenCounter(c.DB, incarnationName, incarnationMargin); err != nil {
		return err
	}
	if m.addresses, err = openAddresses(c.DB); err != nil {
		return err
	}
	if err := m.live(0); err != nil {
		return err
	}
	m.restore()
	m.queues = newQueues(maxBroadcast(c.Fleet), m.profile.list().RetransmitMult, m.alive)
	return nil
}

// begin settles what this host is, and tells it also when it is what it was. A host with an older certificate than the fleet knows of
// it starts, so that what it runs goes on, and says so now and then.
func (m *Membership) begin() error {
	own := m.roster.word(m.config.Node)[voiceSelf]
	m.declared.notice, m.newborn = own, own.Entry == 0
	if own.Entry > 0 {
		m.tell(own)
	}
	err := m.settle()
	if errors.Is(err, errOlderCertificate) {
		m.log.Error("this host's place in the roster cannot be kept", "err", err)
		return nil
	}
	return err
}

// restore makes peers of the hosts that were known before the restart, so that they are failed and not unknown.
func (m *Membership) restore() {
	now := time.Now()
	for node, addr := range m.addresses.known {
		if _, ok := m.roster.Standing(node); ok && node != m.config.Node {
			m.peers[node] = &peer{addr: addr, since: now}
		}
	}
}

func (m *Membership) create() error {
	config, err := m.listConfig()
	if err != nil {
		return err
	}
	ip, port, err := config.Transport.FinalAdvertiseAddr(config.AdvertiseAddr, config.AdvertisePort)
	if err == nil {
		m.me = addrPort(ip, uint16(port))
		m.roster.locate(m.me, m.config.API)
		err = m.begin()
	}
	if err != nil {
		return errors.Join(err, config.Transport.Shutdown())
	}
	if m.list, err = memberlist.Create(config); err != nil {
		return errors.Join(err, config.Transport.Shutdown())
	}
	return nil
}

// alive counts the hosts that are, this one included.
func (m *Membership) alive() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, p := range m.peers {
		if p.alive {
			n++
		}
	}
	return n
}

// comparison is how a push/pull finds out that another host has something else.
type comparison struct {
	digest  func() [digestSize]byte
	differs func(node string) // must not block
	changed func()            // when a Snapshot may differ; it must not block, nor ask
}

func (m *Membership) compareBy(c comparison) { m.comparison.Store(&c) }

func (m *Membership) replicaDigest() (d [digestSize]byte) {
	if c := m.comparison.Load(); c != nil {
		d = c.digest()
	}
	return d
}

// hears says whether a host is alive.
func (m *Membership) hears(node string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[node]
	return p != nil && p.alive
}

// API is where a host's API is, as it said by gossip; false when it was not heard.
func (m *Membership) API(node string) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[node]
	if p == nil || p.meta.api == "" {
		return "", false
	}
	return p.meta.api, true
}

// changed tells the agent to take a Snapshot, if it has not been told since the last one.
func (m *Membership) changed() {
	m.epoch.Add(1)
	if c := m.comparison.Load(); c != nil {
		c.changed()
	}
	select {
	case m.changes <- struct{}{}:
	default:
	}
}

// Changes has something when a Snapshot may differ from the last one. It is for one reader.
func (m *Membership) Changes() <-chan struct{} { return m.changes }

// Joined is closed when another host has answered.
func (m *Membership) Joined() <-chan struct{} { return m.joined }

// Messages are the broadcasts of other hosts, as they were given to Broadcast. They come in any order, may come twice or never,
// and are dropped, and counted, while nobody takes them. memberlist does not relay them: who finds one new calls Broadcast.
func (m *Membership) Messages() <-chan []byte { return m.user }

// MaxBroadcast is how large a message may be.
func (m *Membership) MaxBroadcast() int { return m.queues.limit }

// Broadcast spreads a message by gossip, best effort, to some hosts now and then. A newer one of the same name takes the place of
// one that still waits. The error is ErrTooLarge.
func (m *Membership) Broadcast(name string, message []byte) error {
	return m.queues.add(&m.queues.user, name, kindUser, message)
}

// Heard notes that a host gave a sign of life in some other way: an answer over mTLS, a status it signed.
func (m *Membership) Heard(node string, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[node]; p != nil && at.After(p.heard) {
		p.heard = at
	}
}

// Ping asks one host for a sign of life and waits for it, at most the profile's probe time-out. Gossip itself asks every host only
// once in a round, which takes half a second for every member.
func (m *Membership) Ping(node string) (time.Duration, error) {
	m.mu.Lock()
	p := m.peers[node]
	if p == nil {
		m.mu.Unlock()
		return 0, fmt.Errorf("cannot ping %s: its address is not known", node)
	}
	addr := p.addr
	m.mu.Unlock()
	rtt, err := m.list.Ping(node, udpAddr(addr))
	if err != nil {
		return 0, fmt.Errorf("cannot ping %s: %w", node, err)
	}
	m.Heard(node, time.Now())
	return rtt, nil
}

// SetJoin replaces the places where other hosts may be.
func (m *Membership) SetJoin(join []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seeds = join
}

// ReloadKeys reads the file of gossip keys again. A file that cannot be used leaves the present keys, and is an error and counted.
func (m *Membership) ReloadKeys() error {
	if m.keys == nil {
		return nil
	}
	file, err := pki.ReadGossipKeys(m.config.Gossip.KeyFile)
	if err == nil {
		err = m.keys.replace(file.Keys)
	}
	if err != nil {
		m.stats.keyErrors.Add(1)
		return fmt.Errorf("new gossip keys are not used: %w", err)
	}
	m.log.Info("gossip keys read", "keys", fingerprints(file.Keys))
	return nil
}

// Leave says that this host left, so that nobody waits for it or calls it failed, and waits for some to have heard it, at most
// until the context ends. Close comes after it; a later start takes the host back in.
func (m *Membership) Leave(ctx context.Context) error {
	m.leaving.Store(true)
	n, err := m.roster.Say(m.config.Node, RosterLeft)
	if err != nil {
		return fmt.Errorf("cannot leave the cluster: %w", err)
	}
	m.tellAtOnce(ctx, n)
	wait := m.profile.leaveTimeout
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline))
	}
	if err := m.list.Leave(max(wait, time.Millisecond)); err != nil {
		return fmt.Errorf("cannot leave the cluster: %w", err)
	}
	return nil
}

// Close ends the membership without a word: others find this host failed, unless it left. When it returns, nothing runs any more
// but memberlist's last probe, which ends by itself in seconds.
func (m *Membership) Close() error {
	m.stop()
	err := m.list.Shutdown()
	m.loops.Wait()
	m.doubts.Wait()
	m.gossip.close()
	return errors.Join(err, m.calls.Wait())
}
