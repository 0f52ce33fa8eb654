package runtime

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1/stats"
	stats2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The numbers of a pod of 500m CPU and 64Mi, on each kind of host.
var halfACPU = Resources{
	CPUShares: 512, CPUQuota: 50000, CPUPeriod: 100000, MemoryLimit: 64 << 20, HugepageLimits: map[string]uint64{"2MB": 4 << 20},
}

func TestPodFiles(t *testing.T) {
	for name, test := range map[string]struct {
		host   cgroups
		limits Resources
		want   string
	}{
		"v1": {
			cgroups{},
			halfACPU,
			"cpu/cpu.shares=512 cpu/cpu.cfs_period_us=100000 cpu/cpu.cfs_quota_us=50000 memory/memory.limit_in_bytes=67108864",
		},
		"v1 with huge pages": {
			cgroups{hugepages: []string{"1GB", "2MB"}},
			Resources{CPUShares: 2, HugepageLimits: halfACPU.HugepageLimits},
			"cpu/cpu.shares=2 hugetlb/hugetlb.1GB.limit_in_bytes=0 hugetlb/hugetlb.2MB.limit_in_bytes=4194304",
		},
		"v2": {
			cgroups{unified: true, hugepages: []string{"2MB"}},
			halfACPU,
			"cpu/cpu.weight=59 cpu/cpu.max=50000 100000 memory/memory.max=67108864 hugetlb/hugetlb.2MB.max=4194304",
		},
		"v2 without limits": {cgroups{unified: true}, Resources{CPUShares: 1024}, "cpu/cpu.weight=100"},
	} {
		var got []string
		for _, f := range test.host.podFiles("/picket/pod1-2", test.limits) {
			if f.cgroup != "/picket/pod1-2" {
				t.Errorf("%s: cgroup %s", name, f.cgroup)
			}
			got = append(got, f.controller+"/"+f.name+"="+f.value)
		}
		if s := strings.Join(got, " "); s != test.want {
			t.Errorf("%s:\n got %s\nwant %s", name, s, test.want)
		}
	}
}

func TestSliceProperties(t *testing.T) {
	if got, want := sliceProperties(halfACPU), []string{"CPUWeight=59", "CPUQuota=50.0%", "MemoryMax=67108864"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := sliceProperties(Resources{CPUShares: 2, CPUQuota: 1500, CPUPeriod: 100000}); !slices.Equal(got, []string{"CPUWeight=1", "CPUQuota=1.5%"}) {
		t.Errorf("got %q", got)
	}
}

func TestCPUWeight(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 102: 17, 1024: 100, 2048: 174, 262144: 10000, 1 << 20: 10000} {
		if got := cpuWeight(shares); got != want {
			t.Errorf("%d shares: weight %d, want %d", shares, got, want)
		}
	}
}

// A container's cgroup is in its pod's, in the driver's notation.
func TestCgroupPaths(t *testing.T) {
	plain, systemd := cgroups{unified: true}, cgroups{unified: true, systemd: true}
	if got := plain.path("/picket/pod1-2", "1-2-web-0"); got != "/picket/pod1-2/1-2-web-0" {
		t.Errorf("cgroupfs: %s", got)
	}
	if got := systemd.path("/picket/pod1-2", "1-2-web-0"); got != "picket-pod1_2.slice:picket:1-2-web-0" {
		t.Errorf("systemd: %s", got)
	}
}

// What runc is told is the same on v1 and v2, which it translates itself; more is said where the host has more.
func TestSpecLimits(t *testing.T) {
	for name, test := range map[string]struct {
		host    cgroups
		unified map[string]string
		swap    bool
		huge    int
	}{
		"v1":              {cgroups{}, nil, false, 0},
		"v1 with swap":    {cgroups{swap: true}, nil, true, 0},
		"v2":              {cgroups{unified: true, hugetlb: true}, map[string]string{"memory.oom.group": "1"}, false, 1},
		"v2 with systemd": {cgroups{unified: true, systemd: true, swap: true}, map[string]string{"memory.oom.group": "1"}, true, 0},
	} {
		l := &specs.Linux{Resources: &specs.LinuxResources{}}
		test.host.apply(l, halfACPU)
		r := l.Resources
		if *r.CPU.Shares != 512 || *r.CPU.Quota != 50000 || *r.CPU.Period != 100000 || *r.Memory.Limit != 64<<20 {
			t.Errorf("%s: %+v %+v", name, r.CPU, r.Memory)
		}
		if got := r.Memory.Swap != nil && *r.Memory.Swap == 64<<20; got != test.swap || len(r.HugepageLimits) != test.huge {
			t.Errorf("%s: swap limited %v, huge pages %v", name, got, r.HugepageLimits)
		}
		if len(r.Unified) != len(test.unified) || r.Unified["memory.oom.group"] != test.unified["memory.oom.group"] {
			t.Errorf("%s: unified %v", name, r.Unified)
		}
	}
}

func TestHugepageName(t *testing.T) {
	for kilobytes, want := range map[int]string{64: "64KB", 2048: "2MB", 1 << 20: "1GB"} {
		if got := hugepageName(kilobytes); got != want {
			t.Errorf("%d: %s", kilobytes, got)
		}
	}
}

// The figures of both kinds of cgroup mean the same: memory that works is what is used but for the file cache that could go at once.
func TestStatsOf(t *testing.T) {
	want := Stats{CPUUsage: 3 * time.Millisecond, MemoryUsage: 100, MemoryWorking: 60, Pids: 7}
	for name, figures := range map[string]any{
		"v1": &stats.Metrics{
			CPU: &stats.CPUStat{Usage: &stats.CPUUsage{Total: 3000000}}, Pids: &stats.PidsStat{Current: 7},
			Memory: &stats.MemoryStat{Usage: &stats.MemoryEntry{Usage: 100}, TotalInactiveFile: 40, InactiveFile: 1},
		},
		"v2": &stats2.Metrics{
			CPU: &stats2.CPUStat{UsageUsec: 3000}, Pids: &stats2.PidsStat{Current: 7}, Memory: &stats2.MemoryStat{Usage: 100, InactiveFile: 40},
		},
	} {
		if got, err := statsOf(figures); err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if got, err := statsOf(&stats2.Metrics{Memory: &stats2.MemoryStat{Usage: 1, InactiveFile: 2}}); err != nil || got.MemoryWorking != 0 {
		t.Errorf("more cache than is used: %+v, %v", got, err)
	}
	if _, err := statsOf("nonsense"); err == nil {
		t.Error("nonsense is taken for figures")
	}
}
