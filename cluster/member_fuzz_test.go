package cluster

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
)

// What others say is read without a panic, and what was read is what is written again.

func FuzzMeta(f *testing.F) {
	b, err := encodeMeta(meta{node: "host-1", api: "10.0.0.1:9746", incarnation: 7})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:5])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			return
		}
		if e, err := encodeMeta(m); err == nil {
			if again, err := decodeMeta(e); err != nil || again != m {
				t.Fatalf("%+v became %+v: %v", m, again, err)
			}
		}
	})
}

func FuzzHello(f *testing.F) {
	b := encodeHello(hello{node: "a", addr: netip.MustParseAddrPort("10.0.0.1:1"), keys: []string{"82e1350e", "909b1ca6"}})
	f.Add(b)
	f.Add(b[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHello(b)
		if err != nil {
			return
		}
		again, err := decodeHello(encodeHello(h))
		if err != nil || again.node != h.node || again.addr != h.addr || again.digest != h.digest || again.has != h.has || !slices.Equal(again.keys, h.keys) {
			t.Fatalf("%+v became %+v: %v", h, again, err)
		}
	})
}

// FuzzMergeNotices: nobody guesses a signature.
func FuzzMergeNotices(f *testing.F) {
	open := func(node string) *Roster {
		roster, err := OpenRoster(openRosterDB(f), "fleet", newPlainKeys(node, true, ""))
		if err != nil {
			f.Fatal(err)
		}
		return roster
	}
	roster := open("a")
	b, err := open("b").Say("b", RosterMember)
	if err != nil {
		f.Fatal(err)
	}
	if _, _, err := roster.Merge([]Notice{b}); err != nil {
		f.Fatal(err)
	}
	var all []byte
	for _, said := range []struct {
		node  string
		state RosterState
	}{{"a", RosterMember}, {"b", RosterReaped}, {"b", RosterDeleted}, {"a", RosterLeft}} {
		n, err := roster.Say(said.node, said.state)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(encodeNotice(n))
		all = append(all, encodeNotice(n)...)
	}
	f.Add(all)
	f.Add(all[:len(all)-1])
	before := roster.Digest()
	f.Fuzz(func(t *testing.T, b []byte) {
		notices, err := decodeNotices(b)
		if err != nil {
			return
		}
		changed, _, err := roster.Merge(notices)
		if err != nil || len(changed) > 0 || roster.Digest() != before {
			t.Fatalf("%+v changed the roster: %v", changed, err)
		}
	})
}

func FuzzConflict(f *testing.F) {
	a, b := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("[fe80::1%eth0]:9745")
	f.Add(encodeConflict(conflict{node: "a", addresses: [2]netip.AddrPort{a, b}}))
	f.Add([]byte{200, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeConflict(b)
		if err != nil {
			return
		}
		if again, err := decodeConflict(encodeConflict(c)); err == nil && again != c {
			t.Fatalf("%+v became %+v", c, again)
		}
	})
}

func FuzzSummary(f *testing.F) {
	at := netip.MustParseAddrPort("10.0.0.1:1")
	f.Add(encodeSummary("a", at, nil))
	f.Add(encodeSummary("a", at, bytes.Repeat([]byte("12345678"), 3)))
	f.Add(encodeSummary("a", at, []byte("1234567")))
	f.Fuzz(func(t *testing.T, b []byte) {
		node, addr, marks, err := decodeSummary(b)
		if err != nil {
			return
		}
		var all []byte
		for m := range marks {
			all = append(all, m[:]...)
		}
		again, where, has, err := decodeSummary(encodeSummary(node, addr, all))
		if err != nil || again != node || where != addr || len(has) != len(marks) {
			t.Fatalf("%q at %s with %d marks became %q at %s with %d: %v", node, addr, len(marks), again, where, len(has), err)
		}
	})
}

// FuzzAffordable: a message over a stream is opened before memberlist does.
func FuzzAffordable(f *testing.F) {
	for _, b := range [][]byte{
		pack(messagePushPull, "Nodes", 0, "UserStateLen", 3, "Join", true), pack(messagePushPull, "Nodes", 1<<20, "UserStateLen", 0, "Join", false),
		pack(messageUser, "UserMsgLen", 2), pack(messageCompressed, "Algo", 0, "Buf", []byte{1, 2, 3}),
		{messageUser, 0x81, 0xaa},
		{0},
	} {
		f.Add(b)
		f.Add(append(b, 1, 2, 3))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := affordable(b); err == nil && b[0] == messageUser && len(b) < 13 {
			t.Fatalf("%x is too short", b)
		}
	})
}
