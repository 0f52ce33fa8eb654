package cluster

import (
	"bytes"
	"cmp"
	"fmt"
	"time"
)

// Version orders the writes of one object: the higher generation wins, and of equal generations the higher hash (ROLLOUT.md,
// Vocabulary). Every host computes the same winner.
type Version struct {
	Generation uint64
	Hash       [32]byte // of the content the user wrote, computed by the caller
}

// Compare is -1, 0 or 1.
func (v Version) Compare(o Version) int {
	if c := cmp.Compare(v.Generation, o.Generation); c != 0 {
		return c
	}
	return bytes.Compare(v.Hash[:], o.Hash[:])
}

// Object is one replicated object in its envelope. A tombstone (Deleted) is kept for ever so that the object never comes back.
type Object struct {
	Key     string // "DaemonSet/default/web"; opaque here
	Version Version
	Deleted bool
	// Birth is the generation of the write that created the object after its last deletion; uids derive from it.
	Birth uint64
	Body  []byte
	// Content is the hash of what the author wrote, a manifest file for example, before it was merged with what others own; in a
	// tombstone it is zero. Nothing is ordered by it.
	Content [32]byte
	// Past holds the earlier contents, newest last, at most 100; tombstones keep them too.
	Past [][32]byte

	Author string    // who wrote: certificate name, "file:/etc/picket/manifests.d/web.yaml", ...
	Origin string    // node that took the write
	Time   time.Time // for display only; nothing is ordered by it

	// Credential and Signature are the origin's: of everything above, the key and the fleet's name. No relay can alter an object.
	Credential []byte
	Signature  []byte
}

// MaxBody is how large the body of an object may be, in bytes.
const MaxBody = 4 << 20

// TooLargeError is an object that is over MaxBody.
type TooLargeError struct {
	Key  string
	Size int
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s has %d bytes with its history; the limit is %d", e.Key, e.Size, MaxBody)
}
