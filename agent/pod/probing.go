package pod

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// probeKind is what a probe is for.
type probeKind string

const (
	// startupProbe: until it has succeeded once the others wait; its failure ends the container.
	startupProbe probeKind = "Startup"
	// livenessProbe: its failure ends the container.
	livenessProbe probeKind = "Liveness"
	// readinessProbe: the container is ready while it succeeds.
	readinessProbe probeKind = "Readiness"
)

// probing is one probe of one attempt of a container. The machine says which are to be run (machine.probings), the worker's prober
// runs them and tells what changes.
type probing struct {
	id        string // of the attempt
	kind      probeKind
	container *corev1.Container
	probe     *corev1.Probe
	startedAt time.Time // of the attempt: initialDelaySeconds counts from it
	ip        string    // of the pod: whom to ask unless the probe names a host
	passing   bool      // what holds before the first answer, or held before the agent was restarted
}

// probed is what a probe found out: its result is new, or there is something to tell of one check.
type probed struct {
	id   string
	kind probeKind
	// passing is what the thresholds make of it.
	passing bool
	// gaveUp: the failures have reached the threshold.
	gaveUp bool
	// failed: this one time it failed, whatever the thresholds say, and output is why.
	failed bool
	// warned: it passed, but not as it should; output is how.
	warned bool
	// errored: it could not be made, which counts for nothing; output is why.
	errored bool
	output  string
}

// news is what users are told of a check, in the words of the kubelet's prober; false: nothing.
func (p probed) news() (n news, ok bool) {
	n = news{kind: corev1.EventTypeWarning, reason: "Unhealthy"}
	switch {
	case p.failed:
		n.message = string(p.kind) + " probe failed: " + p.output
	case p.errored:
		n.message = string(p.kind) + " probe errored and resulted in unknown state: " + p.output
	case p.warned:
		n.reason, n.message = "ProbeWarning", string(p.kind)+" probe warning: "+p.output
	default:
		return news{}, false
	}
	return n, true
}
