package runtime

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"
)

// fetched is what came of asking a registry.
type fetched struct {
	digest digest.Digest
	pulled bool // it was not present before
}

// sharedPulls lets all that want the same with the same logins wait for one pull. It ends early when nobody waits any more.
type sharedPulls struct {
	mu    sync.Mutex
	byKey map[string]*sharedPull
}

type sharedPull struct {
	waiting int
	cancel  context.CancelFunc
	done    chan struct{} // closed when the two below are set
	result  fetched
	err     error
}

// do returns what pull does, or ctx's error. pull's context has ctx's values and outlives it while others wait.
func (s *sharedPulls) do(ctx context.Context, key string, pull func(context.Context) (fetched, error)) (fetched, error) {
	p := s.join(ctx, key, pull)
	select {
	case <-p.done:
		return p.result, p.err
	case <-ctx.Done():
		s.leave(key, p)
		return fetched{}, ctx.Err()
	}
}

func (s *sharedPulls) join(ctx context.Context, key string, pull func(context.Context) (fetched, error)) *sharedPull {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.byKey[key]; p != nil {
		p.waiting++
		return p
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := &sharedPull{waiting: 1, cancel: cancel, done: make(chan struct{})}
	if s.byKey == nil {
		s.byKey = map[string]*sharedPull{}
	}
	s.byKey[key] = p
	go func() {
		defer cancel()
		p.result, p.err = pull(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.forget(key, p)
		close(p.done)
	}()
	return p
}

// leave ends a pull that nobody waits for. Who comes now starts anew.
func (s *sharedPulls) leave(key string, p *sharedPull) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.waiting--; p.waiting == 0 {
		s.forget(key, p)
		p.cancel()
	}
}

// forget needs the lock.
func (s *sharedPulls) forget(key string, p *sharedPull) {
	if s.byKey[key] == p {
		delete(s.byKey, key)
	}
}
