package cluster

import (
	"bytes"
	"slices"
)

// maxPast is how many earlier content hashes an object remembers.
const maxPast = 100

// next is the object that a write makes of what was there before; a key that was never there is a tombstone of generation 0.
func next(previous head, past [][32]byte, w Write) Object {
	o := Object{
		Key: w.Key, Version: Version{Generation: previous.version.Generation + 1, Hash: w.Hash}, Deleted: w.Deleted,
		Birth: previous.birth, Body: bytes.Clone(w.Body), Author: w.Author,
	}
	switch {
	case w.Deleted:
		o.Version.Hash, o.Body = [32]byte{}, nil
	case previous.deleted:
		o.Birth = o.Version.Generation
	}
	if !previous.deleted {
		past = append(slices.Clip(past), previous.version.Hash)
	}
	o.Past = pastWithout(past, o)
	return o
}

// pastWithout keeps the last maxPast different hashes. What is the object's content now is not past, even when it was before.
func pastWithout(past [][32]byte, o Object) [][32]byte {
	var kept [][32]byte
	for _, hash := range slices.Backward(past) {
		if current := !o.Deleted && hash == o.Version.Hash; !current && !slices.Contains(kept, hash) && len(kept) < maxPast {
			kept = append(kept, hash)
		}
	}
	slices.Reverse(kept)
	return kept
}
