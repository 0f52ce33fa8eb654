package agent

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/agent/daemonset"
	"github.com/picketd/picket/agent/manifest"
	"github.com/picketd/picket/cluster"
)

// daemonSet is what the loop knows of one DaemonSet. The object is nil once it was deleted; known is false for pods whose
// DaemonSet nobody has told us about (a lost state file): those are left alone.
type daemonSet struct {
	object    *appsv1.DaemonSet
	revisions []*appsv1.ControllerRevision
	known     bool
	memory    memory
	unkept    bool // the disk does not have all of memory
	said      daemonset.Said
	loaded    daemonset.Version // that was here when the agent started
	returned  time.Time         // since when somebody is waited for that the version was to go on without; zero is nobody
	// notRolledBack is what was last told of a rollback that does not come.
	notRolledBack string
	dirty         bool // to be planned
	wakeUp        time.Time

	viewStale bool // what follows is to be made anew
	common    daemonset.Common
	digest    daemonset.Digest
	config    string // stands for the contents of the ConfigMaps and Secrets that the template names

	own        daemonset.Status                // this host's word, as it was last decided
	others     map[string]daemonset.Status     // the other hosts' words
	unsummed   bool                            // a word has changed since the status was summed up
	blueprints map[string]*daemonset.Blueprint // by revision, for the pods of other hosts
	shown      map[string]string               // names of the pods of other hosts in the cache, by host
}

// memory is what daemonset.Plan wants back the next time.
type memory struct {
	Failures  daemonset.Failures
	Evictions map[string]daemonset.Eviction
	Rollout   daemonset.Memory
	Said      daemonset.Said // as of its last change that was worth a write
}

// body is what the replicated store keeps of one object, opaque to package cluster.
type body struct {
	Created   metav1.Time                  `json:"created"`
	Object    json.RawMessage              `json:"object"`
	Revisions []*appsv1.ControllerRevision `json:"revisions,omitempty"`
}

// resources maps the kinds we keep to the resources the API serves.
var resources = map[string]schema.GroupResource{
	manifest.KindDaemonSet: {Group: "apps", Resource: "daemonsets"},
	manifest.KindConfigMap: {Resource: "configmaps"},
	manifest.KindSecret:    {Resource: "secrets"},
	manifest.KindNamespace: {Resource: "namespaces"},
	manifest.KindNode:      resourceNodes,
}

var (
	resourceRevisions  = schema.GroupResource{Group: "apps", Resource: "controllerrevisions"}
	resourceDaemonSets = resources[manifest.KindDaemonSet]
	resourceConfigMaps = resources[manifest.KindConfigMap]
	resourceSecrets    = resources[manifest.KindSecret]
)

func storeKey(r manifest.Ref) string { return r.Kind + "/" + r.Namespace + "/" + r.Name }

func refOfKey(key string) (manifest.Ref, error) {
	parts := strings.SplitN(key, "/", 3)
	if len(parts) != 3 {
		return manifest.Ref{}, fmt.Errorf("key %q is not kind/namespace/name", key)
	}
	return manifest.Ref{Kind: parts[0], Namespace: parts[1], Name: parts[2]}, nil
}

// read decodes a stored object into the one users see: with uid, generation and creation time.
func read(o cluster.Object) (manifest.Object, []*appsv1.ControllerRevision, error) {
	ref, err := refOfKey(o.Key)
	if err != nil {
		return nil, nil, err
	}
	var b body
	if err := json.Unmarshal(o.Body, &b); err != nil {
		return nil, nil, fmt.Errorf("cannot read %s: %w", ref, err)
	}
	object, err := manifest.DecodeBody(b.Object)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read %s: %w", ref, err)
	}
	object.SetUID(daemonset.UID(ref.Kind, ref.Namespace, ref.Name, o.Birth))
	object.SetCreationTimestamp(b.Created)
	if ref.Kind == manifest.KindDaemonSet {
		object.SetGeneration(int64(o.Version.Generation))
	}
	return object, b.Revisions, nil
}

