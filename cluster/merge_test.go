package cluster

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// mergedStore is a store that has merged some objects, for one run of a property.
func mergedStore(t *rapid.T, path string, objects ...Object) *Store {
	db, _, err := OpenDB(path)
	if err != nil {
		t.Fatal(err)
	}
	db.NoSync = true
	t.Cleanup(func() {
		_ = db.Close()
		_ = os.Remove(path)
	})
	s, err := OpenStore(db, "host-01", func() time.Time { return epoch })
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if _, err := s.Merge(o); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Hosts that merge the same objects in any order and any number of times agree, and a second time changes nothing.
func TestMergeIsCommutativeAssociativeIdempotent(t *testing.T) {
	dir := memoryDir(t)
	rapid.Check(t, func(rt *rapid.T) {
		key := rapid.SampledFrom([]string{"a", "b"})
		objects := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Object { return anyObject(key.Draw(t, "key")).Draw(t, "object") }), 1, 6).Draw(rt, "objects")
		one := mergedStore(rt, filepath.Join(dir, "one"), objects...)
		other := mergedStore(rt, filepath.Join(dir, "other"), rapid.Permutation(objects).Draw(rt, "order")...)
		if !sameObjects(one.All(), other.All()) {
			rt.Fatalf("two hosts disagree: %+v and %+v", one.All(), other.All())
		}
		// Merging what another host made of it is the same as merging what it was made of.
		split := rapid.IntRange(0, len(objects)).Draw(rt, "split")
		first := mergedStore(rt, filepath.Join(dir, "first"), objects[:split]...)
		third := mergedStore(rt, filepath.Join(dir, "third"), slices.Concat(objects[split:], first.All())...)
		if !sameObjects(one.All(), third.All()) {
			rt.Fatalf("merging in two steps differs: %+v and %+v", one.All(), third.All())
		}
		for _, o := range objects {
			if changed, err := one.Merge(o); changed || err != nil {
				rt.Fatalf("merging %+v again changed %t: %v", o, changed, err)
			}
		}
		reopened, err := OpenStore(one.db, "host-01", func() time.Time { return epoch })
		if err != nil || !sameObjects(reopened.All(), one.All()) {
			rt.Fatalf("merged were %+v, durable is %+v: %v", one.All(), reopened.All(), err)
		}
	})
}

func TestWinsIsATotalOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := anyObject("k").Draw(t, "a"), anyObject("k").Draw(t, "b"), anyObject("k").Draw(t, "c")
		if same := sameObjects([]Object{a}, []Object{b}); same == (wins(a, b) || wins(b, a)) || wins(a, b) && wins(b, a) {
			t.Fatalf("same %t, a wins %t, b wins %t", same, wins(a, b), wins(b, a))
		}
		if wins(a, b) && wins(b, c) && !wins(a, c) {
			t.Fatal("a beats b, b beats c, c beats a")
		}
		if a.Version.Compare(b.Version) > 0 && !wins(a, b) {
			t.Fatalf("the lower version wins: %+v against %+v", a.Version, b.Version)
		}
	})
}

func TestMergeOverWrites(t *testing.T) {
	here, there := newStore(t), newStore(t)
	put(t, here, content("web", "1"))
	newer := put(t, there, content("web", "x"), content("web", "y"))[1]
	if changed, err := here.Merge(newer); !changed || err != nil {
		t.Fatalf("changed %t: %v", changed, err)
	}
	if o := put(t, here, content("web", "2"))[0]; o.Version.Generation != 3 || o.Past[len(o.Past)-1] != hashOf("y") {
		t.Errorf("a write after a merge became %+v", o)
	}
	if changed, err := here.Merge(newer); changed || err != nil {
		t.Errorf("an older object changed %t: %v", changed, err)
	}
}

func TestMergeRefuses(t *testing.T) {
	good := Object{Key: "web", Version: Version{Generation: 7}, Birth: 1, Body: []byte("x")}
	for name, change := range map[string]func(*Object){
		"no key":               func(o *Object) { o.Key = "" },
		"generation 0":         func(o *Object) { o.Version.Generation, o.Birth, o.Deleted, o.Body = 0, 0, true, nil },
		"far ahead":            func(o *Object) { o.Version.Generation = 5 + 1<<32 + 1 },
		"the last generation":  func(o *Object) { o.Version.Generation = math.MaxUint64 },
		"born later":           func(o *Object) { o.Birth = 8 },
		"never born":           func(o *Object) { o.Birth = 0 },
		"a tombstone's body":   func(o *Object) { o.Deleted = true },
		"too much to remember": func(o *Object) { o.Past = make([][32]byte, maxPast+1) },
	} {
		s := newStore(t)
		put(t, s, content("web", "1"), content("web", "2"), content("web", "3"), content("web", "4"), content("web", "5"))
		before := s.All()
		o := good
		change(&o)
		if changed, err := s.Merge(o); changed || err == nil || !strings.Contains(err.Error(), "cannot merge object") {
			t.Errorf("%s: changed %t: %v", name, changed, err)
		}
		if !sameObjects(s.All(), before) {
			t.Errorf("%s: it was stored", name)
		}
		o = good
		o.Version.Generation = 5 + 1<<32
		if changed, err := s.Merge(o); !changed || err != nil {
			t.Errorf("2^32 ahead changed %t: %v", changed, err)
		}
	}
}

// A peer that has the object repairs a damaged record, but not with less than was there.
func TestMergeRepairs(t *testing.T) {
	s := newStore(t)
	versions := put(t, s, content("web", "1"), content("web", "2"))
	record := encode(versions[1])
	record[len(record)-10] ^= 1
	s = tamper(t, s, "web", record)
	if changed, err := s.Merge(versions[0]); changed || err != nil {
		t.Errorf("an older version changed %t: %v", changed, err)
	}
	if changed, err := s.Merge(versions[1]); !changed || err != nil || len(s.Damaged()) != 0 {
		t.Errorf("the version that was damaged changed %t: %v; damaged are %v", changed, err, s.Damaged())
	}
	if o, _ := s.Get("web"); string(o.Body) != "2" {
		t.Errorf("repaired is %+v", o)
	}
}
