package cluster

import (
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func openDB(t *testing.T, path string) *bbolt.DB {
	t.Helper()
	db, setAside, err := OpenDB(path)
	if err != nil || setAside != "" {
		t.Fatalf("set aside %q: %v", setAside, err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func openStore(t *testing.T, db *bbolt.DB) *Store {
	t.Helper()
	s, err := OpenStore(db, "host-01", func() time.Time { return epoch })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func hashOf(text string) [32]byte {
	var h [32]byte
	copy(h[:], text)
	return h
}

func content(key, text string) Write {
	return Write{Key: key, Body: []byte(text), Hash: hashOf(text), Author: "test"}
}

func deletion(key string) Write { return Write{Key: key, Deleted: true, Author: "test"} }

func put(t *testing.T, s *Store, writes ...Write) []Object {
	t.Helper()
	stored, err := s.PutAll(writes)
	if err != nil {
		t.Fatal(err)
	}
	return stored
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
	got := openStore(t, openDB(t, path)).All()
	if !equalObjects(got, want) || len(got) != 2 || got[0].Key != "a" || !got[0].Deleted || string(got[1].Body) != "three" {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func equalObjects(a, b []Object) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Key != b[i].Key || string(encode(a[i])) != string(encode(b[i])) {
			return false
		}
	}
	return true
}
