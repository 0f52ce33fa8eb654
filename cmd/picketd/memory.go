package main

import (
	"bufio"
	"bytes"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// collectOften lets the heap grow by half, not by its size again, before garbage is collected. The agent idles on hosts whose
// memory is for others: it trades a little time, of which it needs next to none, for the smaller resident set. GOGC overrides it.
func collectOften() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// returnEvery is how often returnMemory looks.
const returnEvery = 30 * time.Second

// returnMemory gives what a start or a burst of work needed back to the host once it is over: by itself Go keeps it for long. It
// does nothing while nothing was collected since it last did, so an idle agent pays for it once in two minutes, when Go collects
// by itself. It returns when done is closed.
func returnMemory(done <-chan struct{}) {
	tick := time.NewTicker(returnEvery)
	defer tick.Stop()
	var stats debug.GCStats
	for last := int64(-1); ; {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		if debug.ReadGCStats(&stats); stats.NumGC != last {
			if last < 0 {
				unmapProgram()
			}
			debug.FreeOSMemory()
			debug.ReadGCStats(&stats)
			last = stats.NumGC
		}
	}
}

// unmapProgram takes the pages of the program's own file, code and constants, out of the process once it has started: most of them are
// the start's alone (tables of protobuf and Kubernetes types). They stay in the page cache, where the kernel may now drop them;
// those that are used come back with a minor fault each. Failing costs memory, nothing else.
func unmapProgram() {
	self, err := os.Executable()
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for _, m := range programMappings(maps, self) {
		_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, m.start, m.length, syscall.MADV_DONTNEED)
	}
}

type mapping struct{ start, length uintptr }

// programMappings are the parts of /proc/self/maps that are a file's and cannot be written: what is in them is what is in the file.
func programMappings(maps []byte, file string) (list []mapping) {
	for lines := bufio.NewScanner(bytes.NewReader(maps)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[5] != file || strings.Contains(fields[1], "w") {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		start, err := strconv.ParseUint(from, 16, 64)
		if err != nil {
			continue
		}
		if end, err := strconv.ParseUint(to, 16, 64); err == nil && end > start {
			list = append(list, mapping{uintptr(start), uintptr(end - start)})
		}
	}
	return list
}
