package cluster

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// A sketch depends on what is in it, not on how it came about.
func TestSketchIsOfItsContent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfNDistinct(rapid.StringMatching("[a-z]{1,3}"), 1, 40, rapid.ID[string]).Draw(t, "keys")
		a, b := newSketch(), newSketch()
		for _, key := range keys {
			a.add(key, imprintOf(Object{Key: key, Body: []byte("old")}))
			a.remove(key, imprintOf(Object{Key: key, Body: []byte("old")}))
			a.add(key, imprintOf(Object{Key: key}))
		}
		for _, key := range rapid.Permutation(keys).Draw(t, "order") {
			b.add(key, imprintOf(Object{Key: key}))
		}
		if *a != *b {
			t.Fatal("two sketches of the same content differ")
		}
		b.remove(keys[0], imprintOf(Object{Key: keys[0]}))
		place := int(bucketOf(keys[0]))
		groups := differing(a.groupSums(), b.groupSums())
		if len(groups) != 1 || groups[0] != place/groupSize {
			t.Fatalf("groups %v differ", groups)
		}
		if buckets := differing(a.bucketSums(byte(groups[0])), b.bucketSums(byte(groups[0]))); len(buckets) != 1 || buckets[0] != place%groupSize {
			t.Fatalf("buckets %v differ", buckets)
		}
	})
}

func TestSketchCounts(t *testing.T) {
	s := newSketch()
	for i := range 100 {
		s.add(fmt.Sprint(i), imprint{byte(i)})
	}
	s.remove("7", imprint{7})
	if s.count != 99 {
		t.Errorf("it counts %d", s.count)
	}
}
