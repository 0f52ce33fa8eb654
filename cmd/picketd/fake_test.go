package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/picketd/picket/agent"
)

// fakeAgent is an agent that runs nothing and remembers what it was told.
type fakeAgent struct {
	restart    []string
	reloadErr  error
	runErr     error         // Run ends with it at once
	getReady   chan struct{} // it is not ready before it is closed
	unstopping chan struct{} // Run does not end before it is closed

	mu       sync.Mutex
	started  agent.Config
	reloads  []agent.Config
	reloaded []error
	dead     error
	summary  string
	shutDown chan struct{} // ShutDown takes until it is closed
	downs    int           // how often ShutDown was called
}

func (f *fakeAgent) start(cfg agent.Config) (service, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.started = cfg
	if cfg.Logger == nil {
		return nil, errors.New("no logger")
	}
	return f, nil
}

func (f *fakeAgent) Run(ctx context.Context, ready func()) error {
	if f.runErr != nil {
		return f.runErr
	}
	if f.getReady != nil {
		select {
		case <-f.getReady:
		case <-ctx.Done():
			return nil
		}
	}
	ready()
	<-ctx.Done()
	if f.unstopping != nil {
		<-f.unstopping
	}
	return nil
}

func (f *fakeAgent) Reload(cfg agent.Config) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reloads = append(f.reloads, cfg)
	return f.restart, f.reloadErr
}

func (f *fakeAgent) Reloaded(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reloaded = append(f.reloaded, err)
}

func (f *fakeAgent) Alive() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

func (f *fakeAgent) Summary() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.summary
}

func (f *fakeAgent) ShutDown(ctx context.Context) {
	f.set(func(f *fakeAgent) { f.downs++ })
	select {
	case <-f.shutDown:
	case <-ctx.Done():
	}
}

func (f *fakeAgent) set(change func(*fakeAgent)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// taken are the log levels of the configurations it was given: what the tests change.
func (f *fakeAgent) taken() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var levels []string
	for _, c := range f.reloads {
		levels = append(levels, c.Log.Level)
	}
	return strings.Join(levels, " ")
}

// refusals are the configurations that were not taken.
func (f *fakeAgent) refusals() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, err := range f.reloaded {
		if err != nil {
			n++
		}
	}
	return n
}

// output is a log to read while it is written.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// told is what systemd would have heard, a message an element.
type told struct {
	mu   sync.Mutex
	list []string
}

func (s *told) notify(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, state)
}

// take returns what was told since the last time.
func (s *told) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.list
	s.list = nil
	return list
}
