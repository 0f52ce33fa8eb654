package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	cgroupsv3 "github.com/containerd/cgroups/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroups is how this host has them. The driver is the kubelet's choice: systemd's where systemd runs on cgroup v2, for there
// it means to be the only one that writes; the plain files everywhere else.
type cgroups struct {
	unified bool // v2 alone
	systemd bool // containers are scopes of systemd's

	swap, hugetlb bool     // the controllers are there
	hugepages     []string // the sizes that hugetlb counts, such as "2MB"
}

func detectCgroups() cgroups {
	c := detectControllers()
	if c.hugetlb {
		c.hugepages = hugepageSizes()
	}
	return c
}

func detectControllers() cgroups {
	c := cgroups{unified: cgroupsv3.Mode() == cgroupsv3.Unified}
	_, err := os.Stat("/run/systemd/system")
	c.systemd = c.unified && err == nil
	if !c.unified {
		c.swap = exists(cgroupRoot + "/memory/memory.memsw.limit_in_bytes")
		c.hugetlb = exists(cgroupRoot + "/hugetlb")
		return c
	}
	controllers, _ := os.ReadFile(cgroupRoot + "/cgroup.controllers") // unreadable: no controllers
	c.hugetlb = slices.Contains(strings.Fields(string(controllers)), "hugetlb")
	// The root has no such file; our own cgroup does, where the kernel counts swap.
	if own, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		_, path, _ := strings.Cut(strings.TrimSpace(string(own)), "::")
		c.swap = exists(filepath.Join(cgroupRoot, path, "memory.swap.max"))
	}
	return c
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// runcOptions are the shim's options for every container.
func (c cgroups) runcOptions() typeurl.Any {
	encoded, err := typeurl.MarshalAny(&options.Options{SystemdCgroup: c.systemd})
	if err != nil {
		panic(fmt.Sprintf("cannot encode runc's options: %v", err)) // they are the same everywhere
	}
	return encoded
}

// cgroupParent is the pod's cgroup; who knows of a pod only its uid gets the one it has by default.
func (p PodConfig) cgroupParent() string {
	if p.CgroupParent != "" {
		return p.CgroupParent
	}
	return "/picket/pod" + p.UID
}

// path is a container's cgroup in the pod's, in the driver's notation.
func (c cgroups) path(parent, key string) string {
	if c.systemd {
		return sliceOf(parent) + ":picket:" + key
	}
	return filepath.Join(parent, key)
}

// sliceOf turns "/picket/pod1-2" into "picket-pod1_2.slice": a dash in a slice's name means a level.
func sliceOf(parent string) string {
	return strings.ReplaceAll(strings.ReplaceAll(strings.Trim(parent, "/"), "-", "_"), "/", "-") + ".slice"
}

// apply puts a container's limits into its spec.
func (c cgroups) apply(l *specs.Linux, limits Resources) {
	l.Resources.CPU = &specs.LinuxCPU{}
	if limits.CPUShares > 0 {
		l.Resources.CPU.Shares = &limits.CPUShares
	}
	if limits.CPUQuota > 0 {
		l.Resources.CPU.Quota, l.Resources.CPU.Period = &limits.CPUQuota, &limits.CPUPeriod
	}
	if limits.MemoryLimit > 0 {
		l.Resources.Memory = &specs.LinuxMemory{Limit: &limits.MemoryLimit}
		if c.swap { // as much of memory and swap together: none of swap
			l.Resources.Memory.Swap = &limits.MemoryLimit
		}
	}
	if c.hugetlb {
		for size, limit := range limits.HugepageLimits {
			l.Resources.HugepageLimits = append(l.Resources.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: size, Limit: limit})
		}
	}
	if c.unified { // the kernel kills the container, not one process of it, as on a kubelet's host
		l.Resources.Unified = map[string]string{"memory.oom.group": "1"}
	}
}

// removePodCgroup removes a pod's cgroup, "/picket/pod<uid>", from every hierarchy, with what runc may have left in it.
// Processes still in it make it an error.
func (r *Runtime) removePodCgroup(ctx context.Context, parent string) error {
	if r.cgroups.systemd {
		return stopSlice(ctx, sliceOf(parent))
	}
	roots := []string{cgroupRoot}
	if !r.cgroups.unified {
		roots, _ = filepath.Glob(cgroupRoot + "/*") // the pattern is well-formed
	}
	var errs []error
	deadline := time.Now().Add(busyTimeout)
	for _, root := range roots {
		errs = append(errs, removeCgroup(ctx, filepath.Join(root, parent), deadline))
	}
	return errors.Join(errs...)
}

// busyTimeout is for cgroups that the kernel calls busy although their last process has ended.
const busyTimeout = time.Second

// removeCgroup removes a cgroup and those below.
func removeCgroup(ctx context.Context, dir string, deadline time.Time) error {
	for {
		err := removeCgroupTree(dir)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func removeCgroupTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read cgroup: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroupTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot remove cgroup %s: %w", dir, err)
	}
	return nil
}

// stopSlice has systemd forget a pod's slice: it made it on its own for the first container, and keeps it.
func stopSlice(ctx context.Context, slice string) error {
	if out, err := exec.CommandContext(ctx, "systemctl", "stop", "--", slice).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot stop %s: %w: %s", slice, err, out)
	}
	if err := os.RemoveAll(filepath.Join(systemdControl, slice+".d")); err != nil {
		return fmt.Errorf("cannot remove the properties of %s: %w", slice, err)
	}
	return nil
}
