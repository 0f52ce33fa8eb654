package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/hashicorp/memberlist"
	"go.etcd.io/bbolt"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/picketd/picket/cluster"
	"github.com/picketd/picket/cluster/pki"
)

const (
	// syncWithin is how long a host that starts waits for others before it reads its manifests directory.
	syncWithin = 10 * time.Second
	// keysEvery is how often the file of gossip keys is looked at.
	keysEvery = 10 * time.Second
	// tellWithin is how long a host that leaves takes to say so.
	tellWithin = 5 * time.Second
)

// fleet is this host's part of the fleet: what hosts share (store, roster, statuses), and, once it has joined, who they are and how
// news travels. The loop asks it who is there and gives it what is to be told; it never waits for the network.
type fleet struct {
	cfg      Config
	log      *slog.Logger
	identity func() *pki.Identity
	db       *bbolt.DB
	store    *cluster.Store
	roster   *cluster.Roster
	statuses *cluster.Statuses

	// wire is for tests; what is nil is the real thing.
	wire struct {
		transport memberlist.NodeAwareTransport
		dial      func(ctx context.Context, network, address string) (net.Conn, error)
	}

	// Nil until join.
	membership  *cluster.Membership
	peers       *cluster.Peers
	replication *cluster.Replication
}

// openFleet reads what this host knows of the fleet. Nobody hears of it yet.
func openFleet(cfg Config, log *slog.Logger, db *bbolt.DB, identity func() *pki.Identity, now func() time.Time) (*fleet, error) {
	f := &fleet{cfg: cfg, log: log, db: db, identity: identity}
	auth := cluster.Certificates(identity)
	var err error
	if f.roster, err = cluster.OpenRoster(db, cfg.Cluster.Name, auth); err != nil {
		return nil, err
	}
	if f.store, err = cluster.OpenStore(db, cfg.Node.Name, now); err != nil {
		return nil, err
	}
	f.store.SealWith(&cluster.Seal{Fleet: cfg.Cluster.Name, Auth: auth, Permit: mayWrite, Revoked: func(node string, issued int64) bool {
		return f.roster.Refused(node, time.Unix(issued, 0))
	}})
	f.store.ForgetWhen(f.isVoid)
	f.statuses, err = cluster.OpenStatuses(db, cfg.Cluster.Name, cfg.Node.Name, auth, f.roster)
	return f, err
}

// mayWrite is who may write what: doors everything but what other hosts say of themselves, a plain host that alone.
func mayWrite(by cluster.Signer, key string) error {
	if owner, ok := hostOf(key); ok {
		if owner != by.Node {
			return &cluster.NotPermittedError{Reason: fmt.Sprintf("what %s says of itself is not for %s to write", owner, by.Node)}
		}
		return nil
	}
	if !by.Door {
		return noDoor(by.Node)
	}
	return nil
}

func noDoor(node string) error {
	return &cluster.NotPermittedError{Reason: node + " is no door: its certificate was made without --door; apply through another host"}
}

// join takes this host into the fleet. A fleet of one is one that has found nobody.
func (f *fleet) join(api string) error {
	c := f.cfg.Cluster
	keys := c.GossipKeys
	if _, err := os.Stat(keys); keys != "" && errors.Is(err, os.ErrNotExist) && !f.cfg.inFleet(exists) {
		keys = "" // CheckFiles refuses it where others are to be met
	}
	var err error
	f.membership, err = cluster.StartMembership(cluster.MembershipConfig{
		Node: f.cfg.Node.Name, Fleet: c.Name, API: api, ReapAfter: c.ReapAfter, DB: f.db, Roster: f.roster, Log: f.log,
		Gossip: cluster.GossipConfig{
			Bind: c.Bind, Advertise: c.Advertise, Profile: c.Profile, Join: c.Join, KeyFile: keys, Transport: f.wire.transport,
		},
	})
	if err != nil {
		return err
	}
	f.peers = cluster.NewPeers(cluster.PeersConfig{
		Identity: f.identity, Roster: f.roster, Address: f.membership.API, Heard: f.membership.Heard, Dial: f.wire.dial,
	})
	f.replication = cluster.StartReplication(cluster.ReplicationConfig{
		Node: f.cfg.Node.Name, Store: f.store, Statuses: f.statuses, Membership: f.membership, Peers: f.peers, Log: f.log,
	})
	return nil
}

