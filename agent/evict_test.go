package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/runtime/runtimetest"
)

// measuring runs the measuring of pods on a host until the test ends it.
func (h *testHost) measuring() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	a := &Agent{loop: h.loop, runtime: h.fake, log: slog.New(slog.DiscardHandler)}
	done := make(chan struct{})
	go func() { defer close(done); a.watchStorage(ctx) }()
	return func() { cancel(); <-done }
}

const scratch = `volumes: [{name: scratch, emptyDir: {sizeLimit: 1Mi}}]`

// fill puts 2 MiB into the pod's emptyDir.
func (h *testHost) fill(p *corev1.Pod) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.cfg.podsDir(), string(p.UID), "volumes", "scratch", "file"), make([]byte, 2<<20), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// A pod that outgrows its emptyDir is evicted, removed as a failed daemon pod, and made anew; when that happens again and again, at
// ever longer intervals.
func TestEvictedForItsEmptyDir(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		defer h.measuring()()
		h.apply(webOf("busybox:1", scratch))
		first := h.onlyPod()
		h.after(time.Minute)
		if p := h.onlyPod(); p.UID != first.UID {
			t.Fatalf("%+v", p.Status)
		}
		h.fake.SetDeaf("web-0") // it does not hear its stop signal, and has a second
		h.fill(first)
		h.after(storageEvery)
		const message = `Usage of EmptyDir volume "scratch" exceeds the limit "1Mi". `
		p := h.onlyPod()
		if p.UID != first.UID || p.Status.Reason != "Evicted" || p.Status.Message != message || p.Status.Phase != corev1.PodRunning || p.DeletionTimestamp != nil {
			t.Errorf("while it ends: %+v", p.Status)
		}
		h.after(evictionGrace)
		second := h.onlyPod()
		if second.UID == first.UID || !podReady(second) || second.Status.Reason != "" {
			t.Errorf("afterwards: %s %+v", second.UID, second.Status)
		}
		if got := h.eventsOf("Evicted"); len(got) != 1 || got[0] != message {
			t.Errorf("%q", got)
		}
		if got := h.eventsOf("FailedDaemonPod"); len(got) != 1 || !strings.Contains(got[0], "Found failed daemon pod default/"+first.Name) {
			t.Errorf("%q", got)
		}
		if _, err := os.Stat(filepath.Join(h.cfg.podsDir(), string(first.UID))); !os.IsNotExist(err) {
			t.Errorf("its files are left: %v", err)
		}
		uids, failedFor := map[string]bool{}, time.Duration(0)
		for range 120 { // two minutes
			p := h.onlyPod()
			if uids[string(p.UID)] = true; podReady(p) {
				h.fill(p)
			}
			if p.Status.Phase == corev1.PodFailed {
				failedFor += time.Second
				if p.Status.Reason != "Evicted" || len(h.running()) != 0 {
					t.Fatalf("%+v, %d run", p.Status, len(h.running()))
				}
			}
			h.after(time.Second)
		}
		if len(uids) < 4 || len(uids) > 7 || failedFor < 20*time.Second {
			t.Errorf("%d pods in two minutes, failed for %s", len(uids), failedFor)
		}
	})
}

// A failed pod stays one over a restart of the agent, and ends with its DaemonSet.
func TestEvictedOverARestart(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", scratch))
		for range 8 { // the back-off has grown to minutes
			p := h.onlyPod()
			if err := h.do(func() error { return h.loop.evict(p.UID, "It took too much. ") }); err != nil {
				t.Fatal(err)
			}
			h.after(evictionGrace)
		}
		failed := h.onlyPod()
		if failed.Status.Phase != corev1.PodFailed {
			t.Fatalf("%+v", failed.Status)
		}
		h.stop()
		h.fake.Take()
		h.boot()
		if p := h.onlyPod(); p.UID != failed.UID || p.Status.Phase != corev1.PodFailed || p.Status.Reason != "Evicted" || len(h.running()) != 0 {
			t.Errorf("%+v, %d run", p.Status, len(h.running()))
		}
		for _, call := range h.fake.Take() {
			if strings.HasPrefix(call, "start") {
				t.Errorf("the restarted agent did: %s", call)
			}
		}
		if err := h.delete(resourceDaemonSets, "default", "web"); err != nil {
			t.Fatal(err)
		}
		if pods := h.pods(); len(pods) != 0 || len(h.loop.pods.byUID) != 0 {
			t.Errorf("left: %s", names(pods))
		}
	})
}

// Containers are measured with their logs and what they write beside their volumes; critical pods are told of, and left alone.
func TestEvictedForItsContainers(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		defer h.measuring()()
		limited := strings.Replace(webOf("busybox:1", ""), `image: "busybox:1"`, `image: "busybox:1", resources: {limits: {ephemeral-storage: 1Mi}}`, 1)
		h.apply(limited)
		first := h.onlyPod()
		h.fake.SetLayer("web-0", 1<<20-8192) // the directory of its logs counts
		h.after(storageSeldom)
		if p := h.onlyPod(); p.UID != first.UID {
			t.Fatalf("at its limit: %+v", p.Status)
		}
		logs := filepath.Join(h.cfg.Runtime.PodLogs, "default_"+first.Name+"_"+string(first.UID), "web")
		if err := os.MkdirAll(logs, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(logs, "0.log"), make([]byte, 8192), 0o600); err != nil {
			t.Fatal(err)
		}
		h.after(storageSeldom)
		if got := h.eventsOf("Evicted"); len(got) == 0 || got[0] != "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. " {
			t.Errorf("%q", got)
		}
		h.fake.SetLayer("web-0", 0)
		h.after(time.Hour)

		h.apply(strings.ReplaceAll(strings.Replace(limited, "hostNetwork", "priorityClassName: system-node-critical\n      hostNetwork", 1), "web", "critical"))
		h.after(time.Second)
		h.fake.SetLayer("critical-0", 2<<20)
		h.after(10 * time.Minute)
		if got := h.eventsOf("NotEvicted"); len(got) != 1 || len(h.running()) != 2 {
			t.Errorf("%q, %d run", got, len(h.running()))
		}
	})
}

// Pods without a limit are not measured.
func TestUnlimitedPodsAreNotMeasured(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", "volumes: [{name: scratch, emptyDir: {}}]"))
		a := &Agent{loop: h.loop, runtime: asks{h.fake, t}, log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); a.watchStorage(ctx) }()
		h.after(time.Hour)
		cancel()
		<-done
	})
}

// asks fails a test when a container is measured.
type asks struct {
	*runtimetest.Fake
	t *testing.T
}

func (a asks) LayerUsage(context.Context, string) (int64, error) {
	a.t.Error("measured")
	return 0, nil
}
