package cluster

import (
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// tamper puts bytes into the state file behind the store's back and opens it again.
func tamper(t *testing.T, s *Store, key string, record []byte) *Store {
	t.Helper()
	err := s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketObjects).Put([]byte(key), record) })
	if err != nil {
		t.Fatal(err)
	}
	return openStore(t, s.db)
}

func TestDamagedRecordIsReportedAndOutdone(t *testing.T) {
	for name, c := range map[string]struct {
		at   int // byte that is changed; negative from the end
		next uint64
	}{
		"body": {-10, 4},
		// Its own generation cannot be told: no object had one above 3.
		"head": {3, 4},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			web := put(t, s, content("web", "1"), content("web", "2"), content("web", "3"))[2]
			put(t, s, content("a", "1"), content("b", "1"))
			record := encode(web)
			record[(c.at+len(record))%len(record)] ^= 0x10
			s = tamper(t, s, "web", record)
			if _, ok := s.Get("web"); ok || len(s.All()) != 2 {
				t.Errorf("a damaged object is shown: %+v", s.All())
			}
			if damaged := s.Damaged(); len(damaged) != 1 || !strings.Contains(damaged[0].Error(), "checksum") {
				t.Errorf("damaged are %v", damaged)
			}
			// Untouched by other writes, and what was highest stays known.
			put(t, s, deletion("b"))
			s = openStore(t, s.db)
			if raw := rawRecord(t, s, "web"); !slices.Equal(raw, record) {
				t.Error("the damaged record was changed")
			}
			if o := put(t, s, content("web", "4"))[0]; o.Version.Generation != c.next {
				t.Errorf("the next write has generation %d, want %d", o.Version.Generation, c.next)
			}
			if s = openStore(t, s.db); len(s.Damaged()) != 0 || len(s.All()) != 3 {
				t.Errorf("reopened: %+v, damaged %v", s.All(), s.Damaged())
			}
		})
	}
}

func rawRecord(t *testing.T, s *Store, key string) []byte {
	t.Helper()
	var raw []byte
	err := s.db.View(func(tx *bbolt.Tx) error {
		raw = slices.Clone(tx.Bucket(bucketObjects).Get([]byte(key)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// When neither the record's generation nor the highest of all can be read, the next one is far above.
func TestDamagedHeadAndCensus(t *testing.T) {
	s := newStore(t)
	web := put(t, s, content("web", "1"))[0]
	put(t, s, content("a", "1"))
	record := encode(web)
	record[3] ^= 1
	err := s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketCensus).Put(keyCensus, []byte("?")) })
	if err != nil {
		t.Fatal(err)
	}
	s = tamper(t, s, "web", record)
	if len(s.Damaged()) != 2 {
		t.Errorf("damaged are %v", s.Damaged())
	}
	if o := put(t, s, content("web", "2"))[0]; o.Version.Generation <= lostGenerations {
		t.Errorf("the next write has generation %d", o.Version.Generation)
	}
}

func TestMissingAndOldRecordsAreNoticed(t *testing.T) {
	for name, change := range map[string]func(s *Store, old Object) error{
		"gone": func(s *Store, _ Object) error {
			return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketObjects).Delete([]byte("web")) })
		},
		"old": func(s *Store, old Object) error {
			return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketObjects).Put([]byte("web"), encode(old)) })
		},
		"census gone": func(s *Store, _ Object) error {
			return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketCensus).Delete(keyCensus) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			path := s.path
			stored := put(t, s, content("web", "1"), content("web", "2"), content("a", "1"))
			if err := change(s, stored[0]); err != nil {
				t.Fatal(err)
			}
			if damaged := openStore(t, s.db).Damaged(); len(damaged) != 1 || !strings.Contains(damaged[0].Error(), "missing or old") {
				t.Errorf("the store finds %v", damaged)
			}
			if err := s.db.Close(); err != nil {
				t.Fatal(err)
			}
			db, setAside, err := OpenDB(path)
			if err != nil || setAside == "" {
				t.Fatalf("OpenDB set aside %q: %v", setAside, err)
			}
			defer db.Close()
			if s = openStore(t, db); len(s.All()) != 0 || len(s.Damaged()) != 0 {
				t.Errorf("the new store has %+v, damaged %v", s.All(), s.Damaged())
			}
		})
	}
}
