package daemonset

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// Digest stands for a view of a DaemonSet: hosts that tell the same one know the same of everything that the rule or the rank reads.
// The zero Digest stands for none: whoever tells it acknowledges nothing. Its first bit is no part of it, see lapsed.
type Digest [12]byte

const bitLapsed = 0x80

// lapsed is what a host tells in place of a view that it acknowledged, while it acknowledges none: that it knows the hosts in it.
func (d Digest) lapsed() Digest {
	if d != (Digest{}) {
		d[0] |= bitLapsed
	}
	return d
}

// known is the view that a host tells, whether it acknowledges it now or did.
func (d Digest) known() Digest {
	d[0] &^= bitLapsed
	return d
}

// Version is which version of a DaemonSet there is, as far as a status tells it.
type Version struct {
	Generation uint64
	Tag        [4]byte // the beginning of the hash of its content
}

// Entry is a host in the roster.
type Entry struct {
	Number uint64
	// Out: it is reaped, has left or was deleted, and does not count.
	Out bool
}

// Exclusion lets a version go on without a host, up to an entry of that host in the roster.
type Exclusion struct {
	Entry uint64
	// Lifted: somebody knew better, and the host counts again. With that entry it is not excluded once more.
	Lifted bool
}

// Common is what all hosts that have heard the same agree on for one DaemonSet, besides the object itself. It only ever grows.
type Common struct {
	Generation uint64
	Hash       [32]byte // of the version's content
	// Configs are the versions of the objects that make the revision together with the template, in an order that all hosts share.
	Configs []byte
	// Exclusions belong to the version: the next one has none.
	Exclusions map[string]Exclusion
	Roster     map[string]Entry
	// Names are those in Roster, sorted. The caller may leave it out: then they are sorted every time.
	Names []string
}

func (c Common) names() []string {
	if len(c.Names) == len(c.Roster) {
		return c.Names
	}
	return sorted(c.Roster)
}

// Version is the one that it is about.
func (c Common) Version() Version { return Version{c.Generation, [4]byte(c.Hash[:])} }

// Digest stands for all of it. It reads every host of the roster: the caller keeps it for as long as nothing changes.
func (c Common) Digest() Digest {
	b := binary.BigEndian.AppendUint64(nil, c.Generation)
	b = append(b, c.Hash[:]...)
	b = binary.AppendUvarint(b, uint64(len(c.Configs)))
	b = append(b, c.Configs...)
	for _, node := range sorted(c.Exclusions) {
		if e := c.Exclusions[node]; !c.void(node, e) {
			b = appendText(b, node)
			b = binary.AppendUvarint(b, e.Entry<<1|uint64(one(e.Lifted)))
		}
	}
	b = append(b, 0)
	for _, node := range c.names() {
		b = appendText(b, node)
		b = binary.AppendUvarint(b, c.Roster[node].Number<<1|uint64(one(c.Roster[node].Out)))
	}
	sum := sha256.Sum256(b)
	return Digest(sum[:]).known()
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
	e := c.Exclusions[node]
	return !e.Lifted && e.Entry >= max(c.Roster[node].Number, 1)
}

// lifted says whether the version was to go on without a host as it is now, and does not.
func (c Common) lifted(node string) bool {
	e := c.Exclusions[node]
	return e.Lifted && e.Entry >= max(c.Roster[node].Number, 1)
}

// void says whether an exclusion means nothing any more, for ever: the host has raised its entry above it, or is out. It is no part of the
// view, so that every host may forget it by itself.
func (c Common) void(node string, e Exclusion) bool {
	return e.Entry < c.Roster[node].Number || c.Roster[node].Out
}

// counts says whether the rule looks at a host.
func (c Common) counts(node string) bool {
	e, listed := c.Roster[node]
	return listed && !e.Out && !c.Excluded(node)
}
