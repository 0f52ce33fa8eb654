package runtime

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/pkg/cap"
)

// oomFloor is the lowest oom_score_adj that this host lets containers have. Without CAP_SYS_RESOURCE the kernel refuses to go
// below what a process has inherited.
type oomFloor struct {
	once   sync.Once
	lowest int
	warned sync.Once
}

const oomScoreMin = -1000

// clamp raises a score to the lowest that is allowed and says so once.
func (r *Runtime) clampOOMScore(score int) int {
	f := &r.oomFloor
	f.once.Do(func() { f.lowest = lowestOOMScore() })
	if score >= f.lowest {
		return score
	}
	f.warned.Do(func() {
		r.log.Warn("this host may not lower oom_score_adj (no CAP_SYS_RESOURCE); containers keep a higher one", "lowest", f.lowest, "wanted", score)
	})
	return f.lowest
}

// lowestOOMScore takes this process for containerd's: both are services of this host.
func lowestOOMScore() int {
	if have, err := cap.Current(); err == nil && slices.Contains(have, "CAP_SYS_RESOURCE") {
		return oomScoreMin
	}
	data, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	return score
}
