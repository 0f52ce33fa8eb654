package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/picketd/picket/agent"
)

// supervised is a supervisor in virtual time, whose file is watched by nobody.
type supervised struct {
	agent   *fakeAgent
	log     output
	systemd told
	signals chan os.Signal
	done    chan error

	goingDown bool // the host is
}

// supervise starts one inside of a bubble.
func supervise(t *testing.T, path string, f *fakeAgent) *supervised {
	s := &supervised{agent: f, signals: make(chan os.Signal, 8), done: make(chan error, 1)}
	logs := newLogging(&s.log, false)
	from := testSource(t, "--config", path)
	first, err := from.read()
	if err != nil {
		t.Fatal(err)
	}
	d := newSupervisor(from, process{signals: s.signals, start: f.start}, logs, s.systemd.notify, first)
	d.watch = func(context.Context, string, *slog.Logger) <-chan struct{} { return nil }
	d.watchdog = 10 * time.Second
	d.goingDown = func() bool { return s.goingDown }
	cfg := from.resolve(first).config
	cfg.Logger = logs.Logger
	go func() { s.done <- d.run(cfg) }()
	synctest.Wait()
	return s
}

// ended is what run returned; it must have.
func (s *supervised) ended(t *testing.T) error {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-s.done:
		return err
	default:
		t.Fatalf("it runs on\n%s", s.log.String())
		return nil
	}
}

