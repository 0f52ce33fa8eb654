package cluster

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A sketch depends on what is in it, not on how it came about.
func TestSketchIsOfItsContent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfNDistinct(rapid.StringMatching("[a-z]{1,3}"), 1, 40, rapid.ID[string]).Draw(t, "keys")
		a, b := newSketch(), newSketch()
		for _, key := range keys {
			a.put(itemOf(Object{Key: key, Body: []byte("old")}))
			if rapid.Bool().Draw(t, "look") {
				a.digest()
			}
			a.remove(key)
			a.put(itemOf(Object{Key: key}))
		}
		for _, key := range rapid.Permutation(keys).Draw(t, "order") {
			b.put(itemOf(Object{Key: key, Body: []byte("old")}))
			b.put(itemOf(Object{Key: key}))
		}
		if a.digest() != b.digest() || a.count != b.count {
			t.Fatal("two sketches of the same content differ")
		}
		b.remove(keys[0])
		if a.digest() == b.digest() {
			t.Fatal("two sketches of different content are equal")
		}
		place := int(bucketOf(keys[0]))
		groups := differing(a.groupSums(), b.groupSums())
		if len(groups) != 1 || groups[0] != place/groupSize {
			t.Fatalf("groups %v differ", groups)
		}
		if buckets := differing(a.bucketSums(byte(groups[0])), b.bucketSums(byte(groups[0]))); len(buckets) != 1 || buckets[0] != place%groupSize {
			t.Fatalf("buckets %v differ", buckets)
		}
		for _, key := range keys {
			a.remove(key)
		}
		if a.digest() != newSketch().digest() || a.count != 0 {
			t.Fatal("an empty sketch is not that of nothing")
		}
	})
}

// Pages of any size, one after the other, are all that is in the buckets, in order.
func TestSketchPages(t *testing.T) {
	s := newSketch()
	for i := range 5000 {
		s.put(item{key: fmt.Sprint(i), order: uint64(i)})
	}
	buckets := []uint16{3, 4, 100, 101, 102, 4095}
	whole, all := s.list(buckets, "", "", 1<<20)
	if !all || len(whole) == 0 || !slices.IsSortedFunc(whole, func(a, b item) int { return compareKeys(a.key, b.key) }) {
		t.Fatalf("complete %t: %v", all, whole)
	}
	var pages []item
	for after, all := "", false; !all; after = pages[len(pages)-1].key {
		var page []item
		page, all = s.list(buckets, after, "", 50)
		pages = append(pages, page...)
	}
	if !slices.Equal(pages, whole) {
		t.Errorf("pages %v, whole %v", pages, whole)
	}
	if part, _ := s.list(buckets, whole[1].key, whole[3].key, 1<<20); !slices.Equal(part, whole[2:4]) {
		t.Errorf("a part is %v, not %v", part, whole[2:4])
	}
}

// With sums that are an exclusive or, a host could choose which of 200 elements of its own it tells to whom, so that two others
// whose sets differ see equal sums: Gauss's elimination finds it. What it finds says nothing about sums that are hashes.
func TestNobodyCanCancelADifference(t *testing.T) {
	imprintNamed := func(format string, a ...any) imprint { return imprintOfBytes(fmt.Appendf(nil, format, a...)) }
	honest := item{key: "honest", imprint: imprintNamed("honest")}
	var own []item
	for i := range 200 {
		key := fmt.Sprint(i)
		own = append(own, item{key: key, imprint: imprintNamed("%s", key)})
	}
	chosen := cancelling(own, honest.imprint)
	sum := honest.imprint
	for _, i := range chosen {
		sum = xor(sum, i.imprint)
	}
	if len(chosen) == 0 || sum != (imprint{}) {
		t.Fatal("the attack of this test does not work")
	}
	one, other := newSketch(), newSketch()
	one.put(honest)
	for _, i := range chosen {
		one.put(i)
	}
	if one.digest() == other.digest() || len(differing(one.groupSums(), other.groupSums())) == 0 {
		t.Error("two hosts with different sets believe that they are equal")
	}
}

func xor(a, b imprint) imprint {
	for i := range a {
		a[i] ^= b[i]
	}
	return a
}

// cancelling are elements whose imprints' exclusive or is the target.
func cancelling(list []item, target imprint) []item {
	type row struct {
		sum  imprint
		made map[int]bool
	}
	bit := func(i imprint, n int) bool { return i[n/8]>>(n%8)&1 == 1 }
	basis := map[int]row{}
	reduce := func(r row) (row, int) {
		for n := range 128 {
			if b, ok := basis[n]; bit(r.sum, n) && ok {
				r.sum = xor(r.sum, b.sum)
				for k := range b.made {
					r.made[k] = !r.made[k]
				}
			} else if bit(r.sum, n) {
				return r, n
			}
		}
		return r, -1
	}
	for k, i := range list {
		if r, n := reduce(row{i.imprint, map[int]bool{k: true}}); n >= 0 {
			kept := map[int]bool{}
			for k, in := range r.made {
				if in {
					kept[k] = true
				}
			}
			basis[n] = row{r.sum, kept}
		}
	}
	r, n := reduce(row{target, map[int]bool{}})
	var chosen []item
	for k, in := range r.made {
		if in && n < 0 {
			chosen = append(chosen, list[k])
		}
	}
	return chosen
}
