package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"

	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

// sharing is a pod whose containers share a process namespace. It is torn down with the test.
func (h *host) sharing() runtime.PodConfig {
	h.t.Helper()
	p := h.tornDown(h.newPod())
	p.ShareProcessNamespace = true
	return p
}

// tornDown has a pod torn down with the test.
func (h *host) tornDown(p runtime.PodConfig) runtime.PodConfig {
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		h.removeContainers(ctx, p.UID)
		if err := h.TearDownPod(ctx, p); err != nil {
			h.t.Error(err)
		}
		_ = unix.Unmount(h.podsDir(), unix.MNT_DETACH) // the directory goes with the test
	})
	return p
}

func (h *host) podsDir() string { return filepath.Join(h.config.RunDir, "pods") }

func (h *host) setUp(p runtime.PodConfig) {
	h.t.Helper()
	if _, err := h.SetUpPod(h.t.Context(), p); err != nil {
		h.t.Fatal(err)
	}
}

// reaper is the task that containerd has for a pod's reaper, nil for none.
func (h *host) reaper(uid string) client.Task {
	h.t.Helper()
	c, err := h.client().LoadContainer(h.t.Context(), "pause."+uid)
	if err != nil {
		return nil
	}
	task, err := c.Task(h.t.Context(), nil)
	if err != nil {
		return nil
	}
	return task
}

func (h *host) reaperPid(uid string) int {
	h.t.Helper()
	task := h.reaper(uid)
	if task == nil {
		h.t.Fatal("there is no reaper")
	}
	return int(task.Pid())
}

