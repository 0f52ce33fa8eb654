package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxAhead is how far a generation from elsewhere may be above the known one. A host with a broken or hostile counter could
// otherwise use up all generations there are, and nobody could write the object again.
const maxAhead = 1 << 32

// Merge takes in an object as another host has it: the higher version stays. Whatever the order in which hosts merge the same
// objects, and however often, they end up with the same one. It is durable when Merge returns; only a change is worth telling
// others. The object's Body and Past must not be changed any more. Who signed the object is not looked at: see Seal.
//
// In place of a damaged record it takes any version that is not lower than what is known of the record.
func (s *Store) Merge(o Object) (changed bool, err error) {
	stored, refused, err := s.MergeAll([]Object{o})
	return len(stored) > 0, errors.Join(err, errors.Join(refused...))
}

// MergeAll merges objects with one write to disk. stored are those that changed something; refused says which of them no Store can
// have made. After err nothing has changed.
func (s *Store) MergeAll(objects []Object) (stored []Object, refused []error, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	merged := map[string]Object{} // a key may come more than once
	var overwrites []Overwrite
	for _, o := range objects {
		o.Time = displayTime(o.Time)
		current, exists := merged[o.Key]
		if !exists {
			current, exists = s.Get(o.Key)
		}
		added, err := s.beats(o, current, exists)
		switch {
		case err != nil:
			refused = append(refused, fmt.Errorf("cannot merge object %q: %w", o.Key, err))
			continue
		case exists && added && unaware(o, current):
			overwrites = append(overwrites, Overwrite{Winner: o, Loser: current})
		case exists && !added && unaware(current, o):
			overwrites = append(overwrites, Overwrite{Winner: current, Loser: o})
		}
		if added {
			merged[o.Key] = o
		}
	}
	stored = slices.SortedFunc(maps.Values(merged), func(a, b Object) int { return strings.Compare(a.Key, b.Key) })
	if err := s.commit(stored); err != nil {
		return nil, refused, err
	}
	s.news.add(stored, overwrites)
	return stored, refused, nil
}

// beats says whether o takes the place of what is there. The writing lock is held.
func (s *Store) beats(o, current Object, exists bool) (bool, error) {
	if err := checkMerged(o); err != nil {
		return false, err
	}
	known, _ := s.known(o.Key)
	if ahead := o.Version.Generation - known.version.Generation; o.Version.Generation > known.version.Generation && ahead > maxAhead {
		return false, fmt.Errorf("generation %d is more than 2^32 above %d, which is known", o.Version.Generation, known.version.Generation)
	}
	if exists {
		return wins(o, current), nil
	}
	d, ok := s.damaged[o.Key]
	return !ok || d.head == nil || o.Version.Compare(d.head.version) >= 0, nil
}

// wins is a total order of objects of one key. Two hosts that write the same content at once make one version, but author,
// origin, time, and annotations that the hash does not cover may differ: then the higher record wins, so that all agree.
func wins(a, b Object) bool {
	if c := a.Version.Compare(b.Version); c != 0 {
		return c > 0
	}
	return bytes.Compare(encode(a), encode(b)) > 0
}

// checkMerged refuses what no Store can have made.
func checkMerged(o Object) error {
	switch {
	case o.Key == "":
		return errors.New("it has no key")
	case o.Version.Generation == 0:
		return errors.New("it has generation 0")
	case o.Birth > o.Version.Generation, o.Birth == 0 && !o.Deleted:
		return fmt.Errorf("it was born in generation %d and has generation %d", o.Birth, o.Version.Generation)
	case o.Deleted && (len(o.Body) > 0 || o.Version.Hash != [32]byte{} || o.Content != [32]byte{}):
		return errors.New("it is deleted but has content")
	case len(o.Body) > MaxBody:
		return &TooLargeError{Key: o.Key, Size: len(o.Body)}
	case len(o.Past) > maxPast:
		return fmt.Errorf("it remembers %d earlier contents; %d is the most", len(o.Past), maxPast)
	}
	return nil
}
