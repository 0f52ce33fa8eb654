package cluster

import (
	"maps"
	"slices"
	"sync"
)

// maxOverwrites bounds the overwrites that wait for the agent.
const maxOverwrites = 256

// Overwrite is a write that was lost to another whose author did not know of it: two hosts wrote the object at once, or on the two
// sides of a partition. Every host that has seen both tells of it.
type Overwrite struct{ Winner, Loser Object }

// unaware says whether the winner was written without knowledge of the loser.
func unaware(winner, loser Object) bool {
	switch {
	case winner.Version == loser.Version:
		return false // the same content
	case winner.Version.Generation == loser.Version.Generation:
		return true
	case loser.Deleted:
		return false // a higher generation of a key that was deleted knows of it, as far as that can be told
	}
	return !slices.Contains(winner.Past, loser.Content) && (winner.Deleted || winner.Content != loser.Content)
}

// news are what merging has changed, until the agent takes it. It is bounded by the number of objects.
type news struct {
	mu         sync.Mutex
	keys       map[string]bool
	overwrites []Overwrite
	dropped    uint64
	ring       chan struct{}
}

func newNews() news { return news{keys: map[string]bool{}, ring: make(chan struct{}, 1)} }

func (n *news) add(changed []Object, overwrites []Overwrite) {
	if len(changed)+len(overwrites) == 0 {
		return
	}
	n.mu.Lock()
	for _, o := range changed {
		n.keys[o.Key] = true
	}
	room := min(len(overwrites), maxOverwrites-len(n.overwrites))
	n.overwrites = append(n.overwrites, overwrites[:room]...)
	n.dropped += uint64(len(overwrites) - room)
	n.mu.Unlock()
	select {
	case n.ring <- struct{}{}:
	default:
	}
}

// News rings when merging has changed something. It is for one reader, which calls TakeNews then.
func (s *Store) News() <-chan struct{} { return s.news.ring }

// TakeNews returns the objects that merging has changed since the last time, as they are now, and the writes that were lost to it.
func (s *Store) TakeNews() (changed []Object, overwrites []Overwrite) {
	n := &s.news
	n.mu.Lock()
	keys := slices.Sorted(maps.Keys(n.keys))
	overwrites = n.overwrites
	clear(n.keys)
	n.overwrites = nil
	n.mu.Unlock()
	for _, key := range keys {
		if o, ok := s.Get(key); ok {
			changed = append(changed, o)
		}
	}
	return changed, overwrites
}
