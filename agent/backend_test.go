package agent

import (
	"context"
	"errors"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/picketd/picket/agent/api"
)

// A client that goes away leaves nothing behind that the loop and its handler both write (for the race detector).
func TestClientGoesAway(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		b := &backend{loop: h.loop}
		for range 100 {
			ctx, cancel := context.WithCancel(t.Context())
			go cancel()
			_, err := b.Write(ctx, api.Write{Resource: resourceDaemonSets, Namespace: "default", Name: "web", Author: "tester"})
			if !apierrors.IsNotFound(err) && !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
		}
	})
}

// Who asks while the agent ends hears so at once, in a way that clients understand as "try again".
func TestCallsAfterTheEnd(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		b := &backend{loop: h.loop}
		_, err := b.Write(ctx, api.Write{Resource: resourceDaemonSets, Namespace: "default", Name: "web", Author: "tester"})
		if !apierrors.IsServiceUnavailable(err) {
			t.Errorf("%v", err)
		}
	})
}
