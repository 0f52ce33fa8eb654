package cluster

import (
	"bytes"
	"slices"
)

// maxPast is how many earlier content hashes an object remembers.
const maxPast = 100

// next is the object that a write makes of what was there before; a key that was never there is a tombstone of generation 0.
// contents are all that it had, the last one included.
func next(previous head, contents [][32]byte, w Write) Object {
	o := Object{
		Key: w.Key, Version: Version{Generation: previous.version.Generation + 1, Hash: w.Hash}, Deleted: w.Deleted,
		Birth: previous.birth, Body: bytes.Clone(w.Body), Content: w.Content, Author: w.Author,
	}
	if o.Content == ([32]byte{}) {
		o.Content = w.Hash
	}
	switch {
	case w.Deleted:
		o.Version.Hash, o.Content, o.Body = [32]byte{}, [32]byte{}, nil
	case previous.deleted:
		o.Birth = o.Version.Generation
	}
	o.Past = pastWithout(contents, o)
	return o
}

// contentsOf are the contents that an object has had and has.
func contentsOf(o Object) [][32]byte {
	if o.Deleted {
		return o.Past
	}
	return append(slices.Clip(o.Past), o.Content)
}

// pastWithout keeps the last maxPast different hashes. What is the object's content now is not past, even when it was before.
func pastWithout(past [][32]byte, o Object) [][32]byte {
	var kept [][32]byte
	for _, hash := range slices.Backward(past) {
		if current := !o.Deleted && hash == o.Content; !current && !slices.Contains(kept, hash) && len(kept) < maxPast {
			kept = append(kept, hash)
		}
	}
	slices.Reverse(kept)
	return kept
}
