package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/agent/manifest"
	"github.com/picketd/picket/cluster"
)

// nodeNamed is the loop's entry for a host, made when it is new.
func (l *loop) nodeNamed(name string) *node {
	n, ok := l.nodes[name]
	if !ok {
		n = &node{name: name}
		l.nodes[name] = n
	}
	return n
}

// inFleet says whether a host is shown and counted: members, and those that are out of reach for long.
func (l *loop) inFleet(name string) bool {
	m, ok := l.members[name]
	return name == l.node.name || ok && m.Listed && m.State <= cluster.RosterReaped
}

// publishNode puts a Node as it is now into the cache. When this host's labels or taints changed, every DaemonSet is placed anew.
func (l *loop) publishNode(n *node) {
	if !l.inFleet(n.name) {
		l.cache.Delete(resourceNodes, "", n.name)
		return
	}
	n.conditions = l.conditionsOf(n.name)
	before := n.current
	n.current = n.compose()
	l.cache.Set(resourceNodes, n.current.DeepCopy())
	if n == l.node && !sameForPlacement(before, n.current) {
		l.planAll()
	}
}

// conditionsOf are a host's as it says itself; of one that is not heard none is known.
func (l *loop) conditionsOf(name string) []corev1.NodeCondition {
	if name == l.node.name {
		return l.word.conditions()
	}
	if m := l.members[name]; !m.Alive {
		return unheardConditions("NodeStatusUnknown", fmt.Sprintf("%s: %s; what runs there goes on running", name, silence(m)), m.Since)
	}
	if st, ok := l.fleet.statuses.Get(name, unitHost); ok {
		if w, err := decodeHostWord(st.Body); err == nil {
			return w.conditions()
		}
	}
	return unheardConditions("NodeStatusNeverUpdated", "the host is heard, but has not said yet how it stands", l.members[name].Since)
}

// silence says since when there was no word of a host.
func silence(m cluster.Member) string {
	return "no word from it since " + m.Since.UTC().Format(time.RFC3339)
}

// showHost takes in what a host says of itself. What others have of this host itself may be an earlier life's: then it is told anew.
func (l *loop) showHost(name string, o cluster.Object) error {
	if name == l.node.name {
		l.toTell = l.now().Add(tellHostAfter)
		return nil
	}
	n := l.nodeNamed(name)
	n.host = hostSection{}
	if !o.Deleted {
		if err := json.Unmarshal(o.Body, &n.host); err != nil {
			return fmt.Errorf("cannot read what %s says of itself: %w", name, err)
		}
	}
	l.publishNode(n)
	l.showPodsOn(name) // their hostIP
	return nil
}

// tellHostAfter keeps two hosts of one name from outbidding each other without a pause.
const tellHostAfter = 2 * time.Second

// tellHost writes what this host says of itself, when that is not what is stored.
func (l *loop) tellHost() {
	l.toTell = time.Time{}
	w, err := l.node.host.write(l.node.name)
	if err == nil {
		if o, ok := l.store.Get(w.Key); ok && o.Version.Hash == w.Hash && string(o.Body) == string(w.Body) {
			return
		}
		err = l.commit([]cluster.Write{w})
	}
	if err != nil {
		l.trouble("HostNotTold", fmt.Errorf("other hosts do not hear what this one is: %w", err))
		l.toTell = l.now().Add(tick)
	}
}

// fleetChanged takes in who is in the fleet and who is heard.
func (l *loop) fleetChanged() {
	if l.readRoster() {
		l.viewsChanged()
	}
	before := l.members
	snapshot := l.fleet.members()
	l.members = make(map[string]cluster.Member, len(snapshot.Members))
	for _, m := range snapshot.Members {
		l.members[m.Node] = m
		l.met[m.Node] = l.met[m.Node] || m.Alive && m.Listed
		l.nodeNamed(m.Node)
	}
	for name, n := range l.nodes {
		was, is := before[name], l.members[name]
		if was.Alive == is.Alive && was.State == is.State && was.Listed == is.Listed {
			continue
		}
		l.memberChanged(n, was, is)
	}
	for _, c := range snapshot.Conflicts {
		if c.Since.After(l.conflictSeen) {
			l.conflictSeen = c.Since
			l.trouble("NodeNameTakenTwice", fmt.Errorf("two hosts are called %s, at %s and %s: give one of them another node.name; both go on running", c.Node, c.Addresses[0], c.Addresses[1]))
		}
	}
	l.setOut()
	if soon := l.now().Add(time.Second + rand.N(adoptWithin)); l.toAdopt.IsZero() || soon.Before(l.toAdopt) && len(l.store.Orphans()) > 0 {
		l.toAdopt = soon // not all doors at once
	}
}

// memberChanged shows what became of another host, and says it.
func (l *loop) memberChanged(n *node, was, is cluster.Member) {
	if n != l.node && l.inFleet(n.name) {
		switch {
		case was.Alive && !is.Alive:
			l.log.Warn("a host is not heard any more", "host", n.name)
			l.events.record(n.reference(), corev1.EventTypeWarning, "NodeNotReady", fmt.Sprintf("%s is not heard by %s any more; what runs there goes on running", n.name, l.node.name))
		case !was.Alive && is.Alive && was.Listed:
			l.log.Info("a host is heard again", "host", n.name)
			l.events.record(n.reference(), corev1.EventTypeNormal, "NodeReady", fmt.Sprintf("%s is heard by %s", n.name, l.node.name))
		}
	}
	if is.State >= cluster.RosterLeft && n != l.node {
		l.fleet.statuses.Forget(n.name)
		for _, d := range l.daemonSets {
			delete(d.others, n.name)
		}
	}
	l.publishNode(n)
	l.showPodsOn(n.name)
	l.sumAll()
	l.planAll()
}

