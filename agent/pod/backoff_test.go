package pod

import (
	"testing"
	"time"
)

// Pulls are tried again after 10 s, doubling to 300 s, however long it goes on.
func TestPullDelays(t *testing.T) {
	for failures, seconds := range map[int]time.Duration{1: 10, 2: 20, 3: 40, 4: 80, 5: 160, 6: 300, 7: 300, 1000: 300} {
		if got := pullDelays.after(failures); got != seconds*time.Second {
			t.Errorf("after %d failures: %s", failures, got)
		}
	}
}
