package main

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"

	"github.com/picketd/picket/agent"
)

// logging is the agent's log, whose level and format change while it runs.
type logging struct {
	level  slog.LevelVar
	asJSON atomic.Bool
	*slog.Logger
}

// newLogging logs to w. In the journal, which keeps the time of every line, text lines have none of their own.
func newLogging(w io.Writer, journal bool) *logging {
	l := &logging{}
	text := &slog.HandlerOptions{Level: &l.level}
	if journal {
		text.ReplaceAttr = withoutTime
	}
	l.Logger = slog.New(&switchingHandler{
		asJSON: &l.asJSON, text: slog.NewTextHandler(w, text), json: slog.NewJSONHandler(w, &slog.HandlerOptions{Level: &l.level}),
	})
	return l
}

// set takes a configuration that was checked.
func (l *logging) set(cfg agent.LogConfig) {
	var level slog.Level
	if level.UnmarshalText([]byte(cfg.Level)) == nil {
		l.level.Set(level)
	}
	l.asJSON.Store(cfg.Format == "json")
}

func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// switchingHandler keeps a handler of either format, so that loggers made before a change follow it too.
type switchingHandler struct {
	asJSON     *atomic.Bool
	text, json slog.Handler
}

func (h *switchingHandler) current() slog.Handler {
	if h.asJSON.Load() {
		return h.json
	}
	return h.text
}

func (h *switchingHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.current().Enabled(ctx, level)
}

func (h *switchingHandler) Handle(ctx context.Context, r slog.Record) error {
	return h.current().Handle(ctx, r)
}

func (h *switchingHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &switchingHandler{asJSON: h.asJSON, text: h.text.WithAttrs(attrs), json: h.json.WithAttrs(attrs)}
}

func (h *switchingHandler) WithGroup(name string) slog.Handler {
	return &switchingHandler{asJSON: h.asJSON, text: h.text.WithGroup(name), json: h.json.WithGroup(name)}
}
