package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/picketd/picket/agent/api"
)

// A pod that was told to stop while the clock was a year ahead has its grace period after the next start, no more.
func TestStopByAClockThatWasAhead(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		h.fake.SetDeaf("web-0")
		first := h.onlyPod()
		if err := h.do(func() error {
			return h.loop.pods.stop(first.UID, nil, "test", time.Now().AddDate(1, 0, 0))
		}); err != nil {
			t.Fatal(err)
		}
		h.stop()
		h.boot()
		h.after(29 * time.Second)
		if h.onlyPod().UID != first.UID {
			t.Error("killed before its time was over")
		}
		h.after(2 * time.Second)
		if p := h.onlyPod(); p.UID == first.UID || !podReady(p) {
			t.Errorf("still there: %s, to end %v", p.Name, p.DeletionTimestamp)
		}
	})
}

// Exits are dated by containerd. When its clock was ahead, back-off is no longer for it.
func TestExitByAClockThatWasAhead(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		for i := range 4 {
			running := h.running()
			if len(running) != 1 {
				t.Errorf("exit %d: not started again", i)
				return
			}
			e := h.fake.QuietExit(running[0].ID, 1)
			e.At = e.At.AddDate(1, 0, 0)
			h.fake.Emit(e)
			h.after(41 * time.Second)
		}
	})
}

// What a restarted agent reads of the next attempt may have been written when the clock was ahead.
func TestBackOffByAClockThatWasAhead(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		for range 2 {
			h.fake.Exit(h.running()[0].ID, 1)
			h.quiet()
		}
		h.stop()
		path := filepath.Join(h.cfg.podsDir(), string(h.onlyPod().UID), "status.json")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		ahead := strings.ReplaceAll(string(text), `"notBefore":"2000-`, `"notBefore":"2031-`)
		if ahead == string(text) {
			t.Fatalf("no time to change in %s", text)
		}
		if err := os.WriteFile(path, []byte(ahead), 0o600); err != nil {
			t.Fatal(err)
		}
		h.boot()
		h.after(6 * time.Minute)
		if len(h.running()) != 1 {
			t.Error("not started again")
		}
	})
}

// A grace period longer than a time.Duration is a long one.
func TestEndlessGracePeriod(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", "terminationGracePeriodSeconds: 9223372037"))
		h.fake.SetDeaf("web-0")
		first := h.onlyPod()
		if err := h.delete(resourcePods, "default", first.Name); err != nil {
			t.Fatal(err)
		}
		h.after(time.Hour)
		if p := h.onlyPod(); p.UID != first.UID {
			t.Fatal("killed at once")
		}
		now := int64(0)
		if _, err := h.write(api.Write{Resource: resourcePods, Namespace: "default", Name: first.Name, GracePeriodSeconds: &now}); err != nil {
			t.Fatal(err)
		}
		h.after(time.Minute)
		if h.onlyPod().UID == first.UID {
			t.Error("cannot be hurried")
		}
	})
}
