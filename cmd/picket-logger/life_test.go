package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// locked is how an agent asks whether the logger of this lock lives.
func locked(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Fatal(err)
	}
	return err != nil
}

func TestLockShowsLife(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	lock := filepath.Join(t.TempDir(), "loggers", "c.lock")
	p := start(t, "path", path, "lock", lock, "max-size", "1000")
	pid, err := os.ReadFile(lock)
	if err != nil || string(pid) != strconv.Itoa(p.cmd.Process.Pid)+"\n" {
		t.Fatalf("lock says %q %v, want %d", pid, err, p.cmd.Process.Pid)
	}
	if !locked(t, lock) {
		t.Fatal("a living logger has no lock")
	}
	p.signal(syscall.SIGKILL)
	<-p.ended
	if locked(t, lock) {
		t.Fatal("a dead logger has the lock")
	}
	start(t, "path", path, "lock", lock).finish()
	if locked(t, lock) {
		t.Fatal("lock is held after the end")
	}
}

func TestLockOfALivingLoggerIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	start(t, "path", path, "lock", path+".lock")
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, w := pipe(t)
	defer r.Close()
	defer w.Close()
	second := exec.CommandContext(ctx, bin, "path", path, "lock", path+".lock")
	second.ExtraFiles = []*os.File{r, r, w}
	out, _ := second.CombinedOutput()
	if second.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "cannot lock") {
		t.Errorf("exit code %d: %s", second.ProcessState.ExitCode(), out)
	}
}

func TestSignals(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	p := start(t, "path", path)
	p.signal(syscall.SIGINT)
	p.signal(syscall.SIGHUP)
	p.signal(syscall.SIGTERM)
	feed(t, p.stdout, []byte("after\n"), 1)
	p.finish() // end of file
	if got := text(readRecords(t, path), "stdout"); got != "after\n" {
		t.Errorf("logged %q", got)
	}
}

func TestGivesUpWhenPipesStayOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	p := start(t, "path", path)
	p.signal(syscall.SIGTERM)
	feed(t, p.stdout, []byte("whole\nhalf"), 1)
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if got := text(readRecords(t, path), "stdout"); got != "whole\nhalf" {
		t.Errorf("logged %q", got)
	}
}

func TestCompressorsDoNotHoldThePipes(t *testing.T) {
	p := start(t, "path", filepath.Join(t.TempDir(), "0.log"))
	for fd := fdStdout; fd <= fdStderr; fd++ {
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", p.cmd.Process.Pid, fd))
		if err != nil {
			t.Fatal(err)
		}
		_, flags, _ := strings.Cut(string(info), "flags:")
		if n, err := strconv.ParseInt(strings.Fields(flags)[0], 8, 64); err != nil || n&syscall.O_CLOEXEC == 0 {
			t.Errorf("descriptor %d: flags %o %v", fd, n, err)
		}
	}
}

func TestArgumentsAreChecked(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", "path is missing"},
		{"path", `"path" has no value`},
		{"path /x max-size 0", "it must be positive"},
		{"path /x max-files -1", "it must be positive"},
		{"path /x max-size 10Mi", "invalid syntax"},
		{"path /x max-sise 10", `cannot use max-sise "10": no such option`},
	} {
		if _, err := parse(strings.Fields(c.args)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %s", c.args, err, c.want)
		}
	}
	o, err := parse(strings.Fields("max-files 3 path /x lock /l max-size 100"))
	if want := (options{path: "/x", lock: "/l", maxSize: 100, maxFiles: 3}); err != nil || o != want {
		t.Errorf("%+v %v", o, err)
	}
}

func TestNoDescriptors(t *testing.T) {
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "path", filepath.Join(t.TempDir(), "0.log"))
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "descriptor 3 is no pipe") {
		t.Errorf("exit code %d: %s", cmd.ProcessState.ExitCode(), out)
	}
}
