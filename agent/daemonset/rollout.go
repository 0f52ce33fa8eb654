package daemonset

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// What this host asks the rule of turn.go, and what it makes of the answer.

const (
	// settleFor is how long a pod has to be ready in an update, at least, before the next host takes its turn; settlePart times what its
	// start took, up to settleMost, when that is more.
	settleFor  = 100 * time.Millisecond
	settlePart = 3
	settleMost = 2 * time.Second
	// fewest is how many hosts prepare their next pod at least: to prepare takes longer than a turn.
	fewest = 4
	// trialFor is how long a new pod has to be ready until its host's turn is forgotten.
	trialFor = 10 * time.Second
	// asideAfter is how long something must be wrong with the next pod until its host stands aside: containerd may only be restarted.
	asideAfter = 5 * time.Second
	// rollbackPause is how long the other doors leave a rollback to the host that is stuck: it may be no door.
	rollbackPause = 5 * time.Second
)

// ask settles what this host has to remember, acknowledge and raise, and whether its turn has come.
func (p *planner) ask() {
	p.settle()
	p.own = p.stand()
	t := p.turn()
	p.ruling = t.Rule(p.own, p.Memory, p.Said)
	p.Memory, p.Said, p.Raise, p.Blockers, p.Returned = p.ruling.Memory, p.ruling.Said, p.ruling.Raise, p.ruling.Blockers, p.ruling.Returned
	if p.ruling.Pending && !countsLost(p.view.DaemonSet) {
		p.Exclude = map[string]uint64{}
		for _, node := range p.ruling.Lost {
			p.Exclude[node] = t.View.Roster[node].Number
		}
	}
	if p.ruling.Pending {
		p.Next = t.next(p.own.Old)
		p.near = p.own.Old && slices.Contains(p.Next, t.Self)
		p.Next = slices.DeleteFunc(p.Next, func(node string) bool { return node == t.Self })
	}
	p.Rollback = rollsBack(p.view.DaemonSet) && p.hopeless()
}

// settle ends the host's turn: one available pod is left, or none shall be. For a while the pod is on trial: one that crashes after all
// is what the turn has come to.
func (p *planner) settle() {
	m := &p.Memory
	if now := p.view.Common.Version(); !m.Since.IsZero() && (m.For != now || m.Since.After(p.now)) {
		m.Since, m.For = p.now, now // another version is another attempt; or the clock was set back
	}
	switch alone := p.alone(); {
	case !p.Placement.ShouldRun && len(p.pods) == 0:
		m.Updating, m.Since, m.For = false, time.Time{}, Version{}
	case m.Since.IsZero() && !m.Updating || !alone:
	default:
		m.Updating = false
		if end := p.pods[0].ReadySince.Add(trialFor); p.now.Before(end) {
			p.wake(end)
		} else {
			m.Since, m.For = time.Time{}, Version{}
		}
	}
}

// alone says whether one available pod is all there is.
func (p *planner) alone() bool {
	return len(p.pods) == 1 && !p.pods[0].Terminating && p.available(p.pods[0])
}

// stand is how this host stands, before it decides anything.
func (p *planner) stand() Own {
	now := Found{p.view.Common.Version(), p.view.Common.Roster[p.self.Node.Name].Number}
	own := Own{Placed: p.Placement.ShouldRun, Unsure: p.found == now}
	live := p.live()
	for _, pod := range live {
		own.Old = own.Old || !p.current(pod)
	}
	if !p.Memory.Since.IsZero() {
		end := p.Memory.Since.Add(deadline(p.view.DaemonSet))
		if own.Stuck = !p.now.Before(end) && !p.alone(); p.now.Before(end) {
			p.wake(end)
		}
	}
	ds := p.view.DaemonSet
	turn := own.Placed && len(live) == 1 && own.Old && p.available(live[0]) && !onDelete(ds) && (!surges(ds) || p.room())
	if turn && !p.Memory.Updating {
		own.Aside = p.trouble().code != CodeNone
		own.Wants = !own.Aside && !Paused(ds) && p.prepared()
	}
	return own
}

// live are the pods that run and stay, as far as nothing is decided yet.
func (p *planner) live() []Pod {
	var live []Pod
	for _, pod := range p.pods {
		if !pod.Terminating && !pod.finished() {
			live = append(live, pod)
		}
	}
	return live
}