// Containers of a pod see and may signal each other's processes; PID 1 is neither's, and reaps what they leave. An agent that comes
// back finds it, takes it for no container, and leaves nothing of it.
func TestSharedProcesses(t *testing.T) {
	h := newHost(t)
	w := h.watch()
	p := h.sharing()
	for range 2 {
		h.setUp(p)
	}
	pid := h.reaperPid(p.UID)
	a := h.shell(p, "a", "echo $$; exec sleep 1000")
	h.start(a)
	h.eventually("a is up", func() error { return h.contains(a, "\n") })
	b := h.shell(p, "b", strings.Join([]string{
		`tr '\0' ' ' </proc/1/cmdline; echo`, `sh -c 'sleep 0.01 & echo $! >/tmp/orphan'`,
		"while [ -e /proc/$(cat /tmp/orphan) ]; do sleep 0.01; done; echo reaped", "kill " + strings.TrimSpace(h.log(a)) + " && echo killed",
	}, "; "))
	if got := h.output(b); got != "/pause --pause \nreaped\nkilled\n" {
		t.Errorf("b says %q", got)
	}
	if e := w.expect(runtime.EventExit, a.ID); e.ExitCode != 143 {
		t.Errorf("a: %+v", e)
	}
	h.reopen()
	w = h.watch()
	h.setUp(p)
	if again := h.reaperPid(p.UID); again != pid {
		t.Errorf("the reaper is %d, it was %d", again, pid)
	}
	if list, err := h.Containers(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("containers: %+v, %v", list, err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || !strings.Contains(string(status), "Uid:\t65535\t") || !strings.Contains(string(status), "CapBnd:\t0000000000000000\n") {
		t.Errorf("the reaper may do too much: %s, %v", status, err)
	}
	h.remove(a.ID)
	h.wantNothingOf(p)
	for _, e := range w.all() {
		if strings.HasPrefix(e.ContainerID, "pause") {
			t.Errorf("event of the reaper: %+v", e)
		}
	}
}

// wantNothingOf tears a pod down, twice, by its uid alone.
func (h *host) wantNothingOf(p runtime.PodConfig) {
	h.t.Helper()
	for range 2 {
		if err := h.TearDownPod(h.t.Context(), runtime.PodConfig{UID: p.UID}); err != nil {
			h.t.Fatal(err)
		}
	}
	if h.reaper(p.UID) != nil {
		h.t.Error("the reaper is left")
	}
	if _, err := h.client().LoadContainer(h.t.Context(), "pause."+p.UID); err == nil {
		h.t.Error("the reaper's record is left")
	}
	if uids, err := h.PodUIDs(h.t.Context()); err != nil || len(uids) > 0 {
		h.t.Errorf("pods are left: %v, %v", uids, err)
	}
	if dirs := podCgroups(p.UID); len(dirs) > 0 {
		h.t.Errorf("cgroups are left: %v", dirs)
	}
	if entries := entries(h.podsDir()); len(entries) > 0 {
		h.t.Errorf("files are left: %v", entries)
	}
	h.eventually("the shim ends", func() error { return h.shims(0) })
}

// A reaper that dies takes its pod's containers with it, started or not. The next is told that the namespace is gone, and joins a
// new one once the pod was set up again.
func TestReaperDies(t *testing.T) {
	h := newHost(t)
	w := h.watch()
	p := h.sharing()
	h.setUp(p)
	old := h.reaperPid(p.UID)
	running, created := h.shell(p, "running", "sleep 1000"), h.shell(p, "created", "sleep 1000")
	h.start(running)
	h.create(created)
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, c := range []runtime.ContainerConfig{running, created} {
		if e := w.expect(runtime.EventExit, c.ID); e.ExitCode != 137 {
			t.Errorf("%+v", e)
		}
		w = h.watch()
		h.remove(c.ID)
	}
	next := h.shell(p, "next", "cat /proc/1/comm")
	err := h.CreateContainer(t.Context(), next)
	want(t, err, runtime.ErrNotFound)
	if errors.Is(err, runtime.ErrStart) {
		t.Errorf("it is no fault of the container: %v", err)
	}
	h.setUp(p)
	if now := h.reaperPid(p.UID); now == old {
		t.Error("there is no new reaper")
	}
	if got := h.output(next); got != "pause\n" {
		t.Errorf("PID 1 is %q", got)
	}
}

// What an agent may leave of a reaper that was killed while it made one, and what a reboot leaves: the next call repairs it.
func TestReaperHalfMade(t *testing.T) {
	for name, spoil := range map[string]func(h *host, uid, mount string){
		"no task": func(h *host, uid, _ string) {
			if _, err := h.reaper(uid).Delete(h.t.Context(), client.WithProcessKill); err != nil {
				h.t.Fatal(err)
			}
		},
		"no mount": func(h *host, _, mount string) { run(h.t, "umount", mount) },
		"no files": func(h *host, _, _ string) { run(h.t, "umount", "-R", h.podsDir()) },
		"another's mount": func(h *host, _, mount string) {
			run(h.t, "umount", mount)
			run(h.t, "mount", "--bind", "/proc/self/ns/pid", mount)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			p := h.sharing()
			mount := filepath.Join(h.podsDir(), p.UID, "pid")
			h.setUp(p)
			spoil(h, p.UID, mount)
			h.reopen()
			h.watch() // connected
			h.setUp(p)
			if got := h.output(h.shell(p, "web", "cat /proc/1/comm")); got != "pause\n" {
				t.Errorf("PID 1 is %q", got)
			}
			spoil(h, p.UID, mount)
			h.reopen()
			h.watch()
			if uids, err := h.PodUIDs(t.Context()); err != nil || len(uids) != 1 || uids[0] != p.UID {
				t.Errorf("pods: %v, %v", uids, err)
			}
			h.wantNothingOf(p)
		})
	}
}

// An agent that is killed while it makes reapers and removes them leaves none that the next one does not find.
func TestKilledWithReapers(t *testing.T) {
	if dirs := os.Getenv(envReapers); dirs != "" {
		churnReapers(t, strings.Split(dirs, ":"))
		return
	}
	h := own(t)
	h.sharing() // unmounts the pods' directory
	for round := range 8 {
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledWithReapers$", "-test.v")
		cmd.Env = append(os.Environ(), envReapers+"="+strings.Join([]string{h.config.Address, h.config.RunDir, h.config.DataDir, h.config.LoggerPath}, ":"))
		output := must(cmd.StdoutPipe())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for begun := false; !begun; { // it makes a pod
			var line [64]byte
			n, err := output.Read(line[:])
			if err != nil {
				t.Fatal(err)
			}
			begun = strings.Contains(string(line[:n]), "churn")
		}
		time.Sleep(time.Duration(25*round) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		h.open()
		h.watch()
		for _, uid := range must(h.PodUIDs(t.Context())) {
			p := h.newPod()
			p.UID, p.CgroupParent, p.ShareProcessNamespace = uid, "/picket/pod"+uid, true
			if round%2 == 0 {
				h.setUp(p)
			}
			h.eventually("it is torn down", func() error { return h.TearDownPod(t.Context(), runtime.PodConfig{UID: uid}) })
		}
		h.eventually("no shim is left", func() error { return h.shims(0) })
		if list, err := h.client().Containers(t.Context()); err != nil || len(list) > 0 {
			t.Fatalf("round %d: containers are left: %v, %v", round, list, err)
		}
		if left := runtimetest.Mounts(h.podsDir()); len(left) > 1 {
			t.Fatalf("round %d: mounts are left: %v", round, left)
		}
	}
}

const envReapers = "PICKET_TEST_REAPERS"

// churnReapers sets up pods and tears them down until it is killed.
func churnReapers(t *testing.T, dirs []string) {
	r, err := runtime.New(runtime.Config{Address: dirs[0], Namespace: testNamespace, RunDir: dirs[1], DataDir: dirs[2], LoggerPath: dirs[3]})
	if err != nil {
		t.Fatal(err)
	}
	for {
		p := aPod()
		p.HostNetwork, p.HostIPC, p.ShareProcessNamespace = true, true, true
		fmt.Println("churn", p.UID)
		if _, err := r.SetUpPod(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if err := r.TearDownPod(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
}
