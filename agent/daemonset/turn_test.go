package daemonset

import (
	"os"
	goruntime "runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// simulated is how many schedules make test runs; make soak runs ten times as many.
const (
	simulated = 100_000
	simSteps  = 400
)

// seeds are the schedules to run: PICKET_SEED is one, to be read in full; PICKET_SCHEDULES is how many.
func seeds(t testing.TB) (first, count uint64) {
	number := func(name string) (uint64, bool) {
		text := os.Getenv(name)
		if text == "" {
			return 0, false
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return n, true
	}
	if seed, ok := number("PICKET_SEED"); ok {
		return seed, 1
	}
	if n, ok := number("PICKET_SCHEDULES"); ok {
		return 0, n
	}
	if os.Getenv("PICKET_SOAK") != "" {
		return 0, 10 * simulated
	}
	return 0, simulated
}

// campaign runs schedules on all processors until one goes wrong; it returns the seed of that, and how many updates ended.
func campaign(first, count uint64, without mutant, bad func(wrong string) bool) (seed uint64, found bool, finished int64) {
	defer debug.SetGCPercent(debug.SetGCPercent(1000)) // much is made, and little of it kept
	var next, updates atomic.Int64
	var lock sync.Mutex
	var workers sync.WaitGroup
	for range goruntime.GOMAXPROCS(0) {
		workers.Go(func() {
			for n := next.Add(1) - 1; n < int64(count); n = next.Add(1) - 1 {
				wrong, s := simulate(first+uint64(n), without, simSteps, false)
				updates.Add(int64(s.finished))
				if !bad(wrong) {
					continue
				}
				lock.Lock()
				if at := first + uint64(n); !found || at < seed {
					seed, found = at, true
				}
				lock.Unlock()
				next.Store(int64(count)) // those that run may still find an earlier one
			}
		})
	}
	workers.Wait()
	return seed, found, updates.Load()
}

// TestSimulatedRollouts: PICKET_SEED=n replays one schedule and prints it.
func TestSimulatedRollouts(t *testing.T) {
	first, count := seeds(t)
	seed, found, finished := campaign(first, count, intact, func(wrong string) bool { return wrong != "" })
	if found || count == 1 {
		wrong, s := simulate(max(first, seed), intact, simSteps, true)
		t.Logf("seed %d: %s\n%s", max(first, seed), wrong, strings.Join(s.trace, "\n"))
	}
	if found {
		t.Fail()
	}
	t.Logf("%d updates of a host in %d schedules", finished, count)
}

// A clause of the rule is needed when some schedule breaks the promise without it.
func TestMutantsOfTheRule(t *testing.T) {
	for _, m := range mutants {
		if m == noLift {
			continue // one schedule in tens of thousands: its scenario has to do
		}
		t.Run(string(m), func(t *testing.T) {
			seed, found, _ := campaign(0, simulated, m, func(wrong string) bool { return wrong != "" && !strings.HasPrefix(wrong, unfinished) })
			if !found {
				t.Fatal("it survives")
			}
			wrong, s := simulate(seed, m, simSteps, true)
			t.Logf("caught by seed %d: %s", seed, wrong)
			if os.Getenv("PICKET_SEED") != "" {
				t.Log(strings.Join(s.trace, "\n"))
			}
		})
	}
}
