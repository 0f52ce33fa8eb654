package cluster

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// Write is one change of one object, made on this host. A deletion has no body and no hash.
type Write struct {
	Key     string
	Body    []byte
	Hash    [32]byte // of the whole content, merged with what others own
	Content [32]byte // of what the author wrote, see Object.Content; zero stands for Hash
	Deleted bool
	Author  string
	// Version is for objects that others write equally and whose version says it all; nil is the next generation, with Hash.
	Version *Version
}

// Store keeps every object, in memory and in a bbolt file that holds what was acknowledged, also after kill -9 or a power cut.
//
// Any number of goroutines may read while one writes; writers wait for each other. A returned Object is the caller's own but
// for the bytes of Body and Past: all readers share them and nobody may change them.
type Store struct {
	db     *bbolt.DB
	path   string // of db, which forgets it when it is closed
	origin string
	now    func() time.Time
	seal   *Seal             // nil: nothing is signed, and nothing can be replicated
	void   func(Object) bool // nil: nothing is void

	writing sync.Mutex   // held for a whole write; taken before mu
	mu      sync.RWMutex // guards what follows
	objects map[string]Object
	damaged map[string]damage
	// floor is a generation that no object can be above whose record, and maybe key, cannot be read at all; mostly 0.
	floor      uint64
	incomplete error // what the census says
	sketch     *sketch
	news       news
}

// damage is a record that cannot be read. It stays on disk, untouched, until its key is written again.
type damage struct {
	err  error
	head *head // nil when that is unreadable too
}

// OpenStore reads all objects into memory. Records that cannot be read do not fail it: see Damaged. origin is this node's name,
// the mark of writes made here.
func OpenStore(db *bbolt.DB, origin string, now func() time.Time) (*Store, error) {
	s := &Store{db: db, path: db.Path(), origin: origin, now: now, objects: map[string]Object{}, damaged: map[string]damage{}, sketch: newSketch(), news: newNews()}
	err := db.Update(func(tx *bbolt.Tx) error {
		objects, err := tx.CreateBucketIfNotExists(bucketObjects)
		if err != nil {
			return err
		}
		counted, err := tx.CreateBucketIfNotExists(bucketCensus)
		if err != nil {
			return err
		}
		found, err := censusOf(objects)
		if err != nil {
			return err
		}
		kept := counted.Get(keyCensus)
		s.floor, s.incomplete = found.floor(kept), found.compare(kept)
		return objects.ForEach(s.load)
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the objects in %s: %w", db.Path(), err)
	}
	return s, nil
}

func (s *Store) load(k, v []byte) error {
	key := string(k)
	o, err := decode(key, v)
	if err == nil {
		s.objects[key] = o
		s.sketch.put(itemOf(o))
		return nil
	}
	d := damage{err: fmt.Errorf("object %q in %s: %w", key, s.path, err)}
	if h, err := decodeHead(key, v); err == nil {
		d.head = &h
	}
	s.damaged[key] = d
	return nil
}

// Get returns an object; a tombstone is one with Deleted. An object whose record is damaged is not there.
func (s *Store) Get(key string) (Object, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	o, ok := s.objects[key]
	return o, ok
}

// All returns every object sorted by key, tombstones included.
func (s *Store) All() []Object {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.SortedFunc(maps.Values(s.objects), func(a, b Object) int { return strings.Compare(a.Key, b.Key) })
}

// Damaged lists the records that could not be read and were not written again since, and what the census at the start found.
func (s *Store) Damaged() []error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var errs []error
	if s.incomplete != nil {
		errs = append(errs, fmt.Errorf("%s: %w", s.path, s.incomplete))
	}
	for _, key := range slices.Sorted(maps.Keys(s.damaged)) {
		errs = append(errs, s.damaged[key].err)
	}
	return errs
}

// PutAll makes the writes durable, all or none, and returns what is stored, in the writes' order. Every write makes a new
// generation, also one that changes nothing: whether it is worth one is for the caller to say. The error is a TooLargeError or a
// NotPermittedError when the writes cannot be taken. After an error nothing has changed for readers; whether a failing disk kept the writes shows at the next start, as it does after a crash.
func (s *Store) PutAll(writes []Write) ([]Object, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	stored := make([]Object, 0, len(writes))
	written := map[string]Object{} // a key may come more than once
	for _, w := range writes {
		if w.Key == "" {
			return nil, errors.New("cannot store an object without a key")
		}
		previous, contents := s.known(w.Key)
		if o, again := written[w.Key]; again {
			previous, contents = headOf(o), contentsOf(o)
		}
		o := next(previous, contents, w)
		if w.Version != nil {
			o.Version = *w.Version
		}
		o.Origin, o.Time = s.origin, displayTime(s.now())
		if len(o.Body) > MaxBody {
			return nil, &TooLargeError{Key: o.Key, Size: len(o.Body)}
		}
		if err := s.seal.sign(&o); err != nil {
			return nil, err
		}
		written[w.Key] = o
		stored = append(stored, o)
	}
	if err := s.commit(stored); err != nil {
		return nil, err
	}
	return stored, nil
}

// Birth is the Birth that an object would have if its key were written, not deleted, now.
func (s *Store) Birth(key string) uint64 {
	previous, contents := s.known(key)
	return next(previous, contents, Write{Key: key}).Birth
}

// displayTime is a time as records keep it.
func displayTime(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// known is the highest version there is of a key, as far as that can be told, and the contents that the object has had.
func (s *Store) known(key string) (head, [][32]byte) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if o, ok := s.objects[key]; ok {
		return headOf(o), contentsOf(o)
	}
	if d, ok := s.damaged[key]; ok && d.head != nil {
		return *d.head, contentsOf(Object{Deleted: d.head.deleted, Content: d.head.version.Hash})
	}
	return head{version: Version{Generation: s.floor}, deleted: true}, nil
}

// commit makes objects durable and then shows them.
func (s *Store) commit(objects []Object) error {
	if len(objects) == 0 {
		return nil
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketObjects)
		for _, o := range objects {
			if err := bucket.Put([]byte(o.Key), encode(o)); err != nil {
				return fmt.Errorf("object %q: %w", o.Key, err)
			}
		}
		return recount(tx, s.floor)
	})
	if err != nil {
		return fmt.Errorf("cannot write to %s: %w", s.path, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range objects {
		s.objects[o.Key] = o
		s.sketch.put(itemOf(o))
		delete(s.damaged, o.Key)
	}
	return nil
}
