package daemonset

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// Whether a host may take its available pod of an older revision down is decided here, by every host alone, from what the others
// said (ROLLOUT.md, The rule). Nothing in this file knows Kubernetes: the simulator of the tests runs it as it is. Plan does not ask it
// yet.

// Digest stands for a view of a DaemonSet: hosts that tell the same one know the same of everything that the rule or the rank reads.
// The zero Digest stands for none: whoever tells it acknowledges nothing.
type Digest [12]byte

// Entry is a host in the roster.
type Entry struct {
	Number uint64
	// Out: it is reaped, has left or was deleted, and does not count.
	Out bool
}

// Common is what all hosts that have heard the same agree on for one DaemonSet, besides the object itself. It only ever grows.
type Common struct {
	Generation uint64
	Hash       [32]byte // of the version's content
	// Configs are the versions of the objects that make the revision together with the template, in an order that all hosts share.
	Configs []byte
	// Exclusions are up to which entry this version goes on without a host. They belong to the version: the next one has none.
	Exclusions map[string]uint64
	Roster     map[string]Entry
}

// Digest stands for all of it.
func (c Common) Digest() Digest {
	b := binary.BigEndian.AppendUint64(nil, c.Generation)
	b = append(b, c.Hash[:]...)
	b = binary.AppendUvarint(b, uint64(len(c.Configs)))
	b = append(b, c.Configs...)
	for _, node := range sorted(c.Exclusions) {
		b = appendText(b, node)
		b = binary.AppendUvarint(b, c.Exclusions[node])
	}
	b = append(b, 0)
	for _, node := range sorted(c.Roster) {
		b = appendText(b, node)
		b = binary.AppendUvarint(b, c.Roster[node].Number<<1|uint64(one(c.Roster[node].Out)))
	}
	sum := sha256.Sum256(b)
	return Digest(sum[:])
}

// sorted are the names in a map.
func sorted[T any](m map[string]T) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Excluded says whether the version goes on without a host.
func (c Common) Excluded(node string) bool {
	return c.Exclusions[node] >= max(c.Roster[node].Number, 1)
}

// Peer is what a host knows of another one when it asks whether it may start.
type Peer struct {
	// Told: it has said something of the DaemonSet. What follows is its last word.
	Told       bool
	View       Digest
	Generation uint64  // of the version it acknowledged last, also while it acknowledges none
	Hash       [4]byte // the beginning of that version's hash
	Placed     bool
	Aside      bool // it cannot make the next pod, and shall not start under this view
	Available  bool
	Updating   bool
	Done       bool // its pod is of the current revision, and available
	// Failed: it is not heard any more. Quiet: there was no direct or relayed word of it for two seconds.
	Failed, Quiet bool
	// Met: it has told a view whose roster holds this host's present entry.
	Met bool
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

// May says whether the host may take its available pod of an older revision down now. When not, it says who is waited for; stranger
// is a host that does not know this one yet, which alone keeps it from starting.
func (t Turn) May() (may bool, blockers []Blocker, stranger string) {
	placed := 1
	for _, node := range sorted(t.View.Roster) {
		if node == t.Self || t.View.Roster[node].Out || t.View.Excluded(node) {
			continue
		}
		p := t.Peers[node]
		if !p.Met && stranger == "" {
			stranger = node
		}
		if p.acknowledges(t.Digest) && p.Placed {
			placed++
		}
		if why := t.blocks(node, p); why != CodeNone {
			blockers = append(blockers, Blocker{node, why})
		}
	}
	self, listed := t.View.Roster[t.Self]
	known := listed && !self.Out && !t.View.Excluded(t.Self)
	return known && stranger == "" && len(blockers) < t.Budget(placed), blockers, stranger
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
	case !acknowledged:
		return CodeUnacknowledged // 2
	case p.Updating:
		return CodeUpdating // 3
	case p.Placed && !p.Available:
		return CodeUnavailable // 3
	case p.Placed && !p.Aside && !p.Done && t.Before(node, t.Self):
		return CodeBefore // 4
	}
	return CodeNone
}

// Lost are the hosts that this version may go on without: they have failed, not in their turn, and never acknowledged it.
func (t Turn) Lost() []string {
	var lost []string
	for _, node := range sorted(t.View.Roster) {
		p := t.Peers[node]
		if node == t.Self || t.View.Roster[node].Out || t.View.Excluded(node) || !p.Failed || p.Updating {
			continue
		}
		if p.Told && (p.Generation > t.View.Generation || p.Generation == t.View.Generation && p.Hash == [4]byte(t.View.Hash[:])) {
			continue // it may have died of it
		}
		lost = append(lost, node)
	}
	return lost
}

// Returned are the hosts that the version goes on without, but that are heard: until they have raised their entries nothing is
// acknowledged.
func (t Turn) Returned() []string {
	var returned []string
	for _, node := range sorted(t.View.Exclusions) {
		if p := t.Peers[node]; node != t.Self && !t.View.Roster[node].Out && t.View.Excluded(node) && !p.Failed {
			returned = append(returned, node)
		}
	}
	return returned
}
