package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// systemdControl is where systemd keeps what was set with "set-property --runtime".
const systemdControl = "/run/systemd/system.control"

// limitPod makes the pod's cgroup and sets its limits: those of all its containers together. Doing it again changes nothing.
func (r *Runtime) limitPod(ctx context.Context, p PodConfig) error {
	if p.Resources == nil {
		return nil
	}
	parent := p.cgroupParent()
	if r.cgroups.systemd {
		slice := sliceOf(parent)
		set := exec.CommandContext(ctx, "systemctl", append([]string{"set-property", "--runtime", "--", slice}, sliceProperties(*p.Resources)...)...)
		if out, err := set.CombinedOutput(); err != nil {
			return fmt.Errorf("cannot limit %s: %w: %s", slice, err, out)
		}
		return nil
	}
	for _, f := range r.cgroups.podFiles(parent, *p.Resources) {
		if err := r.cgroups.write(f); err != nil {
			return fmt.Errorf("cannot set the pod's limits: %w", err)
		}
	}
	return nil
}

// cgroupFile is a value for a file of a cgroup.
type cgroupFile struct {
	controller string
	cgroup     string // "/picket/pod<uid>"
	name       string
	value      string
}

// podFiles are a pod's limits as the kernel's files have them, in the order in which they are written.
func (c cgroups) podFiles(parent string, l Resources) []cgroupFile {
	var files []cgroupFile
	add := func(controller, v1, v2, value1, value2 string) {
		f := cgroupFile{controller: controller, cgroup: parent, name: v1, value: value1}
		if c.unified {
			f.name, f.value = v2, value2
		}
		if f.name != "" {
			files = append(files, f)
		}
	}
	if l.CPUShares > 0 {
		add("cpu", "cpu.shares", "cpu.weight", decimal(l.CPUShares), decimal(cpuWeight(l.CPUShares)))
	}
	if l.CPUQuota > 0 {
		add("cpu", "cpu.cfs_period_us", "", decimal(l.CPUPeriod), "")
		add("cpu", "cpu.cfs_quota_us", "cpu.max", decimal(l.CPUQuota), decimal(l.CPUQuota)+" "+decimal(l.CPUPeriod))
	}
	if l.MemoryLimit > 0 {
		add("memory", "memory.limit_in_bytes", "memory.max", decimal(l.MemoryLimit), decimal(l.MemoryLimit))
	}
	for _, size := range c.hugepages { // what is not asked for is 0, as in a kubelet's pods
		limit := decimal(l.HugepageLimits[size])
		add("hugetlb", "hugetlb."+size+".limit_in_bytes", "hugetlb."+size+".max", limit, limit)
	}
	return files
}

func decimal[T int64 | uint64](n T) string { return fmt.Sprint(n) }

// sliceProperties are a pod's limits as systemd wants them. It knows nothing of huge pages: there the containers' own limits are all.
func sliceProperties(l Resources) []string {
	var properties []string
	if l.CPUShares > 0 {
		properties = append(properties, "CPUWeight="+decimal(cpuWeight(l.CPUShares)))
	}
	if l.CPUQuota > 0 {
		properties = append(properties, "CPUQuota="+strconv.FormatFloat(100*float64(l.CPUQuota)/float64(l.CPUPeriod), 'f', 1, 64)+"%")
	}
	if l.MemoryLimit > 0 {
		properties = append(properties, "MemoryMax="+decimal(l.MemoryLimit))
	}
	return properties
}

// cpuWeight is what runc makes of cgroup v1's shares on v2: the ends of both scales (2 and 262144, 1 and 10000) and their defaults
// (1024, 100) are on one parabola of the logarithms.
func cpuWeight(shares uint64) uint64 {
	l := math.Log2(float64(min(max(shares, 2), 262144)))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

// write makes a cgroup and sets one of its values. A controller that the host does not have sets no limits, on containers neither.
func (c cgroups) write(f cgroupFile) error {
	root := cgroupRoot
	if !c.unified {
		root = filepath.Join(cgroupRoot, f.controller)
	}
	if !exists(root) {
		return nil
	}
	dir := filepath.Join(root, f.cgroup)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot make cgroup: %w", err)
	}
	if c.unified && !exists(filepath.Join(dir, f.name)) {
		if err := enableController(root, f.cgroup, f.controller); err != nil {
			return err
		}
	}
	err := os.WriteFile(filepath.Join(dir, f.name), []byte(f.value), 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// enableController has cgroups v2 down to one of them controlled: each level says what the next is controlled by.
func enableController(root, cgroup, controller string) error {
	if data, err := os.ReadFile(filepath.Join(root, "cgroup.controllers")); err != nil || !slices.Contains(strings.Fields(string(data)), controller) {
		return err
	}
	dir := root
	for _, part := range strings.Split(strings.Trim(cgroup, "/"), "/") {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0o644); err != nil {
			return fmt.Errorf("cannot enable controller %s: %w", controller, err)
		}
		dir = filepath.Join(dir, part)
	}
	return nil
}

// hugepageSizes are the kernel's, such as "2MB".
func hugepageSizes() (sizes []string) {
	dirs, _ := filepath.Glob("/sys/kernel/mm/hugepages/hugepages-*kB") // the pattern is well-formed
	for _, dir := range dirs {
		kilobytes, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(dir), "hugepages-"), "kB"))
		if err == nil {
			sizes = append(sizes, hugepageName(kilobytes))
		}
	}
	return sizes
}

// hugepageName is the size as cgroups' files have it.
func hugepageName(kilobytes int) string {
	switch {
	case kilobytes%(1<<20) == 0:
		return strconv.Itoa(kilobytes>>20) + "GB"
	case kilobytes%(1<<10) == 0:
		return strconv.Itoa(kilobytes>>10) + "MB"
	}
	return strconv.Itoa(kilobytes) + "KB"
}
