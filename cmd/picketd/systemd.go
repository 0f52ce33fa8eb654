package main

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// statusEvery is how often systemctl status may get a new line.
const statusEvery = 5 * time.Second

// notifier tells the service manager something: lines as in sd_notify(3). nil when there is no service manager.
type notifier func(state string)

func (n notifier) send(state string) {
	if n != nil {
		n(state)
	}
}

// newNotifier speaks to systemd, if that has started us.
func newNotifier(log *slog.Logger) notifier {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	var once sync.Once
	return func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			once.Do(func() { log.Warn("cannot tell systemd how things are", "error", err) })
		}
	}
}

// hostGoesDown says whether systemd stops this service because it stops the host. No D-Bus is needed for that, and it knows of every
// way a host can go down. (The kubelet's way, a lock of logind's that delays a shutdown, is bounded by InhibitDelayMaxSec, 5 s unless
// an administrator raises it for all, and knows only of shutdowns that logind was asked for.)
func hostGoesDown(booted string) bool {
	if _, err := os.Lstat(booted); err != nil {
		return false // no systemd
	}
	ctx, cancel := context.WithTimeout(context.Background(), askSystemdWithin)
	defer cancel()
	state, _ := exec.CommandContext(ctx, "systemctl", "is-system-running").Output() // all but "running" end with an exit code
	return strings.TrimSpace(string(state)) == "stopping"
}

// systemdBooted is there when systemd runs the host: sd_booted(3).
const systemdBooted = "/run/systemd/system"

// askSystemdWithin bounds a question to a systemd that is busy with stopping everything.
const askSystemdWithin = 5 * time.Second

// reloading is what systemd wants to hear at the begin of a reload; SdNotifyReady ends it.
func reloading() string { return daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec() }

// feedWatchdog tells systemd that the agent is alive, twice per interval, until ctx ends. When alive says it is not, systemd
// hears nothing and, after the interval, kills and restarts it; what runs goes on running.
func feedWatchdog(ctx context.Context, interval time.Duration, alive func() error, notify notifier, log *slog.Logger) {
	ticker := time.NewTicker(interval / 2)
	defer ticker.Stop()
	for {
		if err := alive(); err != nil {
			log.Error("not alive: systemd is not told otherwise and will restart the agent", "error", err)
		} else {
			notify.send(daemon.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// status is the line that systemctl status shows.
type status struct {
	summary func() string
	notify  notifier

	mu   sync.Mutex
	note string // what an administrator should know besides
	told string
}

// setNote adds something to the line; "" takes it away.
func (s *status) setNote(text string) {
	s.mu.Lock()
	s.note = text
	s.mu.Unlock()
	s.tell()
}

// tell sends the line when it has changed.
func (s *status) tell() {
	line := s.summary()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.note != "" {
		line += "; " + s.note
	}
	if line = "STATUS=" + oneLine(line); line != s.told {
		s.told = line
		s.notify.send(line)
	}
}

// run keeps the line current until ctx ends.
func (s *status) run(ctx context.Context) {
	ticker := time.NewTicker(statusEvery)
	defer ticker.Stop()
	for {
		s.tell()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
