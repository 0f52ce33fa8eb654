package cluster

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// openStatuses is a host's statuses with a roster in which all the given hosts are.
func openStatuses(t *testing.T, auth *plainKeys, others ...*plainKeys) *Statuses {
	t.Helper()
	db := openRosterDB(t)
	roster := openRoster(t, db, auth)
	for _, k := range append(others, auth) {
		said, err := openRoster(t, openRosterDB(t), k).Say(k.self.Node, RosterMember)
		if err != nil {
			t.Fatal(err)
		}
		if _, refused, err := roster.Merge([]Notice{said}); err != nil || refused != (Refusals{}) {
			t.Fatal(refused, err)
		}
	}
	s, err := OpenStatuses(db, "fleet", auth.self.Node, auth, roster)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tellStatus(t *testing.T, s *Statuses, unit, body string) Status {
	t.Helper()
	st, changed, err := s.Say(unit, []byte(body))
	if err != nil || !changed {
		t.Fatalf("%s: changed %t: %v", unit, changed, err)
	}
	return st
}

func mergeStatus(t *testing.T, s *Statuses, st Status) (changed bool, refused StatusRefusals) {
	t.Helper()
	list, refused, err := s.Merge([]Status{st})
	if err != nil {
		t.Fatal(err)
	}
	return len(list) > 0, refused
}

func TestStatusesTravel(t *testing.T) {
	one, two := newPlainKeys("host-01", true, ""), newPlainKeys("host-02", false, "")
	here, there := openStatuses(t, one, two), openStatuses(t, two, one)
	first := tellStatus(t, there, "default/web", "starting")
	second := tellStatus(t, there, "default/web", "ready")
	if _, changed, err := there.Say("default/web", []byte("ready")); changed || err != nil {
		t.Errorf("saying the same again changed %t: %v", changed, err)
	}
	if changed, _ := mergeStatus(t, here, second); !changed {
		t.Fatal("the newer is not taken")
	}
	if changed, refused := mergeStatus(t, here, first); changed || refused.Stale != 1 {
		t.Errorf("an older one changed %t, %+v", changed, refused)
	}
	if changed, refused := mergeStatus(t, here, second); changed || refused.Stale != 1 {
		t.Errorf("the same again changed %t, %+v", changed, refused)
	}
	if st, ok := here.Get("host-02", "default/web"); !ok || string(st.Body) != "ready" {
		t.Errorf("it is %q", st.Body)
	}
	gone := tellStatus(t, there, "default/web", "")
	if changed, _ := mergeStatus(t, here, gone); !changed {
		t.Error("a word that is taken back is not taken")
	}
	if _, ok := here.Get("host-02", "default/web"); ok {
		t.Error("a word that was taken back is still there")
	}
	if news := here.TakeNews(); len(news) != 1 || news[0].Unit != "default/web" || len(news[0].Body) > 0 {
		t.Errorf("the news are %+v", news)
	}
}

func TestForgedStatuses(t *testing.T) {
	one, two := newPlainKeys("host-01", true, ""), newPlainKeys("host-02", false, "")
	here, there := openStatuses(t, one, two), openStatuses(t, two, one)
	good := tellStatus(t, there, "default/web", "ready")
	for name, forge := range map[string]func(*Status){
		"another body":     func(s *Status) { s.Body = []byte("down") },
		"a later sequence": func(s *Status) { s.Sequence++ },
		"another host":     func(s *Status) { s.Node = "host-01" },
		"a stranger":       func(s *Status) { s.Node = "host-99" },
		"another unit":     func(s *Status) { s.Unit = "default/db" },
		"no signature":     func(s *Status) { s.Signature = nil },
	} {
		forged := good
		forge(&forged)
		if changed, refused := mergeStatus(t, here, forged); changed || refused.Unsigned != 1 {
			t.Errorf("%s: changed %t, %+v", name, changed, refused)
		}
	}
	forged := good
	forged.Body = bytes.Repeat([]byte("x"), MaxStatus+1)
	if changed, refused := mergeStatus(t, here, forged); changed || refused.Malformed != 1 {
		t.Errorf("too large: changed %t, %+v", changed, refused)
	}
	if _, _, err := there.Say("default/web", forged.Body); err == nil || !strings.Contains(err.Error(), "120") {
		t.Errorf("a status that is too large: %v", err)
	}
	if len(here.All()) != 0 {
		t.Errorf("kept are %+v", here.All())
	}
}

// A host that lost its memory, or its disk, hears what it said before and says how it is now, above that.
func TestAnEarlierLifeIsAnswered(t *testing.T) {
	one, two := newPlainKeys("host-01", true, ""), newPlainKeys("host-02", false, "")
	before := openStatuses(t, two, one)
	web, db := tellStatus(t, before, "default/web", "ready"), tellStatus(t, before, "default/db", "ready")
	now := openStatuses(t, two, one) // an empty disk: its sequence begins again
	tellStatus(t, now, "default/web", "starting")
	answers, refused, err := now.Merge([]Status{web, db})
	if err != nil || refused.Unsigned+refused.Malformed != 0 {
		t.Fatal(refused, err)
	}
	here := openStatuses(t, one, two)
	if _, _, err := here.Merge([]Status{web, db}); err != nil {
		t.Fatal(err)
	}
	for _, list := range [][]Status{answers, now.Of("host-02")} { // its sequence may have begun above the earlier life's: then there is nothing to answer
		if _, _, err := here.Merge(list); err != nil {
			t.Fatal(err)
		}
	}
	if st, ok := here.Get("host-02", "default/web"); !ok || string(st.Body) != "starting" {
		t.Errorf("web is %q", st.Body)
	}
	if st, ok := here.Get("host-02", "default/db"); ok {
		t.Errorf("db is %q", st.Body)
	}
}

func TestAHostMayNotBeRememberedForEver(t *testing.T) {
	one, two := newPlainKeys("host-01", true, ""), newPlainKeys("host-02", false, "")
	here, there := openStatuses(t, one, two), openStatuses(t, two, one)
	for i := range maxUnits + 10 {
		st := tellStatus(t, there, "default/"+strings.Repeat("x", i%300)+string(rune('a'+i/300)), "up")
		mergeStatus(t, here, st)
	}
	if n := len(here.All()); n > maxUnits {
		t.Errorf("%d are kept", n)
	}
	here.Forget("host-02")
	if len(here.All()) != 0 || here.sketch.digest() != newSketch().digest() {
		t.Error("a host that was forgotten is still there")
	}
}

func TestStatusesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Status{
			Node: rapid.StringMatching("[a-z]{1,9}").Draw(t, "node"), Unit: rapid.StringMatching("[a-z/]{0,9}").Draw(t, "unit"), Sequence: rapid.Uint64Max(maxSequence).Draw(t, "sequence"),
			Body: rapid.SliceOfN(rapid.Byte(), 1, MaxStatus).Draw(t, "body"), Signature: rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(t, "signature"),
		}
		got, err := decodeStatus(s.encode())
		if err != nil || got.id() != s.id() || got.Sequence != s.Sequence || !bytes.Equal(got.Body, s.Body) || !bytes.Equal(got.Signature, s.Signature) {
			t.Fatalf("%+v became %+v: %v", s, got, err)
		}
	})
}
