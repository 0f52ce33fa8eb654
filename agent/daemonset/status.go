package daemonset

import (
	"net/netip"
	"slices"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// status is this host's word on the DaemonSet, with the decision already taken into account: a pod that is told to stop is
// neither ready nor available, so that nobody builds on it.
func (p *planner) status() Status {
	s := Status{
		Node: p.self.Node.Name, View: p.ruling.Acknowledge, Tag: p.view.Common.Version().Tag, Generation: p.view.Generation,
		Placed: p.Placement.ShouldRun, HasPod: len(p.pods) > 0, Aside: p.own.Aside, Stuck: p.own.Stuck,
	}
	pod, ok := p.spokesman()
	if ok {
		p.describe(&s, pod)
	}
	s.Updating = p.Memory.Updating || p.view.DaemonSet != nil && p.view.Revision != "" && p.updating() // placed or not: others wait for it
	why := p.explain(s, pod)
	s.Code, s.Detail = why.code, brief(why.detail, maxDetail)
	s.Reason = words{because: why, status: s, pod: pod.Name}.text()
	return s
}

// describe fills in what the status says of the pod.
func (p *planner) describe(s *Status, pod Pod) {
	s.Revision, s.Updated = pod.Revision, p.current(pod)
	s.PodUID, s.PodIPs, s.Phase = types.UID(pod.UID), addresses(pod.IPs), pod.Phase
	s.Restarts, s.LastRestart, s.ReadyContainers = pod.Restarts, pod.LastRestart, pod.ReadyContainers
	s.Created, s.Terminating = pod.Created, p.leaving(pod)
	s.Since = pod.Created
	switch {
	case s.Terminating:
		s.Since = p.stoppedAt(pod)
	case pod.Ready && p.view.DaemonSet != nil:
		s.Ready, s.Since = true, pod.ReadySince
		if p.available(pod) {
			s.Available, s.Since = true, p.availableAt(pod)
		}
	case pod.UnreadySince.After(pod.Created):
		s.Since = pod.UnreadySince
	}
}

// stoppedAt is when the pod was told to stop; now, when this decision tells it.
func (p *planner) stoppedAt(pod Pod) time.Time {
	switch {
	case !pod.Terminating:
		return p.now
	case pod.StoppedAt.After(pod.Created):
		return pod.StoppedAt
	}
	return pod.Created
}

// addresses are a pod's IPs as a status has them: the primary one and the first of the other family, without zones.
func addresses(list []netip.Addr) (ips [2]netip.Addr) {
	for _, ip := range list {
		ip = ip.Unmap().WithZone("")
		switch {
		case !ip.IsValid():
		case !ips[0].IsValid():
			ips[0] = ip
		case !ips[1].IsValid() && ip.Is4() != ips[0].Is4():
			ips[1] = ip
		}
	}
	return ips
}

// spokesman is the pod the host is judged by: the oldest that stays, else the oldest.
func (p *planner) spokesman() (Pod, bool) {
	if len(p.pods) == 0 {
		return Pod{}, false
	}
	stays := func(pod Pod) bool { return !p.leaving(pod) }
	return p.pods[max(0, slices.IndexFunc(p.pods, stays))], true
}

// updating is whether a pod of an older revision is on its way out or has a newer one beside it.
func (p *planner) updating() bool {
	var oldLeaves, oldStays, newStays bool
	for _, pod := range p.pods {
		switch old := !p.current(pod); {
		case old && p.leaving(pod):
			oldLeaves = true
		case old:
			oldStays = true
		case !p.leaving(pod):
			newStays = true
		}
	}
	return oldLeaves || (oldStays && newStays)
}

// explain says why the host is not available or not up to date; zero when it is both.
func (p *planner) explain(s Status, pod Pod) because {
	switch {
	case !s.Placed:
		return p.Placement.because
	case !s.HasPod && p.blocked.code != CodeNone:
		return p.blocked
	case !s.HasPod:
		return because{code: CodeNoPod}
	case s.Terminating:
		return because{code: CodeTerminating}
	case pod.finished():
		return because{code: CodeFinished, detail: clock(p.Failures.until()), more: strconv.Itoa(p.Failures.Count)}
	case !s.Ready:
		return notReadyBecause(pod.Reason)
	case !s.Available:
		return because{code: CodeMinReady, detail: clock(p.availableAt(pod)), more: strconv.Itoa(int(p.view.DaemonSet.Spec.MinReadySeconds))}
	case !s.Updated && p.own.Aside:
		return p.trouble()
	case !s.Updated && p.blocked.code == CodeNone:
		return because{code: CodeReplacing}
	case !s.Updated:
		return p.blocked
	}
	return because{}
}

// clock is a time as it stands in reasons.
func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }
