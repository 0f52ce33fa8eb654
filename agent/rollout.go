package agent

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/daemonset"
	"github.com/picketd/picket/agent/manifest"
	"github.com/picketd/picket/cluster"
)

// What the planner reads of the fleet for a rolling update, and what it wants done there.

const (
	// raiseEvery bounds how often this host has the others agree about it anew.
	raiseEvery = time.Second
	// meetWithin is how long a host that starts waits for others that it has not heard yet, before it takes them for lost.
	meetWithin = 10 * time.Second
	// quietAfter is for how long, at least, there may be no word of a host that others rely on.
	quietAfter = 2 * time.Second
)

// readRoster takes in where the hosts stand; it says whether that has changed.
func (l *loop) readRoster() bool {
	sum, roster := l.fleet.standings()
	if l.roster != nil && sum == l.rosterSum {
		return false
	}
	l.rosterSum, l.roster, l.rosterNames = sum, make(map[string]daemonset.Entry, len(roster)), make([]string, 0, len(roster))
	for _, s := range roster { // sorted
		l.rosterNames = append(l.rosterNames, s.Node)
		l.roster[s.Node] = daemonset.Entry{Number: s.Entry, Out: s.State != cluster.RosterMember}
	}
	return true
}

// view is what this host knows of a DaemonSet.
func (l *loop) view(name types.NamespacedName, d *daemonSet) daemonset.View {
	v := daemonset.View{DaemonSet: d.object}
	if d.object == nil {
		return v
	}
	if d.viewStale {
		d.common, d.config = l.commonOf(name, d)
		d.digest, d.viewStale = d.common.Digest(), false
	}
	v.Generation, v.Revision = d.object.Generation, currentRevision(d.revisions)
	v.Config, v.Common, v.Digest, v.Others = d.restartsOn(), d.common, d.digest, l.wordsOf(d)
	return v
}

// restartsOn is the config of the view that is now (see daemonset.View).
func (d *daemonSet) restartsOn() string {
	if daemonset.RestartsOnConfig(d.object) {
		return d.config
	}
	return ""
}

// viewsChanged has every DaemonSet's view made anew: the roster or what is believed of objects has changed.
func (l *loop) viewsChanged() {
	for _, d := range l.daemonSets {
		d.viewStale, d.dirty = true, true
	}
}

// commonOf is what all hosts agree on that have heard the same, and what stands for the contents that restart the DaemonSet's pods.
func (l *loop) commonOf(name types.NamespacedName, d *daemonSet) (c daemonset.Common, config string) {
	o, _ := l.store.Get(storeKey(manifest.RefOf(d.object)))
	c = daemonset.Common{Generation: o.Version.Generation, Hash: o.Version.Hash, Roster: l.roster, Names: l.rosterNames, Exclusions: map[string]daemonset.Exclusion{}}
	for node := range l.roster {
		if e, ok := l.exclusionOf(name, node, c); ok && l.store.Believed(exclusionKey(name, node)) {
			c.Exclusions[node] = daemonset.Exclusion{Entry: e.entry(), Lifted: e.lifted()}
		}
	}
	versions, config := l.configsOf(d.object)
	if daemonset.RestartsOnConfig(d.object) {
		c.Configs = versions
	}
	return c, config
}

// configsOf are the versions of the ConfigMaps and Secrets that a template names, and a short hash of what is in them.
func (l *loop) configsOf(ds *appsv1.DaemonSet) (versions []byte, contents string) {
	sum := sha256.New()
	for _, ref := range manifest.ConfigRefs(ds) {
		o, ok := l.store.Get(storeKey(ref))
		if !ok || o.Deleted {
			continue
		}
		versions = append(versions, o.Key...)
		versions = binary.BigEndian.AppendUint64(append(versions, 0), o.Version.Generation)
		versions = append(versions, o.Version.Hash[:]...)
		sum.Write(append([]byte(o.Key), o.Version.Hash[:]...))
	}
	return versions, hex.EncodeToString(sum.Sum(nil)[:5])
}

