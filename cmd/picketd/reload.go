package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

const (
	// settleFor is how long the file's directory must be quiet before the file is read, at most settleAtMost after the first
	// change: editors and Ansible write in several steps.
	settleFor    = 200 * time.Millisecond
	settleAtMost = 2 * time.Second
)

// reloader takes new configurations while the agent runs.
type reloader struct {
	source *source
	agent  service
	logs   *logging
	notify notifier
	status *status

	last    content // as it was last read
	lastErr string
}

// run reloads when it is told to (ordered), and when the file has another content after something changed, until ctx ends.
func (r *reloader) run(ctx context.Context, ordered, changed <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-ordered:
			r.reload(ctx, true)
		case <-changed:
			settle(ctx, changed)
			r.reload(ctx, false)
		}
	}
}

// settle returns when nothing has changed for a moment, or when it has gone on for too long.
func settle(ctx context.Context, changed <-chan struct{}) {
	quiet, enough := time.NewTimer(settleFor), time.NewTimer(settleAtMost)
	defer quiet.Stop()
	defer enough.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-quiet.C:
			return
		case <-enough.C:
			return
		case <-changed:
			quiet.Reset(settleFor)
		}
	}
}

// reload reads the file and takes it over or says why not.
func (r *reloader) reload(ctx context.Context, ordered bool) {
	now, err := r.source.read()
	if err == nil {
		err = r.lost(now, ordered)
	}
	if !ordered && r.known(now, err) || ctx.Err() != nil {
		return
	}
	r.notify.send(reloading())
	defer r.ready(ctx)
	r.lastErr = ""
	if err != nil {
		r.lastErr = err.Error()
		r.refuse([]string{err.Error()})
		return
	}
	r.last = now
	l := r.source.resolve(now)
	for _, text := range l.warnings {
		r.logs.Warn(text)
	}
	if len(l.problems) > 0 {
		r.refuse(texts(l.problems))
		return
	}
	r.take(l)
}

// lost finds a file that has gone, or that lost its content without anybody ordering a reload: that is more often a file half
// written, or a slip, than the wish for nothing but defaults.
func (r *reloader) lost(now content, ordered bool) error {
	switch {
	case now.path == "" && r.last.path != "":
		return errors.New(r.last.path + ": is gone")
	case !ordered && len(bytes.TrimSpace(now.data)) == 0 && len(bytes.TrimSpace(r.last.data)) > 0:
		return errors.New(now.path + ": is empty; a reload by hand (SIGHUP) takes it nevertheless")
	}
	return nil
}

// known tells that nothing is new since the last time.
func (r *reloader) known(now content, err error) bool {
	if err != nil {
		return err.Error() == r.lastErr
	}
	return r.lastErr == "" && now.path == r.last.path && bytes.Equal(now.data, r.last.data)
}

// ready ends what reloading began; not when the agent is about to stop, which is no state of being ready.
func (r *reloader) ready(ctx context.Context) {
	if ctx.Err() == nil {
		r.notify.send(daemon.SdNotifyReady)
	}
}

// take hands a good configuration to the agent and to the log.
func (r *reloader) take(l loaded) {
	l.config.Logger = r.logs.Logger
	restart, err := r.agent.Reload(l.config)
	if err != nil {
		r.refuse([]string{err.Error()})
		return
	}
	r.logs.set(l.config.Log)
	r.agent.Reloaded(nil)
	r.logs.Info("configuration reloaded", "file", l.config.File)
	note := ""
	for _, key := range restart {
		r.logs.Warn("a changed key needs a restart", "key", key)
	}
	if len(restart) > 0 {
		note = "needs a restart for " + strings.Join(restart, ", ")
	}
	r.status.setNote(note)
}

// refuse keeps the old configuration and says so everywhere.
func (r *reloader) refuse(problems []string) {
	for _, text := range problems {
		r.logs.Error("the new configuration is refused; the old one stays", slog.String("problem", oneLine(text)))
	}
	r.agent.Reloaded(errors.New(strings.Join(problems, "\n")))
	r.status.setNote("the new configuration is refused: " + problems[0])
}

func texts(problems []problem) []string {
	list := make([]string, len(problems))
	for i, p := range problems {
		list[i] = p.String()
	}
	return list
}
