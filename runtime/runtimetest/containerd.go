package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
)

// EnvContainerd names another containerd binary than the one in $PATH, such as a 2.x; a shim beside it is preferred.
const EnvContainerd = "PICKET_CONTAINERD"

// How long containerd may take; a machine under load is slow, one that works is not.
const (
	startTimeout = 60 * time.Second
	stopTimeout  = 20 * time.Second
)

// maxSocketPath is what a unix socket's address holds.
const maxSocketPath = 107

const socketName = "c.sock"

// Containerd is a containerd of one's own: root, state, socket and configuration are in Dir, the CRI plugin is off.
// Its methods may not be called from several goroutines at once.
type Containerd struct {
	Dir     string
	Address string // of its socket

	binary  string
	network string // the network namespace it is in, "" for ours
	cmd     *exec.Cmd
	exited  <-chan struct{} // closed when the process has ended
	cgroups map[string]bool // parents of containers' cgroups that were seen
	lock    *os.File        // of a temporary directory
}

// StartContainerd starts a containerd in a short directory of its own; everything that it ran ends with the test.
// A machine that cannot do it (not root, no containerd) fails the test and says why.
func StartContainerd(t testing.TB) *Containerd {
	t.Helper()
	c, err := StartTemporary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("containerd's last words:\n%s", c.LastWords())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// StartTemporary starts a containerd in a new temporary directory, which Close removes. It first ends what an earlier
// caller that was killed left behind.
func StartTemporary(ctx context.Context) (*Containerd, error) {
	sweep(ctx)
	dir, err := os.MkdirTemp("", temporary)
	if err != nil {
		return nil, fmt.Errorf("cannot make containerd's directory: %w", err)
	}
	lock, err := own(dir, os.O_CREATE)
	if err != nil {
		return nil, err
	}
	c, err := Start(ctx, dir)
	if err != nil {
		lock.Close()
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	c.lock = lock
	return c, nil
}

// Start starts a containerd whose files are in dir; what an earlier one with the same dir ran is found again. It returns when
// containerd answers. dir must be short: a unix socket's path is.
func Start(ctx context.Context, dir string) (*Containerd, error) { return StartIn(ctx, dir, "") }

// StartIn is Start in the network namespace mounted at a path: containers that use the host's network use that one.
func StartIn(ctx context.Context, dir, network string) (*Containerd, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("containerd needs root: run as root")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot resolve containerd's directory: %w", err)
	}
	c := Leftover(dir)
	c.network = network
	if longest := c.Address + ".ttrpc"; len(longest) > maxSocketPath {
		return nil, fmt.Errorf("containerd's directory %s is too long for a unix socket: %d bytes are left for it", dir, maxSocketPath-len("/"+socketName+".ttrpc"))
	}
	if c.binary, err = findContainerd(); err != nil {
		return nil, err
	}
	if err := c.configure(); err != nil {
		return nil, err
	}
	if err := c.Restart(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

func findContainerd() (string, error) {
	name := os.Getenv(EnvContainerd)
	if name == "" {
		name = "containerd"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("cannot find containerd (scripts/install-deps.sh installs it): %w", err)
	}
	return filepath.Abs(path)
}

// unwanted plugins listen, write elsewhere or need what is not there. Names that a version does not know are ignored by it.
var unwanted = []string{
	"io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.podsandbox.controller.v1.podsandbox",
	"io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart", "io.containerd.internal.v1.cri",
	"io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
	"io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs",
	"io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
}

func (c *Containerd) configure() error {
	config := fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["%s"]
[grpc]
  address = %q
[ttrpc]
  address = %q
`, filepath.Join(c.Dir, "root"), filepath.Join(c.Dir, "state"), strings.Join(unwanted, `", "`), c.Address, c.Address+".ttrpc")
	if err := os.MkdirAll(c.Dir, 0o711); err != nil {
		return fmt.Errorf("cannot make containerd's directory: %w", err)
	}
	if err := os.WriteFile(filepath.Join(c.Dir, "config.toml"), []byte(config), 0o600); err != nil {
		return fmt.Errorf("cannot write containerd's configuration: %w", err)
	}
	return nil
}

// Restart stops containerd if it runs and starts it again: same files, and the containers live on.
func (c *Containerd) Restart(ctx context.Context) error {
	if err := c.Stop(); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(c.Dir, "containerd.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open containerd's log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(c.binary, "--config", filepath.Join(c.Dir, "config.toml"))
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.Dir, log, log
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(c.binary)+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if c.exited, err = Launch(cmd, c.network); err != nil {
		return fmt.Errorf("cannot start containerd: %w", err)
	}
	c.cmd = cmd
	return c.answers(ctx)
}

// answers waits until containerd serves.
func (c *Containerd) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	cl, err := c.Client("default")
	if err != nil {
		return err
	}
	defer func() { _ = cl.Close() }()
	for {
		if _, err = cl.Version(ctx); err == nil {
			return nil
		}
		select {
		case <-c.exited:
			return fmt.Errorf("containerd ended:\n%s", c.LastWords())
		case <-ctx.Done():
			return fmt.Errorf("containerd does not answer: %w\n%s", err, c.LastWords())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Client connects to it; the caller closes it.
func (c *Containerd) Client(namespace string) (*client.Client, error) {
	cl, err := client.New(c.Address, client.WithDefaultNamespace(namespace), client.WithTimeout(time.Second))
	if err != nil {
		return nil, fmt.Errorf("cannot make a containerd client: %w", err)
	}
	return cl, nil
}

// Stop ends containerd in order; its containers live on. It does nothing when containerd does not run.
func (c *Containerd) Stop() error { return c.end(syscall.SIGTERM) }

// Kill ends containerd at once, as a crash would; its containers live on.
func (c *Containerd) Kill() error { return c.end(syscall.SIGKILL) }

// Signal sends a signal to containerd, which runs.
func (c *Containerd) Signal(signal syscall.Signal) error {
	if err := c.cmd.Process.Signal(signal); err != nil {
		return fmt.Errorf("cannot signal containerd: %w", err)
	}
	return nil
}

func (c *Containerd) end(signal syscall.Signal) error {
	if c.cmd == nil {
		return nil
	}
	if err := c.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("cannot stop containerd: %w", err)
	}
	select {
	case <-c.exited:
	case <-time.After(stopTimeout):
		_ = c.cmd.Process.Kill()
		<-c.exited
	}
	c.cmd = nil
	return nil
}

// LastWords is the end of containerd's log.
func (c *Containerd) LastWords() string {
	data, err := os.ReadFile(filepath.Join(c.Dir, "containerd.log"))
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(data, []byte("\n"))
	return string(bytes.Join(slices.Clip(lines[max(0, len(lines)-40):]), []byte("\n")))
}