// load fills the loop's state and the cache from the store. An unreadable object is reported and left alone: it is never empty.
func (l *loop) load() {
	l.shown(l.store.All())
	for _, d := range l.daemonSets {
		if d.object != nil {
			o, _ := l.store.Get(storeKey(manifest.RefOf(d.object)))
			d.loaded = daemonset.Common{Generation: o.Version.Generation, Hash: o.Version.Hash}.Version()
		}
	}
	for _, name := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic} {
		l.ensureNamespace(name)
	}
	l.publishNode(l.node)
}

// objectsChanged takes in what other hosts wrote.
func (l *loop) objectsChanged() {
	changed, overwrites := l.store.TakeNews()
	l.shown(changed)
	for _, o := range overwrites {
		l.overwritten(o)
	}
}

// shown shows stored objects. One that cannot be read is reported and left alone.
func (l *loop) shown(objects []cluster.Object) {
	for _, o := range objects {
		if err := l.show(o); err != nil {
			l.trouble("UnreadableObject", err)
		}
	}
}

// overwritten tells of a write that was lost: two hosts took one of the same object, without knowledge of each other.
func (l *loop) overwritten(o cluster.Overwrite) {
	_, own := hostOf(o.Loser.Key)
	if _, _, excluded := excludes(o.Loser.Key); own || excluded {
		return
	}
	ref, err := refOfKey(o.Loser.Key)
	if err != nil {
		return
	}
	about := corev1.ObjectReference{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}
	if current, ok := l.cache.Get(resources[ref.Kind], ref.Namespace, ref.Name); ok {
		about.UID, about.APIVersion = current.GetUID(), current.GetObjectKind().GroupVersionKind().GroupVersion().String()
	}
	describe := func(o cluster.Object) string {
		what := "written"
		if o.Deleted {
			what = "deleted"
		}
		return fmt.Sprintf("%s by %s on %s at %s", what, o.Author, o.Origin, o.Time.UTC().Format(time.RFC3339))
	}
	text := fmt.Sprintf("%s was %s and, without knowledge of that, %s: the second stays, the first is lost; apply it again if it is to stay",
		ref, describe(o.Loser), describe(o.Winner))
	l.log.Warn("a write was lost to another one", "object", ref.String(), "lost", o.Loser.Author+" on "+o.Loser.Origin, "kept", o.Winner.Author+" on "+o.Winner.Origin)
	l.events.record(about, corev1.EventTypeWarning, "Overwritten", text)
}

// show makes one stored object (or its tombstone) the loop's and the cache's present state.
func (l *loop) show(o cluster.Object) error {
	if name, ok := hostOf(o.Key); ok {
		return l.showHost(name, o)
	}
	if name, _, ok := excludes(o.Key); ok {
		l.showExclusion(name)
		return nil
	}
	ref, err := refOfKey(o.Key)
	if err != nil {
		return err
	}
	if o.Deleted {
		l.forget(ref)
		return nil
	}
	object, revisions, err := read(o)
	if err != nil {
		return err
	}
	if ref.Namespace != "" {
		l.ensureNamespace(ref.Namespace)
	}
	switch object := object.(type) {
	case *appsv1.DaemonSet:
		l.showDaemonSet(object, revisions)
	case *corev1.Node:
		n := l.nodeNamed(object.Name)
		n.section = *object
		l.publishNode(n)
	case *corev1.Namespace:
		object.Status.Phase = corev1.NamespaceActive
		l.cache.Set(resources[ref.Kind], object)
	default:
		l.cache.Set(resources[ref.Kind], object.(api.Object))
		l.configChanged(ref.Namespace)
	}
	return nil
}

// configChanged tells those who may use a ConfigMap or Secret.
func (l *loop) configChanged(namespace string) {
	l.pods.objectsChanged(namespace)
	for name, d := range l.daemonSets {
		if name.Namespace == namespace {
			d.viewStale, d.dirty = true, true
		}
	}
}

