package agent

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// shutDown has the host go down; the channel is closed when its agent would end.
func (h *testHost) shutDown() <-chan struct{} {
	a := &Agent{loop: h.loop, runtime: h.fake, log: slog.New(slog.DiscardHandler)}
	done := make(chan struct{})
	go func() { defer close(done); a.ShutDown(context.Background()) }()
	h.quiet()
	return done
}

// ended says whether the shutdown is over.
func ended(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

func named(name, extra string) string {
	return strings.ReplaceAll(webOf("busybox:1", extra), "web", name)
}

// Pods get their grace period when the host goes down, critical ones after the others; nothing takes their place. After the boot they
// are there again, as new ones: nothing has failed.
func TestShutdown(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(named("web", ""))
		h.apply(named("short", "terminationGracePeriodSeconds: 5"))
		h.apply(named("long", "terminationGracePeriodSeconds: 3600"))
		h.apply(named("critical", "priorityClassName: system-node-critical"))
		h.apply(named("cluster", "priorityClassName: system-cluster-critical"))
		for _, name := range []string{"short-0", "long-0", "cluster-0"} {
			h.fake.SetDeaf(name)
		}
		before := map[string]bool{}
		for _, p := range h.pods() {
			before[string(p.UID)] = true
		}
		h.fake.Take()
		down := time.Now()
		done := h.shutDown()
		ready := conditionOf(h.node(), corev1.NodeReady)
		if ready.Status != corev1.ConditionFalse || ready.Message != "node is shutting down" || h.eventsOf("Shutdown") == nil {
			t.Errorf("%+v", ready)
		}
		h.after(shutdownGrace - time.Second)
		calls := h.fake.Take()
		for _, want := range []string{"signal web-0 ", "signal short-0 ", "signal short-0 SIGKILL", "signal long-0 "} {
			if !slices.Contains(calls, want) {
				t.Errorf("no %q in %q", want, calls)
			}
		}
		for _, call := range calls {
			if strings.Contains(call, "critical") || strings.Contains(call, "cluster") || strings.HasPrefix(call, "create") || call == "signal long-0 SIGKILL" {
				t.Errorf("too early: %s", call)
			}
		}
		h.after(time.Second + shutdownGraceCritical - time.Millisecond)
		if calls := h.fake.Take(); !slices.Contains(calls, "signal long-0 SIGKILL") || !slices.Contains(calls, "signal critical-0 ") {
			t.Errorf("%q", calls)
		}
		if ended(done) {
			t.Errorf("it is over after %s", time.Since(down))
		}
		h.after(time.Second)
		if !ended(done) || len(h.running()) != 0 {
			t.Errorf("it goes on, %d run", len(h.running()))
		}
		h.after(10 * time.Minute) // an agent that does not end all the same
		for _, call := range h.fake.Take() {
			if strings.HasPrefix(call, "create") {
				t.Errorf("afterwards: %s", call)
			}
		}
		h.stop()
		h.fake.Reboot()
		h.boot()
		h.after(time.Second)
		pods := h.pods()
		if len(pods) != 5 {
			t.Errorf("after the boot: %s", names(pods))
		}
		for _, p := range pods {
			if before[string(p.UID)] || !podReady(p) || p.Status.ContainerStatuses[0].RestartCount != 0 {
				t.Errorf("%s: %+v", p.Name, p.Status)
			}
		}
		if h.eventsOf("FailedDaemonPod") != nil || h.eventsOf("BackOff") != nil || conditionOf(h.node(), corev1.NodeReady).Status != corev1.ConditionTrue {
			t.Errorf("%q", h.eventsOf("FailedDaemonPod"))
		}
		for name, d := range h.loop.daemonSets {
			if d.memory.Failures.Count != 0 {
				t.Errorf("%s: %+v", name, d.memory.Failures)
			}
		}
	})
}

// Pods that hear their stop signal end at once, and the host waits no longer than that; what does not hear SIGKILL is not waited for.
func TestShutdownIsShort(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(named("web", ""))
		h.apply(named("critical", "priorityClassName: system-node-critical"))
		done := h.shutDown()
		h.after(2 * endedEvery)
		if !ended(done) || len(h.running()) != 0 {
			t.Errorf("it goes on, %d run", len(h.running()))
		}
	})
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(named("web", ""))
		h.fake.SetHang("signal", true)
		done := h.shutDown()
		h.after(shutdownGrace + killedWithin + endedEvery)
		if !ended(done) {
			t.Error("it goes on for ever")
		}
		h.fake.SetHang("signal", false)
	})
}

// Other hosts hear that the host goes down, and that its pods end, while it does: an update of theirs must not count on them.
func TestFleetHearsOfAShutdown(t *testing.T) {
	withFleet(t, 2, func(t *testing.T, f *testFleet) {
		f.hosts[0].apply(webOf("busybox:1", ""))
		f.within(10*time.Second, "web runs everywhere", func() bool {
			return f.everywhere(func(h *fleetHost) bool { return h.webReady(2, 2) })
		})
		f.hosts[1].fake.SetDeaf("web-0")
		done := f.hosts[1].shutDown()
		f.within(5*time.Second, "the other host hears of it", func() bool {
			s := f.hosts[0].daemonSet("web").Status
			return f.hosts[0].nodeReady("host-02") == corev1.ConditionFalse && s.NumberReady == 1 && s.DesiredNumberScheduled == 2
		})
		if ended(done) {
			t.Error("it is over too early to tell")
		}
		f.within(time.Minute, "it is over", func() bool { return ended(done) })
	})
}
