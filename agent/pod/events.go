package pod

import (
	"context"
	"errors"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/runtime"
)

// The methods in this file are the machine's only inputs: one per event. Each is harmless when it comes late or twice.

// imageEnsured is the answer to actionEnsureImage.
func (m *machine) imageEnsured(key imageKey, img runtime.Image, err error, now time.Time) {
	i := m.images[key]
	if i == nil || i.state != doing {
		return
	}
	if err == nil {
		i.succeed()
		i.Image, i.reason, i.message = img, "", ""
		m.reportPulled(key, img, now.Sub(i.since))
		return
	}
	i.fail(now, pullDelays, err)
	if errors.Is(err, runtime.ErrUnavailable) || m.stop != nil {
		return
	}
	i.reason, i.message = imageFailure(err), err.Error()
	m.report(corev1.EventTypeWarning, "Failed", "Failed to pull image %q: %v", key.Ref, err)
	m.report(corev1.EventTypeWarning, "Failed", "Error: %s", i.reason)
}

func imageFailure(err error) string {
	switch {
	case errors.Is(err, runtime.ErrInvalidImageName):
		return "InvalidImageName"
	case errors.Is(err, runtime.ErrImageNeverPull):
		return "ErrImageNeverPull"
	}
	return "ErrImagePull"
}

func (m *machine) reportPulled(key imageKey, img runtime.Image, took time.Duration) {
	switch {
	case img.Pulled:
		m.report(corev1.EventTypeNormal, "Pulled", "Successfully pulled image %q in %s", key.Ref, took.Round(time.Millisecond))
	default:
		m.report(corev1.EventTypeNormal, "Pulled", "Container image %q already present on machine", key.Ref)
	}
	if img.Warning != "" {
		m.report(corev1.EventTypeWarning, "RegistryUnreachable", "%s", img.Warning)
	}
}

// podSetUp is the answer to actionSetUpPod.
func (m *machine) podSetUp(ips []string, err error, now time.Time) {
	if m.sandbox.state != doing {
		return
	}
	if err == nil {
		m.sandbox.succeed()
		m.ips = ips
		return
	}
	m.sandbox.fail(now, podDelays, err)
	m.warn(err, "FailedCreatePodSandBox", "Failed to create pod sandbox: ")
}

// portsPublished is the answer to actionPublishPorts.
func (m *machine) portsPublished(err error, now time.Time) {
	if m.ports.state != doing {
		return
	}
	if err == nil {
		m.ports.succeed()
		return
	}
	m.ports.fail(now, podDelays, err)
	m.warn(err, "FailedCreatePodSandBox", "Failed to publish the pod's ports: ")
}

// volumesMounted is the answer to actionMountVolumes.
func (m *machine) volumesMounted(err error, now time.Time) {
	if m.volumes.state != doing {
		return
	}
	if err == nil {
		m.volumes.succeed()
		return
	}
	m.volumes.fail(now, mountDelays, err)
	m.warn(err, "FailedMount", "")
}

// volumesRefreshed is the answer to actionRefreshVolumes. What cannot be refreshed keeps its old content.
func (m *machine) volumesRefreshed(err error, now time.Time) {
	if m.refresh.state != doing {
		return
	}
	if err == nil {
		m.refresh.succeed()
		return
	}
	m.stale = true
	m.refresh.fail(now, mountDelays, err)
	m.warn(err, "FailedMount", "")
}

func (m *machine) warn(err error, reason, prefix string) {
	if m.stop == nil && !errors.Is(err, runtime.ErrUnavailable) && !errors.Is(err, context.Canceled) {
		m.report(corev1.EventTypeWarning, reason, "%s%v", prefix, err)
	}
}

// objectsChanged: a ConfigMap or Secret is new, changed or gone. outdated are containers that were created of what they held before
// and have not been started: they are made again.
func (m *machine) objectsChanged(outdated []*container) {
	for _, c := range outdated {
		c.state = waiting
		m.abandon(c, true)
	}
	m.volumes.retry.at = time.Time{}
	if hasLiveVolumes(m.pod) {
		m.stale, m.refresh.retry.at = true, time.Time{}
	}
	for _, c := range m.containers {
		if c.failure != nil && c.failure.reason == "CreateContainerConfigError" {
			c.create.at = time.Time{}
		}
	}
}

// stopped: the pod must go. A second call can only shorten the time it has.
func (m *machine) stopped(s Stop) {
	if m.stop == nil {
		m.stop = &s
	} else if s.Deadline.Before(m.stop.Deadline) {
		m.stop.Deadline = s.Deadline
	}
}

// portsUnpublished is the answer to actionUnpublishPorts.
func (m *machine) portsUnpublished(err error, now time.Time) { m.ended(&m.unpublish, err, now) }

// tornDown is the answer to actionTearDownPod.
func (m *machine) tornDown(err error, now time.Time) { m.ended(&m.tearDown, err, now) }

// cleanedUp is the answer to actionCleanUp; with it the pod is gone.
func (m *machine) cleanedUp(err error, now time.Time) { m.ended(&m.cleanUp, err, now) }

func (m *machine) ended(s *step, err error, now time.Time) {
	if err == nil || errors.Is(err, runtime.ErrNotFound) {
		s.succeed()
		return
	}
	s.fail(now, podDelays, err)
	if !s.retry.held {
		m.report(corev1.EventTypeWarning, "FailedKillPod", "error killing pod: %v", err)
	}
}

// connected: containerd is back. What waited for it goes on, and what ran is looked at again.
func (m *machine) connected() {
	m.away = false
	for _, r := range m.retries() {
		r.release()
	}
	for _, c := range m.containers {
		if c.state == running || c.state == created && m.stage != StageRun {
			c.inspect = true
		}
	}
}

// retries lists everything that may wait for containerd.
func (m *machine) retries() []*retry {
	all := []*retry{&m.sandbox.retry, &m.ports.retry, &m.volumes.retry, &m.unpublish.retry, &m.tearDown.retry}
	for _, i := range m.images {
		all = append(all, &i.retry)
	}
	for _, r := range m.remains {
		all = append(all, &r.retry)
	}
	for _, c := range m.containers {
		all = append(all, &c.create, &c.inspectRetry)
		if c.kill != nil {
			all = append(all, &c.kill.retry)
		}
	}
	return all
}

func (m *machine) fullName() string {
	return m.pod.Name + "_" + m.pod.Namespace + "(" + string(m.pod.UID) + ")"
}

// gracePeriod is the pod's own.
func gracePeriod(pod *corev1.Pod) time.Duration {
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return Grace(*s)
	}
	return corev1.DefaultTerminationGracePeriodSeconds * time.Second
}

// Grace is a grace period given in seconds, which may be more than a Duration holds.
func Grace(seconds int64) time.Duration {
	return time.Duration(min(seconds, int64(math.MaxInt64/time.Second))) * time.Second
}
