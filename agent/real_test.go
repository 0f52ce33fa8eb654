package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/picketd/picket/agent/api/apitest"
	"github.com/picketd/picket/runtime/runtimetest"
)

// Tests in files real_*_test.go run whole agents on a real containerd, one for the whole test binary; every test has a
// containerd namespace, directories and ports of its own.

var shared struct {
	sync.Mutex
	containerd *runtimetest.Containerd
	registry   *runtimetest.Registry
	binaries   string // directory of picketd, picket and picket-logger
	errs       []error
}

func TestMain(m *testing.M) {
	code := m.Run()
	shared.Lock()
	if shared.containerd != nil {
		shared.errs = append(shared.errs, shared.containerd.Close(), shared.registry.Close(), os.RemoveAll(shared.binaries))
	}
	if err := errors.Join(shared.errs...); err != nil {
		fmt.Fprintln(os.Stderr, "cannot clean up:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// share starts what the tests share, once.
func share(t testing.TB) {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.containerd != nil {
		return
	}
	dir := build(t)
	registry, err := runtimetest.NewRegistry()
	if err != nil {
		t.Fatal(err)
	}
	image, err := runtimetest.Image{}.Build()
	if err == nil {
		err = errors.Join(registry.Push("busybox", image), registry.Push("busybox:1", image), registry.Push("busybox:2", image))
	}
	if err != nil {
		t.Fatal(err)
	}
	containerd, err := runtimetest.StartTemporary(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	shared.containerd, shared.registry, shared.binaries = containerd, registry, dir
}

// envBinaries tells the tests in a throw-away machine where the binaries are that were built outside.
const envBinaries = "PICKET_TEST_BINARIES"

// build makes the binaries, or finds those that are there.
func build(t testing.TB) (dir string) {
	t.Helper()
	if dir := os.Getenv(envBinaries); dir != "" {
		return dir
	}
	dir, err := os.MkdirTemp("", "picket-bin")
	if err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", dir+string(os.PathSeparator), "./cmd/...")
	build.Dir, build.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build: %v\n%s", err, out)
	}
	return dir
}

// inMachine runs the calling test in a throw-away machine, and is true there (runtimetest.Machine).
func inMachine(t *testing.T, flags ...string) bool {
	t.Helper()
	if !runtimetest.InMachine() {
		share(t)
		t.Setenv(envBinaries, shared.binaries)
	}
	return runtimetest.Machine(t, flags...)
}

var realHosts atomic.Int32

// realHost is a host with a configuration of its own; its agent runs in this process (start) or in one of its own (launch).
type realHost struct {
	t   testing.TB
	dir string
	cfg Config
	log *logBuffer

	ownContainerd *runtimetest.Containerd // when not the shared one

	stop    func()
	removed func() // called when nothing runs any more, before its files go; may be nil
}

func newRealHost(t testing.TB) *realHost {
	t.Helper()
	share(t)
	dir, err := os.MkdirTemp("", "pk") // short: it holds unix sockets
	if err != nil {
		t.Fatal(err)
	}
	h := &realHost{t: t, dir: dir, log: &logBuffer{}, stop: func() {}}
	hosts := filepath.Join(dir, "certs.d")
	if err := shared.registry.WriteHosts(hosts, "docker.io"); err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Node = NodeConfig{Name: "host-01", Labels: map[string]string{"disktype": "ssd"}}
	cfg.API.Listen, cfg.API.PKI, cfg.Metrics.Listen = freeAddress(t), filepath.Join(dir, "pki"), freeAddress(t)
	cfg.Cluster.Bind = freeAddress(t)
	n := realHosts.Add(1)
	cfg.Runtime.Address, cfg.Runtime.Namespace = shared.containerd.Address, fmt.Sprintf("pk-%d-%d", os.Getpid(), n)
	cfg.Runtime.PodCIDR = fmt.Sprintf("10.90.%d.0/24", n%256)
	cfg.Runtime.HostsDir, cfg.Runtime.LoggerPath = hosts, filepath.Join(shared.binaries, "picket-logger")
	cfg.Runtime.PodLogs, cfg.Runtime.ContainerLogs = filepath.Join(dir, "logs"), filepath.Join(dir, "links")
	cfg.Manifests, cfg.DataDir, cfg.RunDir = filepath.Join(dir, "manifests.d"), filepath.Join(dir, "data"), filepath.Join(dir, "run")
	cfg.FillIn("host-01", func(string) bool { return false })
	cfg.Version = "v0-test"
	cfg.Logger = slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	h.cfg = cfg
	t.Cleanup(h.remove)
	return h
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs the agent in this process until stop; it returns when the API answers.
func (h *realHost) start() *Agent {
	h.t.Helper()
	a, err := New(h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- a.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-ended:
		h.t.Fatalf("the agent ended: %v", err)
	}
	h.stop = func() {
		h.stop = func() {}
		cancel()
		if err := <-ended; err != nil {
			h.t.Errorf("the agent ended with %v", err)
		}
	}
	return a
}

// remove takes everything of the host away: its DaemonSets, with an agent, so that no network or mount stays; then the agent.
func (h *realHost) remove() {
	if h.t.Failed() {
		h.t.Logf("the agent's log:\n%s", h.log.tail(60))
	}
	h.stop()
	a, err := New(h.cfg)
	if err != nil {
		h.t.Errorf("cannot clean up with an agent: %v", err)
	} else {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- a.Run(ctx, func() {}) }()
		_ = a.loop.do(ctx, func() error {
			for uid := range a.loop.pods.byUID {
				zero := int64(0)
				_ = a.loop.pods.stop(uid, &zero, "the test is over", time.Now())
			}
			for _, d := range a.loop.daemonSets {
				d.object, d.known, d.dirty = nil, true, true
			}
			return nil
		})
		h.eventually("the host is empty", func() bool { return len(cached[*corev1.Pod](a.loop, resourcePods)) == 0 })
		cancel()
		<-ended
	}
	// The directory of the pods' mounts is a file system of its own, once per boot.
	if err := syscall.Unmount(filepath.Join(h.cfg.RunDir, "pods"), 0); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOENT) {
		h.t.Errorf("the pods' directory is not empty: %v", err)
	}
	h.removeBridge()
	if h.removed != nil {
		h.removed()
	}
	if left := runtimetest.Mounts(h.dir); len(left) > 0 {
		h.t.Errorf("mounts left behind: %v", left)
	}
	if err := os.RemoveAll(h.dir); err != nil {
		h.t.Error(err)
	}
}

// removeBridge removes the bridge of the pods' network, if there is one.
func (h *realHost) removeBridge() {
	h.t.Helper()
	bridge := h.cfg.runtimeConfig(h.cfg.Logger).BridgeName()
	if _, err := net.InterfaceByName(bridge); err != nil {
		return
	}
	if out, err := exec.Command("busybox", "ip", "link", "delete", bridge).CombinedOutput(); err != nil {
		h.t.Errorf("cannot remove the bridge: %v %s", err, out)
	}
}

// kubectl is real kubectl, in this process, with the kubeconfig that the agent wrote.
func (h *realHost) kubectl() *apitest.Kubectl {
	return apitest.NewKubectl(h.t, h.kubeconfig())
}

func (h *realHost) kubeconfig() string { return filepath.Join(h.cfg.DataDir, "kubeconfig") }

func (h *realHost) clientset() *kubernetes.Clientset {
	h.t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", h.kubeconfig())
	if err != nil {
		h.t.Fatal(err)
	}
	config.QPS = -1
	return kubernetes.NewForConfigOrDie(config)
}

// containerd is a client in the host's namespace, and a context for it.
func (h *realHost) containerd() (*client.Client, context.Context) {
	h.t.Helper()
	containerd := shared.containerd
	if h.ownContainerd != nil {
		containerd = h.ownContainerd
	}
	c, err := containerd.Client(h.cfg.Runtime.Namespace)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	return c, namespaces.WithNamespace(context.Background(), h.cfg.Runtime.Namespace)
}

// eventually waits for what containerd and processes bring about; it gives up after a minute, which no working machine needs.
func (h *realHost) eventually(what string, ok func() bool) {
	h.t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			h.t.Fatalf("did not come about: %s\n%s", what, h.log.tail(60))
		}
		<-tick.C
	}
}

// logBuffer keeps the end of an agent's log for tests that fail.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) tail(n int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(b.text.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func (b *logBuffer) contains(s string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Contains(b.text.String(), s)
}
