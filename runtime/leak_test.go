package runtime_test

import (
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"testing"

	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

// traces counts what a container may leave behind.
func (h *host) traces() map[string]int {
	descriptors, _ := os.ReadDir("/proc/self/fd")
	exec, _ := os.ReadDir(filepath.Join(h.config.RunDir, "exec"))
	cgroups := 0
	for _, uid := range h.pods {
		cgroups += len(podCgroups(uid))
	}
	return map[string]int{
		"goroutines": goruntime.NumGoroutine(), "descriptors": len(descriptors), "exec pipes": len(exec),
		"shims": len(h.containerd.Shims()), "mounts": len(runtimetest.Mounts(h.containerd.Dir)), "cgroups": cgroups,
		"snapshots": len(entries(h.containerd.Dir, "root/io.containerd.snapshotter.v1.overlayfs/snapshots")),
	}
}

func entries(parts ...string) []os.DirEntry {
	list, _ := os.ReadDir(filepath.Join(parts...))
	return list
}

// Fifty pods that come, run a command, and go leave nothing.
func TestNothingIsLeft(t *testing.T) {
	h := own(t)
	w := h.watch()
	round := func() {
		p := h.newPod()
		c := h.shell(p, "web", "exec sleep 1000")
		h.start(c)
		if code, err := h.Exec(t.Context(), c.ID, runtime.ExecConfig{Command: []string{"true"}}); err != nil || code != 0 {
			t.Errorf("exec: code %d, error %v", code, err)
		}
		if err := h.SignalContainer(t.Context(), c.ID, "SIGKILL"); err != nil {
			t.Fatal(err)
		}
		w.expect(runtime.EventExit, c.ID)
		h.remove(c.ID)
		if err := h.RemovePodCgroup(t.Context(), p.CgroupParent); err != nil {
			t.Fatal(err)
		}
	}
	round() // what is made once
	before := h.traces()
	for range 50 {
		round()
	}
	h.eventually("everything is gone", func() error {
		after := h.traces()
		for what, n := range after {
			if n > before[what] {
				return fmt.Errorf("%s: %d, before %d", what, n, before[what])
			}
		}
		return nil
	})
	all, err := h.Containers(t.Context())
	if err != nil || len(all) > 0 {
		t.Errorf("containers: %v, %v", all, err)
	}
}
