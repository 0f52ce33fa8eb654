package runtime_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

// own is a host whose containerd is the test's alone.
func own(t *testing.T) *host { return newHostOn(t, runtimetest.StartContainerd(t)) }

// Containerd goes and comes back: calls fail as unavailable meanwhile, containers live on, and what ended unseen is found.
func TestContainerdRestart(t *testing.T) {
	h := own(t)
	w := h.watch()
	p := h.newPod()
	stays, ends := h.shell(p, "stays", "sleep 1000"), h.shell(p, "ends", "sleep 1000")
	h.start(stays)
	h.start(ends)
	pid := h.status(stays.ID).Pid
	victim := int(h.status(ends.ID).Pid)

	if err := h.containerd.Kill(); err != nil {
		t.Fatal(err)
	}
	w.expect(runtime.EventDisconnected, "")
	_, err := h.ContainerStatus(t.Context(), stays.ID)
	want(t, err, runtime.ErrUnavailable)
	want(t, h.CreateContainer(t.Context(), h.shell(p, "new", "true")), runtime.ErrUnavailable)
	_, err = h.Version(t.Context())
	want(t, err, runtime.ErrUnavailable)
	if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}

	if err := h.containerd.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.expect(runtime.EventConnected, "")
	if s := h.status(stays.ID); s.State != runtime.ContainerRunning || s.Pid != pid || s.StartedAt.IsZero() {
		t.Errorf("what ran: %+v", s)
	}
	// Some containerds forget such a task when they come back, and its exit code with it.
	h.eventually("the end that nobody saw is found", func() error {
		s := h.status(ends.ID)
		if s.State == runtime.ContainerUnknown || s.State == runtime.ContainerExited && s.ExitCode == 137 {
			return nil
		}
		return fmt.Errorf("%+v", s)
	})
	if err := h.SignalContainer(t.Context(), stays.ID, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	if e := w.expect(runtime.EventExit, stays.ID); e.ExitCode != 137 || e.PodUID != p.UID {
		t.Errorf("exit after the restart: %+v", e)
	}
}

// A containerd that accepts calls and answers none is as good as gone.
func TestContainerdHangs(t *testing.T) {
	h := own(t)
	h.config.Pulse = 500 * time.Millisecond
	h.reopen()
	w := h.watch()
	if err := h.containerd.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w.expect(runtime.EventDisconnected, "")
	if err := h.containerd.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w.expect(runtime.EventConnected, "")
}

