package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/agent/daemonset"
	"github.com/picketd/picket/agent/manifest"
	"github.com/picketd/picket/cluster"
)

// write takes one change from the API: it checks the preconditions, makes the change durable, shows it and returns it.
func (l *loop) write(w api.Write) (api.Object, error) {
	current, exists := l.cache.Get(w.Resource, w.Namespace, w.Name)
	if err := checkPreconditions(w, current, exists); err != nil {
		return nil, err
	}
	var err error
	switch {
	case w.Resource == resourcePods:
		return l.deletePod(w, current)
	case w.Resource == resourceNodes:
		err = l.writeNode(w)
	case w.Object == nil:
		err = l.remove(w, current)
	default:
		err = l.writeObject(w)
	}
	if err != nil {
		return nil, asStatus(err)
	}
	if w.DryRun && w.Object != nil {
		return w.Object, nil
	}
	if w.Object == nil {
		return current, nil
	}
	now, ok := l.cache.Get(w.Resource, w.Namespace, w.Name)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("%s %s was written but is not shown", w.Resource, w.Name))
	}
	return now, nil
}

func checkPreconditions(w api.Write, current api.Object, exists bool) error {
	switch {
	case w.Create && exists:
		return apierrors.NewAlreadyExists(w.Resource, w.Name)
	case !w.Create && !exists:
		return apierrors.NewNotFound(w.Resource, w.Name)
	case !exists:
		return nil
	case w.UID != "" && w.UID != current.GetUID():
		return apierrors.NewConflict(w.Resource, w.Name, fmt.Errorf("precondition failed: UID in precondition: %s, UID in object meta: %s", w.UID, current.GetUID()))
	case w.ResourceVersion != "" && w.ResourceVersion != current.GetResourceVersion():
		return apierrors.NewConflict(w.Resource, w.Name, errors.New("the object has been modified; please apply your changes to the latest version and try again"))
	}
	return nil
}

// asStatus makes a full or read-only disk an answer a kubectl user understands.
func asStatus(err error) error {
	var status apierrors.APIStatus
	var tooLarge *cluster.TooLargeError
	var forbidden *cluster.NotPermittedError
	switch {
	case errors.As(err, &status):
		return err
	case errors.As(err, &tooLarge):
		return apierrors.NewRequestEntityTooLargeError(tooLarge.Error())
	case errors.As(err, &forbidden):
		return &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: forbidden.Error(),
		}}
	}
	return apierrors.NewInternalError(fmt.Errorf("nothing was changed: %w", err))
}

func (l *loop) writeObject(w api.Write) error {
	object, ok := w.Object.(manifest.Object)
	if !ok || resources[object.GetObjectKind().GroupVersionKind().Kind] != w.Resource {
		return apierrors.NewMethodNotSupported(w.Resource, "write")
	}
	if w.DryRun {
		return nil
	}
	return l.put(w.Author, object)
}

// remove writes tombstones: for the object, and for a namespace also for everything in it.
func (l *loop) remove(w api.Write, current api.Object) error {
	kind := current.GetObjectKind().GroupVersionKind().Kind
	if _, kept := resources[kind]; !kept {
		return apierrors.NewMethodNotSupported(w.Resource, "delete")
	}
	refs := []manifest.Ref{{Kind: kind, Namespace: w.Namespace, Name: w.Name}}
	if kind == manifest.KindNamespace {
		if slices.Contains([]string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic}, w.Name) {
			return apierrors.NewForbidden(w.Resource, w.Name, errors.New("this namespace may not be deleted"))
		}
		refs = append(refs, l.contentsOf(w.Name)...)
	}
	if w.DryRun {
		return nil
	}
	var writes []cluster.Write
	for _, ref := range refs {
		if o, ok := l.store.Get(storeKey(ref)); ok && !o.Deleted {
			writes = append(writes, cluster.Write{Key: o.Key, Deleted: true, Author: w.Author})
		}
	}
	if err := l.commit(writes); err != nil {
		return err
	}
	if kind == manifest.KindNamespace { // one that was never written has no tombstone
		l.cache.Delete(w.Resource, "", w.Name)
	}
	return nil
}

// contentsOf names every object kept in a namespace.
func (l *loop) contentsOf(namespace string) []manifest.Ref {
	var refs []manifest.Ref
	for _, o := range l.store.All() {
		if ref, err := refOfKey(o.Key); err == nil && !o.Deleted && ref.Namespace == namespace && ref.Kind != exclusionKind {
			refs = append(refs, ref)
		}
	}
	return refs
}

// put makes objects durable, all or none, and shows them.
func (l *loop) put(author string, objects ...manifest.Object) error {
	writes := make([]cluster.Write, 0, len(objects))
	for _, object := range objects {
		w, err := l.prepare(object)
		if err != nil {
			return err
		}
		w.Author = author
		writes = append(writes, w)
	}
	return l.commit(writes)
}

