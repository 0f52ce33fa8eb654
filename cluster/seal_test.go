package cluster

import (
	"errors"
	"strings"
	"testing"
)

func sealedStore(t *testing.T, auth *plainKeys) *Store {
	t.Helper()
	s := newStore(t)
	s.SealWith(&Seal{Fleet: "fleet", Auth: auth})
	return s
}

// take is what replication does with an object of another host.
func take(s *Store, o Object) (changed, refused int) {
	m := objectReplica{s}.merge("tester", []record{{set: setObjects, key: o.Key, data: encode(o)}}, 1)
	return len(m.changed), m.refused
}

func TestEnvelopes(t *testing.T) {
	door, plain := newPlainKeys("host-01", true, ""), newPlainKeys("host-02", false, "")
	here, there := sealedStore(t, door), sealedStore(t, plain)
	good := put(t, here, content("web", "1"))[0]
	if changed, refused := take(there, good); changed != 1 || refused != 0 {
		t.Fatalf("a door's object: changed %d, refused %d", changed, refused)
	}
	for name, forge := range map[string]func(*Object){
		"another body":    func(o *Object) { o.Body = []byte("2") },
		"a later version": func(o *Object) { o.Version.Generation = 9 },
		"another key":     func(o *Object) { o.Key = "db" },
		"another author":  func(o *Object) { o.Author = "somebody" },
		"another origin":  func(o *Object) { o.Origin = "host-03" },
		"a tombstone":     func(o *Object) { o.Deleted, o.Body, o.Version.Generation = true, nil, 9 },
		"no signature":    func(o *Object) { o.Signature, o.Version.Generation = nil, 9 },
	} {
		forged := good
		forge(&forged)
		if changed, refused := take(there, forged); changed != 0 || refused != 1 && name != "another author" && name != "another origin" && name != "another body" {
			t.Errorf("%s: changed %d, refused %d", name, changed, refused)
		}
	}
	var forbidden *NotPermittedError
	if _, err := there.PutAll([]Write{content("web", "2")}); !errors.As(err, &forbidden) || !strings.Contains(err.Error(), "host-02 is no door") {
		t.Errorf("a plain host's write: %v", err)
	}
	// A plain host that writes all the same.
	rogue := newStore(t)
	rogue.SealWith(&Seal{Fleet: "fleet", Auth: plain, Permit: func(Signer, string) error { return nil }})
	take(rogue, good)
	if changed, refused := take(here, put(t, rogue, content("web", "mine"))[0]); changed != 0 || refused != 1 {
		t.Errorf("a plain host's object: changed %d, refused %d", changed, refused)
	}
	other := newStore(t)
	other.SealWith(&Seal{Fleet: "another", Auth: door})
	put(t, other, content("web", "1"), content("web", "2"))
	o, _ := other.Get("web")
	if changed, refused := take(here, o); changed != 0 || refused != 1 {
		t.Errorf("another fleet's object: changed %d, refused %d", changed, refused)
	}
}

func TestObjectsOfADeletedDoor(t *testing.T) {
	door, other := newPlainKeys("host-01", true, ""), newPlainKeys("host-02", true, "")
	revoked := map[string]bool{}
	there := sealedStore(t, door)
	here := newStore(t)
	here.SealWith(&Seal{Fleet: "fleet", Auth: other, Revoked: func(node string, _ int64) bool { return revoked[node] }})
	take(here, put(t, there, content("web", "1"))[0])
	if len(here.Orphans()) != 0 {
		t.Fatal("an orphan before anything was deleted")
	}
	revoked["host-01"] = true
	if changed, refused := take(here, put(t, there, content("web", "2"))[0]); changed != 0 || refused != 1 {
		t.Errorf("what a deleted host writes: changed %d, refused %d", changed, refused)
	}
	if orphans := here.Orphans(); len(orphans) != 1 || orphans[0] != "web" {
		t.Fatalf("the orphans are %v", orphans)
	}
	resigned, err := here.Resign("web")
	if err != nil || resigned[0].Origin != "host-02" || string(resigned[0].Body) != "1" || resigned[0].Version.Generation != 2 || len(here.Orphans()) != 0 {
		t.Errorf("written anew it is %+v: %v", resigned, err)
	}
}

func TestOverwritesAreTold(t *testing.T) {
	one, two := sealedStore(t, newPlainKeys("host-01", true, "")), sealedStore(t, newPlainKeys("host-02", true, ""))
	first := put(t, one, content("web", "1"))[0]
	take(two, first)
	put(t, one, content("web", "a"))
	b := put(t, two, content("web", "b"), content("web", "c"))[1] // without knowledge of a
	take(one, b)
	changed, overwrites := one.TakeNews()
	if len(changed) != 1 || string(changed[0].Body) != "c" || len(overwrites) != 1 || string(overwrites[0].Loser.Body) != "a" || overwrites[0].Winner.Origin != "host-02" {
		t.Fatalf("news %+v, overwrites %+v", changed, overwrites)
	}
	take(one, put(t, two, content("web", "d"))[0]) // the next write knows of all that is here
	if _, overwrites := one.TakeNews(); len(overwrites) != 0 {
		t.Errorf("overwritten with knowledge, but told: %+v", overwrites)
	}
	a2 := put(t, one, content("web", "x"))[0]
	put(t, two, content("web", "y"))
	y, _ := two.Get("web")
	winner, loser := y, a2
	if wins(a2, y) {
		winner, loser = a2, y
	}
	take(two, a2)
	take(one, y)
	for _, s := range []*Store{one, two} {
		if o, _ := s.Get("web"); string(o.Body) != string(winner.Body) {
			t.Errorf("%s stays, not %s", o.Body, winner.Body)
		}
		if _, overwrites := s.TakeNews(); len(overwrites) != 1 || string(overwrites[0].Loser.Body) != string(loser.Body) {
			t.Errorf("of two writes at once is told: %+v", overwrites)
		}
	}
}
