package daemonset

import (
	"slices"
	"time"
)

// Whether a host may take its available pod of an older revision down is decided here, by every host alone, from what the others
// said (ROLLOUT.md, The rule). Nothing in this file knows Kubernetes: the simulator of the tests runs it as it is.

// Peer is what a host knows of another one.
type Peer struct {
	// Told: it has said something of the DaemonSet. What follows is its last word.
	Told      bool
	View      Digest
	Version   Version // that it acknowledged last, also while it acknowledges no view
	Placed    bool
	Aside     bool // it cannot make the next pod, and shall not start under this view
	Available bool
	Updating  bool
	Stuck     bool // in its turn, and past the deadline of that
	Done      bool // its pod is of the current revision, and available
	Old       bool // it runs a pod of another revision than the one that is current here
	// Failed: it is not heard any more. Quiet: there was no direct or relayed word of it for a while.
	Failed, Quiet bool
}

// acknowledges says whether its last word is of the view.
func (p Peer) acknowledges(view Digest) bool { return p.Told && p.View == view && view != Digest{} }

// away says whether it shall not start under the view that it acknowledged.
func (p Peer) away() bool { return !p.Placed || p.Aside }

// Blocker is a host that another one waits for, and why.
type Blocker struct {
	Node string
	Why  Code
}

// Own is how this host stands.
type Own struct {
	Placed, Aside bool // as of a Peer
	// Wants: its pod is available and of an older revision, and nothing but the others keeps it from being replaced.
	Wants bool
	Old   bool // it runs a pod of an older revision, available or not
	Stuck bool
	// Unsure: an earlier life of its agent may have said under this version that it shall not start, and no disk took that.
	Unsure bool
}

// Found is what an agent finds when it starts: the version, and its host's entry in the roster. An earlier life of it may have spoken of
// the two.
type Found struct {
	Version Version
	Entry   uint64
}

// Memory is what a host must not forget of its part in updates: it is on disk before anybody is told what it says, and before
// anything is stopped because of it.
type Memory struct {
	// Updating: the host has taken its available pod down, or started a second one beside it, and is not back to one that is available.
	Updating bool
	// Since is when that began, or the next attempt of it; it stays while the new pod is on trial. The rule does not read it.
	Since time.Time
	For   Version // that the attempt is of
	// Away is the view under which it last said that it shall not start. A disk that is full may lack it: see Found.
	Away Digest
}

// Said is what a host remembers, as long as its agent runs, of what it has acknowledged with its present entry.
type Said struct {
	Entry   uint64
	Version Version
	Views   []Digest // the latest is the last
}

// maxSaid bounds Said.Views: who told an older one is taken for a stranger until it tells a newer one.
const maxSaid = 64

func (s Said) last() Digest {
	if len(s.Views) == 0 {
		return Digest{}
	}
	return s.Views[len(s.Views)-1]
}

// Turn is a host that asks.
type Turn struct {
	Self   string
	View   Common
	Digest Digest // of View
	Peers  map[string]Peer
	// Before says which of two hosts takes its turn first. It reads names and the view alone.
	Before func(a, b string) bool
	// Budget is how many may be down at a time, of so many that the DaemonSet is placed on.
	Budget func(placed int) int
}

// Ruling is the answer.
type Ruling struct {
	Memory Memory
	Said   Said
	// Acknowledge is the view that the host's word carries: lapsed, or zero, when it acknowledges none.
	Acknowledge Digest
	// Raise: the host's entry is to be raised before it may do anything, so that all agree about it anew.
	Raise bool
	// Start: the turn is the host's, and Memory says so.
	Start bool
	// Blockers, Stranger and Halted say why not: those who are waited for, a host that does not know this one yet, one that is stuck.
	Blockers []Blocker
	Stranger string
	Halted   string
	// Pending: some pod is of an older revision, as far as is known; only then do hosts agree about the roster anew.
	Pending bool
	// Lost are the hosts that this version may go on without (see Common.Exclusions), Returned those that it goes on without though they
	// are heard, or took it up before they were lost: nothing is acknowledged until they have raised their entries, or a door has lifted
	// their exclusions.
	Lost, Returned []string
}

// Rule says what the host may do and what it tells. Memory is to be kept before anything else is done.
func (t Turn) Rule(own Own, m Memory, said Said) Ruling {
	r := Ruling{Memory: m, Said: t.present(said), Lost: t.lost(), Returned: t.returned(), Pending: t.pending(own)}
	r.Acknowledge = r.Said.last().lapsed()
	if t.View.Excluded(t.Self) && t.View.Roster[t.Self].Number > 0 {
		r.Raise = true // whoever else is waited for: all may be excluded at once
		return r
	}
	if len(r.Returned) > 0 {
		return r
	}
	r.acknowledge(t, own)
	if !own.Wants || own.Stuck || m.Updating || !own.Placed || own.Aside {
		return r
	}
	may := false
	may, r.Blockers, r.Stranger, r.Halted = t.may(r.Said)
	switch {
	case !may:
	case r.Memory.Away == t.Digest, own.Unsure:
		r.Raise = true
	default:
		r.Start, r.Memory.Updating = true, true
	}
	return r
}