func (pod Pod) finished() bool {
	return pod.Phase == corev1.PodFailed || pod.Phase == corev1.PodSucceeded
}

// turn is the question.
func (p *planner) turn() Turn {
	ds := p.view.DaemonSet
	t := Turn{
		Self: p.self.Node.Name, View: p.view.Common, Digest: p.view.Digest, Peers: make(map[string]Peer, len(p.view.Others)), Before: before,
		Budget: func(placed int) int {
			maxUnavailable, maxSurge := budget(ds, placed)
			return max(maxUnavailable, maxSurge)
		},
	}
	for node, w := range p.view.Others {
		t.Peers[node] = w.peer(p.view.Revision)
	}
	return t
}

// before is the order in which hosts take their turns: that of their names.
func before(a, b string) bool { return a < b }

// peer is what the rule reads of a word.
func (w Word) peer(revision string) Peer {
	s := w.Status
	return Peer{
		Told: w.Told, View: s.View, Version: Version{uint64(max(s.Generation, 0)), s.Tag}, Placed: s.Placed, Aside: s.Aside, Available: s.Available,
		Updating: s.Updating, Stuck: s.Stuck, Done: s.Updated && s.Available && !s.Updating,
		Old: s.HasPod && (!s.Updated || s.Revision != revision), Failed: w.Failed, Quiet: w.Quiet,
	}
}

// next are the first that are not done, in the order of their turns, twice as many as may be down at a time, or a few; self says
// whether this host is one that is not done.
func (t Turn) next(self bool) []string {
	var waiting []string
	placed := 1
	for _, node := range t.View.names() {
		if !t.View.counts(node) || node == t.Self && !self {
			continue
		}
		p := t.Peers[node]
		acknowledged := node != t.Self && p.acknowledges(t.Digest)
		placed += int(one(acknowledged && p.Placed))
		if !acknowledged || !p.Done && !p.away() {
			waiting = append(waiting, node)
		}
	}
	slices.SortStableFunc(waiting, func(a, b string) int { return int(one(t.Before(b, a)) - one(t.Before(a, b))) })
	return waiting[:min(len(waiting), max(2*t.Budget(placed), fewest))]
}

// mayNot says why the host's available pod of an older revision stays; zero when the turn is its own.
func (p *planner) mayNot() because {
	r := p.ruling
	switch {
	case p.own.Aside:
		return p.trouble()
	case Paused(p.view.DaemonSet):
		return because{code: CodePaused}
	case !p.own.Wants:
		return because{code: CodePreparing}
	case r.Raise:
		return because{code: CodeRaising}
	case len(r.Returned) > 0:
		return p.waiting(CodeReturned, r.Returned...)
	case r.Start:
		return because{}
	case r.Halted != "":
		return p.waiting(CodeHalted, r.Halted)
	case r.Stranger != "" && len(r.Blockers) == 0:
		return p.waiting(CodeStranger, r.Stranger)
	}
	return p.blockedBy(r.Blockers)
}

// blockedBy names the hosts that are in the way for the gravest of reasons, which is what a person has to look at.
func (p *planner) blockedBy(blockers []Blocker) because {
	for _, code := range []Code{CodeFailed, CodeUnavailable, CodeUpdating, CodeQuiet, CodeUnheard, CodeReturned, CodeUnacknowledged, CodeBefore} {
		var nodes []string
		for _, b := range blockers {
			if b.Why == code {
				nodes = append(nodes, b.Node)
			}
		}
		if len(nodes) > 0 {
			return p.waiting(code, nodes...)
		}
	}
	return because{code: CodeRaising} // it does not count in the roster itself
}

// waiting is a reason that names other hosts, and for this host's own words also what the first of them says.
func (p *planner) waiting(code Code, nodes ...string) because {
	why := because{code: code, detail: nodes[0]}
	if more := len(nodes) - 1; more > 0 {
		why.detail = fmt.Sprintf("%s +%d", brief(nodes[0], maxDetail-len(" +1000")), more)
	}
	if s := p.view.Others[nodes[0]].Status; code == CodeUnavailable || code == CodeHalted || code == CodeUpdating {
		why.more = brief(s.Explain(p.view.DaemonSet.Name), maxReason)
	}
	return why
}

