package runtime_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	cgroups "github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"

	"github.com/picketd/picket/runtime"
)

// unified says whether this host has cgroups v2 alone.
var unified = cgroups.Mode() == cgroups.Unified

// cgroupFile reads a file of a container's cgroup, or with above = 1 of its pod's, by its name on v1 ("memory/memory.limit_in_bytes")
// or v2.
func (h *host) cgroupFile(c runtime.ContainerConfig, above int, v1, v2 string) string {
	h.t.Helper()
	controller, name := filepath.Split(v1)
	list, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", h.status(c.ID).Pid))
	if err != nil {
		h.t.Fatal(err)
	}
	root := filepath.Join("/sys/fs/cgroup", controller)
	if unified {
		root, controller, name = "/sys/fs/cgroup", "", v2
	}
	for line := range strings.Lines(string(list)) { // number:controllers:path
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if !slices.Contains(strings.Split(fields[1], ","), strings.TrimSuffix(controller, "/")) {
			continue
		}
		path := filepath.Join(root, fields[2], strings.Repeat("../", above), name)
		data, err := os.ReadFile(path)
		if err != nil {
			h.t.Fatal(err)
		}
		return strings.TrimSpace(string(data))
	}
	h.t.Fatalf("no cgroup of controller %s", controller)
	return ""
}

// podCgroups are the cgroups that a pod has, of whichever driver.
func podCgroups(uid string) (found []string) {
	slice := "picket.slice/picket-pod" + strings.ReplaceAll(uid, "-", "_") + ".slice"
	for _, pattern := range []string{"/sys/fs/cgroup/*/picket/pod" + uid, "/sys/fs/cgroup/picket/pod" + uid, "/sys/fs/cgroup/" + slice} {
		dirs, _ := filepath.Glob(pattern)
		found = append(found, dirs...)
	}
	return found
}

// Limits are in the kernel's files, and the pod's cgroup goes when it is told to.
func TestLimits(t *testing.T) {
	h := newHost(t)
	c := h.shell(h.newPod(), "web", "sleep 1000")
	c.Resources = runtime.Resources{
		CPUShares: 512, CPUQuota: 50000, CPUPeriod: 100000, MemoryLimit: 64 << 20, OOMScoreAdj: 900, HugepageLimits: map[string]uint64{"2MB": 0},
	}
	h.start(c)
	for _, f := range []struct{ v1, v2, want1, want2 string }{
		{"cpu/cpu.shares", "cpu.weight", "512", "20|59"}, // of runc before and since 1.3.2
		{"cpu/cpu.cfs_quota_us", "cpu.max", "50000", "50000 100000"},
		{"memory/memory.limit_in_bytes", "memory.max", "67108864", "67108864"},
	} {
		want := f.want1
		if unified {
			want = f.want2
		}
		if got := h.cgroupFile(c, 0, f.v1, f.v2); !slices.Contains(strings.Split(want, "|"), got) {
			t.Errorf("%s: %s, want %s", f.v1, got, want)
		}
	}
	if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", h.status(c.ID).Pid)); err != nil || string(data) != "900\n" {
		t.Errorf("oom_score_adj %q, %v", data, err)
	}
	if err := h.RemovePodCgroup(t.Context(), c.Pod.CgroupParent); err == nil && !unified { // systemd ends what is in a slice
		t.Error("the cgroup of a pod that runs was removed")
	}
	h.remove(c.ID)
	for range 2 {
		if err := h.RemovePodCgroup(t.Context(), c.Pod.CgroupParent); err != nil {
			t.Error(err)
		}
	}
	if dirs := podCgroups(c.Pod.UID); len(dirs) > 0 {
		t.Errorf("cgroups are left: %v", dirs)
	}
}