// A runtime is made while containerd is down, and says when it is there.
func TestContainerdComesLater(t *testing.T) {
	h := own(t)
	if err := h.containerd.Stop(); err != nil {
		t.Fatal(err)
	}
	h.reopen()
	news := h.Subscribe(t.Context())
	_, err := h.Version(t.Context())
	want(t, err, runtime.ErrUnavailable)
	if err := h.containerd.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-news:
		if e.Kind != runtime.EventConnected {
			t.Errorf("first event: %+v", e)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it never connected")
	}
	if v, err := h.Version(t.Context()); err != nil || v == "" {
		t.Errorf("version %q, %v", v, err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if _, open := <-news; open {
		t.Error("the subscription outlives the runtime")
	}
}

// An agent that comes back finds what runs, and hears of its end.
func TestAgentRestart(t *testing.T) {
	h := newHost(t)
	p := h.newPod()
	runs, ended, created := h.shell(p, "runs", "sleep 1000"), h.shell(p, "ended", "exit 4"), h.shell(p, "created", "true")
	runs.Attempt = 2
	h.start(runs)
	h.start(ended)
	h.create(created)
	h.exited(ended.ID)
	pid := h.status(runs.ID).Pid

	h.reopen()
	w := h.watch()
	all, err := h.Containers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]runtime.ContainerStatus{}
	for _, s := range all {
		if s.PodUID == p.UID {
			found[s.Name] = s
		}
	}
	if s := found["runs"]; s.State != runtime.ContainerRunning || s.Pid != pid || s.ID != runs.ID || s.Attempt != 2 || s.ImageRef != busybox {
		t.Errorf("runs: %+v", s)
	}
	if s := found["ended"]; s.State != runtime.ContainerExited || s.ExitCode != 4 || s.FinishedAt.IsZero() {
		t.Errorf("ended: %+v", s)
	}
	if s := found["created"]; s.State != runtime.ContainerCreated {
		t.Errorf("created: %+v", s)
	}
	if err := h.StartContainer(t.Context(), created.ID); err != nil {
		t.Error(err)
	}
	w.expect(runtime.EventExit, created.ID)
	if e := h.kill(w, runs.ID); e.PodUID != p.UID {
		t.Errorf("exit: %+v", e)
	}
}

// A shim that dies takes every container of its pod along, and the pod can go on in a new one.
func TestShimDies(t *testing.T) {
	h := own(t)
	w := h.watch()
	p := h.newPod()
	a, b := h.shell(p, "a", "sleep 1000"), h.shell(p, "b", "sleep 1000")
	h.start(a)
	h.start(b)
	pids := []uint32{h.status(a.ID).Pid, h.status(b.ID).Pid}
	for _, shim := range h.containerd.Shims() {
		if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	h.eventually("both ends are told", func() error {
		if !w.has(runtime.EventExit, a.ID) || !w.has(runtime.EventExit, b.ID) {
			return fmt.Errorf("events: %+v", w.all())
		}
		return nil
	})
	h.eventually("both are known to be gone", func() error {
		for _, id := range []string{a.ID, b.ID} {
			if s := h.status(id); s.State == runtime.ContainerRunning {
				return fmt.Errorf("%+v", s)
			}
		}
		return nil
	})
	for _, pid := range pids {
		h.eventually("the processes end", func() error {
			if runtimetest.Alive(int(pid)) {
				return fmt.Errorf("%d runs", pid)
			}
			return nil
		})
	}
	if w.has(runtime.EventLogWriterLost, a.ID) || w.has(runtime.EventLogWriterLost, b.ID) {
		t.Error("the end of the shim was taken for the log writer's")
	}
	h.remove(a.ID)
	h.remove(b.ID)
	c := h.shell(p, "c", "echo again")
	if got := h.output(c); got != "again\n" {
		t.Errorf("log: %q", got)
	}
}

// The end of a container's log writer is reported while the container runs, by this agent or the next; its own end is not.
func TestLogWriterDies(t *testing.T) {
	h := newHost(t)
	w := h.watch()
	p := h.newPod()
	a, b, silent := h.shell(p, "a", "sleep 1000"), h.shell(p, "b", "sleep 1000"), h.shell(p, "silent", "sleep 1000")
	silent.LogPath = ""
	for _, c := range []runtime.ContainerConfig{a, b, silent} {
		h.start(c)
	}
	h.killLogger(a.ID)
	if e := w.expect(runtime.EventLogWriterLost, a.ID); e.PodUID != p.UID {
		t.Errorf("event: %+v", e)
	}
	h.kill(w, a.ID)
	h.remove(a.ID)

	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h.killLogger(b.ID)
	h.open()
	w = h.watch()
	w.expect(runtime.EventLogWriterLost, b.ID)
	h.remove(b.ID)
	if w.has(runtime.EventLogWriterLost, silent.ID) {
		t.Error("a container without a log has lost its writer")
	}
}

// The log writer of a container that ends goes after it, which is nothing to report; also when there is a terminal.
func TestLogWriterEnds(t *testing.T) {
	h := newHost(t)
	w := h.watch()
	p := h.newPod()
	for name, tty := range map[string]bool{"pipes": false, "tty": true} {
		c := h.shell(p, name, "echo out; exit 0")
		c.TTY = tty
		h.start(c)
		w.expect(runtime.EventExit, c.ID)
		h.remove(c.ID)
		if got := strings.TrimSpace(h.log(c)); got != "out" {
			t.Errorf("%s: log: %q", name, got)
		}
		if w.has(runtime.EventLogWriterLost, c.ID) {
			t.Errorf("%s: the writer is reported lost", name)
		}
	}
}

// kill kills a container's process and waits until its end is told.
func (h *host) kill(w *watcher, id string) runtime.Event {
	h.t.Helper()
	if err := h.SignalContainer(h.t.Context(), id, "SIGKILL"); err != nil {
		h.t.Fatal(err)
	}
	return w.expect(runtime.EventExit, id)
}

// killLogger kills the log writer of a container.
func (h *host) killLogger(id string) {
	h.t.Helper()
	for _, shim := range h.containerd.Shims() {
		for _, pid := range runtimetest.Children(shim) {
			exe, _ := os.Readlink(filepath.Join("/proc", fmt.Sprint(pid), "exe"))
			environ, _ := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "environ"))
			if exe == h.config.LoggerPath && strings.Contains(string(environ), "CONTAINER_ID="+id+"\x00") {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					h.t.Fatal(err)
				}
				return
			}
		}
	}
	h.t.Fatalf("%s has no log writer", id)
}

// What containerd says of a dead shim is not that it cannot be reached itself; that the connection broke is, also for who hears of it
// before the connection knows.
func TestUnavailable(t *testing.T) {
	h := newHost(t)
	h.watch() // connected
	for text, away := range map[string]bool{"error reading from server: EOF": true, "ttrpc: closed": false} {
		if err := h.Native(status.Error(codes.Unavailable, text)); errors.Is(err, runtime.ErrUnavailable) != away {
			t.Errorf("%s: %v", text, err)
		}
	}
}
