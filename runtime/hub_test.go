package runtime

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
)

// collect reads what a subscription has until it is quiet.
func collect(events <-chan Event) (got []string) {
	for {
		synctest.Wait()
		select {
		case e, ok := <-events:
			if !ok {
				return append(got, "closed")
			}
			got = append(got, string(e.Kind)+" "+e.ContainerID)
		default:
			return got
		}
	}
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Each subscription hears of the connection first, whenever it comes, then of everything in order, until it ends.
func TestSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Runtime{hub: newHub()}
		early := r.Subscribe(t.Context())
		expect(t, collect(early))
		r.hub.publish(Event{Kind: EventConnected})
		ctx, cancel := context.WithCancel(t.Context())
		late := r.Subscribe(ctx)
		r.hub.publish(Event{Kind: EventExit, ContainerID: "a"})
		expect(t, collect(early), "connected ", "exit a")
		expect(t, collect(late), "connected ", "exit a")
		cancel()
		synctest.Wait()
		r.hub.publish(Event{Kind: EventDisconnected})
		expect(t, collect(late), "closed")
		if len(r.hub.readers) != 1 {
			t.Errorf("%d readers are left", len(r.hub.readers))
		}
		none := r.Subscribe(t.Context())
		expect(t, collect(none))
		r.hub.close()
		expect(t, collect(early), "disconnected ", "closed")
		expect(t, collect(none), "closed")
		expect(t, collect(r.Subscribe(t.Context())), "closed")
	})
}

// A reader that does not read costs a bounded queue; what it missed is one "list anew", and it is counted.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Runtime{hub: newHub()}
		slow, quick := r.Subscribe(t.Context()), r.Subscribe(t.Context())
		r.hub.publish(Event{Kind: EventConnected})
		collect(quick)
		r.hub.publish(Event{Kind: EventExit, ContainerID: "first"})
		synctest.Wait() // slow has taken the connection and holds it out
		for i := range queueLimit {
			r.hub.publish(Event{Kind: EventExit, ContainerID: fmt.Sprint(i)})
			collect(quick)
		}
		r.hub.publish(Event{Kind: EventExit, ContainerID: "last"})
		expect(t, collect(slow), "connected ", "connected ", "exit last")
		expect(t, collect(quick), "exit last")
		if n := r.Overflows(); n != 1 {
			t.Errorf("%d overflows", n)
		}
		r.hub.close()
		synctest.Wait()
	})
}
