package cluster

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
)

// A replicated set is compared by sketches: every element has an imprint, its key chooses one of 4096 buckets, the sum of a bucket is
// the hash of its imprints, that of a group the hash of the sums of its 64 buckets, and that of all the hash of the groups'. Hosts
// compare the sum of all, then the 64 groups, then the buckets of a group that differs, then the elements of a bucket that differs:
// what travels grows with the difference, not with the set.
//
// The sums are hashes and not, which would be less work, the exclusive or of imprints: a host that may add 128 elements of its own
// could choose them such that they cancel any difference between two others, which then never find it. For the same reason sums
// travel whole: of 8 bytes two that are equal are found in an hour.
const (
	groupCount  = 64
	groupSize   = 64
	bucketCount = groupCount * groupSize
	sumSize     = len(imprint{})
)

// imprint stands for one element as it is now, or for many.
type imprint [16]byte

func imprintOfBytes(b []byte) imprint {
	sum := sha256.Sum256(b)
	return imprint(sum[:len(imprint{})])
}

// imprintOf is of an object with its envelope: hosts agree on that too.
func imprintOf(o Object) imprint {
	h := sha256.New()
	h.Write(appendBytes(nil, o.Key))
	h.Write(encode(o))
	return imprint(h.Sum(nil)[:len(imprint{})])
}

// sketch is not safe for concurrent use, not even by readers alone: sums are made when they are asked for. Its owner has a lock.
type sketch struct {
	buckets [bucketCount][]item // sorted by key
	count   int

	sums    [bucketCount]imprint // zero for nothing
	groups  [groupCount]imprint
	all     imprint
	changed map[uint16]bool // buckets whose sums are old
}

func newSketch() *sketch { return &sketch{changed: map[uint16]bool{}} }

func bucketOf(key string) uint16 {
	sum := sha256.Sum256([]byte(key))
	return binary.BigEndian.Uint16(sum[:]) % bucketCount
}

func (s *sketch) find(key string) (bucket uint16, at int, found bool) {
	bucket = bucketOf(key)
	at, found = slices.BinarySearchFunc(s.buckets[bucket], key, func(i item, key string) int { return strings.Compare(i.key, key) })
	return bucket, at, found
}

func (s *sketch) get(key string) (item, bool) {
	bucket, at, found := s.find(key)
	if !found {
		return item{}, false
	}
	return s.buckets[bucket][at], true
}

// put adds an element, or takes it as it is now.
func (s *sketch) put(i item) {
	bucket, at, found := s.find(i.key)
	if found {
		s.buckets[bucket][at] = i
	} else {
		s.buckets[bucket] = slices.Insert(s.buckets[bucket], at, i)
		s.count++
	}
	s.changed[bucket] = true
}

func (s *sketch) remove(key string) {
	if bucket, at, found := s.find(key); found {
		s.buckets[bucket] = slices.Delete(s.buckets[bucket], at, at+1)
		s.count--
		s.changed[bucket] = true
	}
}

// settle makes the sums new.
func (s *sketch) settle() {
	if len(s.changed) == 0 {
		return
	}
	var groups [groupCount]bool
	for bucket := range s.changed {
		var b []byte
		for _, i := range s.buckets[bucket] {
			b = append(b, i.imprint[:]...)
		}
		s.sums[bucket] = sumOf(b)
		groups[bucket/groupSize] = true
	}
	for group, changed := range groups {
		if changed {
			s.groups[group] = sumOf(joined(s.sums[group*groupSize:][:groupSize]))
		}
	}
	s.all = sumOf(joined(s.groups[:]))
	clear(s.changed)
}

// sumOf is zero for nothing, or for the sums of nothing.
func sumOf(b []byte) imprint {
	if !slices.ContainsFunc(b, func(x byte) bool { return x != 0 }) {
		return imprint{}
	}
	return imprintOfBytes(b)
}

// digest is the sum of all.
func (s *sketch) digest() imprint {
	s.settle()
	return s.all
}

// groupSums are the sums of all groups, as they travel.
func (s *sketch) groupSums() []byte {
	s.settle()
	return joined(s.groups[:])
}

// bucketSums are the sums of one group's buckets.
func (s *sketch) bucketSums(group byte) []byte {
	s.settle()
	return joined(s.sums[int(group)*groupSize:][:groupSize])
}

func joined(list []imprint) []byte {
	b := make([]byte, 0, len(list)*sumSize)
	for _, i := range list {
		b = append(b, i[:]...)
	}
	return b
}

// differing are the places in which two lists of sums differ.
func differing(a, b []byte) []int {
	var places []int
	for i := 0; i+sumSize <= len(a) && i+sumSize <= len(b); i += sumSize {
		if imprint(a[i:]) != imprint(b[i:]) {
			places = append(places, i/sumSize)
		}
	}
	return places
}

// compareKeys is the order in which elements are listed: by bucket, then by key.
func compareKeys(a, b string) int {
	return cmp.Or(cmp.Compare(bucketOf(a), bucketOf(b)), strings.Compare(a, b))
}

// list is what is in some buckets, which are sorted, after one key and up to a last one, if these are not "", in the order of
// compareKeys. It ends before it has more than room bytes on the wire or maxElements; all says that nothing else is in there.
func (s *sketch) list(buckets []uint16, after, last string, room int) (list []item, all bool) {
	for _, bucket := range buckets {
		for _, i := range s.buckets[bucket%bucketCount] {
			if after != "" && compareKeys(i.key, after) <= 0 {
				continue
			}
			size := len(i.key) + itemOverhead
			switch {
			case last != "" && compareKeys(i.key, last) > 0:
				return list, true
			case len(list) > 0 && size > room, len(list) == maxElements:
				return list, false
			}
			room -= size
			list = append(list, i)
		}
	}
	return list, true
}
