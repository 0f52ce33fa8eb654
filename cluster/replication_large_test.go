package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/picketd/picket/cluster/clustertest"
)

// lossy is the network of the bar: 5 % are lost, 20 % overtaken.
var lossy = clustertest.Faults{Loss: 0.05, Reorder: 0.2, ReorderBy: 20 * time.Millisecond, Delay: time.Millisecond, Jitter: 2 * time.Millisecond}

func TestFiftyAgentsOnALossyNetwork(t *testing.T) {
	const hosts, applies, cuts = 50, 20, 20
	withAgents(t, 50, lossy, func(t *testing.T, f *agents) {
		random := rand.New(rand.NewPCG(50, 50))
		list := f.addMany(hosts)
		f.within(2*time.Minute, "they meet", f.met)

		var took []time.Duration
		for i := range applies {
			key := fmt.Sprintf("DaemonSet/default/d-%d", i)
			list[random.IntN(hosts)].mustPut(key, "v1")
			took = append(took, f.within(3*time.Second, key+" is everywhere", func() bool {
				return f.everyone(func(a *agent) bool { return a.has(key, "v1") })
			}))
		}
		slices.Sort(took)
		t.Logf("an apply is everywhere after %s (median of %d), %s at most", took[applies/2], applies, took[applies-1])

		// What is acknowledged, and not overwritten, is to be there at the end; what is deleted is to be gone.
		written := f.partitions(random, cuts)
		f.net.Heal()
		healed := f.within(3*time.Minute, "all see each other again", f.met)
		after := f.within(time.Minute, "all stores and rosters are equal", func() bool { return alike(f.list) })
		t.Logf("after %d partitions and heals all meet in %s and are equal %s later", cuts, healed, after)
		for key, highest := range written {
			o, ok := list[0].store.Get(key)
			if !ok || o.Version.Compare(highest) != 0 {
				t.Errorf("%s has version %d, the highest that was acknowledged is %d", key, o.Version.Generation, highest.Generation)
			}
		}
	})
}

// partitions cuts the fleet in two, writes and deletes on both sides, and heals, again and again. It returns the highest version
// that any host acknowledged of every key.
func (f *agents) partitions(random *rand.Rand, cuts int) map[string]Version {
	highest := map[string]Version{}
	note := func(stored []Object, err error) {
		if err != nil {
			f.t.Fatal(err)
		}
		if o := stored[0]; o.Version.Compare(highest[o.Key]) > 0 {
			highest[o.Key] = o.Version
		}
	}
	for cut := range cuts {
		var sides [2][]string
		for _, a := range f.list {
			side := random.IntN(2)
			sides[side] = append(sides[side], a.name)
		}
		f.net.Partition(sides[0], sides[1])
		for i := range 10 {
			a := f.list[random.IntN(len(f.list))]
			key := fmt.Sprintf("ConfigMap/default/c-%d", random.IntN(20))
			if random.IntN(4) == 0 {
				note(a.put(Write{Key: key, Deleted: true, Author: "tester"}))
			} else {
				content := fmt.Sprintf("%d-%d", cut, i)
				note(a.put(Write{Key: key, Body: []byte(content), Hash: hashOf(content), Author: "tester"}))
			}
			a.say("default/web", fmt.Sprint(cut, i))
			time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond)
		}
		if cut < cuts-1 {
			f.net.Heal()
			time.Sleep(time.Duration(random.IntN(20000)) * time.Millisecond)
		}
	}
	return highest
}

// A bar: at most 1 kB/s a host when nothing happens, the same at 10 and at 50 hosts.
func TestIdleTraffic(t *testing.T) {
	rates := map[int]float64{}
	for _, hosts := range []int{10, 50} {
		withAgents(t, 7, lossless, func(t *testing.T, f *agents) {
			list := f.addMany(hosts)
			f.within(2*time.Minute, "they meet", f.met)
			for i := range 20 {
				list[i%hosts].mustPut(fmt.Sprintf("DaemonSet/default/d-%d", i), "v1")
			}
			for _, a := range list {
				for i := range 5 {
					a.say(fmt.Sprintf("default/d-%d", i), "running")
				}
			}
			f.within(time.Minute, "all are alike", func() bool { return alike(f.list) })
			time.Sleep(2 * time.Minute) // gossip repeats what was new for a while, young hosts look around
			const idle = 10 * time.Minute
			packets, streams := f.packets(), f.streams.Load()
			time.Sleep(idle)
			perHost := func(bytes float64) float64 { return bytes / idle.Seconds() / float64(hosts) }
			p, s := perHost(float64(f.packets()-packets)), perHost(float64(f.streams.Load()-streams))
			rates[hosts] = p + s
			t.Logf("%d hosts, idle: %.0f B/s a host, of it %.0f in packets and %.0f in streams", hosts, p+s, p, s)
			if p+s > 1000 {
				t.Errorf("%.0f B/s a host", p+s)
			}
		})
	}
	if ratio := rates[50] / rates[10]; ratio > 1.2 || ratio < 0.8 {
		t.Errorf("50 hosts cause %.2f times the traffic of 10", ratio)
	}
}

// What a comparison costs grows with what differs, not with what there is.
func TestComparingCostsWhatDiffers(t *testing.T) {
	cost := map[int]int64{}
	for _, size := range []int{100, 10000} {
		withAgents(t, 8, lossless, func(t *testing.T, f *agents) {
			one, two := f.add("host-01", true), f.add("host-02", true)
			var writes []Write
			for i := range size {
				writes = append(writes, Write{Key: fmt.Sprintf("ConfigMap/default/c-%d", i), Body: []byte("x"), Hash: hashOf("x"), Author: "tester"})
			}
			objects, err := one.store.PutAll(writes)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := two.store.MergeAll(objects); err != nil {
				t.Fatal(err)
			}
			two.stop()
			two.start(one)
			f.within(time.Minute, "they meet", f.met)
			time.Sleep(time.Minute)
			if _, err := one.store.PutAll([]Write{{Key: "ConfigMap/default/new", Body: []byte("x"), Hash: hashOf("x"), Author: "tester"}}); err != nil {
				t.Fatal(err) // and not told
			}
			before := one.r.Stats()
			stats := func() int64 {
				a, b := one.r.Stats(), two.r.Stats()
				return int64(a.BytesSent + a.BytesTaken + b.BytesSent + b.BytesTaken)
			}
			bytes := stats()
			f.within(time.Minute, "the object is found", func() bool { return two.has("ConfigMap/default/new", "x") })
			time.Sleep(time.Second)
			cost[size] = stats() - bytes
			t.Logf("%d objects, one of them missing: %d bytes, %d rounds", size, cost[size], one.r.Stats().Rounds-before.Rounds)
		})
	}
	if cost[10000] > 2*cost[100]+2000 {
		t.Errorf("finding one of 10,000 costs %d bytes, one of 100 %d", cost[10000], cost[100])
	}
}
