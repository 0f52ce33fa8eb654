package cluster

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/picketd/picket/cluster/clustertest"
)

// detectSizes are the fleets that are measured; large ones take minutes.
func detectSizes(small ...int) []int {
	if os.Getenv("PICKET_SOAK") != "" {
		return []int{3, 5, 10, 50}
	}
	return small
}

// TestHowSoonADeadHostIsFound prints, in virtual time, how long a host that was killed is alive for somebody.
func TestHowSoonADeadHostIsFound(t *testing.T) {
	for _, n := range detectSizes(3, 10) {
		t.Run(fmt.Sprint(n, " hosts"), func(t *testing.T) {
			inFleet(t, uint64(n), func(t *testing.T, f *testFleet) {
				random := rand.New(rand.NewPCG(uint64(n), 3))
				f.net.SetFaults(clustertest.Faults{Delay: 200 * time.Microsecond, Jitter: 300 * time.Microsecond})
				hosts := f.addMany(n)
				f.within(time.Minute, "all agree", func() bool { return agree(hosts...) })
				var first, all []time.Duration
				for range 36 {
					time.Sleep(10*time.Second + time.Duration(random.Int64N(int64(5*time.Second))))
					killed := hosts[random.IntN(n)]
					if random.IntN(2) == 0 { // nobody refuses a call any more: power, not a process
						f.net.Partition([]string{killed.name}, names(slices.DeleteFunc(slices.Clone(hosts), func(h *testHost) bool { return h == killed })))
					}
					killed.stop()
					heard := func() (n int) {
						for _, h := range hosts {
							if h != killed && h.m.hears(killed.name) {
								n++
							}
						}
						return n
					}
					begun := time.Now()
					for heard() == n-1 {
						time.Sleep(10 * time.Millisecond)
					}
					first = append(first, time.Since(begun))
					for heard() > 0 {
						time.Sleep(10 * time.Millisecond)
					}
					all = append(all, time.Since(begun))
					f.net.Heal()
					killed.start(hosts[(slices.Index(hosts, killed)+1)%n])
					f.within(time.Minute, "it is back", func() bool { return agree(hosts...) })
				}
				slices.Sort(first)
				slices.Sort(all)
				t.Logf("%d hosts, %d kills: the first knows after %v (median) %v (max); all after %v (median) %v (p90) %v (max)",
					n, len(all), first[18], first[35], all[18], all[32], all[35])
				if n == 3 && all[18] > 4*time.Second {
					t.Errorf("the median is %v", all[18])
				}
			})
		})
	}
}

// TestFalseAlarms prints how often a host that is alive is failed in an hour of a bad network.
func TestFalseAlarms(t *testing.T) {
	for _, n := range detectSizes(3) {
		t.Run(fmt.Sprint(n, " hosts"), func(t *testing.T) {
			inFleet(t, uint64(n), func(t *testing.T, f *testFleet) {
				hosts := f.addMany(n)
				f.within(time.Minute, "all agree", func() bool { return agree(hosts...) })
				f.net.SetFaults(clustertest.Faults{Loss: 0.05, Delay: time.Millisecond, Jitter: 100 * time.Millisecond})
				alarms, failed := 0, map[[2]int]bool{}
				for begun := time.Now(); time.Since(begun) < time.Hour; time.Sleep(200 * time.Millisecond) {
					for i, h := range hosts {
						for j, o := range hosts {
							was := failed[[2]int{i, j}]
							now := !h.m.hears(o.name)
							if failed[[2]int{i, j}] = now; now && !was {
								alarms++
							}
						}
					}
				}
				deaths := uint64(0)
				for _, h := range hosts {
					deaths += h.m.Stats().FalseDeaths
				}
				t.Logf("%d hosts, an hour: %d false alarms, %d more that were no alarm because the host answered", n, alarms, deaths)
				if alarms > 0 {
					t.Errorf("%d false alarms", alarms)
				}
			})
		})
	}
}
