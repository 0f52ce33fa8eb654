package agent

import (
	"context"
	"errors"
	"time"
)

// ErrLeft is how Run ends after Leave.
var ErrLeft = errors.New("this host has left the fleet")

// Leave takes this host out of the fleet: its pods stop, the others hear that it left, and Run ends. When ctx ends first, it goes on.
func (a *Agent) Leave(ctx context.Context) error {
	a.leaving.Do(func() { go a.leave() })
	select {
	case <-a.left:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *Agent) leave() {
	ctx := context.Background()
	if a.loop.do(ctx, func() error { a.loop.leaving = true; a.loop.setOut(); return nil }) != nil {
		return
	}
	for {
		running := 0
		if a.loop.do(ctx, func() error { running = len(a.loop.pods.byUID); return nil }) != nil {
			return // the agent ends anyway
		}
		if running == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err := a.fleet.leave(ctx); err != nil {
		a.log.Error("other hosts were not told that this one leaves", "error", err)
	}
	close(a.left)
}