// wordsOf is what the other hosts say, as far as they count.
func (l *loop) wordsOf(d *daemonSet) map[string]daemonset.Word {
	quiet := l.fleet.quiet()
	words := make(map[string]daemonset.Word, len(l.roster))
	for node, e := range l.roster {
		if node == l.node.name || e.Out {
			continue
		}
		status, told := d.others[node]
		failed := !l.members[node].Alive || status.Generation < d.object.Generation && l.helpless(node, d)
		words[node] = daemonset.Word{Status: status, Told: told, Failed: failed, Quiet: quiet[node]}
	}
	return words
}

// helpless says whether a host has told a while ago that its containerd does not answer: until it knows what runs there it decides
// nothing.
func (l *loop) helpless(node string, d *daemonSet) bool {
	n, ok := l.nodes[node]
	if !ok || n.ready().Status != corev1.ConditionFalse {
		return false
	}
	since := n.readyAt.Add(meetWithin)
	if l.now().Before(since) {
		d.wakeUpBy(since)
		return false
	}
	return true
}

// raise has all hosts agree about this one anew. They hear it by gossip, and so does this one.
func (l *loop) raise(d *daemonSet, now time.Time) {
	if soon := l.raisedAt.Add(raiseEvery); now.Before(soon) {
		d.wakeUpBy(soon)
		return
	}
	l.raisedAt = now
	if err := l.fleet.raise(); err != nil {
		l.trouble("EntryNotRaised", err)
	}
	d.wakeUpBy(now.Add(raiseEvery))
}

// ask asks hosts that have been quiet for a sign of life, and plans again when they have given one.
func (l *loop) ask(ctx context.Context, d *daemonSet, blockers []daemonset.Blocker) {
	for _, b := range blockers {
		if b.Why == daemonset.CodeQuiet {
			d.wakeUpBy(l.now().Add(quietAfter)) // the question may be lost, and so may the answer
			l.fleet.ask(b.Node, func() { _ = l.do(ctx, func() error { d.dirty = true; return nil }) })
		}
	}
}

// rollBack writes an earlier revision as a new version, if this host is a door. Doors that do so at once write the same.
func (l *loop) rollBack(name types.NamespacedName, d *daemonSet) {
	if l.mayWrite() != nil || !l.fleet.isSynced() {
		return
	}
	back, from, whyNot := daemonset.Rollback(d.object, d.revisions)
	if back == nil {
		if text := fmt.Sprintf("revision %s was not available within its progress deadline, and it is not rolled back: %s", from, whyNot); d.notRolledBack != text {
			d.notRolledBack = text
			l.log.Warn(text, "daemonset", name)
			l.events.record(referenceTo("apps/v1", "DaemonSet", d.object), corev1.EventTypeWarning, "RollbackFailed", text)
		}
		return
	}
	if err := l.put("picketd (automatic rollback)", back); err != nil {
		l.trouble("RollbackFailed", fmt.Errorf("DaemonSet %s cannot be rolled back: %w", name, err))
		d.wakeUpBy(l.now().Add(tick))
		return
	}
	text := fmt.Sprintf("revision %s was not available within its progress deadline and was rolled back to %s", from, currentRevision(d.revisions))
	l.log.Warn(text, "daemonset", name)
	l.events.record(referenceTo("apps/v1", "DaemonSet", d.object), corev1.EventTypeWarning, "RolledBack", text)
}

// tellRollout records as events what keeps an update on this host from going on by itself, when that begins.
func (l *loop) tellRollout(d *daemonSet, before, now daemonset.Status) {
	reason := ""
	switch {
	case now.Stuck && !before.Stuck:
		reason = "ProgressDeadlineExceeded"
	case now.Code == before.Code && now.Detail == before.Detail:
	case now.Code == daemonset.CodeFailed, now.Code == daemonset.CodeHalted, now.Code == daemonset.CodeAside:
		reason = "RolloutBlocked"
	}
	if reason == "" {
		return
	}
	l.log.Warn(now.Reason, "reason", reason, "daemonset", d.object.Namespace+"/"+d.object.Name)
	l.events.record(referenceTo("apps/v1", "DaemonSet", d.object), corev1.EventTypeWarning, reason, now.Reason)
}
