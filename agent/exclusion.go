package agent

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/daemonset"
	"github.com/picketd/picket/agent/manifest"
	"github.com/picketd/picket/cluster"
)

// Which hosts an update goes on without, as all hosts hear it (ROLLOUT.md, Hosts that are down).

// exclusion is up to which entry a version of a DaemonSet goes on without a host. It is an object of its own, whose version says it all:
// hosts that exclude the same write the same, and the one for a later version of the DaemonSet, or a higher entry, wins. A door that
// knows better lifts it with the next attempt, which is odd then: the host counts again.
//
//	generation: the DaemonSet's; hash: the first 20 bytes of the DaemonSet's | entry 8 | attempt 4
type exclusion cluster.Version

const (
	exclusionKind = "Exclusion"
	excludedHash  = 20
)

func exclusionKey(ds types.NamespacedName, node string) string {
	return exclusionKind + "/" + ds.String() + "/" + node
}

func newExclusion(c daemonset.Common, entry uint64, attempt uint32) exclusion {
	e := exclusion{Generation: c.Generation, Hash: c.Hash}
	binary.BigEndian.PutUint64(e.Hash[excludedHash:], entry)
	binary.BigEndian.PutUint32(e.Hash[excludedHash+8:], attempt)
	return e
}

func (e exclusion) write(ds types.NamespacedName, node string) cluster.Write {
	return cluster.Write{Key: exclusionKey(ds, node), Version: (*cluster.Version)(&e), Author: "picketd"}
}

func (e exclusion) entry() uint64 { return binary.BigEndian.Uint64(e.Hash[excludedHash:]) }

func (e exclusion) attempt() uint32 { return binary.BigEndian.Uint32(e.Hash[excludedHash+8:]) }

func (e exclusion) lifted() bool { return e.attempt()%2 == 1 }

// isOlder says whether it belongs to an earlier version of its DaemonSet than another one.
func (e exclusion) isOlder(ds cluster.Version) bool {
	if e.Generation != ds.Generation {
		return e.Generation < ds.Generation
	}
	return bytes.Compare(e.Hash[:excludedHash], ds.Hash[:excludedHash]) < 0
}

// exclusionOf is the one of a host from the version that is now; false when there is none.
func (l *loop) exclusionOf(name types.NamespacedName, node string, c daemonset.Common) (exclusion, bool) {
	o, ok := l.store.Get(exclusionKey(name, node))
	same := o.Version.Generation == c.Generation && [excludedHash]byte(o.Version.Hash[:]) == [excludedHash]byte(c.Hash[:])
	return exclusion(o.Version), ok && same
}

// excludes says which DaemonSet an object is an exclusion of, and of which host; false when it is something else.
func excludes(key string) (ds types.NamespacedName, node string, ok bool) {
	parts := strings.SplitN(key, "/", 4)
	if len(parts) != 4 || parts[0] != exclusionKind {
		return ds, "", false
	}
	return types.NamespacedName{Namespace: parts[1], Name: parts[2]}, parts[3], true
}

// isVoid says whether an object is an exclusion that means nothing any more: its DaemonSet has a later version, or its host has raised
// its entry above it or does not count. Neither is ever taken back. Safe for concurrent use.
func (f *fleet) isVoid(o cluster.Object) bool {
	name, node, ok := excludes(o.Key)
	if !ok {
		return false
	}
	e := exclusion(o.Version)
	if s, listed := f.roster.Standing(node); listed && (s.Entry > e.entry() || s.State != cluster.RosterMember) {
		return true
	}
	ds, ok := f.store.Get(storeKey(manifest.Ref{Kind: manifest.KindDaemonSet, Namespace: name.Namespace, Name: name.Name}))
	return ok && e.isOlder(ds.Version)
}

func (l *loop) showExclusion(name types.NamespacedName) {
	if d, ok := l.daemonSets[name]; ok {
		d.viewStale, d.dirty = true, true
	}
}

// exclude lets a DaemonSet's present version go on without hosts, if this one is a door that knows what the others do.
func (l *loop) exclude(name types.NamespacedName, d *daemonSet, hosts map[string]uint64) {
	if len(hosts) == 0 || l.mayWrite() != nil || !l.fleet.isSynced() {
		return
	}
	var writes []cluster.Write
	for node, entry := range hosts {
		if _, told := d.others[node]; !told && d.common.Version() == d.loaded {
			continue // whoever heard its last word may have forgotten it: it may have been in its turn
		}
		if m := l.members[node]; !l.met[node] && l.now().Before(m.Since.Add(meetWithin)) {
			d.wakeUpBy(m.Since.Add(meetWithin))
			continue
		}
		attempt := uint32(0)
		if e, ok := l.exclusionOf(name, node, d.common); ok && e.entry() == entry {
			attempt = (e.attempt() | 1) + 1 // whoever wrote it was deleted
		}
		writes = append(writes, newExclusion(d.common, entry, attempt).write(name, node))
		l.trouble("Excluded", fmt.Errorf("%s is lost: the update of DaemonSet %s goes on without it; it updates itself when it returns", node, name))
	}
	if err := l.commit(writes); err != nil {
		l.trouble("NotExcluded", fmt.Errorf("the update of DaemonSet %s waits for hosts that are lost: %w", name, err))
		d.wakeUpBy(l.now().Add(tick))
	}
}

// liftAfter is how long a host that was gone on without, and returns, has to raise its entry, until a door lets it count as it is: all
// wait for it, but no longer.
const liftAfter = 5 * time.Second

// lift lets hosts count again that a DaemonSet's present version was to go on without, if this host is a door: it hears them, or knows
// that they had taken the version up. They may not be able to raise their entries, and hold the update within its budget then.
func (l *loop) lift(name types.NamespacedName, d *daemonSet, hosts []string, now time.Time) {
	if len(hosts) == 0 {
		d.returned = time.Time{}
		return
	}
	if d.returned.IsZero() {
		d.returned = now
	}
	if at := d.returned.Add(liftAfter); now.Before(at) {
		d.wakeUpBy(at)
		return
	}
	d.wakeUpBy(now.Add(tick))
	if l.mayWrite() != nil {
		return
	}
	var writes []cluster.Write
	for _, node := range hosts {
		if e, ok := l.exclusionOf(name, node, d.common); ok && !e.lifted() {
			writes = append(writes, newExclusion(d.common, e.entry(), e.attempt()+1).write(name, node))
			l.trouble("NotExcluded", fmt.Errorf("%s is heard again, or had taken up the new version: the update of DaemonSet %s does not go on without it", node, name))
		}
	}
	if err := l.commit(writes); err != nil {
		l.trouble("NotExcluded", fmt.Errorf("the update of DaemonSet %s waits for hosts that have returned: %w", name, err))
	}
}
