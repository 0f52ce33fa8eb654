package runtime

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestSharedPulls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sharedPulls
		calls := 0
		answer := make(chan fetched)
		pull := func(ctx context.Context) (fetched, error) {
			calls++
			select {
			case f := <-answer:
				return f, nil
			case <-ctx.Done():
				return fetched{}, ctx.Err()
			}
		}
		type result struct {
			fetched
			err error
		}
		results := make(chan result)
		ask := func(ctx context.Context, key string) {
			go func() {
				f, err := s.do(ctx, key, pull)
				results <- result{f, err}
			}()
			synctest.Wait()
		}
		first, leave := context.WithCancel(t.Context())
		ask(first, "a")
		ask(t.Context(), "a")
		ask(t.Context(), "b")
		if calls != 2 {
			t.Fatalf("%d pulls for two keys", calls)
		}
		// Who started it leaves; it goes on for the others.
		leave()
		if r := <-results; !errors.Is(r.err, context.Canceled) {
			t.Fatal(r.err)
		}
		answer <- fetched{digest: "one"}
		answer <- fetched{digest: "two"}
		for range 2 {
			if r := <-results; r.err != nil || r.digest == "" {
				t.Fatal(r)
			}
		}
		// The last to leave ends it, and who comes then starts anew.
		last, leave := context.WithCancel(t.Context())
		ask(last, "a")
		leave()
		<-results
		ask(t.Context(), "a")
		answer <- fetched{digest: "three"}
		if r := <-results; r.err != nil || r.digest != "three" || calls != 4 {
			t.Fatal(r, calls)
		}
		synctest.Wait()
		if len(s.byKey) != 0 {
			t.Errorf("left: %v", s.byKey)
		}
	})
}