func (l *loop) showDaemonSet(object *appsv1.DaemonSet, revisions []*appsv1.ControllerRevision) {
	d := l.daemonSet(types.NamespacedName{Namespace: object.Namespace, Name: object.Name})
	for _, old := range d.revisions {
		if !hasRevision(revisions, old.Name) {
			l.cache.Delete(resourceRevisions, old.Namespace, old.Name)
		}
	}
	for _, r := range revisions {
		l.cache.Set(resourceRevisions, r)
	}
	if d.object != nil {
		object.Status = d.object.Status
	}
	d.object, d.revisions, d.known, d.dirty, d.viewStale = object, revisions, true, true, true
	l.pods.own(object)
	l.publishDaemonSet(d)
	l.showPodsOf(types.NamespacedName{Namespace: object.Namespace, Name: object.Name}, d)
	for _, w := range manifest.Warnings(object) {
		l.events.record(referenceTo("apps/v1", "DaemonSet", object), corev1.EventTypeWarning, "FieldNotHonoured", w.Field+": "+w.Text)
	}
}

// publishDaemonSet puts the DaemonSet with its status into the cache.
func (l *loop) publishDaemonSet(d *daemonSet) {
	l.cache.Set(resources[manifest.KindDaemonSet], d.object.DeepCopy())
}

// forget takes a deleted object out of the cache. A DaemonSet stays known to the loop until its pods are gone.
func (l *loop) forget(ref manifest.Ref) {
	if ref.Kind != manifest.KindNode { // a Node is there as long as its host is
		l.cache.Delete(resources[ref.Kind], ref.Namespace, ref.Name)
	}
	switch ref.Kind {
	case manifest.KindDaemonSet:
		d := l.daemonSet(types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name})
		for _, r := range d.revisions {
			l.cache.Delete(resourceRevisions, r.Namespace, r.Name)
		}
		d.object, d.revisions, d.known, d.dirty = nil, nil, true, true // blueprints stay: pods of other hosts end yet
	case manifest.KindNode:
		n := l.nodeNamed(ref.Name)
		n.section = corev1.Node{}
		l.publishNode(n)
	case manifest.KindConfigMap, manifest.KindSecret:
		l.configChanged(ref.Namespace)
	}
}

// daemonSet returns the loop's entry for a name, made when it is new.
func (l *loop) daemonSet(name types.NamespacedName) *daemonSet {
	d, ok := l.daemonSets[name]
	if !ok {
		d = &daemonSet{
			memory: l.state.recall(name.String()), others: map[string]daemonset.Status{},
			blueprints: map[string]*daemonset.Blueprint{}, shown: map[string]string{},
		}
		ref := manifest.Ref{Kind: manifest.KindDaemonSet, Namespace: name.Namespace, Name: name.Name}
		if o, ok := l.store.Get(storeKey(ref)); ok && o.Deleted {
			d.known, d.dirty = true, true // somebody's word came late: it is forgotten when that is taken back
		}
		d.said = d.memory.Said
		if !d.memory.Rollout.Since.IsZero() {
			d.memory.Rollout.Since = l.now() // the time that the agent was away was nobody's turn
		}
		l.daemonSets[name] = d
	}
	return d
}

// ensureNamespace shows a namespace that nobody wrote: the ones every cluster has, and those that manifest files use.
func (l *loop) ensureNamespace(name string) {
	if _, ok := l.cache.Get(resources[manifest.KindNamespace], "", name); ok {
		return
	}
	ns := &corev1.Namespace{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, UID: daemonset.UID(manifest.KindNamespace, "", name, 0), CreationTimestamp: l.node.host.Created,
			Labels: map[string]string{corev1.LabelMetadataName: name},
		},
		Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive},
	}
	l.cache.Set(resources[manifest.KindNamespace], ns)
}

func hasRevision(list []*appsv1.ControllerRevision, name string) bool {
	for _, r := range list {
		if r.Name == name {
			return true
		}
	}
	return false
}
