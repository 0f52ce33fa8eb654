package runtime_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/picketd/picket/runtime"
)

// A shim that containerd has forgotten, with a task that it still counts, ends with its pod. One that has another container of a pod
// is none of those.
func TestForgottenShim(t *testing.T) {
	h := own(t)
	c, other := h.shell(h.newPod(), "web", "sleep 1000"), h.shell(h.newPod(), "web", "sleep 1000")
	h.start(c)
	h.start(other)
	pid := int(h.status(c.ID).Pid)
	if err := h.containerd.Kill(); err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(h.containerd.Dir, "state/io.containerd.runtime.v2.task", testNamespace, c.ID)
	if err := syscall.Unmount(bundle+"/rootfs", 0); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(bundle); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Join("/run/containerd/runc", testNamespace, c.ID)) }) // containerd would have
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := h.containerd.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.reopen()
	h.watch()
	h.remove(c.ID)
	if err := h.shims(2); err != nil {
		t.Fatalf("nothing is shown: %v", err)
	}
	if err := h.TearDownPod(t.Context(), runtime.PodConfig{UID: c.Pod.UID}); err != nil {
		t.Error(err)
	}
	h.eventually("the shim ends", func() error { return h.shims(1) })
	if s := h.status(other.ID); s.State != runtime.ContainerRunning {
		t.Errorf("another pod's container: %+v", s)
	}
}
