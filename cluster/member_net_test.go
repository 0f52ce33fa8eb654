package cluster

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// onLoopback starts a membership with memberlist's own transport.
func onLoopback(t *testing.T, node, bind string, join ...string) (*Membership, error) {
	t.Helper()
	db := openRosterDB(t)
	return StartMembership(MembershipConfig{
		Node: node, Fleet: "fleet", API: "127.0.0.1:9746", DB: db, Roster: openRoster(t, db, newPlainKeys(node, false, "")),
		Log: slog.New(&logBook{}), Gossip: GossipConfig{Bind: bind, Profile: "local", Join: join},
	})
}

func TestMembershipOnARealNetwork(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	a, err := onLoopback(t, "a", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seed := a.ownAddress().String()
	b, err := onLoopback(t, "b", "0.0.0.0:0", seed) // advertises the address from which it reaches the seed
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*Membership{a, b} {
		select {
		case <-m.Joined():
		case <-time.After(10 * time.Second):
			t.Error("they did not meet")
		}
	}
	if !b.ownAddress().Addr().IsLoopback() || b.ownAddress().Port() == 0 {
		t.Errorf("b says that it is at %s", b.ownAddress())
	}
	if _, err := b.Ping("a"); err != nil {
		t.Error(err)
	}
	if s := b.Stats().Gossip; s.PacketsReceived.Count == 0 || s.PacketsSent.Count == 0 || s.StreamsOpened == 0 || s.Unknown != 0 {
		t.Errorf("%+v", s)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

func TestAnAddressThatNobodyCanReachIsRefused(t *testing.T) {
	if _, err := onLoopback(t, "a", "0.0.0.0:0"); err == nil || !strings.Contains(err.Error(), "cluster.advertise") {
		t.Errorf("%v", err)
	}
	if _, err := onLoopback(t, "a", "nowhere"); err == nil || !strings.Contains(err.Error(), "cluster.bind") {
		t.Errorf("%v", err)
	}
}
