package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/klog/v2"
)

// Deadlines of requests that do not last.
const (
	readWithin  = time.Minute
	writeWithin = 2 * time.Minute
)

// serve answers every request: it finds out who calls and what is asked for, checks the role, and turns errors into Statuses.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.active.Add(1)
	defer s.active.Done()
	defer s.recover(w, r)
	now := time.Now()
	setDeadlines(w, now.Add(readWithin), now.Add(writeWithin))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if handler := s.open(r.URL.Path); handler != nil {
		handler(w, r)
		return
	}
	if err := s.answerAs(w, r); err != nil {
		writeError(w, err)
	}
}

func (s *Server) answerAs(w http.ResponseWriter, r *http.Request) error {
	if strings.HasPrefix(r.URL.Path, pathPeers) {
		return s.servePeer(w, r)
	}
	user, err := s.identify(r)
	if err != nil {
		return err
	}
	return s.answer(w, &call{Request: r, user: user})
}

// open finds the paths that need no certificate.
func (s *Server) open(path string) http.HandlerFunc {
	switch path {
	case "/healthz":
		return checkHandler(s.healthz)
	case "/readyz":
		return checkHandler(s.readyz)
	case "/version":
		return func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, s.version) }
	}
	return nil
}

func checkHandler(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if check != nil {
			if err := check(); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = fmt.Fprintln(w, err)
				return
			}
		}
		_, _ = w.Write([]byte("ok"))
	}
}

func (s *Server) answer(w http.ResponseWriter, c *call) error {
	c.parsePath()
	c.setVerb()
	if c.resource == nil {
		if err := c.authorize(); err != nil {
			return err
		}
		if a := s.actionOf(c.URL.Path); a != nil {
			return s.act(w, c, a)
		}
		if name, ok := whyOf(c.URL.Path); ok {
			return s.why(w, c, name)
		}
		if describes := describe(c.URL.Path); describes != nil {
			describes(w, c.Request)
			return nil
		}
		return errNoSuchPath()
	}
	if c.user.anonymous {
		return c.authorize()
	}
	if err := c.served(); err != nil {
		return err
	}
	if err := c.authorize(); err != nil {
		return err
	}
	var err error
	if c.form, err = negotiate(c.Header.Get("Accept"), c.URL.Query()); err != nil && !c.streams() {
		return err
	}
	release, err := s.admit(w, c)
	if err != nil {
		return err
	}
	defer release()
	return s.handle(w, c)
}

// streams tells answers that are no objects: their Accept is not ours to judge.
func (c *call) streams() bool {
	return c.sub != nil && (c.sub.Name == "log" || c.sub.Name == "exec")
}

// admit waits for nothing: it takes a slot, or says that there are too many requests.
func (s *Server) admit(w http.ResponseWriter, c *call) (release func(), err error) {
	slots := s.short
	if c.longRunning() {
		slots = s.long
		setDeadlines(w, time.Time{}, time.Time{})
	}
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	default:
		return nil, apierrors.NewTooManyRequests("Too many requests, please try again later.", 1)
	}
}

// setDeadlines bounds what a client may take. They stay with an HTTP/1 connection, so every request sets its own.
func setDeadlines(w http.ResponseWriter, read, write time.Time) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(read) // not supported only by the recorders of tests
	_ = rc.SetWriteDeadline(write)
}

// recover turns a panic into a 500 for this client; the others are served on.
func (s *Server) recover(w http.ResponseWriter, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p) // the way to cut a connection
	}
	s.log.Error("panic in a request", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
	writeError(w, apierrors.NewInternalError(fmt.Errorf("%v", p)))
}

// routeKlog sends what libraries log with klog to our logger, all as debug messages: they complain about every client that hangs up.
// What they themselves call verbose stays out: at its highest levels it is the bodies of requests, Secrets included.
// klog's logger may only be set while nobody logs: of several servers in a process the first has it.
func routeKlog(log *slog.Logger) {
	klogOnce.Do(func() { klog.SetSlogLogger(slog.New(debugHandler{log.Handler()})) })
}

var klogOnce sync.Once

type debugHandler struct{ slog.Handler }

func (h debugHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo && h.Handler.Enabled(ctx, slog.LevelDebug)
}

func (h debugHandler) Handle(ctx context.Context, r slog.Record) error {
	if !h.Handler.Enabled(ctx, slog.LevelDebug) {
		return nil // klog does not ask before it logs an error
	}
	r.Level = slog.LevelDebug
	return h.Handler.Handle(ctx, r)
}

func (h debugHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return debugHandler{h.Handler.WithAttrs(attrs)}
}

func (h debugHandler) WithGroup(name string) slog.Handler {
	return debugHandler{h.Handler.WithGroup(name)}
}
