package agent

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// state is the agent's own small durable state, beside the replicated store in the same bbolt file: number sequences that never
// go back, which manifest file content was applied here, and what the planner wants to be reminded of.
type state struct {
	db *bbolt.DB

	versions sequence // resourceVersions; top 16 bits are this store's id
	pods     sequence // makes pod uids and names unique on this host

	born time.Time // when this state began: the Node's creation
}

var (
	bucketSequences = []byte("sequences")
	bucketApplied   = []byte("applied") // manifest path -> hex content hash
	bucketMemory    = []byte("memory")  // namespace/name -> planner memory (JSON)
)

// openState prepares the buckets and the sequences. The store's id is drawn once, when the file is new. A file that is not new is
// only read: an agent must come up, and restart what ran, on a disk that is full.
func openState(db *bbolt.DB, now time.Time) (*state, error) {
	s := &state{db: db}
	if err := s.makeBuckets(); err != nil {
		return nil, fmt.Errorf("cannot prepare the state file %s: %w", db.Path(), err)
	}
	var id [2]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	// A zero id would make versions look like those of a small Kubernetes cluster.
	first := uint64(binary.BigEndian.Uint16(id[:])|1) << 48
	if err := s.versions.open(db, "resourceVersion", first, 1<<20); err != nil {
		return nil, err
	}
	// Seconds since the epoch keep the names of a lost state file's pods, and those given out while the disk was full, from being
	// given out again; chance keeps those of two agents apart that begin in the same second, on a machine that runs several.
	seconds := uint64(now.Unix())<<16 | uint64(binary.BigEndian.Uint16(id[:])>>1)
	if err := s.pods.open(db, "pod", seconds, 1<<10); err != nil {
		return nil, err
	}
	if s.pods.next < seconds {
		s.pods.next, s.pods.limit = seconds, seconds
	}
	return s, s.readBirth(now)
}

func (s *state) makeBuckets() error {
	names := [][]byte{bucketSequences, bucketApplied, bucketMemory}
	missing := false
	err := s.db.View(func(tx *bbolt.Tx) error {
		for _, name := range names {
			missing = missing || tx.Bucket(name) == nil
		}
		return nil
	})
	if err != nil || !missing {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range names {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
}

// readBirth reads when this state began, or notes that it is now.
func (s *state) readBirth(now time.Time) error {
	key := []byte("born")
	err := s.db.View(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(bucketSequences).Get(key); len(v) == 8 {
			s.born = time.Unix(int64(binary.BigEndian.Uint64(v)), 0)
		}
		return nil
	})
	if err != nil || !s.born.IsZero() {
		return err
	}
	s.born = time.Unix(now.Unix(), 0)
	return s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketSequences).Put(key, binary.BigEndian.AppendUint64(nil, uint64(s.born.Unix())))
	})
}

// sequence hands out increasing numbers and survives kill -9: a block is reserved on disk before any of it is used.
type sequence struct {
	mu    sync.Mutex
	db    *bbolt.DB
	name  []byte
	block uint64
	next  uint64
	limit uint64 // reserved on disk
}

func (s *sequence) open(db *bbolt.DB, name string, first, block uint64) error {
	s.db, s.name, s.block = db, []byte(name), block
	err := db.View(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(bucketSequences).Get(s.name); len(v) == 8 {
			first = binary.BigEndian.Uint64(v)
		}
		return nil
	})
	s.next, s.limit = first, first // Next reserves
	return err
}

func (s *sequence) reserve() error {
	limit := s.next + s.block
	err := s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketSequences).Put(s.name, binary.BigEndian.AppendUint64(nil, limit))
	})
	if err != nil {
		return fmt.Errorf("cannot reserve %s numbers in %s: %w", s.name, s.db.Path(), err)
	}
	s.limit = limit
	return nil
}

// Next returns a number never returned before. When no further block can be reserved (disk full) it goes on in memory: a
// repeated resourceVersion after a crash is a smaller harm than an agent that stops.
func (s *sequence) Next() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next+1 >= s.limit {
		if err := s.reserve(); err != nil {
			s.limit += s.block
		}
	}
	s.next++
	return s.next
}

// applied is the content hash last applied from a manifest path on this host.
func (s *state) applied(path string) (hash string, known bool) {
	_ = s.db.View(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(bucketApplied).Get([]byte(path)); v != nil {
			hash, known = string(v), true
		}
		return nil
	})
	return hash, known
}

func (s *state) setApplied(path, hash string) error {
	return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketApplied).Put([]byte(path), []byte(hash)) })
}

// remember keeps what the planner returned for a DaemonSet; nil forgets it.
func (s *state) remember(key string, m *memory) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		if m == nil {
			return tx.Bucket(bucketMemory).Delete([]byte(key))
		}
		v, err := json.Marshal(m)
		if err != nil {
			return err
		}
		return tx.Bucket(bucketMemory).Put([]byte(key), v)
	})
}

// recall returns what was remembered for a DaemonSet; unreadable memory is no memory: it only shortens a back-off.
func (s *state) recall(key string) memory {
	var m memory
	_ = s.db.View(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(bucketMemory).Get([]byte(key)); v != nil {
			return json.Unmarshal(v, &m)
		}
		return nil
	})
	return m
}
