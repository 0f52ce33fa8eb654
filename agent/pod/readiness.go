package pod

import (
	"cmp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// probings are the probes that are to be run now, as the kubelet's: the startup probe before the others, and only readiness of
// what is being ended.
func (m *machine) probings() []probing {
	if m.stage != StageRun {
		return nil
	}
	var list []probing
	for _, c := range m.containers {
		if c.state != running {
			continue
		}
		ending := c.kill != nil
		add := func(kind probeKind, probe *corev1.Probe, passing bool) {
			if probe != nil {
				p := probing{id: c.id, kind: kind, container: c.spec, probe: probe, startedAt: c.startedAt, ip: first(m.ips), passing: passing}
				list = append(list, p)
			}
		}
		switch {
		case !c.started && !ending:
			add(startupProbe, c.spec.StartupProbe, false)
		case c.started:
			if !ending {
				add(livenessProbe, c.spec.LivenessProbe, true)
			}
			add(readinessProbe, c.spec.ReadinessProbe, c.passing)
		}
	}
	return list
}

// probed takes in what a probe found out about an attempt.
func (m *machine) probed(p probed, now time.Time) {
	c := m.byID(p.id)
	if c == nil || c.state != running {
		return
	}
	if n, ok := p.news(); ok {
		m.news = append(m.news, n)
	}
	switch p.kind {
	case startupProbe:
		c.started = c.started || p.passing
		if p.gaveUp {
			m.unhealthy(c, c.spec.StartupProbe, "startup", now)
		}
	case livenessProbe:
		if p.gaveUp {
			m.unhealthy(c, c.spec.LivenessProbe, "liveness", now)
		}
	case readinessProbe:
		c.passing, c.failing = p.passing, ""
		if p.failed || p.errored {
			c.failing = cmp.Or(strings.TrimSpace(p.output), "it says nothing")
		}
	}
}

// unreadyMessage says what a pod that runs is not ready for; Kubernetes tells it in events alone.
func (m *machine) unreadyMessage() string {
	for _, c := range m.containers {
		if c.state == running && c.started && c.spec.ReadinessProbe != nil && !c.passing && c.failing != "" {
			return "readiness probe failed: container " + c.spec.Name + ": " + c.failing
		}
	}
	return ""
}

// unhealthy ends a container whose probe has failed, within the probe's own grace period if it has one.
func (m *machine) unhealthy(c *container, probe *corev1.Probe, kind string, now time.Time) {
	grace := gracePeriod(m.pod)
	if s := probe.TerminationGracePeriodSeconds; s != nil {
		grace = Grace(*s)
	}
	if m.stop == nil && c.kill == nil {
		m.end(c, "", "Container "+c.spec.Name+" failed "+kind+" probe, will be restarted", now.Add(grace))
	}
}
