package runtime_test

import (
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"

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

// A containerd that was killed while it made a task has a shim of it that knows of no task. It goes with the container, and a task of
// the same name can be made.
func TestShimWithoutItsTask(t *testing.T) {
	h := newHost(t)
	p := h.sharing()
	c := h.shell(p, "web", "exit 0")
	h.setUp(p)
	h.create(c)
	for _, id := range []string{c.ID, "pause." + p.UID} {
		h.loseTask(p.UID, id)
	}
	h.setUp(p)
	h.remove(c.ID)
	h.output(c)
	h.wantNothingOf(p)
}

// loseTask ends a task and has the shim forget it, behind containerd's back.
func (h *host) loseTask(podUID, id string) {
	h.t.Helper()
	sum := sha256.Sum256([]byte(filepath.Join(h.config.Address, testNamespace, podUID)))
	conn, err := net.Dial("unix", fmt.Sprintf("/run/containerd/s/%x", sum))
	if err != nil {
		h.t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	call := func(method string, request, response any) {
		h.t.Helper()
		err := client.Call(h.t.Context(), "containerd.task.v3.Task", method, request, response)
		if errdefs.IsNotImplemented(errgrpc.ToNative(err)) { // of containerd 1
			err = client.Call(h.t.Context(), "containerd.task.v2.Task", method, request, response)
		}
		if err != nil {
			h.t.Fatal(err)
		}
	}
	call("Kill", &task.KillRequest{ID: id, Signal: 9}, &emptypb.Empty{})
	call("Wait", &task.WaitRequest{ID: id}, &task.WaitResponse{})
	call("Delete", &task.DeleteRequest{ID: id}, &task.DeleteResponse{})
}
