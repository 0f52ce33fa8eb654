package runtime_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

// A container's life: created, started, ended by itself, removed; each call twice.
func TestContainerLife(t *testing.T) {
	h := newHost(t)
	w := h.watch()
	c := h.shell(h.newPod(), "web", "echo hello; echo woe >&2; exit 7")
	c.Attempt, c.Labels = 3, map[string]string{"picket.io/daemonset": "web"}
	for range 2 {
		h.create(c)
		if s := h.status(c.ID); s.State != runtime.ContainerCreated || s.Name != "web" || s.Attempt != 3 || s.PodUID != c.Pod.UID ||
			s.ImageRef != busybox || s.Labels["picket.io/daemonset"] != "web" || s.Pid == 0 || s.CreatedAt.IsZero() || !s.StartedAt.IsZero() {
			t.Fatalf("created: %+v", s)
		}
	}
	before := time.Now().Add(-time.Second)
	if err := h.StartContainer(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	e := w.expect(runtime.EventExit, c.ID)
	if e.ExitCode != 7 || e.PodUID != c.Pod.UID || e.At.Before(before) {
		t.Errorf("exit: %+v", e)
	}
	s := h.status(c.ID)
	if s.State != runtime.ContainerExited || s.ExitCode != 7 || s.FinishedAt.Before(before) || s.StartedAt.Before(before) || s.OOMKilled || s.Pid != 0 {
		t.Errorf("exited: %+v", s)
	}
	want(t, h.SignalContainer(t.Context(), c.ID, "SIGTERM"), runtime.ErrNotFound)
	for range 2 {
		h.remove(c.ID)
		_, err := h.ContainerStatus(t.Context(), c.ID)
		want(t, err, runtime.ErrNotFound)
	}
	want(t, h.StartContainer(t.Context(), c.ID), runtime.ErrNotFound)
	if got := h.log(c); got != "hello\nwoe\n" && got != "woe\nhello\n" {
		t.Errorf("log: %q", got)
	}
}

// What is run, where and with which environment: the container's word over the image's.
func TestProcess(t *testing.T) {
	h := newHost(t)
	image := "docker.io/library/config:1"
	h.importImage(image, runtimetest.Image{Config: v1.Config{
		Entrypoint: []string{"sh", "-c", `echo "entry $@" "$0" $(pwd) $A $B`, "zero"}, Cmd: []string{"cmd"}, WorkingDir: "/etc",
		Env: []string{"A=image", "B=image"},
	}})
	for name, test := range map[string]struct {
		change func(*runtime.ContainerConfig)
		want   string
	}{
		"image's":  {func(*runtime.ContainerConfig) {}, "entry cmd zero /etc image image"},
		"args":     {func(c *runtime.ContainerConfig) { c.Args = []string{"x", "y"} }, "entry x y zero /etc image image"},
		"command":  {func(c *runtime.ContainerConfig) { c.Command = []string{"echo", "own"} }, "own"},
		"both":     {func(c *runtime.ContainerConfig) { c.Command, c.Args = []string{"echo"}, []string{"a", "b"} }, "a b"},
		"env":      {func(c *runtime.ContainerConfig) { c.Env = []string{"B=pod"} }, "entry cmd zero /etc image pod"},
		"cwd":      {func(c *runtime.ContainerConfig) { c.WorkingDir = "/tmp" }, "entry cmd zero /tmp image image"},
		"new cwd":  {func(c *runtime.ContainerConfig) { c.WorkingDir = "/not/there" }, "entry cmd zero /not/there image image"},
		"terminal": {func(c *runtime.ContainerConfig) { c.TTY = true; c.Command = []string{"tty"} }, "/dev/pts/0"},
	} {
		t.Run(name, func(t *testing.T) {
			h := *h
			h.t = t
			c := h.shell(h.newPod(), "web", "")
			c.Image, c.Command = image, nil
			test.change(&c)
			if got := strings.TrimSpace(h.output(c)); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// The image's stop signal is what "" means; a container without one gets SIGTERM.
func TestStopSignal(t *testing.T) {
	h := newHost(t)
	image := "docker.io/library/stop:1"
	h.importImage(image, runtimetest.Image{Config: v1.Config{StopSignal: "SIGUSR1"}})
	p := h.newPod()
	for name, test := range map[string]struct{ image, signal, want string }{
		"image":   {image, "", "USR1"},
		"default": {busybox, "", "TERM"},
		"named":   {image, "HUP", "HUP"},
		"nothing": {image, "SIGNONSENSE", "TERM"},
	} {
		t.Run(name, func(t *testing.T) {
			h := *h
			h.t = t
			c := h.shell(p, name, `for s in USR1 TERM HUP; do trap "echo $s; exit 0" $s; done; echo ready; while :; do sleep 0.01; done`)
			c.Image = test.image
			h.start(c)
			h.eventually("traps are set", func() error { return h.contains(c, "ready") })
			if err := h.SignalContainer(t.Context(), c.ID, test.signal); err != nil {
				t.Fatal(err)
			}
			h.exited(c.ID)
			h.remove(c.ID)
			if got := strings.TrimPrefix(h.log(c), "ready\n"); got != test.want+"\n" {
				t.Errorf("it heard %q, want %q", got, test.want)
			}
		})
	}
}

// What cannot be made or started says so in the caller's terms, and leaves nothing behind.
func TestCreateFails(t *testing.T) {
	h := newHost(t)
	p := h.newPod()
	for name, test := range map[string]struct {
		change func(*runtime.ContainerConfig)
		want   error
		says   string
	}{
		"no such command": {func(c *runtime.ContainerConfig) { c.Command = []string{"nonesuch"} }, runtime.ErrStart, "executable file not found"},
		"no such image":   {func(c *runtime.ContainerConfig) { c.Image = "docker.io/library/absent:1" }, runtime.ErrNotFound, "absent"},
		"no namespaces":   {func(c *runtime.ContainerConfig) { c.Pod.HostNetwork = false }, runtime.ErrNotFound, "network namespace is gone"},
		"root":            {func(c *runtime.ContainerConfig) { c.Security.RunAsNonRoot = true }, runtime.ErrConfig, "image will run as root"},
		"host's sysctl":   {func(c *runtime.ContainerConfig) { c.Pod.Sysctls = map[string]string{"net.ipv4.ip_forward": "1"} }, runtime.ErrConfig, "not allowed"},
		"capability":      {func(c *runtime.ContainerConfig) { c.Security.AddCapabilities = []string{"CAP_FLY"} }, runtime.ErrConfig, "CAP_FLY"},
		"no shared PIDs":  {func(c *runtime.ContainerConfig) { c.Pod.ShareProcessNamespace = true }, runtime.ErrNotFound, "process namespace is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			c := h.shell(p, "web", "true")
			test.change(&c)
			err := h.CreateContainer(t.Context(), c)
			want(t, err, test.want)
			if err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("error is %q, want it to say %q", err, test.says)
			}
			_, err = h.ContainerStatus(t.Context(), c.ID)
			want(t, err, runtime.ErrNotFound)
		})
	}
	if shims := h.containerd.Shims(); len(shims) > 0 {
		t.Errorf("shims are left: %v", shims)
	}
}

// An image that somebody deleted is noticed although it is cached, and found again when it is back.
func TestImageDeleted(t *testing.T) {
	h := newHost(t)
	image := "docker.io/library/deleted:1"
	i := runtimetest.Image{Files: map[string]runtimetest.File{"/only/here": {Content: []byte("x\n")}}}
	h.importImage(image, i)
	c := h.shell(h.newPod(), "web", "cat /only/here")
	c.Image = image
	h.output(c)
	h.deleteImage(image)
	want(t, h.CreateContainer(t.Context(), c), runtime.ErrNotFound)
	h.importImage(image, i)
	c.LogPath += ".2"
	if got := h.output(c); got != "x\n" {
		t.Errorf("log: %q", got)
	}
}

// A create that was cut off, with a record or a snapshot made and no task, is completed by the next.
func TestCreateAgain(t *testing.T) {
	h := newHost(t)
	c := h.shell(h.newPod(), "web", "echo done")
	h.create(c)
	h.deleteTask(c.ID)
	if s := h.status(c.ID); s.State != runtime.ContainerUnknown {
		t.Fatalf("without a task: %+v", s)
	}
	want(t, h.StartContainer(t.Context(), c.ID), runtime.ErrNotFound)
	h.create(c)
	h.deleteTask(c.ID)
	h.deleteRecord(c.ID) // and leave the snapshot
	if got := h.output(c); got != "done\n" {
		t.Errorf("log: %q", got)
	}
}

// Kubernetes allows ids that containerd does not: longer than 76 characters, or with a double dash.
func TestLongNames(t *testing.T) {
	h := newHost(t)
	w := h.watch()
	p := h.newPod()
	for _, name := range []string{strings.Repeat("n", 63), "a--b"} {
		c := h.shell(p, name, "exit 3")
		c.LogPath = filepath.Join(h.dir, "log")
		h.start(c)
		if e := w.expect(runtime.EventExit, c.ID); e.ExitCode != 3 || e.PodUID != p.UID {
			t.Errorf("event: %+v", e)
		}
		if s := h.status(c.ID); s.ID != c.ID || s.Name != name {
			t.Errorf("status: %+v", s)
		}
		h.remove(c.ID)
	}
}

// One shim keeps all containers of a pod, and another pod's is another.
func TestOneShimAPod(t *testing.T) {
	h := newHost(t)
	p, other := h.newPod(), h.newPod()
	for _, c := range []runtime.ContainerConfig{h.shell(p, "a", "sleep 1000"), h.shell(p, "b", "sleep 1000"), h.shell(other, "a", "sleep 1000")} {
		h.start(c)
	}
	if shims := h.containerd.Shims(); len(shims) != 2 {
		t.Errorf("shims of two pods: %v", shims)
	}
	h.remove(p.UID + "-a-0")
	if s := h.status(p.UID + "-b-0"); s.State != runtime.ContainerRunning {
		t.Errorf("the other container of the pod: %+v", s)
	}
	h.remove(p.UID + "-b-0")
	h.eventually("the pod's shim ends", func() error { return h.shims(1) })
}

// A created container that is never started goes like any other.
func TestRemoveCreated(t *testing.T) {
	h := newHost(t)
	c := h.shell(h.newPod(), "web", "true")
	h.create(c)
	h.remove(c.ID)
	h.eventually("the shim ends", func() error { return h.shims(0) })
}

// Deleting a pod's last container ends its shim, just when the next container wants it.
func TestRapidReplacement(t *testing.T) {
	h := newHost(t)
	p := h.newPod()
	a, b := h.shell(p, "a", "sleep 1000"), h.shell(p, "b", "sleep 1000")
	a.LogPath, b.LogPath = "", ""
	h.start(a)
	for i := range 60 {
		h.remove(b.ID)
		removed := make(chan error, 1)
		if i%3 == 0 {
			removed <- h.RemoveContainer(t.Context(), a.ID)
		} else {
			go func() { removed <- h.RemoveContainer(t.Context(), a.ID) }()
		}
		h.start(b)
		if err := <-removed; err != nil {
			t.Fatal(err)
		}
		a, b = b, a
	}
}

// An agent was killed while containerd made a task for it: containerd still undoes that when the next agent asks for the same one.
func TestCreateWhileAnEarlierOneIsUndone(t *testing.T) {
	h := newHost(t)
	c := h.shell(h.newPod(), "web", "exit 0")
	bundle := filepath.Join(h.containerd.Dir, "state", "io.containerd.runtime.v2.task", testNamespace, c.ID)
	if err := os.MkdirAll(bundle, 0o711); err != nil {
		t.Fatal(err)
	}
	undone := time.AfterFunc(300*time.Millisecond, func() { _ = os.Remove(bundle) }) // longer than the tries for a shim that ends
	defer undone.Stop()
	h.create(c)
	if s := h.status(c.ID); s.State != runtime.ContainerCreated {
		t.Errorf("%+v", s)
	}
}