func TestSupervise(t *testing.T) {
	path := write(t, "log: {level: info}")
	synctest.Test(t, func(t *testing.T) {
		s := supervise(t, path, &fakeAgent{summary: "fine"})
		if got := s.systemd.take(); got[0] != "READY=1" || !slices.Contains(got, "STATUS=fine") || !slices.Contains(got, "WATCHDOG=1") {
			t.Errorf("at the start systemd was told %q", got)
		}
		if err := os.WriteFile(path, []byte("log: {level: warn}"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.signals <- syscall.SIGHUP
		synctest.Wait()
		if got := s.agent.taken(); got != "warn" {
			t.Errorf("SIGHUP made it take %q", got)
		}
		s.systemd.take()
		s.signals <- syscall.SIGTERM
		if err := s.ended(t); err != nil {
			t.Errorf("SIGTERM ended it with %v", err)
		}
		if got := s.systemd.take(); !slices.Equal(got, []string{"STOPPING=1"}) {
			t.Errorf("at the end systemd was told %q", got)
		}
	})
}

// The agent may take its time to stop, and is not killed for it by the watchdog; who cannot wait says so by a second signal.
func TestSecondSignal(t *testing.T) {
	path := write(t, "")
	synctest.Test(t, func(t *testing.T) {
		f := &fakeAgent{unstopping: make(chan struct{})}
		s := supervise(t, path, f)
		s.signals <- syscall.SIGTERM
		synctest.Wait()
		s.systemd.take()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(s.systemd.take()); n != 12 {
			t.Errorf("while it stops the watchdog is fed %d times a minute, want 12", n)
		}
		s.signals <- syscall.SIGINT
		if err := s.ended(t); !errors.Is(err, errImpatient) {
			t.Errorf("it ended with %v", err)
		}
		close(f.unstopping)
	})
}

// When the host goes down the agent ends its pods before it ends; when only the service is stopped it leaves them alone.
func TestHostGoesDown(t *testing.T) {
	path := write(t, "")
	synctest.Test(t, func(t *testing.T) {
		f := &fakeAgent{shutDown: make(chan struct{})}
		s := supervise(t, path, f)
		s.goingDown = true
		s.signals <- syscall.SIGTERM
		synctest.Wait()
		s.systemd.take()
		time.Sleep(40 * time.Second)
		synctest.Wait()
		select {
		case err := <-s.done:
			t.Fatalf("it ended before its pods had: %v", err)
		default:
		}
		if n := len(s.systemd.take()); n != 8 {
			t.Errorf("while pods end the watchdog is fed %d times in 40 s, want 8", n)
		}
		close(f.shutDown)
		if err := s.ended(t); err != nil || f.downs != 1 {
			t.Errorf("it ended with %v, and ended its pods %d times", err, f.downs)
		}

		f = &fakeAgent{}
		s = supervise(t, path, f)
		s.signals <- syscall.SIGTERM
		if err := s.ended(t); err != nil || f.downs != 0 {
			t.Errorf("a service that is stopped ended with %v, and ended its pods %d times", err, f.downs)
		}

		f = &fakeAgent{shutDown: make(chan struct{})}
		s = supervise(t, path, f)
		s.goingDown = true
		s.signals <- syscall.SIGTERM
		synctest.Wait()
		s.signals <- syscall.SIGTERM
		if err := s.ended(t); !errors.Is(err, errImpatient) {
			t.Errorf("a second signal ended it with %v", err)
		}
		close(f.shutDown)
	})
}

// A reload that is asked for too early comes when the agent is ready.
func TestHangupBeforeReady(t *testing.T) {
	path := write(t, "log: {level: warn}")
	synctest.Test(t, func(t *testing.T) {
		f := &fakeAgent{getReady: make(chan struct{})}
		s := supervise(t, path, f)
		s.signals <- syscall.SIGHUP
		s.signals <- syscall.SIGHUP
		time.Sleep(time.Minute)
		if got := s.systemd.take(); len(got) > 0 {
			t.Errorf("systemd was told %q before the agent was ready", got)
		}
		close(f.getReady)
		synctest.Wait()
		if got := f.taken(); got != "warn" {
			t.Errorf("it took %q", got)
		}
		s.signals <- syscall.SIGTERM
		if err := s.ended(t); err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
}

// Who stops an agent that is not ready yet need not wait for it.
func TestStopBeforeReady(t *testing.T) {
	path := write(t, "")
	synctest.Test(t, func(t *testing.T) {
		s := supervise(t, path, &fakeAgent{getReady: make(chan struct{})})
		s.signals <- syscall.SIGTERM
		if err := s.ended(t); err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
}

func TestFailures(t *testing.T) {
	path := write(t, "log: {format: json}")
	for name, c := range map[string]struct {
		agent *fakeAgent
		start func(agent.Config) (service, error)
		want  string
	}{
		"start": {start: func(agent.Config) (service, error) { return nil, errors.New("metrics.listen: address in use") }, want: "metrics.listen: address in use"},
		"run":   {agent: &fakeAgent{runErr: errors.New("cannot serve")}, want: "cannot serve"},
	} {
		start := c.start
		if start == nil {
			start = c.agent.start
		}
		var out, stderr output
		code := run([]string{"--config", path, "--runtime.loggerPath", testLogger}, process{stdout: &out, stderr: &stderr, start: start})
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		if last := lines[len(lines)-1]; code != 1 || last != "picketd: "+c.want || !strings.Contains(stderr.String(), `"level":"ERROR","msg":"picketd failed","error":"`+c.want+`"`) {
			t.Errorf("%s: code %d, stderr\n%s", name, code, stderr.String())
		}
	}
}

func TestUsage(t *testing.T) {
	t.Setenv(configEnv, write(t, ""))
	t.Setenv("PICKET_RUNTIME_LOGGERPATH", testLogger)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--version"}, 0, "picketd version dev\n"},
		{[]string{"run"}, 1, "picketd: unknown command \"run\" for \"picketd\"\n"},
		{[]string{"--api.lisen=x"}, 1, "picketd: unknown flag: --api.lisen\n"},
		{[]string{"check", "x"}, 1, "picketd: unknown command \"x\" for \"picketd check\"\n"},
		{[]string{"--config", "/nonexistent/f"}, 1, "picketd: /nonexistent/f: cannot be read: no such file or directory\n"},
		{[]string{"--log.LEVEL=x", "--log.format=y", "--node.name=n"}, 1, "flag --log.level: log.level: \"x\" is not one of debug, info, warn, error\n" +
			"flag --log.format: log.format: \"y\" is not one of text, json\npicketd: cannot start: 2 problems in the configuration\n"},
	} {
		var out output
		if code := run(c.args, process{stdout: &out, stderr: &out}); code != c.code || out.String() != c.want {
			t.Errorf("%q: code %d, %s", c.args, code, out.String())
		}
	}
}
