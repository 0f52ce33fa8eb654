package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// reaper starts "picket-logger --pause" as PID 1 of a new process namespace.
func reaper(t *testing.T) *exec.Cmd {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "--pause")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if err := cmd.Start(); err != nil {
		t.Skip("cannot make a process namespace:", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	eventually(t, "readiness", func() bool { return ignored(cmd.Process.Pid, syscall.SIGHUP) })
	return cmd
}

// ignored is whether pid ignores s.
func ignored(pid int, s syscall.Signal) bool { return signalMask(pid, "SigIgn")&(1<<(s-1)) != 0 }

func signalMask(pid int, name string) uint64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			mask, _ := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			return mask
		}
	}
	return 0
}

// inside runs a shell in the reaper's process namespace and returns its output's lines as they come.
func inside(t *testing.T, of *exec.Cmd, script string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command("nsenter", "--target", strconv.Itoa(of.Process.Pid), "--pid", "sh", "-c", script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// children counts pid's, zombies included.
func children(pid int) int {
	all, _ := filepath.Glob("/proc/[0-9]*/status")
	n := 0
	for _, path := range all {
		status, _ := os.ReadFile(path) // it may have ended
		if strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", pid)) {
			n++
		}
	}
	return n
}

func TestPauseReapsOrphans(t *testing.T) {
	p := reaper(t)
	// The inner shells are orphans when the outer one says so, for it has waited for their parents.
	sh, out := inside(t, p, `for i in 1 2 3 4 5 6 7 8 9 10; do (sh -c 'exit 3' &); done; echo ready`)
	if !out.Scan() || out.Text() != "ready" {
		t.Fatalf("shell said %q", out.Text())
	}
	if err := sh.Wait(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all orphans are reaped", func() bool { return children(p.Process.Pid) == 0 })
}

func TestPauseEnds(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		p := reaper(t)
		for _, other := range []syscall.Signal{syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGPIPE} {
			eventually(t, "ignored "+other.String(), func() bool { return ignored(p.Process.Pid, other) })
			_ = p.Process.Signal(other)
		}
		if err := p.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		if err := p.Wait(); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}
