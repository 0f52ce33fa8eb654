package cluster

import (
	"fmt"
	"slices"
	"testing"
)

// reached counts the hosts that news of the first host reaches, and the hops it takes, when the given ones are gone unnoticed.
func reached(names []string, gone ...string) (hosts, hops int) {
	seen := map[string]bool{names[0]: true}
	for wave := []string{names[0]}; len(wave) > 0; hops++ {
		var next []string
		for _, name := range wave {
			for _, n := range neighbours(name, names) {
				if !seen[n] && !slices.Contains(gone, n) {
					seen[n] = true
					next = append(next, n)
				}
			}
		}
		wave = next
	}
	return len(seen), hops - 1
}

func TestNewsReachesAll(t *testing.T) {
	for _, n := range []int{1, 2, 3, 9, 10, 50, 73, 500} {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf("host-%04d", i))
		}
		hosts, hops := reached(names)
		if hosts != n || hops > 7 {
			t.Errorf("of %d hosts %d are reached, in %d hops", n, hosts, hops)
		}
		for i, name := range names[1:min(n, 60)] {
			if hosts, _ := reached(names, name); hosts != n-1 {
				t.Errorf("of %d hosts %d are reached while %d is gone", n, hosts, i+1)
			}
		}
		for _, name := range names {
			for _, other := range neighbours(name, names) {
				if !slices.Contains(neighbours(other, names), name) {
					t.Fatalf("%s passes on to %s, but not the other way round", name, other)
				}
			}
			if near := neighbours(name, names); len(near) > fanOut+3 {
				t.Fatalf("%s has %d neighbours", name, len(near))
			}
		}
	}
}