// hopeless says whether this host is to write the previous revision, if it is a door: it is stuck itself, or another one has been for
// a while.
func (p *planner) hopeless() bool {
	if p.own.Stuck {
		return true
	}
	for _, node := range sorted(p.view.Others) {
		s := p.view.Others[node].Status
		if !s.Stuck || s.View != p.view.Digest {
			continue
		}
		at := s.Since.Add(rollbackPause)
		if !p.now.Before(at) {
			return true
		}
		p.wake(at)
	}
	return false
}

// prepare makes the next pod ahead of the host's turn, and drops what was made for nothing.
func (p *planner) prepare() {
	ds := p.view.DaemonSet
	next := p.own.Old && p.Placement.ShouldRun && !onDelete(ds) && len(p.live()) == 1
	p.discardWarm(next || p.Memory.Updating)
	ahead := next && !p.Memory.Updating && !Paused(ds)
	if kind := p.ahead(); ahead && kind != "" {
		p.Actions = append(p.Actions, Action{Kind: kind, Revision: p.view.Revision, Reason: ReasonPrepare, Message: fmt.Sprintf("revision %s is made ready ahead of its turn", p.view.Revision)})
	}
	p.discardImages(ahead) // last: what both want is pulled on
}

// ahead is what is to be made of the next pod now that is not there; "" is nothing.
func (p *planner) ahead() ActionKind {
	kind := Prefetch
	if p.near && !surges(p.view.DaemonSet) {
		kind = Prepare
	}
	for _, w := range p.warm {
		if p.ofCurrent(w) && (kind == Prefetch || !w.ImagesOnly) {
			return ""
		}
	}
	return kind
}

// discardWarm drops the pods that were prepared of another revision, or all.
func (p *planner) discardWarm(needed bool) {
	for _, w := range p.warm {
		if !w.ImagesOnly && (!needed || !p.ofCurrent(w)) {
			p.discard(w, fmt.Sprintf("the pod that was prepared of revision %s is not needed", w.Revision))
		}
	}
}

// discardImages ends the pulling of images for a turn of another revision, or of all, and what a whole pod has taken the place of.
func (p *planner) discardImages(ahead bool) {
	whole := slices.ContainsFunc(p.warm, func(w Warm) bool { return !w.ImagesOnly && p.ofCurrent(w) })
	for _, w := range p.warm {
		if w.ImagesOnly && (!ahead || whole || !p.ofCurrent(w)) {
			p.discard(w, fmt.Sprintf("the images of revision %s are not what comes next", w.Revision))
		}
	}
}

func (p *planner) discard(w Warm, message string) {
	p.Actions = append(p.Actions, Action{Kind: Discard, UID: w.UID, Reason: ReasonPrepare, Message: message})
}

func (p *planner) ofCurrent(w Warm) bool {
	return w.Revision == p.view.Revision && (p.view.Config == "" || w.Config == p.view.Config || w.ImagesOnly)
}

// prepared says whether all that can fail has been done of the next pod: nothing is stopped before.
func (p *planner) prepared() bool {
	for _, w := range p.warm {
		if p.ofCurrent(w) && w.Prepared && (!w.ImagesOnly || surges(p.view.DaemonSet)) {
			return true
		}
	}
	return false
}

// trouble is why the next pod cannot be made; zero when nothing is wrong. One that is not made by the deadline of a turn counts as one
// that cannot be: what it waits for may never answer.
func (p *planner) trouble() because {
	limit := deadline(p.view.DaemonSet)
	for _, w := range p.warm {
		end := w.Since.Add(limit)
		if w.Trouble != "" {
			end = w.TroubleSince.Add(min(limit, asideAfter))
		}
		switch {
		case !p.ofCurrent(w) || w.Prepared:
		case p.now.Before(end):
			p.wake(end)
		case w.Trouble != "":
			word, message, _ := strings.Cut(w.Trouble, ": ")
			return because{code: CodeAside, detail: word, more: message}
		default:
			return because{code: CodeAside, detail: "DeadlineExceeded", more: "it is being made since " + clock(w.Since)}
		}
	}
	return because{}
}
