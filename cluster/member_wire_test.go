package cluster

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

func TestCounterSurvivesRestarts(t *testing.T) {
	db := openRosterDB(t)
	last := uint64(0)
	for range 5 {
		c, err := OpenCounter(db, "n", 10)
		if err != nil {
			t.Fatal(err)
		}
		for range 25 {
			n, err := c.Next()
			if err != nil || n <= last {
				t.Fatalf("%d after %d: %v", n, last, err)
			}
			last = n
		}
	}
	c, err := OpenCounter(db, "n", 10)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := c.NextAbove(last + 1000); err != nil || n != last+1001 {
		t.Errorf("%d, %v", n, err)
	}
	db.Close()
	for range 20 {
		if n, err := c.Next(); err != nil {
			return // a number that is not on disk is not given out
		} else if n > last+1001+10 {
			t.Fatalf("%d was given out and is not on disk", n)
		}
	}
	t.Error("numbers without a disk")
}

func TestMetaIsBounded(t *testing.T) {
	for n := range 600 {
		b, err := encodeMeta(meta{node: strings.Repeat("n", n), api: "10.0.0.1:9746", incarnation: 1<<64 - 1})
		if err != nil {
			if n < 400 {
				t.Errorf("a name of %d bytes should do: %v", n, err)
			}
			continue
		}
		if len(b) > memberlist.MetaMaxSize {
			t.Fatalf("%d bytes for a name of %d: memberlist would panic", len(b), n)
		}
		if m, err := decodeMeta(b); err != nil || len(m.node) != n || m.incarnation != 1<<64-1 || m.api != "10.0.0.1:9746" {
			t.Fatalf("%+v, %v", m, err)
		}
	}
}

func TestABroadcastOfTheLargestSizeArrivesAndALargerOneIsRefused(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		inFleet(t, 20, func(t *testing.T, f *testFleet) {
			path := keyPath(t, 1)
			f.change = func(c *MembershipConfig) {
				if encrypted {
					c.Gossip.KeyFile = path
				}
			}
			hosts := f.addMany(3)
			f.within(10*time.Second, "three agree", func() bool { return agree(hosts...) })
			a, b := hosts[0].m, hosts[1].m
			largest := bytes.Repeat([]byte("0123456789abcdef"), 100)[:a.MaxBroadcast()]
			if err := a.Broadcast("x", append(largest, 'x')); err == nil || a.Stats().RefusedOversize != 1 {
				t.Errorf("%v, %+v", err, a.Stats())
			}
			if err := a.Broadcast("x", largest); err != nil {
				t.Fatal(err)
			}
			select {
			case got := <-b.Messages():
				if !bytes.Equal(got, largest) {
					t.Error("another message came")
				}
			case <-time.After(20 * time.Second):
				t.Errorf("%d bytes never came", len(largest))
			}
		})
	}
}

func TestHostileMessagesAreCountedAndChangeNothing(t *testing.T) {
	inFleet(t, 21, func(t *testing.T, f *testFleet) {
		a := f.add("a")
		before := a.roster.Digest()
		for _, b := range [][]byte{{}, {0}, {99, 1}, {kindNotices, 1}, {kindNotices, 9, 9}, {kindConflict, 200}, {kindSummary, 1}, {kindSummary, 0, 0, 1}} {
			delegate{a.m}.NotifyMsg(b)
		}
		delegate{a.m}.NotifyMsg(make([]byte, maxBulk+1))
		delegate{a.m}.MergeRemoteState([]byte{helloFormat, 1}, true)
		time.Sleep(time.Second)
		if s := a.m.Stats(); s.Malformed != 10 || a.roster.Digest() != before {
			t.Errorf("%+v", s)
		}
	})
}
