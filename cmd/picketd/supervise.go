package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/picketd/picket/agent"
)

// service is the agent, as far as this command needs it.
type service interface {
	Run(ctx context.Context, ready func()) error
	Reload(cfg agent.Config) (restart []string, err error)
	Reloaded(err error)
	Alive() error
	Summary() string
	ShutDown(ctx context.Context)
}

// supervisor keeps one agent between the signals, systemd and the configuration file.
type supervisor struct {
	process
	source *source
	logs   *logging
	notify notifier
	first  content // what the agent is started with

	ordered    chan struct{} // SIGHUP
	watchdog   time.Duration // 0: systemd wants none
	watch      func(ctx context.Context, path string, log *slog.Logger) <-chan struct{}
	goingDown  func() bool // the host is
	background sync.WaitGroup
}

func newSupervisor(s *source, p process, logs *logging, notify notifier, first content) *supervisor {
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		logs.Warn("systemd's watchdog is not fed", "error", err)
	}
	return &supervisor{
		process: p, source: s, logs: logs, notify: notify, first: first,
		ordered: make(chan struct{}, 1), watchdog: watchdog, watch: watch, goingDown: func() bool { return hostGoesDown(systemdBooted) },
	}
}

// errImpatient is the end by a second signal; the process exits without waiting for anything.
var errImpatient = errors.New("stopped by a second signal before everything was closed")

// run starts the agent and returns when it has ended.
func (d *supervisor) run(cfg agent.Config) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.work(ctx, cfg) }()
	for {
		select {
		case err := <-done:
			return err
		case sig := <-d.signals:
			switch {
			case sig == syscall.SIGHUP:
				d.order()
			case ctx.Err() != nil:
				return errImpatient
			default:
				d.logs.Info("stopping", "signal", sig.String())
				d.notify.send(daemon.SdNotifyStopping)
				cancel()
			}
		}
	}
}

// order asks for a reload; one that is waiting will read what is there then.
func (d *supervisor) order() {
	select {
	case d.ordered <- struct{}{}:
	default:
	}
}

// work is the agent's life. What goes on beside it ends with it.
func (d *supervisor) work(ctx context.Context, cfg agent.Config) error {
	a, err := d.start(cfg)
	if err != nil {
		return err
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx)) // the agent may take a while to stop: its watchdog is fed till then
	defer d.background.Wait()
	defer end()
	err = a.Run(d.whole(ctx, life, a), func() { d.ready(ctx, life, a) })
	switch {
	case errors.Is(err, agent.ErrLeft):
		return nil // picket leave: systemd leaves it at that
	case err == nil && ctx.Err() == nil:
		return errors.New("the agent ended by itself")
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return nil
	}
	return err
}

// whole is how long the agent runs: until ctx ends and, when that is because the host goes down, its pods have ended too. systemd stops
// it before containerd, on which it depends.
func (d *supervisor) whole(ctx, life context.Context, a service) context.Context {
	whole, end := context.WithCancel(life)
	d.background.Go(func() {
		defer end()
		select {
		case <-life.Done():
			return
		case <-ctx.Done():
		}
		if d.goingDown() {
			a.ShutDown(life)
		}
	})
	return whole
}

// ready is called once the agent works.
func (d *supervisor) ready(ctx, life context.Context, a service) {
	d.notify.send(daemon.SdNotifyReady)
	st := &status{summary: a.Summary, notify: d.notify}
	if d.notify != nil {
		d.background.Go(func() { st.run(life) })
	}
	if d.notify != nil && d.watchdog > 0 {
		d.background.Go(func() { feedWatchdog(life, d.watchdog, a.Alive, d.notify, d.logs.Logger) })
	}
	r := &reloader{source: d.source, agent: a, logs: d.logs, notify: d.notify, status: st, last: d.first}
	path, _, err := d.source.file()
	if err != nil {
		return // cannot be: the file was found a moment ago
	}
	// Nobody waits for it: a reload asks the agent's loop, which does not answer any more when it ends.
	go r.run(ctx, d.ordered, d.watch(ctx, path, d.logs.Logger))
}
