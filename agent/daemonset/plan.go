package daemonset

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Plan decides what this host does for one DaemonSet. It is pure: equal arguments give an equal decision, whatever the order
// of the pods, and nothing it is given is changed. The caller keeps what Decision says is to be kept, carries the actions out, and plans
// again when something changed or at WakeUp.
func Plan(v View, self Self, o Observed, now time.Time) Decision {
	p := planner{view: v, self: self, now: now, pods: oldestFirst(o.Pods), warm: o.Warm, condemned: map[string]bool{}}
	if v.DaemonSet == nil {
		p.Placement = notPlaced(because{code: CodeDeleted})
		p.deleteAll(ReasonDelete)
		p.discardWarm(false)
		p.discardImages(false)
		p.Status = p.status()
		return p.Decision
	}
	eventReason := p.place(o.Evictions)
	p.Failures = o.Failures.current(v.Generation, now)
	p.Memory, p.Said, p.found = o.Memory, o.Said, o.Found
	if v.Revision != "" {
		p.ask()
	}
	switch {
	case !p.Placement.ShouldContinue:
		p.deleteAll(eventReason)
	case v.Revision == "":
		p.blocked = because{code: CodeNoRevision} // nothing can be made, and nothing that runs is known to be old
	case p.Placement.ShouldRun && len(p.pods) == 0:
		p.create(p.vacancy(o.Pods))
	default:
		p.keep()
	}
	p.prepare()
	p.Status = p.status()
	return p.Decision
}

// planner is one call of Plan.
type planner struct {
	Decision
	view View
	self Self
	now  time.Time
	pods []Pod // oldest first, without those that have ended
	warm []Warm

	found     Found
	ruling    Ruling
	own       Own
	near      bool            // this host's turn comes soon
	condemned map[string]bool // uids that Actions delete
	blocked   because         // why an older revision's pod is not replaced
}

// current is whether a pod is of the current revision.
func (p *planner) current(pod Pod) bool {
	return pod.Revision == p.view.Revision && (p.view.Config == "" || pod.Config == p.view.Config)
}

// oldestFirst orders pods as Kubernetes' podByCreationTimestamp does. Those that have ended are left out: they are in nobody's way.
func oldestFirst(pods []Pod) []Pod {
	pods = slices.DeleteFunc(slices.Clone(pods), func(pod Pod) bool { return pod.Ended })
	slices.SortFunc(pods, func(a, b Pod) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
	})
	return pods
}

// place fills Placement and Evictions; it returns the event reason for pods that must go.
func (p *planner) place(before map[string]Eviction) string {
	node, spec := p.self.Node, &p.view.DaemonSet.Spec.Template.Spec
	p.Placement = Place(p.view.DaemonSet, node)
	tolerations := Tolerations(spec)
	timed := evict(p.Placement.ShouldContinue, node.Spec.Taints, tolerations, before, p.now)
	p.Evictions = timed.timers
	if p.Placement.ShouldContinue && timed.reason.code != CodeNone {
		p.Placement = notPlaced(timed.reason)
		return ReasonEviction
	}
	p.wake(timed.next)
	if _, found := untolerated(node, tolerations, corev1.TaintEffectNoExecute); found {
		return ReasonEviction
	}
	return ReasonDelete
}

// keep is for a host where pods may run: it removes what is too much, and only then lets an update begin.
func (p *planner) keep() {
	live, backingOff := p.live(), p.sweep()
	surging := surges(p.view.DaemonSet)
	if surging {
		p.prunePair(live)
	} else {
		p.pruneTo(live, 1)
	}
	if len(p.Actions) > 0 || !p.Placement.ShouldRun {
		return // a pod that only continues to run takes no turn in an update
	}
	switch {
	case len(live) == 0:
		if surging && !backingOff && p.room() {
			p.create("only a terminating pod is left here")
		}
	case len(live) == 1 && !p.current(live[0]):
		p.replace(live[0], surging)
	}
}

// sweep deletes finished pods, one attempt per back-off.
func (p *planner) sweep() (backingOff bool) {
	for _, pod := range p.pods {
		if pod.Terminating || !pod.finished() {
			continue
		}
		if until := p.Failures.until(); p.now.Before(until) {
			backingOff = true
			p.wake(until)
			continue
		}
		p.Failures = p.Failures.again(p.view.Generation, p.now)
		reason, state, then := ReasonFailed, "failed", "kill"
		if pod.Phase == corev1.PodSucceeded {
			reason, state, then = ReasonSucceeded, "succeeded", "delete"
		}
		p.delete(pod, reason, fmt.Sprintf("Found %s daemon pod %s/%s on node %s, will try to %s it",
			state, p.view.DaemonSet.Namespace, pod.Name, p.self.Node.Name, then))
	}
	return backingOff
}

// pruneTo deletes all but the n oldest.
func (p *planner) pruneTo(live []Pod, n int) {
	for _, pod := range live[min(n, len(live)):] {
		p.delete(pod, ReasonDelete, fmt.Sprintf("pod %s is one too many on this host", pod.Name))
	}
}