// close ends the membership without a word: others find this host failed, unless it left.
func (f *fleet) close() error {
	if f.membership == nil {
		return nil
	}
	f.replication.Close()
	return f.membership.Close()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// alone says whether no other host is known or looked for.
func (f *fleet) alone() bool {
	return len(f.cfg.Cluster.Join) == 0 && len(f.roster.All()) <= 1
}

// changes rings when members may differ from before; nil before join.
func (f *fleet) changes() <-chan struct{} {
	if f.membership == nil {
		return nil
	}
	return f.membership.Changes()
}

// members are all hosts of the roster and all that are heard.
func (f *fleet) members() cluster.Snapshot {
	if f.membership == nil {
		return cluster.Snapshot{Self: f.cfg.Node.Name}
	}
	return f.membership.Snapshot()
}

// standings are where all hosts stand, and what that is known by. A host that has never joined is a fleet of one; one that is about to
// join goes by what it knew.
func (f *fleet) standings() (sum [32]byte, list []cluster.Standing) {
	if list = f.roster.All(); f.membership == nil && len(list) == 0 {
		return sum, []cluster.Standing{{Node: f.cfg.Node.Name, Entry: 1}}
	}
	return f.roster.Digest(), list
}

// quiet are the hosts of which there was no word for longer than there should be.
func (f *fleet) quiet() map[string]bool {
	if f.membership == nil {
		return nil
	}
	return f.membership.Quiet(quietAfter)
}

// ask asks a host for a sign of life; then is called when it has given one.
func (f *fleet) ask(node string, then func()) {
	if f.membership != nil {
		f.membership.Ask(node, then)
	}
}

// raise makes this host's entry in the roster higher than all that was said of it.
func (f *fleet) raise() error {
	if f.membership == nil {
		return errors.New("this host is not in a fleet")
	}
	return f.membership.Raise()
}

// isSynced says whether this host has what another one has, as far as there is one.
func (f *fleet) isSynced() bool {
	if f.replication == nil || f.alone() {
		return true
	}
	select {
	case <-f.replication.Synced():
		return true
	default:
		return false
	}
}

// tell spreads what the store took.
func (f *fleet) tell(objects []cluster.Object) {
	if f.replication != nil {
		f.replication.Tell(objects)
	}
}

// say is this host's word on a unit; nil takes it back. All hear it in the end, and first those that wait for it. The error has been
// logged.
func (f *fleet) say(unit string, body []byte, waiting ...string) error {
	said, changed, err := f.statuses.Say(unit, body)
	switch {
	case err != nil:
		f.log.Error("other hosts do not hear how this one stands", "unit", unit, "error", err)
	case changed && f.replication != nil:
		f.replication.TellStatus(said, waiting...)
	}
	return err
}

// door says whether this host may write objects and forward users' calls.
func (f *fleet) door() bool { return f.identity().Door() }

// expelled says whether this host was deleted from the fleet.
func (f *fleet) expelled() bool {
	s, ok := f.roster.Standing(f.cfg.Node.Name)
	return ok && s.State == cluster.RosterDeleted
}

// delete takes another host out of the fleet, on disk when it returns.
func (f *fleet) delete(node string) error {
	if f.membership == nil {
		return errors.New("this host is not in a fleet")
	}
	return f.membership.Delete(node)
}

// synced waits until this host has what another one has, or has waited long enough.
func (f *fleet) synced(ctx context.Context) (complete bool) {
	if f.replication == nil || f.alone() {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, syncWithin)
	defer cancel()
	select {
	case <-f.replication.Synced():
		return true
	case <-ctx.Done():
		return false
	}
}

// watchKeys takes up a file of gossip keys that has changed, until ctx ends.
func (f *fleet) watchKeys(ctx context.Context, report func(error)) {
	ticker := time.NewTicker(keysEvery)
	defer ticker.Stop()
	seen, _ := os.Stat(f.cfg.Cluster.GossipKeys)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now, err := os.Stat(f.cfg.Cluster.GossipKeys)
		if err != nil || seen != nil && os.SameFile(seen, now) && seen.ModTime().Equal(now.ModTime()) && seen.Size() == now.Size() {
			continue
		}
		seen = now
		if err := f.membership.ReloadKeys(); err != nil {
			report(err)
		}
	}
}

// What follows is what the API asks (api.Fleet).

// Peer tells which host shows a certificate, and whether it is a door.
func (f *fleet) Peer(cert *x509.Certificate) (node string, door bool, err error) {
	by, err := f.peers.Caller(cert)
	return by.Node, by.Door, err
}

// Transport reaches another host's API.
func (f *fleet) Transport(node string) (http.RoundTripper, error) { return f.peers.Transport(node) }

// Admit takes a deleted host back.
func (f *fleet) Admit(_ context.Context, node string) error {
	switch s, ok := f.roster.Standing(node); {
	case !ok:
		return apierrors.NewNotFound(resourceNodes, node)
	case s.State != cluster.RosterDeleted:
		return apierrors.NewBadRequest(fmt.Sprintf("%s was not deleted: it is %s", node, s.State))
	}
	return f.membership.Admit(node)
}

// leave says that this host left.
func (f *fleet) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, tellWithin)
	defer cancel()
	return f.membership.Leave(ctx)
}

// advertisedAPI is under which address other hosts reach the API: the configured one, or the listener's port at the host's address.
func advertisedAPI(cfg Config, listener net.Addr, address string) string {
	if cfg.API.Advertise != "" {
		return cfg.API.Advertise
	}
	at, err := netip.ParseAddrPort(listener.String())
	if err != nil {
		return ""
	}
	host := at.Addr().Unmap().String()
	if at.Addr().IsUnspecified() {
		host = address
	}
	return net.JoinHostPort(host, fmt.Sprint(at.Port()))
}
