package agent

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/daemonset"
)

// The host goes down: its pods end as in a deletion, critical ones after the others, and nothing takes their place. That they were
// told to stop is in their records: the next agent removes what is left of them, and makes new ones, whose restarts nobody has counted.

const (
	// shutdownGrace is the longest that a pod has to end before the host does: Kubernetes' default grace period. Critical pods have
	// their time after that. The numbers are those of the kubelet's own example (shutdownGracePeriod, shutdownGracePeriodCriticalPods).
	shutdownGrace         = 30 * time.Second
	shutdownGraceCritical = 10 * time.Second
	// killedWithin is how long after SIGKILL a pod is waited for. With all this the unit's TimeoutStopSec is not reached.
	killedWithin = 2 * time.Second
	// endedEvery is how often it is looked whether pods have ended.
	endedEvery = 50 * time.Millisecond
)

// reasonShutdown is the kubelet's event, and what stops the pods.
const (
	reasonShutdown  = "Shutdown"
	becauseShutdown = "the host is shutting down"
)

// ShutDown ends the pods because the host goes down, and returns when they have ended, or their time is over. The agent is to end then:
// it starts nothing any more.
func (a *Agent) ShutDown(ctx context.Context) {
	if a.loop.do(ctx, func() error { a.loop.goDown(); return nil }) != nil {
		return
	}
	for _, wave := range []struct {
		critical bool
		grace    time.Duration
	}{{false, shutdownGrace}, {true, shutdownGraceCritical}} {
		if err := a.endWave(ctx, wave.critical, wave.grace); err != nil {
			a.log.Warn("some pods were still running when the host went down", "error", err)
		}
	}
}

// endWave ends the critical pods, or the others, and waits for them.
func (a *Agent) endWave(ctx context.Context, isCritical bool, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, grace+killedWithin)
	defer cancel()
	var ending []types.UID
	if err := a.loop.do(ctx, func() error {
		ending = a.loop.pods.endAll(isCritical, grace, a.loop.now())
		a.loop.planAll() // others are told
		return nil
	}); err != nil {
		return err
	}
	ticker := time.NewTicker(endedEvery)
	defer ticker.Stop()
	for {
		left := 0
		if err := a.loop.do(ctx, func() error { left = a.loop.pods.running(ending); return nil }); err != nil || left == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// goDown notes that the host goes down, and tells.
func (l *loop) goDown() {
	l.log.Warn("the host is shutting down: its pods stop")
	l.events.record(l.node.reference(), corev1.EventTypeNormal, reasonShutdown, "Shutdown manager detected shutdown event")
	l.changeWord(func(w *hostWord) { w.goingDown = true })
}

// endAll tells the critical pods, or the others, to end within their own grace period or grace, whichever is shorter. It returns all
// that have not ended, also those that were told before.
func (s *podSet) endAll(isCritical bool, grace time.Duration, now time.Time) (ending []types.UID) {
	for uid, h := range s.byUID {
		if h.Warm || critical(h.Pod) != isCritical {
			continue
		}
		seconds := int64(grace / time.Second)
		if own := h.Pod.Spec.TerminationGracePeriodSeconds; own != nil {
			seconds = min(seconds, *own)
		}
		if err := s.stop(uid, &seconds, becauseShutdown, now); err != nil {
			s.log.Error("cannot end a pod before the host goes down", "pod", h.Pod.Name, "error", err)
			continue
		}
		ending = append(ending, uid)
	}
	return ending
}

// running counts the pods that have not ended. One without a worker is not known to run: containerd has not answered.
func (s *podSet) running(uids []types.UID) (n int) {
	for _, uid := range uids {
		if h, ok := s.byUID[uid]; ok && h.worker != nil && !h.ended {
			n++
		}
	}
	return n
}

// live says whether a DaemonSet has a pod here that was not told to stop.
func (s *podSet) live(name types.NamespacedName) bool {
	for _, h := range s.of(name) {
		if h.Stop == nil {
			return true
		}
	}
	return false
}

// onlyTold is a decision of which nothing is done: others hear what has become of the pods, and what was remembered stays.
func onlyTold(d daemonset.Decision, m memory) daemonset.Decision {
	return daemonset.Decision{Placement: d.Placement, Status: d.Status, Failures: m.Failures, Evictions: m.Evictions, Memory: m.Rollout, Said: d.Said, Next: d.Next}
}
