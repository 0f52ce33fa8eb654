package cluster

import (
	"fmt"

	"go.etcd.io/bbolt"
)

// ForgetWhen says which objects are void: they mean nothing any more, by what else this host knows, and never will again. Such objects
// need no tombstones: every host forgets them by itself, and takes none from hosts that do not know yet what it knows. void is called
// from any goroutine; it may read the store. ForgetWhen is called before anything is taken in.
func (s *Store) ForgetWhen(void func(Object) bool) { s.void = void }

// Forget removes what is void.
func (s *Store) Forget() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	var keys []string
	for _, o := range s.All() {
		if s.isVoid(o) {
			keys = append(keys, o.Key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketObjects)
		for _, key := range keys {
			if err := bucket.Delete([]byte(key)); err != nil {
				return fmt.Errorf("object %q: %w", key, err)
			}
		}
		return recount(tx, s.floor)
	})
	if err != nil {
		return fmt.Errorf("cannot write to %s: %w", s.path, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		delete(s.objects, key)
		s.sketch.remove(key)
	}
	return nil
}

func (s *Store) isVoid(o Object) bool { return s.void != nil && s.void(o) }
