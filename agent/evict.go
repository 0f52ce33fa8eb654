package agent

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/pod"
)

// A pod that takes more of the disk than it asked for is evicted, as by a kubelet: its containers are killed, it is Failed, and the
// planner removes it and makes another, with the back-off of failed pods. Nothing is evicted because the host is under pressure: what
// runs here are daemons, which would come back at once.

const (
	// storageEvery is how often pods with such a limit are measured. One that takes long to be measured is measured less often, so that
	// it costs storagePart of the time, but once in storageSeldom.
	storageEvery  = 10 * time.Second
	storagePart   = 50
	storageSeldom = time.Minute
	// evictionGrace is what a kubelet's eviction of the kind leaves a container between its stop signal and SIGKILL.
	evictionGrace = time.Second
)

// eviction is why a pod was ended here, in a pod's record.
type eviction struct {
	Message string    `json:"message"`
	At      time.Time `json:"at"`
}

// The kubelet's words in the status of an evicted pod.
const (
	reasonEvicted    = "Evicted"
	reasonTerminated = "TerminationByKubelet"
)

// order is what the pod's worker is told, nil for a pod that may run.
func (h *hostPod) order() *pod.Stop {
	if h.Stop == nil && h.Evicted != nil {
		return &pod.Stop{Deadline: h.Evicted.At.Add(evictionGrace), Reason: "evicted: " + h.Evicted.Message}
	}
	return h.Stop
}

// phase is the pod's: its worker's, but that an evicted one has failed once its last process is gone.
func (h *hostPod) phase() corev1.PodPhase {
	if h.Evicted != nil && h.ended {
		return corev1.PodFailed
	}
	return h.Pod.Status.Phase
}

// shown is the pod as users see it.
func (h *hostPod) shown() *corev1.Pod {
	p := h.Pod.DeepCopy()
	if h.Evicted == nil {
		return p
	}
	s := &p.Status
	s.Phase, s.Reason, s.Message = h.phase(), reasonEvicted, h.Evicted.Message
	s.Conditions = append(s.Conditions, corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reasonTerminated, Message: h.Evicted.Message,
		LastTransitionTime: metav1.NewTime(h.Evicted.At),
	})
	return p
}

// replaceable says whether the pod is in nobody's way any more. An evicted one is until the planner has removed it.
func (h *hostPod) replaceable() bool { return h.ended && (h.Evicted == nil || h.Stop != nil) }

// evict ends a pod for good: on disk first, then its worker is told.
func (s *podSet) evict(h *hostPod, message string, now time.Time) error {
	record := h.podRecord
	record.Evicted = &eviction{Message: message, At: now}
	if err := s.save(record, true); err != nil {
		return err
	}
	h.podRecord = record
	s.publish(h)
	h.worker.Stop(*h.order())
	return nil
}

// evict ends a pod that has done what message says. Critical pods are not evicted, as by a kubelet.
func (l *loop) evict(uid types.UID, message string) error {
	h, ok := l.pods.byUID[uid]
	if !ok || h.Warm || h.Stop != nil || h.Evicted != nil || h.worker == nil {
		return nil
	}
	about := referenceTo("v1", "Pod", h.Pod)
	if critical(h.Pod) {
		l.events.record(about, corev1.EventTypeWarning, "NotEvicted", message+"A critical pod is not evicted.")
		return nil
	}
	if err := l.pods.evict(h, message, l.now()); err != nil {
		l.trouble("EvictionFailed", fmt.Errorf("cannot evict pod %s: %w", h.Pod.Name, err))
		return err
	}
	l.log.Warn("pod is evicted", "pod", h.Pod.Namespace+"/"+h.Pod.Name, "reason", message)
	l.events.record(about, corev1.EventTypeWarning, reasonEvicted, message)
	l.daemonSet(ownerOf(h.Pod)).dirty = true
	return nil
}

// critical says whether a pod has one of Kubernetes' two highest priorities.
func critical(p *corev1.Pod) bool {
	return p.Spec.PriorityClassName == "system-node-critical" || p.Spec.PriorityClassName == "system-cluster-critical"
}

// watchStorage measures what pods with a limit take of the disk, until ctx ends, and evicts those that are over it.
func (a *Agent) watchStorage(ctx context.Context) {
	ticker := time.NewTicker(storageEvery)
	defer ticker.Stop()
	due := map[types.UID]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		next := map[types.UID]time.Time{}
		for _, p := range cached[*corev1.Pod](a.loop, resourcePods) {
			if p.Spec.NodeName != a.loop.node.name || p.DeletionTimestamp != nil || p.Status.Reason == reasonEvicted || !pod.LimitsStorage(p) {
				continue
			}
			if next[p.UID] = due[p.UID]; time.Now().Before(due[p.UID]) {
				continue
			}
			began := time.Now()
			a.measure(ctx, p)
			next[p.UID] = began.Add(min(storagePart*time.Since(began), storageSeldom))
		}
		due = next
	}
}

// measure looks at one pod. What cannot be measured now is looked at again.
func (a *Agent) measure(ctx context.Context, p *corev1.Pod) {
	used, err := a.loop.pods.config.Storage(ctx, p, a.runtime.LayerUsage)
	if err != nil {
		a.log.Debug("cannot measure what a pod takes of the disk", "pod", p.Namespace+"/"+p.Name, "error", err)
	}
	if message := used.Exceeds(p); message != "" {
		_ = a.loop.do(ctx, func() error { return a.loop.evict(p.UID, message) }) // it has told
	}
}
