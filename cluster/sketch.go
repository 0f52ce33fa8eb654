package cluster

import (
	"crypto/sha256"
	"encoding/binary"
)

// A replicated set is compared by sketches: every element has an imprint, its key chooses one of 4096 buckets, and a bucket is the
// sum (exclusive or) of its imprints. Hosts compare the sum of all, then of 64 groups of 64 buckets, then of the buckets of a group
// that differs, then the elements of a bucket that differs: what travels grows with the difference, not with the set.
const (
	groupCount = 64
	groupSize  = 64
	sumSize    = 8 // how much of a group's or bucket's sum travels
)

// imprint stands for one element as it is now.
type imprint [16]byte

func (i *imprint) toggle(o imprint) {
	for k := range i {
		i[k] ^= o[k]
	}
}

// imprintOf is of an object with its envelope: hosts agree on that too.
func imprintOf(o Object) imprint {
	h := sha256.New()
	h.Write(appendBytes(nil, o.Key))
	h.Write(encode(o))
	return imprint(h.Sum(nil)[:len(imprint{})])
}

// sketch is not safe for concurrent use: its owner has a lock.
type sketch struct {
	all     imprint
	groups  [groupCount]imprint
	buckets [groupCount * groupSize]imprint
	count   int
}

func newSketch() *sketch { return &sketch{} }

func bucketOf(key string) uint16 {
	sum := sha256.Sum256([]byte(key))
	return binary.BigEndian.Uint16(sum[:]) % (groupCount * groupSize)
}

func (s *sketch) toggle(key string, i imprint) {
	b := bucketOf(key)
	s.all.toggle(i)
	s.groups[b/groupSize].toggle(i)
	s.buckets[b].toggle(i)
}

func (s *sketch) add(key string, i imprint) {
	s.toggle(key, i)
	s.count++
}

func (s *sketch) remove(key string, i imprint) {
	s.toggle(key, i)
	s.count--
}

// groupSums are the sums of all groups, as they travel.
func (s *sketch) groupSums() []byte { return sums(s.groups[:]) }

// bucketSums are the sums of one group's buckets.
func (s *sketch) bucketSums(group byte) []byte {
	from := int(group) * groupSize
	return sums(s.buckets[from : from+groupSize])
}

func sums(list []imprint) []byte {
	b := make([]byte, 0, len(list)*sumSize)
	for _, i := range list {
		b = append(b, i[:sumSize]...)
	}
	return b
}

// differing are the places in which two lists of sums differ.
func differing(a, b []byte) []int {
	var places []int
	for i := 0; i+sumSize <= len(a) && i+sumSize <= len(b); i += sumSize {
		if [sumSize]byte(a[i:]) != [sumSize]byte(b[i:]) {
			places = append(places, i/sumSize)
		}
	}
	return places
}