// A pod's cgroup has limits of its own, which its containers share; setting the pod up again changes nothing.
func TestPodLimits(t *testing.T) {
	h := newHost(t)
	w := h.watch()
	p := h.tornDown(h.newPod())
	p.Resources = &runtime.Resources{CPUShares: 512, CPUQuota: 50000, CPUPeriod: 100000, MemoryLimit: 24 << 20}
	for range 2 {
		h.setUp(p)
	}
	c := h.shell(p, "web", "sleep 1000")
	h.start(c)
	h.setUp(p)
	for _, f := range []struct{ v1, v2, want1, want2 string }{
		{"cpu/cpu.shares", "cpu.weight", "512", "59"},
		{"cpu/cpu.cfs_quota_us", "cpu.max", "50000", "50000 100000"},
		{"memory/memory.limit_in_bytes", "memory.max", "25165824", "25165824"},
	} {
		want := f.want1
		if unified {
			want = f.want2
		}
		if got := h.cgroupFile(c, 1, f.v1, f.v2); got != want {
			t.Errorf("%s: %s, want %s", f.v1, got, want)
		}
	}
	greedy := h.shell(p, "greedy", "exec tail /dev/zero") // without a limit of its own
	h.start(greedy)
	w.expect(runtime.EventExit, greedy.ID)
	if s := h.exited(greedy.ID); s.ExitCode != 137 {
		t.Errorf("%+v", s)
	}
	h.remove(c.ID)
	h.remove(greedy.ID)
	if err := h.TearDownPod(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if dirs := podCgroups(p.UID); len(dirs) > 0 {
		t.Errorf("cgroups are left: %v", dirs)
	}
}

// A host that may not lower oom_score_adj runs the container all the same.
func TestOOMScoreClamped(t *testing.T) {
	h := newHost(t)
	c := h.shell(h.newPod(), "web", "cat /proc/self/oom_score_adj")
	c.Resources.OOMScoreAdj = -997
	if got := h.output(c); got != "-997\n" && got != "0\n" {
		t.Errorf("oom_score_adj is %q", got)
	}
}

// The kernel's kill for memory is told, and remembered for the next agent: that of the container's process, and that of a child.
func TestOutOfMemory(t *testing.T) {
	h := newHost(t)
	w := h.watch()
	p := h.newPod()
	c := h.shell(p, "greedy", "exec tail /dev/zero")
	c.Resources.MemoryLimit = 16 << 20
	h.start(c)
	h.eventually("it is killed for memory", func() error {
		if s := h.status(c.ID); s.State != runtime.ContainerExited || s.ExitCode != 137 || !s.OOMKilled {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	// On v1 the child dies alone, the container when it is told to; on v2 both.
	c = h.shell(p, "web", "sh -c 'head -c 100m /dev/zero | tail'; sleep 1000")
	c.Resources.MemoryLimit = 16 << 20
	h.start(c)
	if e := w.expect(runtime.EventOOM, c.ID); e.PodUID != c.Pod.UID {
		t.Errorf("event: %+v", e)
	}
	if !h.status(c.ID).OOMKilled {
		t.Error("the status does not tell")
	}
	h.eventually("it is noted on the container", func() error {
		h.reopen()
		if !h.status(c.ID).OOMKilled {
			return fmt.Errorf("the next agent does not know")
		}
		return nil
	})
}

func TestStats(t *testing.T) {
	h := newHost(t)
	c := h.shell(h.newPod(), "web", "dd if=/dev/zero of=/dev/null bs=1M count=200 2>/dev/null; head -c 8m /dev/zero >/tmp/file; sleep 1000")
	h.start(c)
	h.eventually("the figures grow", func() error {
		s, err := h.Stats(t.Context(), c.ID)
		if err != nil {
			return err
		}
		if s.CPUUsage <= 0 || s.MemoryUsage < 8<<20 || s.MemoryWorking == 0 || s.MemoryWorking > s.MemoryUsage || s.Pids == 0 || time.Since(s.At) > time.Minute {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	h.remove(c.ID)
	_, err := h.Stats(t.Context(), c.ID)
	want(t, err, runtime.ErrNotFound)
}

// Volumes: read-only, recursively so, propagating, in memory, over a default mount, and of a directory that is not there yet.
func TestMounts(t *testing.T) {
	h := newHost(t)
	p := h.newPod()
	volume := filepath.Join(h.dir, "volume")
	if err := os.MkdirAll(filepath.Join(volume, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{volume, filepath.Join(volume, "sub")} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		if err := os.MkdirAll(filepath.Join(volume, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("", volume, "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	const try = "touch /v/x 2>/dev/null && echo top; touch /v/sub/x 2>/dev/null && echo sub; true"
	for name, test := range map[string]struct {
		mount  runtime.Mount
		script string
		want   string
	}{
		"writable":  {runtime.Mount{Source: volume, Destination: "/v"}, try, "top\nsub\n"},
		"read-only": {runtime.Mount{Source: volume, Destination: "/v", ReadOnly: true}, try, "sub\n"},
		"recursive": {runtime.Mount{Source: volume, Destination: "/v", ReadOnly: true, RecursiveReadOnly: true}, try, ""},
		"memory":    {runtime.Mount{Source: "tmpfs", Destination: "/v"}, "df /v | tail -1 | cut -d' ' -f1", "tmpfs\n"},
		"new":       {runtime.Mount{Source: filepath.Join(h.dir, "new"), Destination: "/v"}, "ls -A /v", ""},
		"private":   {runtime.Mount{Source: volume, Destination: "/v"}, "grep ' /v ' /proc/self/mountinfo | cut -d' ' -f7", "-\n"},
		"slave":     {runtime.Mount{Source: volume, Destination: "/v", Propagation: "rslave"}, "grep ' /v ' /proc/self/mountinfo | cut -d' ' -f7 | cut -d: -f1", "master\n"},
		"shared":    {runtime.Mount{Source: volume, Destination: "/v", Propagation: "rshared"}, "grep ' /v ' /proc/self/mountinfo | cut -d' ' -f7 | cut -d: -f1", "shared\n"},
		"options": {
			runtime.Mount{Source: volume, Destination: "/v", Options: []string{"noexec", "nosuid", "nodev"}},
			"grep ' /v ' /proc/self/mountinfo | cut -d' ' -f6", "rw,nosuid,nodev,noexec,relatime\n",
		},
		"over shm": {runtime.Mount{Source: volume, Destination: "/dev/shm"}, "grep -c ' /dev/shm ' /proc/self/mountinfo", "1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			h := *h
			h.t = t
			c := h.shell(p, name[:3], test.script)
			c.ID = p.UID + "-" + strings.ReplaceAll(name, " ", "-")
			c.LogPath += name
			c.Mounts = []runtime.Mount{test.mount}
			if got := h.output(c); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	private := filepath.Join(h.dir, "private")
	if err := os.Mkdir(private, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(private, private, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(private, unix.MNT_DETACH) })
	if err := unix.Mount("", private, "", unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	c := h.shell(p, "private", "true")
	c.Mounts = []runtime.Mount{{Source: private, Destination: "/v", Propagation: "rshared"}}
	want(t, h.CreateContainer(t.Context(), c), runtime.ErrConfig)
}
