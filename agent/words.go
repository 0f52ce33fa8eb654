package agent

import (
	"fmt"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubectl/pkg/util/qos"

	"github.com/picketd/picket/agent/daemonset"
	"github.com/picketd/picket/agent/manifest"
	"github.com/picketd/picket/cluster"
)

// What other hosts say of DaemonSets: their pods and the fleet's status are made of it.

// wordsChanged takes in the statuses that have come.
func (l *loop) wordsChanged() {
	for _, st := range l.fleet.statuses.TakeNews() {
		if st.Unit == unitHost {
			l.hearHost(l.nodeNamed(st.Node))
			continue
		}
		if err := l.hearWord(st); err != nil {
			l.log.Warn("what another host says is not understood", "host", st.Node, "daemonset", st.Unit, "error", err)
		}
	}
}

// hearHost takes in what a host says of itself.
func (l *loop) hearHost(n *node) {
	before := n.ready().Status
	l.publishNode(n)
	if n.ready().Status != before {
		n.readyAt = l.now()
		l.planAll() // it may be that an update goes on without it, or waits for it again
	}
}

func (l *loop) hearWord(st cluster.Status) error {
	namespace, name, ok := strings.Cut(st.Unit, "/")
	if !ok {
		return fmt.Errorf("%q is no DaemonSet", st.Unit)
	}
	unit := types.NamespacedName{Namespace: namespace, Name: name}
	d, known := l.daemonSets[unit]
	if len(st.Body) == 0 {
		if known {
			delete(d.others, st.Node)
			l.showPod(unit, d, st.Node)
			d.unsummed, d.dirty = true, true
		}
		return nil
	}
	word, err := daemonset.DecodeStatus(st.Body)
	if err != nil {
		return err
	}
	word.Node = st.Node
	d = l.daemonSet(unit)
	d.others[st.Node], d.unsummed, d.dirty = word, true, true
	l.showPod(unit, d, st.Node)
	return nil
}

// sumAll has every DaemonSet's status summed up anew.
func (l *loop) sumAll() {
	for _, d := range l.daemonSets {
		d.unsummed = true
	}
}

// sum makes the DaemonSet's status of all hosts' words.
func (l *loop) sum(d *daemonSet) {
	d.unsummed = false
	if d.object == nil {
		return
	}
	var statuses []daemonset.Status
	for _, name := range l.memberNames() {
		statuses = append(statuses, l.wordOf(d, name))
	}
	if status := daemonset.Sum(d.object, statuses); !reflect.DeepEqual(status, d.object.Status) {
		d.object.Status = status
		l.publishDaemonSet(d)
	}
}

// wordOf is what a host says of a DaemonSet, as far as it is heard.
func (l *loop) wordOf(d *daemonSet, name string) daemonset.Status {
	if name == l.node.name {
		if !l.adopted {
			return daemonset.Status{Node: name, Unheard: true, Silent: "containerd does not answer here", SilentSince: l.word.since}
		}
		return d.own
	}
	word := l.asHeard(d.others[name], name)
	word.Unheard = word.Generation < d.object.Generation
	if ready := l.nodes[name].ready(); word.Unheard && word.Silent == "" && ready.Status == corev1.ConditionFalse {
		word.Silent, word.SilentSince = ready.Message, ready.LastTransitionTime.Time // it decides nothing before it knows what runs there
	}
	return word
}

// asHeard is a host's word with what this host knows of the host.
func (l *loop) asHeard(word daemonset.Status, name string) daemonset.Status {
	word.Node = name
	if m := l.members[name]; !m.Alive {
		word.Silent, word.SilentSince = silence(m), m.Since
	}
	return word
}

// showPodsOf shows the other hosts' pods of a DaemonSet that has changed.
func (l *loop) showPodsOf(unit types.NamespacedName, d *daemonSet) {
	clear(d.blueprints)
	for name := range d.others {
		l.showPod(unit, d, name)
	}
}

// showPodsOn shows a host's pods, when something is known of the host that was not.
func (l *loop) showPodsOn(name string) {
	for unit, d := range l.daemonSets {
		if _, told := d.others[name]; told || d.shown[name] != "" {
			l.showPod(unit, d, name)
		}
	}
}

// showPod puts another host's pod into the cache, built of the template and the host's word, or takes it out.
func (l *loop) showPod(unit types.NamespacedName, d *daemonSet, name string) {
	word, told := d.others[name]
	var blueprint *daemonset.Blueprint
	if told && word.HasPod && l.inFleet(name) {
		blueprint = l.blueprint(d, word.Revision)
	}
	if blueprint == nil {
		if shown := d.shown[name]; shown != "" {
			l.cache.Delete(resourcePods, unit.Namespace, shown)
			delete(d.shown, name)
		}
		return
	}
	p := blueprint.Pod(name, addressOf(l.nodeNamed(name)), l.asHeard(word, name))
	if shown := d.shown[name]; shown != "" && shown != p.Name {
		l.cache.Delete(resourcePods, unit.Namespace, shown)
	}
	l.cache.Set(resourcePods, p)
	d.shown[name] = p.Name
}

// blueprint is what pods of a revision look like; nil when this host does not know the revision.
func (l *loop) blueprint(d *daemonSet, revision string) *daemonset.Blueprint {
	if b, ok := d.blueprints[revision]; ok {
		return b
	}
	if d.object == nil {
		return nil
	}
	rev, err := revisionNamed(d.revisions, revision)
	if err != nil {
		return nil
	}
	b, err := daemonset.NewBlueprint(d.object, rev, manifest.DefaultPod, func(p *corev1.Pod) { p.Status.QOSClass = qos.ComputePodQOS(p) })
	if err != nil {
		l.log.Warn("pods of other hosts cannot be shown", "daemonset", d.object.Namespace+"/"+d.object.Name, "error", err)
		return nil
	}
	d.blueprints[revision] = b
	return b
}

// revisionsOf are the revisions of a DaemonSet that pods run anywhere, as far as is heard: history must keep them.
func (l *loop) revisionsOf(unit types.NamespacedName) []string {
	running := l.pods.revisionsOf(unit)
	if d, ok := l.daemonSets[unit]; ok {
		for _, word := range d.others {
			running = append(running, word.Revision)
		}
	}
	return running
}
