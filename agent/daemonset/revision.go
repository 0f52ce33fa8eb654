package daemonset

import (
	"bytes"
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/rand"
)

// defaultHistoryLimit is Kubernetes' default of revisionHistoryLimit.
const defaultHistoryLimit = 10

// NextHistory is the revision history once ds is the desired object, sorted by .Revision: the current revision is the last
// (SEMANTICS.md 14). A template whose bytes are already in the history is that revision again, under the next number; what
// counts is the stored bytes, never a hash computed anew. live lists the revisions (hash or name) that pods still run: they
// are never dropped. Neither history nor ds is changed; equal input gives equal output. A new revision has no
// creationTimestamp, the caller sets it.
func NextHistory(history []*appsv1.ControllerRevision, ds *appsv1.DaemonSet, live []string) []*appsv1.ControllerRevision {
	history = slices.Clone(history)
	slices.SortStableFunc(history, func(a, b *appsv1.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Name, b.Name))
	})
	data, err := revisionData(&ds.Spec.Template)
	if err != nil {
		// Only a template that no JSON could have made cannot be written as JSON; it never becomes a revision.
		return history
	}
	isLive := func(r *appsv1.ControllerRevision) bool {
		return slices.Contains(live, RevisionHash(r)) || slices.Contains(live, r.Name)
	}

	var current *appsv1.ControllerRevision
	var old []*appsv1.ControllerRevision
	for _, r := range slices.Backward(history) {
		switch equal := bytes.Equal(r.Data.Raw, data); {
		case equal && current == nil:
			current = r
		case !equal || isLive(r): // an older twin of the current one is of use only to its own pods
			old = append(old, r)
		}
	}
	slices.Reverse(old)
	next := int64(1)
	if len(old) > 0 {
		next = old[len(old)-1].Revision + 1
	}
	switch {
	case current == nil:
		current = newRevision(ds, data, next, history)
	case current.Revision < next:
		current = current.DeepCopy()
		current.Revision = next
	}
	return append(prune(old, historyLimit(ds), isLive), current)
}

// prune drops the oldest revisions that nothing runs, until limit are left.
func prune(old []*appsv1.ControllerRevision, limit int, isLive func(*appsv1.ControllerRevision) bool) []*appsv1.ControllerRevision {
	excess := len(old) - limit
	return slices.DeleteFunc(old, func(r *appsv1.ControllerRevision) bool {
		if excess <= 0 || isLive(r) {
			return false
		}
		excess--
		return true
	})
}

func historyLimit(ds *appsv1.DaemonSet) int {
	if ds.Spec.RevisionHistoryLimit == nil {
		return defaultHistoryLimit
	}
	return int(*ds.Spec.RevisionHistoryLimit)
}

// revisionData is the patch that brings the template back, byte for byte as Kubernetes writes it: keys sorted.
func revisionData(template *corev1.PodTemplateSpec) ([]byte, error) {
	typed, err := json.Marshal(template)
	if err != nil {
		return nil, fmt.Errorf("cannot write the pod template as JSON: %w", err)
	}
	fields := map[string]any{}
	if err := json.Unmarshal(typed, &fields); err != nil {
		return nil, fmt.Errorf("cannot read the pod template's JSON back: %w", err)
	}
	fields["$patch"] = "replace"
	return json.Marshal(map[string]any{"spec": map[string]any{"template": fields}})
}

// newRevision makes the ControllerRevision of data. Its hash is its name from then on; when another template of the history
// happens to have the same hash, a counter is hashed with it until the name is free.
func newRevision(ds *appsv1.DaemonSet, data []byte, number int64, history []*appsv1.ControllerRevision) *appsv1.ControllerRevision {
	taken := func(hash string) bool {
		return slices.ContainsFunc(history, func(r *appsv1.ControllerRevision) bool { return RevisionHash(r) == hash })
	}
	hash := hashOf(data)
	for collisions := 1; taken(hash); collisions++ {
		hash = hashOf(strconv.AppendInt(slices.Clone(data), int64(collisions), 10))
	}
	labels := maps.Clone(ds.Spec.Template.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[appsv1.ControllerRevisionHashLabelKey] = hash
	// last-applied is as large as the DaemonSet itself and says nothing of the revision; the change cause stays.
	annotations := maps.Clone(ds.Annotations)
	delete(annotations, corev1.LastAppliedConfigAnnotation)
	delete(annotations, AnnotationRolledBack)
	name := ds.Name + "-" + hash
	return &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Name:            name,
			Namespace:       ds.Namespace,
			UID:             types.UID(derive("ControllerRevision", string(ds.UID), name).String()),
			Labels:          labels,
			Annotations:     annotations,
			OwnerReferences: []metav1.OwnerReference{ownerRef(ds)},
		},
		Data:     runtime.RawExtension{Raw: data},
		Revision: number,
	}
}

// hashOf is a hash in Kubernetes' style: digits of an FNV-1a sum, spelt without vowels.
func hashOf(data []byte) string {
	sum := fnv.New32a()
	sum.Write(data)
	return rand.SafeEncodeString(strconv.FormatUint(uint64(sum.Sum32()), 10))
}

// RevisionHash is what pods of the revision carry as label controller-revision-hash.
func RevisionHash(rev *appsv1.ControllerRevision) string {
	return rev.Labels[appsv1.ControllerRevisionHashLabelKey]
}

// Template is the pod template that a revision stands for.
func Template(rev *appsv1.ControllerRevision) (*corev1.PodTemplateSpec, error) {
	var patch struct {
		Spec struct {
			Template *corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(rev.Data.Raw, &patch); err != nil {
		return nil, fmt.Errorf("cannot read the pod template of revision %s: %w", rev.Name, err)
	}
	if patch.Spec.Template == nil {
		return nil, fmt.Errorf("cannot read the pod template of revision %s: its data has no spec.template", rev.Name)
	}
	return patch.Spec.Template, nil
}

// ownerRef names the DaemonSet as the one controller of its pods and revisions.
func ownerRef(ds *appsv1.DaemonSet) metav1.OwnerReference {
	return *metav1.NewControllerRef(ds, appsv1.SchemeGroupVersion.WithKind("DaemonSet"))
}
