package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/uuid"

	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

// One containerd serves all tests of this package that do not stop it: starting one takes a second.
var shared struct {
	once       sync.Once
	containerd *runtimetest.Containerd
	err        error
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, clean := range slices.Backward(cleanUps) {
		if err := clean(); err != nil {
			fmt.Fprintln(os.Stderr, "cannot clean up:", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// cleanUps are run after the last test, the latest first.
var cleanUps []func() error

func atExit(clean func() error) { cleanUps = append(cleanUps, clean) }

// sharedContainerd is the containerd that all tests share.
func sharedContainerd(t testing.TB) *runtimetest.Containerd {
	t.Helper()
	shared.once.Do(func() {
		if shared.containerd, shared.err = runtimetest.StartTemporary(context.Background()); shared.err == nil {
			atExit(shared.containerd.Close)
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.containerd
}

const testNamespace = "picket-test"

// busybox is the image of most tests, present after newHost.
const busybox = "docker.io/library/busybox:latest"

// host is a runtime on a containerd, with directories of its own.
type host struct {
	*runtime.Runtime
	t          testing.TB
	containerd *runtimetest.Containerd
	config     runtime.Config
	dir        string
	pods       []string // uids of all that newPod made
}

// newHost returns a runtime on the shared containerd, closed with the test.
func newHost(t testing.TB) *host { return newHostOn(t, sharedContainerd(t)) }

func newHostOn(t testing.TB, c *runtimetest.Containerd) *host {
	t.Helper()
	dir := t.TempDir()
	h := &host{t: t, containerd: c, dir: dir, config: runtime.Config{
		Address: c.Address, Namespace: testNamespace, RunDir: dir + "/run", DataDir: dir + "/data", ImagesDir: dir + "/images",
		LoggerPath: logger(t), Log: slog.New(slog.NewTextHandler(logTo{t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}}
	h.open()
	t.Cleanup(func() { _ = h.Close() })
	h.importImage(busybox, runtimetest.Image{})
	return h
}

// open connects, as a starting agent does.
func (h *host) open() {
	h.t.Helper()
	r, err := runtime.New(h.config)
	if err != nil {
		h.t.Fatal(err)
	}
	h.Runtime = r
}

// reopen is an agent that ends and comes back.
func (h *host) reopen() {
	h.t.Helper()
	if err := h.Close(); err != nil {
		h.t.Fatal(err)
	}
	h.open()
}

func (h *host) client() *client.Client {
	h.t.Helper()
	c, err := h.containerd.Client(testNamespace)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	return c
}

// built keeps images that were made: one is wanted often.
var built sync.Map

func build(t testing.TB, name string, i runtimetest.Image) v1.Image {
	t.Helper()
	if image, ok := built.Load(name); ok {
		return image.(v1.Image)
	}
	image, err := i.Build()
	if err != nil {
		t.Fatal(err)
	}
	built.Store(name, image)
	return image
}

// importImage puts an image into containerd, as if it had been pulled.
func (h *host) importImage(name string, i runtimetest.Image) {
	h.t.Helper()
	c := h.client()
	ctx := h.t.Context()
	if img, err := c.GetImage(ctx, name); err == nil {
		if unpacked, err := img.IsUnpacked(ctx, ""); err == nil && unpacked {
			return
		}
	}
	file := filepath.Join(h.dir, "image.tar")
	if err := runtimetest.WriteArchive(file, name, build(h.t, name, i)); err != nil {
		h.t.Fatal(err)
	}
	archive, err := os.Open(file)
	if err != nil {
		h.t.Fatal(err)
	}
	defer archive.Close()
	images, err := c.Import(ctx, archive)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, image := range images {
		if err := client.NewImage(c, image).Unpack(ctx, ""); err != nil {
			h.t.Fatal(err)
		}
	}
}

// newPod is a pod in the host's namespaces, which needs no setting up. What is left of it goes with the test.
func (h *host) newPod() runtime.PodConfig {
	uid := uuid.NewString()
	h.pods = append(h.pods, uid)
	p := runtime.PodConfig{
		UID: uid, Namespace: "default", Name: "web", HostNetwork: true, HostIPC: true, CgroupParent: "/picket/pod" + uid,
	}
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		h.removeContainers(ctx, uid)
		if err := h.RemovePodCgroup(ctx, p.CgroupParent); err != nil {
			h.t.Error(err)
		}
	})
	return p
}

func (h *host) removeContainers(ctx context.Context, uid string) {
	h.t.Helper()
	all, err := h.Containers(ctx)
	if err != nil {
		h.t.Error(err)
	}
	for _, c := range all {
		if c.PodUID == uid {
			if err := h.RemoveContainer(ctx, c.ID); err != nil {
				h.t.Error(err)
			}
		}
	}
}

// shell is a container of a pod that runs a shell script.
func (h *host) shell(p runtime.PodConfig, name, script string) runtime.ContainerConfig {
	return runtime.ContainerConfig{
		ID: p.UID + "-" + name + "-0", Pod: p, Name: name, Image: busybox, Command: []string{"sh", "-c", script},
		LogPath: filepath.Join(h.dir, p.UID+"-"+name+".log"),
	}
}

func (h *host) create(c runtime.ContainerConfig) {
	h.t.Helper()
	if err := h.CreateContainer(h.t.Context(), c); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) start(c runtime.ContainerConfig) {
	h.t.Helper()
	h.create(c)
	if err := h.StartContainer(h.t.Context(), c.ID); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) remove(id string) {
	h.t.Helper()
	if err := h.RemoveContainer(h.t.Context(), id); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) status(id string) runtime.ContainerStatus {
	h.t.Helper()
	s, err := h.ContainerStatus(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// exited waits for a container's end.
func (h *host) exited(id string) runtime.ContainerStatus {
	h.t.Helper()
	var s runtime.ContainerStatus
	h.eventually("container "+id+" exits", func() error {
		if s = h.status(id); s.State != runtime.ContainerExited {
			return fmt.Errorf("it is %s", s.State)
		}
		return nil
	})
	return s
}

// output runs a script to its end in a container that c says more about, and returns what it wrote.
func (h *host) output(c runtime.ContainerConfig) string {
	h.t.Helper()
	h.start(c)
	s := h.exited(c.ID)
	h.remove(c.ID) // with it the log is complete
	text := h.log(c)
	if s.ExitCode != 0 {
		h.t.Fatalf("%v: exit code %d\n%s", c.Command, s.ExitCode, text)
	}
	return text
}

// log waits for the container's log to be complete: its writer has ended.
func (h *host) log(c runtime.ContainerConfig) string {
	h.t.Helper()
	data, err := os.ReadFile(c.LogPath)
	if err != nil {
		h.t.Fatal(err)
	}
	var text strings.Builder
	for line := range strings.Lines(string(data)) {
		if fields := strings.SplitN(line, " ", 4); len(fields) == 4 { // time, stream, F or P
			line = fields[3]
		}
		text.WriteString(line)
	}
	return text.String()
}

// eventually waits for something that a real process does.
func (h *host) eventually(what string, try func() error) {
	h.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// watcher collects events.
type watcher struct {
	t      testing.TB
	mu     sync.Mutex
	events []runtime.Event
}

// watch subscribes and waits for the connection.
func (h *host) watch() *watcher {
	h.t.Helper()
	w := &watcher{t: h.t}
	news := h.Subscribe(h.t.Context())
	go func() {
		for e := range news {
			w.mu.Lock()
			w.events = append(w.events, e)
			w.mu.Unlock()
		}
	}()
	w.expect(runtime.EventConnected, "")
	return w
}

// expect waits for an event and forgets what came before it.
func (w *watcher) expect(kind runtime.EventKind, id string) runtime.Event {
	w.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		w.mu.Lock()
		for i, e := range w.events {
			if e.Kind == kind && e.ContainerID == id {
				w.events = w.events[i+1:]
				w.mu.Unlock()
				return e
			}
		}
		w.mu.Unlock()
		time.Sleep(2 * time.Millisecond)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t.Fatalf("no event %s of %q; there were %+v", kind, id, w.events)
	return runtime.Event{}
}

func (w *watcher) all() []runtime.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events)
}

func (w *watcher) has(kind runtime.EventKind, id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Kind == kind && e.ContainerID == id {
			return true
		}
	}
	return false
}

func want(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("error is %v, want %v", err, target)
	}
}

// logTo sends the runtime's log to the test's.
type logTo struct{ t testing.TB }

var _ io.Writer = logTo{}

func (l logTo) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

func (h *host) contains(c runtime.ContainerConfig, text string) error {
	if got := h.log(c); !strings.Contains(got, text) {
		return fmt.Errorf("log is %q", got)
	}
	return nil
}

func (h *host) shims(n int) error {
	if shims := h.containerd.Shims(); len(shims) != n {
		return fmt.Errorf("shims: %v, want %d", shims, n)
	}
	return nil
}

// deleteImage removes an image and has containerd collect what only it used.
func (h *host) deleteImage(name string) {
	h.t.Helper()
	if err := h.client().ImageService().Delete(h.t.Context(), name, images.SynchronousDelete()); err != nil {
		h.t.Fatal(err)
	}
}

// deleteTask removes a container's task behind the runtime's back.
func (h *host) deleteTask(id string) {
	h.t.Helper()
	c, err := h.client().LoadContainer(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	task, err := c.Task(h.t.Context(), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := task.Delete(h.t.Context(), client.WithProcessKill); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) deleteRecord(id string) {
	h.t.Helper()
	if err := h.client().ContainerService().Delete(h.t.Context(), id); err != nil {
		h.t.Fatal(err)
	}
}
