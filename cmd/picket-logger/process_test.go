package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary builds picket-logger once, as make build does.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(os.TempDir(), "picket-logger-test-"+strconv.Itoa(os.Getpid()))
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	return path, cmd.Run()
})

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.Remove(filepath.Join(os.TempDir(), "picket-logger-test-"+strconv.Itoa(os.Getpid())))
	os.Exit(code)
}

// process is a running logger, seen from its shim.
type process struct {
	t              testing.TB
	cmd            *exec.Cmd
	stdout, stderr *os.File
	ended          chan struct{}
}

// start starts a logger and waits until it is ready, as the shim does.
func start(t testing.TB, args ...string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal("cannot build:", err)
	}
	p := &process{t: t, cmd: exec.Command(path, args...), ended: make(chan struct{})}
	p.cmd.Env = []string{"CONTAINER_ID=c", "CONTAINER_NAMESPACE=picket"}
	outR, outW := pipe(t)
	errR, errW := pipe(t)
	readyR, readyW := pipe(t)
	p.cmd.ExtraFiles = []*os.File{outR, errR, readyW}
	p.stdout, p.stderr = outW, errW
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.ended) }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		p.closePipes()
	})
	outR.Close()
	errR.Close()
	readyW.Close()
	ready, err := io.ReadAll(readyR)
	readyR.Close()
	if err != nil || len(ready) != 1 {
		<-p.ended
		t.Fatalf("logger is not ready: %q %v, exit code %d", ready, err, p.cmd.ProcessState.ExitCode())
	}
	return p
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

func (p *process) closePipes() { p.stdout.Close(); p.stderr.Close() }

// wait expects the process to end by itself and returns its exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		p.t.Fatal("logger does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

// finish ends the streams and expects the logger to end well.
func (p *process) finish() {
	p.t.Helper()
	p.closePipes()
	if code := p.wait(); code != 0 {
		p.t.Fatalf("exit code %d", code)
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// private is the process' private memory in KiB, and the part of it that is not its own file's pages.
func (p *process) private() (kib int) {
	p.t.Helper()
	rollup, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/smaps_rollup")
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(rollup)) {
		if fields := strings.Fields(line); strings.HasPrefix(line, "Private_") && !strings.HasPrefix(line, "Private_Hugetlb") {
			n, _ := strconv.Atoi(fields[1])
			kib += n
		}
	}
	return kib
}

// eventually waits for what another process does.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never:", what)
		}
	}
}