// adoptWithin spreads the doors that write anew what a deleted door wrote, adoptEvery is how often they look whether there is something
// when nobody came or went: an authority may have gone.
const (
	adoptWithin = 30 * time.Second
	adoptEvery  = time.Minute
)

// adoptOrphans writes objects anew that no other host takes any more: the door that wrote them was deleted, or its certificate is of
// an authority that the fleet has no more. What hosts say of themselves is theirs to write.
func (l *loop) adoptOrphans() {
	l.toAdopt = l.now().Add(adoptEvery + rand.N(adoptWithin))
	if err := l.store.Forget(); err != nil {
		l.trouble("NotForgotten", fmt.Errorf("exclusions of updates that are over stay on the disk: %w", err))
	}
	for _, key := range l.store.Orphans() {
		if _, _, excluded := excludes(key); excluded {
			continue // its version is its content: who waits for the host excludes it anew
		}
		if owner, own := hostOf(key); l.out != "" || own && owner != l.node.name || !own && !l.fleet.door() {
			continue
		}
		stored, err := l.store.Resign(key)
		if err != nil {
			l.trouble("NotAdopted", fmt.Errorf("%s was written by a host that was deleted, and cannot be written anew: %w", key, err))
			return
		}
		l.shown(stored)
		l.fleet.tell(stored)
	}
}

// setOut notes whether this host is still in the fleet. When it was deleted its pods stop; when it is admitted they come back.
func (l *loop) setOut() {
	why := ""
	switch {
	case l.leaving:
		why = "the host leaves the fleet"
	case l.fleet.expelled():
		why = "the host was deleted from the fleet"
	}
	if why == l.out {
		return
	}
	l.out = why
	switch {
	case why == "":
		l.log.Info("this host is in the fleet again")
	case l.leaving:
		l.trouble("OutOfFleet", fmt.Errorf("%s: its pods stop, then picketd ends; it comes back when picketd is started", why))
	default:
		l.trouble("OutOfFleet", fmt.Errorf("%s: its pods stop. picket admit %s, on another host, or a new certificate takes it back", why, l.node.name))
	}
	l.planAll()
}

// writeNode takes a client's write of a Node, of this host or another, also one that is down: it is applied when it returns.
func (l *loop) writeNode(w api.Write) error {
	n, ok := l.nodes[w.Name]
	if !ok || !l.inFleet(w.Name) {
		return apierrors.NewNotFound(resourceNodes, w.Name)
	}
	if w.Object == nil {
		return l.deleteNode(w)
	}
	written, ok := w.Object.(*corev1.Node)
	if !ok {
		return apierrors.NewMethodNotSupported(resourceNodes, "write")
	}
	section, err := n.split(written)
	if err != nil || w.DryRun {
		return err
	}
	return l.put(w.Author, &section)
}

// deleteNode takes another host out of the fleet. What the API had set on it goes too.
func (l *loop) deleteNode(w api.Write) error {
	if w.Name == l.node.name {
		return apierrors.NewForbidden(resourceNodes, w.Name, fmt.Errorf("a host does not delete itself: ask another host, or use picket leave on %s", w.Name))
	}
	if err := l.mayWrite(); err != nil {
		return apierrors.NewForbidden(resourceNodes, w.Name, err)
	}
	if w.DryRun {
		return nil
	}
	if err := l.fleet.delete(w.Name); err != nil {
		return err
	}
	key := storeKey(manifest.Ref{Kind: manifest.KindNode, Name: w.Name})
	if o, ok := l.store.Get(key); ok && !o.Deleted {
		if err := l.commit([]cluster.Write{{Key: key, Deleted: true, Author: w.Author}}); err != nil {
			return err
		}
	}
	l.fleetChanged()
	return nil
}

// mayWrite says why this host may not change what is the fleet's.
func (l *loop) mayWrite() error {
	switch {
	case l.out != "":
		return errors.New(l.out)
	case !l.fleet.door():
		return noDoor(l.node.name)
	}
	return nil
}

// memberNames are the names of the hosts that count, this one too, sorted.
func (l *loop) memberNames() []string {
	names := []string{l.node.name}
	for name, m := range l.members {
		if name != l.node.name && m.Listed && m.State == cluster.RosterMember {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func addressOf(n *node) string {
	for _, a := range n.host.Addresses {
		if a.Type == corev1.NodeInternalIP {
			return a.Address
		}
	}
	return ""
}

// hostAddressList is what a Node's status lists.
func hostAddressList(addresses []string, name string) []corev1.NodeAddress {
	var list []corev1.NodeAddress
	for _, a := range addresses {
		list = append(list, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	return append(list, corev1.NodeAddress{Type: corev1.NodeHostName, Address: name})
}
