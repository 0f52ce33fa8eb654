package cluster

import (
	"bytes"
	"errors"
	"fmt"
)

// maxAhead is how far a generation from elsewhere may be above the known one. A host with a broken or hostile counter could
// otherwise use up all generations there are, and nobody could write the object again.
const maxAhead = 1 << 32

// Merge takes in an object as another host has it: the higher version stays. Whatever the order in which hosts merge the same
// objects, and however often, they end up with the same one. It is durable when Merge returns; only a change is worth telling
// others. The object's Body and Past must not be changed any more.
//
// In place of a damaged record it takes any version that is not lower than what is known of the record.
func (s *Store) Merge(o Object) (changed bool, err error) {
	o.Time = displayTime(o.Time)
	if err := checkMerged(o); err != nil {
		return false, fmt.Errorf("cannot merge object %q: %w", o.Key, err)
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	known, _ := s.known(o.Key)
	if ahead := o.Version.Generation - known.version.Generation; o.Version.Generation > known.version.Generation && ahead > maxAhead {
		return false, fmt.Errorf("cannot merge object %q: generation %d is more than 2^32 above %d, which is known", o.Key, o.Version.Generation, known.version.Generation)
	}
	if current, ok := s.Get(o.Key); ok && !wins(o, current) {
		return false, nil
	}
	if d, ok := s.damaged[o.Key]; ok && d.head != nil && o.Version.Compare(d.head.version) < 0 {
		return false, nil
	}
	if err := s.commit([]Object{o}); err != nil {
		return false, err
	}
	return true, nil
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
	case len(o.Past) > maxPast:
		return fmt.Errorf("it remembers %d earlier contents; %d is the most", len(o.Past), maxPast)
	}
	return nil
}
