package agent

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// readPressure looks at the host. imagefs is the directory of containerd's snapshots, "" when it is not known.
func readPressure(dataDir, imagefs string) reading {
	r := reading{memory: memorySupply("/proc/meminfo"), pids: pidSupply("/proc")}
	r.nodefs, r.nodefsInodes = diskSupply(dataDir)
	if imagefs != "" {
		r.imagefs, r.imagefsInodes = diskSupply(imagefs)
	}
	return r
}

// memorySupply is the kubelet's memory.available on a host of cgroup v2: what is free or was read from files and not used lately. All
// else is the working set.
func memorySupply(path string) supply {
	kb := map[string]int64{}
	b, err := os.ReadFile(path)
	if err != nil {
		return supply{}
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if name, rest, ok := strings.Cut(s.Text(), ":"); ok {
			kb[name], _ = strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		}
	}
	return supply{total: kb["MemTotal"] << 10, free: (kb["MemFree"] + kb["Inactive(file)"]) << 10}
}

// pidSupply counts threads against the lower of the kernel's two limits.
func pidSupply(proc string) supply {
	most := int64(0)
	for _, limit := range []string{"pid_max", "threads-max"} {
		n, err := strconv.ParseInt(firstLine(proc+"/sys/kernel/"+limit), 10, 64)
		if err == nil && (most == 0 || n < most) {
			most = n
		}
	}
	// "0.50 0.40 0.30 2/345 6789": two of 345 threads run.
	fields := strings.Fields(firstLine(proc + "/loadavg"))
	if len(fields) < 4 {
		return supply{}
	}
	_, total, _ := strings.Cut(fields[3], "/")
	used, err := strconv.ParseInt(total, 10, 64)
	if err != nil {
		return supply{}
	}
	return supply{total: most, free: max(most-used, 0)}
}

// diskSupply is a file system's, of what others than root may use; some have no fixed number of inodes.
func diskSupply(dir string) (size, inodes supply) {
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil {
		return supply{}, supply{}
	}
	return supply{int64(fs.Blocks) * fs.Bsize, int64(fs.Bavail) * fs.Bsize}, supply{int64(fs.Files), int64(fs.Ffree)}
}

// pressureEvery is the kubelet's eviction monitoring period.
const pressureEvery = 10 * time.Second

// watchPressure looks at the host every few seconds until ctx ends: not in the loop, which must not wait for a disk.
func (a *Agent) watchPressure(ctx context.Context) {
	ticker := time.NewTicker(pressureEvery)
	defer ticker.Stop()
	imagefs := ""
	for {
		if dir, err := a.imageStore(ctx); err == nil { // while containerd is away it is where it was
			imagefs = dir
		}
		r := readPressure(a.cfg.DataDir, imagefs)
		_ = a.loop.do(ctx, func() error { a.loop.pressed(r); return nil }) // the loop has ended, or the next look tells
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (a *Agent) imageStore(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	return a.runtime.ImageStore(ctx)
}
