package runtime_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

// BenchmarkExec tells what a command in a container costs, as an exec probe is one: the time it takes, what of a processor it costs
// this process, and what it costs containerd, the shim, runc and the command, which is true.
func BenchmarkExec(b *testing.B) {
	h := newHost(b)
	c := h.sleeper()
	before, hostBefore, began := ownTime(b), h.hostTime(), time.Now()
	for range b.N {
		if code, err := h.Exec(b.Context(), c.ID, runtime.ExecConfig{Command: []string{"true"}}); err != nil || code != 0 {
			b.Fatalf("code %d, error %v", code, err)
		}
	}
	report := func(took time.Duration, unit string) {
		b.ReportMetric(took.Seconds()*1000/float64(b.N), unit)
	}
	report(time.Since(began), "ms")
	report(ownTime(b)-before, "agent-cpu-ms")
	report(h.hostTime()-hostBefore, "host-cpu-ms")
	b.ReportMetric(0, "ns/op")
}

// ownTime is what this process has had of the processors.
func ownTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// hostTime is what containerd and its shims have had, with all that a shim started and that has ended: runc and the commands.
func (h *host) hostTime() time.Duration {
	h.t.Helper()
	const tick = time.Second / 100 // of /proc, on all of Linux
	var ticks int
	for _, pid := range append(h.containerd.Shims(), runtimetest.Children(os.Getpid())...) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			h.t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		for _, field := range strings.Fields(rest)[11:15] { // utime, stime, cutime, cstime
			n, err := strconv.Atoi(field)
			if err != nil {
				h.t.Fatal(err)
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * tick
}