// prunePair is for a DaemonSet that surges: the oldest pod of the current revision and the oldest of the others may run side
// by side until the new one is available or the old one no longer ready (SEMANTICS.md 12).
func (p *planner) prunePair(live []Pod) {
	isOld := func(pod Pod) bool { return !p.current(pod) }
	newPods := slices.DeleteFunc(slices.Clone(live), isOld)
	oldPods := slices.DeleteFunc(slices.Clone(live), p.current)
	p.pruneTo(newPods, 1)
	p.pruneTo(oldPods, 1)
	if len(newPods) == 0 || len(oldPods) == 0 {
		return
	}
	switch newPod, oldPod := newPods[0], oldPods[0]; {
	case !oldPod.Ready:
		p.delete(oldPod, ReasonUpdate, fmt.Sprintf("pod %s of revision %s is not ready and pod %s of revision %s takes its place",
			oldPod.Name, oldPod.Revision, newPod.Name, newPod.Revision))
	case !p.available(newPod):
		p.blocked = because{code: CodeSurging, detail: newPod.Revision, more: newPod.Name}
	case Paused(p.view.DaemonSet):
		p.blocked = because{code: CodePaused}
	default:
		p.delete(oldPod, ReasonUpdate, fmt.Sprintf("pod %s of revision %s is available and replaces pod %s of revision %s",
			newPod.Name, newPod.Revision, oldPod.Name, oldPod.Revision))
	}
}

// replace is the turn of this host in an update: old is its one live pod, of an older revision. Only taking a healthy pod down needs
// leave.
func (p *planner) replace(old Pod, surging bool) {
	if onDelete(p.view.DaemonSet) {
		p.blocked = because{code: CodeOnDelete}
		return
	}
	if surging && !p.room() {
		p.blocked = because{code: CodeOthersHere}
		return
	}
	why := fmt.Sprintf("pod %s of revision %s is not available and is replaced by revision %s at once", old.Name, old.Revision, p.view.Revision)
	if p.available(old) {
		if p.blocked = p.mayNot(); p.blocked.code != CodeNone {
			return
		}
		why = fmt.Sprintf("revision %s replaces pod %s of revision %s", p.view.Revision, old.Name, old.Revision)
	}
	if p.Memory.Updating || !p.Memory.Since.IsZero() {
		p.Memory.Since, p.Memory.For = p.now, p.view.Common.Version() // the deadline is for this attempt
	}
	if surging {
		p.create(why)
	} else {
		p.delete(old, ReasonUpdate, why)
	}
}

// room is whether a surge may start one more pod: never a third on the host, nor a second of the current revision, counting
// those that are still terminating.
func (p *planner) room() bool {
	return len(p.pods) < 2 && !slices.ContainsFunc(p.pods, p.current)
}

// vacancy is why a pod is created where none runs.
func (p *planner) vacancy(pods []Pod) string {
	for _, pod := range pods {
		if pod.Ended {
			return fmt.Sprintf("it takes the place of pod %s of revision %s, which has ended", pod.Name, pod.Revision)
		}
	}
	if p.Memory.Updating {
		return "it takes the place of the one that the update stopped"
	}
	return "no pod runs here"
}

func (p *planner) create(message string) {
	p.Actions = append(p.Actions, Action{Kind: Create, Revision: p.view.Revision, Reason: ReasonCreate, Message: message})
}

func (p *planner) delete(pod Pod, reason, message string) {
	p.condemned[pod.UID] = true
	p.Actions = append(p.Actions, Action{Kind: Delete, UID: pod.UID, Reason: reason, Message: message})
}

func (p *planner) deleteAll(reason string) {
	for _, pod := range p.pods {
		if !pod.Terminating {
			p.delete(pod, reason, fmt.Sprintf("pod %s must not run on this host: %s", pod.Name, p.Placement.Reason))
		}
	}
}

// leaving is whether the pod is on its way out, or is sent there by this decision.
func (p *planner) leaving(pod Pod) bool { return pod.Terminating || p.condemned[pod.UID] }

// available is whether the pod has been ready for minReadySeconds; if that is still to come, Plan is to be called then.
func (p *planner) available(pod Pod) bool {
	if !pod.Ready {
		return false
	}
	at := p.availableAt(pod)
	if p.now.Before(at) {
		p.wake(at)
		return false
	}
	return true
}

// availableAt adds a moment to minReadySeconds in an update: a container that fails as soon as it runs is to be seen to fail before
// the next host takes its own down. What minReadySeconds asks is asked of the current revision. Kubernetes asks it of older pods too,
// and an apply that raises it finds none of them available and replaces all at once.
func (p *planner) availableAt(pod Pod) time.Time {
	after := time.Duration(0)
	if p.current(pod) {
		after = seconds(int64(p.view.DaemonSet.Spec.MinReadySeconds))
	}
	switch {
	case p.Memory.Updating && pod.Restarts > 0:
		after = max(after, trialFor) // it has failed once
	case p.Memory.Updating:
		after = max(after, settles(pod))
	}
	since := pod.ReadySince
	if since.After(p.now) {
		since = p.now // the clock was set back: a pod that is ready is not to be taken for one that is not
	}
	return since.Add(after)
}

// settles is how long a pod has to be ready in an update, at least: on a host where starting it took long, its end takes as long to be
// noticed.
func settles(pod Pod) time.Duration {
	return min(max(settleFor, settlePart*pod.ReadySince.Sub(pod.Created)), settleMost)
}

// wake asks for another call of Plan at t, if not earlier; zero asks for none.
func (p *planner) wake(t time.Time) { p.WakeUp = earliest(p.WakeUp, t) }