// prepare encodes an object for the store; a DaemonSet takes its revision history along.
func (l *loop) prepare(object manifest.Object) (cluster.Write, error) {
	ref := manifest.RefOf(object)
	previous, exists := l.store.Get(storeKey(ref))
	b := body{Created: metav1.NewTime(l.now())}
	if exists && !previous.Deleted {
		if old, err := storedBody(previous); err == nil {
			b.Created, b.Revisions = old.Created, old.Revisions
		}
	}
	encoded, err := manifest.Encode(object)
	if err != nil {
		return cluster.Write{}, fmt.Errorf("cannot store %s: %w", ref, err)
	}
	b.Object = encoded
	if ds, ok := object.(*appsv1.DaemonSet); ok {
		ds = ds.DeepCopy()
		ds.UID = daemonset.UID(ref.Kind, ref.Namespace, ref.Name, l.store.Birth(storeKey(ref)))
		name := types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
		b.Revisions = daemonset.NextHistory(l.judged(name, b.Revisions), ds, l.revisionsOf(name))
		for _, r := range b.Revisions {
			if r.CreationTimestamp.IsZero() {
				r.CreationTimestamp = metav1.NewTime(l.now())
			}
		}
	}
	bytes, err := json.Marshal(b)
	if err != nil {
		return cluster.Write{}, fmt.Errorf("cannot store %s: %w", ref, err)
	}
	return cluster.Write{Key: storeKey(ref), Body: bytes, Hash: manifest.Hash(object), Content: manifest.AppliedHash(object)}, nil
}

// judged are a DaemonSet's revisions with what has become of the one that is current yet.
func (l *loop) judged(name types.NamespacedName, revisions []*appsv1.ControllerRevision) []*appsv1.ControllerRevision {
	d, ok := l.daemonSets[name]
	if !ok || d.object == nil {
		return revisions
	}
	l.sum(d)
	return daemonset.Judge(revisions, d.object.Status)
}

func storedBody(o cluster.Object) (body, error) {
	var b body
	err := json.Unmarshal(o.Body, &b)
	return b, err
}

// commit writes to the store in one transaction and shows what it returned.
func (l *loop) commit(writes []cluster.Write) error {
	if len(writes) == 0 {
		return nil
	}
	if _, own := hostOf(writes[0].Key); l.out != "" && !own {
		return &cluster.NotPermittedError{Reason: "nothing can be written here: " + l.out}
	}
	stored, err := l.store.PutAll(writes)
	if err != nil {
		return err
	}
	l.fleet.tell(stored)
	for _, o := range stored {
		if err := l.show(o); err != nil {
			return err
		}
	}
	return nil
}

// writeFile takes one manifest file: every object of it or none. known says whether this host applied an earlier content of
// the path; a path new here must not bring back content that the fleet has moved on from.
func (l *loop) writeFile(path string, known bool, objects []manifest.Object) error {
	var changed []manifest.Object
	for _, object := range objects {
		ref := manifest.RefOf(object)
		previous, exists := l.store.Get(storeKey(ref))
		content := manifest.AppliedHash(object)
		switch {
		case known || !exists:
		case !previous.Deleted && previous.Content == content:
			continue // the fleet has it already; what was changed in the object since was changed on purpose
		case slices.Contains(previous.Past, content):
			l.trouble("ManifestOutdated", outdated(path, ref, previous))
			continue
		}
		merged, err := l.mergeFile(object, previous, exists)
		if err != nil {
			return err
		}
		if merged != nil {
			changed = append(changed, merged)
		}
	}
	return l.put("file:"+path, changed...)
}

// outdated says why the content of a file that is new here was not applied.
func outdated(path string, ref manifest.Ref, now cluster.Object) error {
	what := "replaced"
	if now.Deleted {
		what = "deleted"
	}
	return fmt.Errorf("%s: %s was not applied: this content of it was %s since, by %s at %s; to bring it back use kubectl apply, or change the file",
		path, ref, what, now.Author, now.Time.UTC().Format(time.RFC3339))
}

// mergeFile is kubectl's three-way merge of a file's object into the stored one; nil when nothing would change.
func (l *loop) mergeFile(object manifest.Object, previous cluster.Object, exists bool) (manifest.Object, error) {
	var current manifest.Object
	if exists && !previous.Deleted {
		var err error
		if current, _, err = read(previous); err != nil {
			return nil, err
		}
	}
	merged, changed, err := manifest.Apply(current, object)
	if err != nil || !changed {
		return nil, err
	}
	if errs := manifest.Validate(merged, current); len(errs) > 0 {
		return nil, fmt.Errorf("%s: %w", manifest.RefOf(object), errs.ToAggregate())
	}
	if n, ok := merged.(*corev1.Node); ok {
		return nil, fmt.Errorf("node %s: a Node is configured in its own picketd.yaml or with kubectl label and taint, not by a manifest file", n.Name)
	}
	return merged, nil
}
