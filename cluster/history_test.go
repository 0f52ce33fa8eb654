package cluster

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// Ten writers make 10,000 writes of 40 objects on a lossy network that is cut in two again and again. Every host must agree in the
// end, and on the highest version that anybody was told of; and at no time may a host go back to a lower one.
func TestHistoryOfTenWriters(t *testing.T) {
	const writers, writes, keys = 10, 10000, 40
	withAgents(t, 10, lossy, func(t *testing.T, f *agents) {
		random := rand.New(rand.NewPCG(10, 10))
		list := f.addMany(writers)
		f.within(time.Minute, "they meet", f.met)
		highest := map[string]Version{}
		seen := map[string]Version{} // by host and key
		for i := range writes {
			a := list[random.IntN(writers)]
			key := fmt.Sprintf("ConfigMap/default/c-%d", random.IntN(keys))
			w := Write{Key: key, Author: a.name, Deleted: random.IntN(10) == 0}
			if !w.Deleted {
				w.Body = fmt.Appendf(nil, "write %d", i)
				w.Hash = hashOf(string(w.Body))
			}
			known, _ := a.store.Get(key)
			stored, err := a.put(w)
			if err != nil {
				t.Fatal(err)
			}
			// Concurrent news may have come between: the write is above them too.
			if v := stored[0].Version; v.Generation <= known.Version.Generation {
				t.Fatalf("a write has generation %d after %d was known", v.Generation, known.Version.Generation)
			} else if v.Compare(highest[key]) > 0 {
				highest[key] = v
			}
			for _, b := range list {
				o, _ := b.store.Get(key)
				at := b.name + key
				if o.Version.Compare(seen[at]) < 0 {
					t.Fatalf("%s went back from generation %d of %s to %d", b.name, seen[at].Generation, key, o.Version.Generation)
				}
				seen[at] = o.Version
			}
			switch {
			case i%500 == 250:
				var sides [2][]string
				for _, b := range list {
					side := random.IntN(2)
					sides[side] = append(sides[side], b.name)
				}
				f.net.Partition(sides[0], sides[1])
			case i%500 == 0:
				f.net.Heal()
			}
			time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
		}
		f.net.Heal()
		took := f.within(time.Minute, "all replicas are equal", func() bool { return f.met() && alike(f.list) })
		t.Logf("equal %s after the last heal", took)
		for key, v := range highest {
			if o, _ := list[0].store.Get(key); o.Version != v {
				t.Errorf("%s has generation %d, the highest that was acknowledged is %d", key, o.Version.Generation, v.Generation)
			}
		}
		if n := len(list[0].store.All()); n != len(highest) {
			t.Errorf("%d objects, %d were written", n, len(highest))
		}
	})
}
