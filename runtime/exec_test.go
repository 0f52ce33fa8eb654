package runtime_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/picketd/picket/runtime"
)

// exec runs a command in a container and returns its code and output.
func (h *host) exec(id string, e runtime.ExecConfig) (int, string, string, error) {
	var out, errs bytes.Buffer
	e.Stdout, e.Stderr = &out, &errs
	code, err := h.Exec(h.t.Context(), id, e)
	return code, out.String(), errs.String(), err
}

// sleeper is a container to run commands in.
func (h *host) sleeper() runtime.ContainerConfig {
	h.t.Helper()
	c := h.shell(h.newPod(), "web", "exec sleep 1000")
	c.Env, c.WorkingDir = []string{"WHO=me"}, "/etc"
	user := int64(1000)
	c.Security.RunAsUser = &user
	h.start(c)
	return c
}

func TestExec(t *testing.T) {
	h := newHost(t)
	c := h.sleeper()
	big := strings.Repeat("0123456789abcdef", 1<<16)
	for name, test := range map[string]struct {
		script, stdin string
		code          int
		out, errs     string
	}{
		"output":  {script: "echo out; echo err >&2", out: "out\n", errs: "err\n"},
		"code":    {script: "exit 42", code: 42},
		"signal":  {script: "kill -9 $$", code: 137},
		"context": {script: "id -u; pwd; echo $WHO", out: "1000\n/etc\nme\n"},
		"stdin":   {script: "cat; echo end", stdin: "line\n", out: "line\nend\n"},
		"big":     {script: "cat", stdin: big, out: big},
		"unread":  {script: "true", stdin: big},
		"nothing": {script: "cat"},
	} {
		t.Run(name, func(t *testing.T) {
			h := *h
			h.t = t
			e := runtime.ExecConfig{Command: []string{"sh", "-c", test.script}}
			if test.stdin != "" {
				e.Stdin = strings.NewReader(test.stdin)
			}
			code, out, errs, err := h.exec(c.ID, e)
			if err != nil || code != test.code || out != test.out || errs != test.errs {
				t.Errorf("code %d, out %.80q, err %q, error %v", code, out, errs, err)
			}
		})
	}
	h.noTrace()
}

func TestExecFails(t *testing.T) {
	h := newHost(t)
	c := h.sleeper()
	_, _, _, err := h.exec(c.ID, runtime.ExecConfig{Command: []string{"nonesuch"}})
	want(t, err, runtime.ErrStart)
	if err != nil && !strings.Contains(err.Error(), "executable file not found") {
		t.Errorf("error is %q", err)
	}
	_, _, _, err = h.exec("absent", runtime.ExecConfig{Command: []string{"true"}})
	want(t, err, runtime.ErrNotFound)
	if err := h.SignalContainer(t.Context(), c.ID, "KILL"); err != nil {
		t.Fatal(err)
	}
	h.exited(c.ID)
	_, _, _, err = h.exec(c.ID, runtime.ExecConfig{Command: []string{"true"}})
	want(t, err, runtime.ErrNotFound)
	h.noTrace()
}

// A command whose caller goes away is killed.
func TestExecCancelled(t *testing.T) {
	h := newHost(t)
	c := h.sleeper()
	ctx, cancel := context.WithCancel(t.Context())
	started := &notify{done: make(chan struct{})}
	go func() {
		<-started.done
		cancel()
	}()
	stdin, hold := io.Pipe() // never ends by itself
	defer hold.Close()
	_, err := h.Exec(ctx, c.ID, runtime.ExecConfig{Command: []string{"sh", "-c", "echo started; sleep 999"}, Stdin: stdin, Stdout: started})
	want(t, err, context.Canceled)
	code, out, _, err := h.exec(c.ID, runtime.ExecConfig{Command: []string{"ps"}})
	if err != nil || code != 0 || strings.Contains(out, "sleep 999") {
		t.Errorf("it runs on: code %d, error %v\n%s", code, err, out)
	}
	h.noTrace()
}

// What a command leaves in the background does not keep its caller.
func TestExecBackground(t *testing.T) {
	h := newHost(t)
	c := h.sleeper()
	done := make(chan error, 1)
	go func() {
		code, out, _, err := h.exec(c.ID, runtime.ExecConfig{Command: []string{"sh", "-c", "sleep 500 & echo now"}})
		if err == nil && (code != 0 || out != "now\n") {
			err = fmt.Errorf("code %d, out %q", code, out)
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the caller waits for what is in the background")
	}
	h.noTrace()
}

// A terminal has one output, a size that follows the caller's, and control characters.
func TestExecTerminal(t *testing.T) {
	h := newHost(t)
	c := h.sleeper()
	resize := make(chan runtime.TerminalSize, 1)
	resize <- runtime.TerminalSize{Width: 123, Height: 45}
	stdin, keyboard := io.Pipe()
	screen := &notify{done: make(chan struct{})}
	go func() {
		<-screen.done // the shell is there
		fmt.Fprint(keyboard, "until stty size | grep -q '45 123'; do sleep 0.01; done; tty; echo $TERM; stty size; exit\n")
	}()
	code, err := h.Exec(t.Context(), c.ID, runtime.ExecConfig{
		Command: []string{"sh", "-c", "echo ready; exec sh"}, TTY: true, Stdin: stdin, Stdout: screen, Resize: resize,
	})
	if err != nil || code != 0 {
		t.Errorf("code %d, error %v", code, err)
	}
	for _, line := range []string{"/dev/pts/", "xterm\r\n", "45 123\r\n"} {
		if !strings.Contains(screen.String(), line) {
			t.Errorf("no %q on the screen: %q", line, screen.String())
		}
	}
	keyboard.Close()
	h.noTrace()
}

// noTrace: exec's pipes are gone.
func (h *host) noTrace() {
	h.t.Helper()
	h.eventually("exec's pipes are gone", func() error {
		entries, err := os.ReadDir(filepath.Join(h.config.RunDir, "exec"))
		if err == nil && len(entries) > 0 {
			err = fmt.Errorf("it leaves %v", entries)
		}
		if os.IsNotExist(err) {
			return nil
		}
		return err
	})
}

// notify is output that tells of its first byte.
type notify struct {
	mu   sync.Mutex
	text bytes.Buffer
	once sync.Once
	done chan struct{}
}

func (n *notify) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.once.Do(func() { close(n.done) })
	return n.text.Write(p)
}

func (n *notify) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}
