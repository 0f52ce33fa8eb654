package api

import (
	"sort"

	"k8s.io/apimachinery/pkg/watch"
)

// The bounds of one resource's history. A watcher reads the history at its own pace; one that falls behind by more than this is
// told to start over (410 Expired), so a slow client costs no memory of its own.
const (
	maxChanges      = 512
	maxHistoryBytes = 4 << 20
)

// change is one step of a resource's history.
type change struct {
	version uint64
	kind    watch.EventType // Added, Modified or Deleted
	// object is the state after the change; of a deletion, the last state with the deletion's resourceVersion.
	object Object
	// previous is the state before; nil for Added.
	previous Object
	size     int
}

// history is the end of a resource's changes, oldest first. Every change after floor is in it.
type history struct {
	changes []change
	floor   uint64
	bytes   int
}

// record appends a change, drops the oldest ones over the bounds (never the newest), and wakes watchers.
func (s *shelf) record(ch change) {
	if sized, ok := ch.object.(interface{ Size() int }); ok {
		ch.size = sized.Size()
	}
	h := &s.history
	h.changes = append(h.changes, ch)
	h.bytes += ch.size
	drop := 0
	for len(h.changes)-drop > 1 && (len(h.changes)-drop > maxChanges || h.bytes > maxHistoryBytes) {
		h.bytes -= h.changes[drop].size
		h.floor = h.changes[drop].version
		drop++
	}
	clear(h.changes[:drop]) // so that the array under the slice lets go of the objects
	h.changes = h.changes[drop:]
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// after returns the changes after a version.
func (h *history) after(version uint64) []change {
	i := sort.Search(len(h.changes), func(i int) bool { return h.changes[i].version > version })
	return h.changes[i:]
}
