package main

import (
	"strings"
	"testing"

	"github.com/picketd/picket/agent"
)

// Loggers made before a change of level or format follow it.
func TestLogging(t *testing.T) {
	var out output
	l := newLogging(&out, false)
	node := l.With("node", "host-01").WithGroup("g")
	next := func() string { s := strings.TrimSpace(out.String()); out.buf.Reset(); return s }

	node.Debug("hidden")
	if got := next(); got != "" {
		t.Errorf("info shows debug: %s", got)
	}
	l.set(agent.LogConfig{Level: "debug", Format: "json"})
	node.Debug("shown", "pod", "p")
	if got := next(); !strings.HasSuffix(got, `"level":"DEBUG","msg":"shown","node":"host-01","g":{"pod":"p"}}`) || !strings.HasPrefix(got, `{"time":`) {
		t.Errorf("json: %s", got)
	}
	l.set(agent.LogConfig{Level: "error", Format: "text"})
	node.Warn("hidden")
	node.Error("shown", "pod", "p")
	if got := next(); !strings.HasPrefix(got, "time=") || !strings.HasSuffix(got, " level=ERROR msg=shown node=host-01 g.pod=p") {
		t.Errorf("text: %s", got)
	}
}

// The journal has the time already; JSON goes to machines, which want it inside.
func TestLoggingInJournal(t *testing.T) {
	var out output
	l := newLogging(&out, true)
	l.WithGroup("g").Info("x", "time", "late")
	if got := out.String(); got != "level=INFO msg=x g.time=late\n" {
		t.Errorf("text: %q", got)
	}
	out.buf.Reset()
	l.set(agent.LogConfig{Level: "info", Format: "json"})
	l.Info("x")
	if got := out.String(); !strings.HasPrefix(got, `{"time":`) {
		t.Errorf("json: %q", got)
	}
}
