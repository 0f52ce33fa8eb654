package cluster

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 6_000_000, time.UTC)

func openDB(t testing.TB, path string) *bbolt.DB {
	t.Helper()
	db, setAside, err := OpenDB(path)
	if err != nil || setAside != "" {
		t.Fatalf("set aside %q: %v", setAside, err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func openStore(t testing.TB, db *bbolt.DB) *Store {
	t.Helper()
	s, err := OpenStore(db, "host-01", func() time.Time { return epoch })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newStore(t testing.TB) *Store {
	t.Helper()
	return openStore(t, openDB(t, filepath.Join(t.TempDir(), "state.db")))
}

func hashOf(text string) [32]byte { return sha256.Sum256([]byte(text)) }

func content(key, text string) Write {
	return Write{Key: key, Body: []byte(text), Hash: hashOf(text), Author: "test"}
}

func deletion(key string) Write { return Write{Key: key, Deleted: true, Author: "test"} }

func put(t testing.TB, s *Store, writes ...Write) []Object {
	t.Helper()
	stored, err := s.PutAll(writes)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

func sameObjects(a, b []Object) bool {
	return slices.EqualFunc(a, b, func(a, b Object) bool { return a.Key == b.Key && string(encode(a)) == string(encode(b)) })
}

func TestStoreKeepsWhatItAcknowledged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := openDB(t, path)
	s := openStore(t, db)
	put(t, s, content("b", "one"), content("a", "two"))
	put(t, s, content("b", "three"), deletion("a"))
	want := s.All()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, openDB(t, path))
	got := s.All()
	if !sameObjects(got, want) || len(got) != 2 || got[0].Key != "a" || !got[0].Deleted || string(got[1].Body) != "three" {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if len(s.Damaged()) > 0 {
		t.Error(s.Damaged())
	}
	b := got[1]
	if b.Author != "test" || b.Origin != "host-01" || !b.Time.Equal(epoch) || b.Version.Hash != hashOf("three") {
		t.Errorf("the envelope is %+v", b)
	}
}

func TestLifeOfAnObject(t *testing.T) {
	s := newStore(t)
	if _, ok := s.Get("web"); ok {
		t.Error("an object is there before it was written")
	}
	for i, step := range []struct {
		write Write
		birth uint64
		past  []string
	}{
		{content("web", "A"), 1, nil},
		{content("web", "B"), 1, []string{"A"}},
		// The hash covers what the user wrote: with the same one other bytes of the body may change.
		{Write{Key: "web", Body: []byte("B, annotated"), Hash: hashOf("B")}, 1, []string{"A"}},
		// What is content again is not past any more: a host that is new to the fleet may come with a file of it.
		{content("web", "A"), 1, []string{"B"}},
		{deletion("web"), 1, []string{"B", "A"}},
		{deletion("web"), 1, []string{"B", "A"}},
		{content("web", "B"), 7, []string{"A"}},
		{content("web", "C"), 7, []string{"A", "B"}},
	} {
		foretold := s.Birth("web")
		o := put(t, s, step.write)[0]
		var past [][32]byte
		for _, text := range step.past {
			past = append(past, hashOf(text))
		}
		if o.Version.Generation != uint64(i+1) || o.Birth != step.birth || !slices.Equal(o.Past, past) || o.Deleted != step.write.Deleted {
			t.Errorf("step %d made generation %d, birth %d, %d past, deleted %t", i, o.Version.Generation, o.Birth, len(o.Past), o.Deleted)
		}
		if !o.Deleted && foretold != o.Birth {
			t.Errorf("step %d: Birth told %d before the write, it became %d", i, foretold, o.Birth)
		}
		if got, ok := s.Get("web"); !ok || !sameObjects([]Object{got}, []Object{o}) {
			t.Errorf("step %d: PutAll returned %+v, Get %+v", i, o, got)
		}
	}
}

func TestPastIsBounded(t *testing.T) {
	s := newStore(t)
	s.db.NoSync = true
	for i := range maxPast + 10 {
		put(t, s, content("web", fmt.Sprint(i)))
	}
	past := put(t, s, deletion("web"))[0].Past
	if len(past) != maxPast || past[maxPast-1] != hashOf(fmt.Sprint(maxPast+9)) || past[0] != hashOf("10") {
		t.Errorf("%d contents are remembered, not the last %d", len(past), maxPast)
	}
}

func TestPutAllIsAllOrNothing(t *testing.T) {
	s := newStore(t)
	before := put(t, s, content("a", "1"))
	for name, bad := range map[string]Write{"no key": content("", "x"), "a key that bbolt refuses": content(strings.Repeat("k", bbolt.MaxKeySize+1), "x")} {
		stored, err := s.PutAll([]Write{content("a", "2"), content("b", "1"), bad})
		if err == nil || stored != nil {
			t.Errorf("%s: stored %v, error %v", name, stored, err)
		}
		if !sameObjects(s.All(), before) || !sameObjects(openStore(t, s.db).All(), before) {
			t.Errorf("%s: something was stored: %+v", name, s.All())
		}
	}
	if stored := put(t, s); len(stored) != 0 {
		t.Errorf("no writes stored %v", stored)
	}
	if stored := put(t, s, content("a", "2"), deletion("a"), content("a", "3")); stored[2].Version.Generation != 4 || stored[2].Birth != 4 || len(stored[2].Past) != 2 {
		t.Errorf("one key three times became %+v", stored)
	}
}

func TestCallerKeepsItsBytes(t *testing.T) {
	s := newStore(t)
	w := content("a", "1")
	put(t, s, w)
	w.Body[0] = 'X'
	if o, _ := s.Get("a"); string(o.Body) != "1" {
		t.Errorf("a body changed with the caller's bytes to %q", o.Body)
	}
	// A longer past must not be written behind a shorter one that another object shares.
	put(t, s, content("a", "2"))
	o, _ := s.Get("a")
	put(t, s, content("a", "3"))
	if len(o.Past) != 1 || o.Past[0] != hashOf("1") {
		t.Errorf("an object that was read before has the past %x", o.Past)
	}
}

func TestReadersSeeWholeTransactions(t *testing.T) {
	s := newStore(t)
	s.db.NoSync = true
	put(t, s, content("a", "0"), content("b", "0"))
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if all := s.All(); string(all[0].Body) != string(all[1].Body) {
					t.Errorf("half a transaction is visible: %q and %q", all[0].Body, all[1].Body)
					return
				}
			}
		})
	}
	for i := range 200 {
		put(t, s, content("a", fmt.Sprint(i)), content("b", fmt.Sprint(i)))
	}
	close(stop)
	readers.Wait()
}

func BenchmarkPutAll(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprintf("of %d objects", n), func(b *testing.B) {
			s := newStore(b)
			var writes []Write
			for i := range n {
				writes = append(writes, content(fmt.Sprintf("DaemonSet/default/web-%d", i), strings.Repeat("x", 4000)))
			}
			put(b, s, writes...)
			s.db.NoSync = true // what the disk takes is its own matter
			for b.Loop() {
				put(b, s, writes[0])
			}
		})
	}
}