// present drops what was said with an earlier entry.
func (t Turn) present(said Said) Said {
	if entry := t.View.Roster[t.Self].Number; said.Entry != entry {
		return Said{Entry: entry}
	}
	return said
}

// acknowledge settles the view that the host tells. While nothing is to be updated the last one of the version will do: no change of
// the roster makes all hosts speak of all DaemonSets.
func (r *Ruling) acknowledge(t Turn, own Own) {
	r.Acknowledge = t.Digest
	if last := r.Said.last(); !r.Pending && r.Said.Version == t.View.Version() && last != (Digest{}) {
		r.Acknowledge = last
	}
	if !slices.Contains(r.Said.Views, r.Acknowledge) {
		r.Said.Views = append(slices.Clip(r.Said.Views[max(0, len(r.Said.Views)-maxSaid+1):]), r.Acknowledge)
	}
	r.Said.Version = t.View.Version()
	if !own.Placed || own.Aside {
		r.Memory.Away = r.Acknowledge
	}
}

// pending says whether any pod is known to be of an older revision.
func (t Turn) pending(own Own) bool {
	if own.Old {
		return true
	}
	for _, p := range t.Peers {
		if p.Old {
			return true
		}
	}
	return false
}

// may says whether the host may take its available pod of an older revision down now; when not, who is waited for.
func (t Turn) may(said Said) (may bool, blockers []Blocker, stranger, halted string) {
	placed := 1
	for _, node := range t.View.names() {
		if node == t.Self || !t.View.counts(node) {
			continue
		}
		p := t.Peers[node]
		acknowledged := p.acknowledges(t.Digest)
		if met := p.Told && slices.Contains(said.Views, p.View.known()); !met && stranger == "" {
			stranger = node
		}
		if acknowledged && p.Stuck && halted == "" {
			halted = node
		}
		if acknowledged && p.Placed {
			placed++
		}
		if why := t.blocks(node, p); why != CodeNone {
			blockers = append(blockers, Blocker{node, why})
		}
	}
	may = t.View.counts(t.Self) && stranger == "" && halted == "" && len(blockers) < t.Budget(placed)
	return may, blockers, stranger, halted
}

// blocks says why a host counts against the budget; the numbers are those of ROLLOUT.md.
func (t Turn) blocks(node string, p Peer) Code {
	acknowledged := p.acknowledges(t.Digest)
	switch {
	case acknowledged && p.away() && !p.Updating && (!p.Placed || p.Available):
		return CodeNone // 1: its own word excuses it, also when it is not heard any more
	case !p.Told:
		return CodeUnheard // 1
	case p.Failed:
		return CodeFailed // 1
	case p.Quiet:
		return CodeQuiet // 1
	case !acknowledged && t.View.lifted(node):
		return CodeReturned // 2
	case !acknowledged:
		return CodeUnacknowledged // 2
	case p.Updating:
		return CodeUpdating // 3
	case p.Placed && !p.Available:
		return CodeUnavailable // 3
	case p.Placed && !p.Done && t.Before(node, t.Self):
		return CodeBefore // 4
	}
	return CodeNone
}

// lost are the hosts that this version may go on without: they have failed, not in their turn, and never acknowledged it.
func (t Turn) lost() []string {
	var lost []string
	for _, node := range t.View.names() {
		p := t.Peers[node]
		if node != t.Self && t.View.counts(node) && p.Failed && !t.tookUp(p) && !t.View.lifted(node) {
			lost = append(lost, node)
		}
	}
	return lost
}

// tookUp says whether a host that is lost may be so because of the version: it was in its turn, or had acknowledged it.
func (t Turn) tookUp(p Peer) bool {
	v := t.View.Version()
	return p.Updating || p.Told && (p.Version.Generation > v.Generation || p.Version == v)
}

// returned are the hosts that the version goes on without, but that are heard, or took it up: whoever excluded them did not know.
// What nobody knows of a host that nobody hears holds nobody up: it is outside of what an update promises (ROLLOUT.md, Why it holds).
func (t Turn) returned() []string {
	var returned []string
	for _, node := range sorted(t.View.Exclusions) {
		p := t.Peers[node]
		if node != t.Self && !t.View.Roster[node].Out && t.View.Excluded(node) && (!p.Failed || t.tookUp(p)) {
			returned = append(returned, node)
		}
	}
	return returned
}
