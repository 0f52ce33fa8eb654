package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	kjson "sigs.k8s.io/json"
)

// Apply does what kubectl apply does: it merges modified (as Decode returned it) into current by comparing both with what was
// applied last, so that fields which others own (labels of the API, defaults) stay and fields that were removed from the
// manifest go. The result is defaulted and validated against current; an error is then an Errors. current nil creates.
// changed is false when the merge changes nothing that counts, the last-applied annotation included. An object too large for the
// annotation (kubectl apply refuses those) replaces the current one.
func Apply(current, modified Object) (merged Object, changed bool, err error) {
	if _, ok := modified.GetAnnotations()[corev1.LastAppliedConfigAnnotation]; !ok {
		modified = modified.DeepCopyObject().(Object)
		if err := annotate(modified); err != nil {
			return nil, false, err
		}
	}
	if current == nil {
		merged = modified.DeepCopyObject().(Object)
		serverOwned(merged, kindOf(merged).new())
		Default(merged)
		return merged, true, asErrors(merged, nil)
	}
	if RefOf(current) != RefOf(modified) {
		return nil, false, fmt.Errorf("cannot apply %s to %s", RefOf(modified), RefOf(current))
	}
	if _, ok := modified.GetAnnotations()[corev1.LastAppliedConfigAnnotation]; !ok {
		merged = modified.DeepCopyObject().(Object)
	} else if merged, err = merge(current, modified); err != nil {
		return nil, false, fmt.Errorf("cannot apply %s: %w", RefOf(modified), err)
	}
	serverOwned(merged, current)
	Default(merged)
	before := current.DeepCopyObject().(Object)
	Default(before)
	before.GetObjectKind().SetGroupVersionKind(merged.GetObjectKind().GroupVersionKind())
	return merged, !apiequality.Semantic.DeepEqual(before, merged), asErrors(merged, current)
}

// serverOwned drops what the manifest says of fields that only the server writes (manifests made by kubectl get -o yaml have
// them), in favour of the current ones.
func serverOwned(obj, current Object) {
	obj.SetUID(current.GetUID())
	obj.SetResourceVersion(current.GetResourceVersion())
	obj.SetGeneration(current.GetGeneration())
	obj.SetCreationTimestamp(current.GetCreationTimestamp())
	obj.SetDeletionTimestamp(current.GetDeletionTimestamp())
	obj.SetDeletionGracePeriodSeconds(current.GetDeletionGracePeriodSeconds())
	obj.SetSelfLink(current.GetSelfLink())
	obj.SetManagedFields(current.GetManagedFields())
	switch o := obj.(type) {
	case *appsv1.DaemonSet:
		current.(*appsv1.DaemonSet).Status.DeepCopyInto(&o.Status)
	case *corev1.Namespace:
		current.(*corev1.Namespace).Status.DeepCopyInto(&o.Status)
	case *corev1.Node:
		current.(*corev1.Node).Status.DeepCopyInto(&o.Status)
	}
}

// merge is the three-way merge itself, on JSON.
func merge(current, modified Object) (Object, error) {
	k := kindOf(current)
	wanted, err := lastAppliedWithItself(modified)
	if err != nil {
		return nil, err
	}
	original := []byte(current.GetAnnotations()[corev1.LastAppliedConfigAnnotation])
	now, err := json.Marshal(withoutImplied(current, original))
	if err != nil {
		return nil, err
	}
	schema, err := strategicpatch.NewPatchMetaFromStruct(k.create())
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateThreeWayMergePatch(original, wanted, now, schema, true)
	if err != nil {
		return nil, err
	}
	result, err := strategicpatch.StrategicMergePatchUsingLookupPatchMeta(now, patch, schema)
	if err != nil {
		return nil, err
	}
	merged := k.new()
	if err := kjson.UnmarshalCaseSensitivePreserveInts(result, merged); err != nil {
		return nil, err
	}
	return merged, nil
}

// withoutImplied takes back the defaults that were implied by another field of the manifest that was applied last, and follow it
// when it changes. kubectl leaves them as they were first: an imagePullPolicy survives a change of the tag it was derived from.
// A file must mean the same on every host, whatever was applied there before, so that all of them make one version of it.
func withoutImplied(current Object, original []byte) Object {
	ds, ok := current.(*appsv1.DaemonSet)
	var was appsv1.DaemonSet
	if !ok || kjson.UnmarshalCaseSensitivePreserveInts(original, &was) != nil {
		return current
	}
	implied := was.DeepCopy()
	Default(implied)
	ds = ds.DeepCopy()
	if was.Spec.UpdateStrategy.RollingUpdate == nil &&
		apiequality.Semantic.DeepEqual(ds.Spec.UpdateStrategy.RollingUpdate, implied.Spec.UpdateStrategy.RollingUpdate) {
		ds.Spec.UpdateStrategy.RollingUpdate = nil
	}
	policies := map[string]corev1.PullPolicy{}
	for i, c := range was.Spec.Template.Spec.Containers {
		if c.ImagePullPolicy == "" {
			policies[c.Name] = implied.Spec.Template.Spec.Containers[i].ImagePullPolicy
		}
	}
	for i := range ds.Spec.Template.Spec.Containers {
		if c := &ds.Spec.Template.Spec.Containers[i]; c.ImagePullPolicy == policies[c.Name] {
			c.ImagePullPolicy = ""
		}
	}
	return ds
}

// lastAppliedWithItself is what kubectl sends: the manifest as written, with that text in its own annotation.
func lastAppliedWithItself(obj Object) ([]byte, error) {
	text := obj.GetAnnotations()[corev1.LastAppliedConfigAnnotation]
	var content map[string]any
	if err := kjson.UnmarshalCaseSensitivePreserveInts([]byte(text), &content); err != nil {
		return nil, fmt.Errorf("annotation %s: %w", corev1.LastAppliedConfigAnnotation, err)
	}
	metadata, _ := content["metadata"].(map[string]any)
	if metadata == nil {
		return nil, fmt.Errorf("annotation %s holds no object", corev1.LastAppliedConfigAnnotation)
	}
	annotations, _ := metadata["annotations"].(map[string]any)
	if annotations == nil {
		annotations = map[string]any{}
		metadata["annotations"] = annotations
	}
	annotations[corev1.LastAppliedConfigAnnotation] = text
	return json.Marshal(content)
}

// setLastApplied keeps the document as its author wrote it (raw, with the namespace filled in) in the annotation where kubectl
// keeps it too. kubectl writes the annotations map even when it is empty, and a newline at the end; so do we, so that
// kubectl diff and apply of the same file find nothing to change.
func setLastApplied(obj Object, raw []byte) error {
	var content map[string]any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &content); err != nil {
		return err
	}
	metadata, _ := content["metadata"].(map[string]any)
	if metadata == nil {
		metadata = map[string]any{}
		content["metadata"] = metadata
	}
	if namespace := obj.GetNamespace(); namespace != "" {
		metadata["namespace"] = namespace
	}
	spellOutNulls(content, reflect.TypeOf(obj).Elem())
	annotations, _ := metadata["annotations"].(map[string]any)
	if annotations == nil {
		annotations = map[string]any{}
		metadata["annotations"] = annotations
	}
	delete(annotations, corev1.LastAppliedConfigAnnotation)
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	if err := enc.Encode(content); err != nil {
		return err
	}
	all := obj.GetAnnotations()
	if all == nil {
		all = map[string]string{}
	}
	all[corev1.LastAppliedConfigAnnotation] = text.String()
	if apivalidation.ValidateAnnotationsSize(all) != nil {
		delete(all, corev1.LastAppliedConfigAnnotation)
	}
	obj.SetAnnotations(all)
	return nil
}

// spellOutNulls replaces null as a map's value (a label "x:" with nothing after it) by what it decodes to. In a patch null deletes,
// so that kubectl apply creates such a label and removes it the next time; here the same file means the same each time.
func spellOutNulls(v any, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch v := v.(type) {
	case []any:
		if t.Kind() == reflect.Slice {
			for _, item := range v {
				spellOutNulls(item, t.Elem())
			}
		}
	case map[string]any:
		for key, value := range v {
			switch {
			case t.Kind() == reflect.Struct:
				if ft, ok := fieldByJSON(t, key); ok {
					spellOutNulls(value, ft)
				}
			case t.Kind() == reflect.Map && value == nil && t.Elem() == reflect.TypeFor[resource.Quantity]():
				v[key] = "0"
			case t.Kind() == reflect.Map && value == nil:
				v[key] = ""
			}
		}
	}
}

// annotate makes up for a modified object that did not come from Decode.
func annotate(obj Object) error {
	content, err := bodyOf(obj)
	if err != nil {
		return err
	}
	metadata := content["metadata"].(map[string]any)
	delete(metadata, "managedFields")
	delete(metadata, "creationTimestamp")
	raw, err := json.Marshal(content)
	if err != nil {
		return err
	}
	return setLastApplied(obj, raw)
}

func asErrors(obj, old Object) error {
	var errs Errors
	for _, e := range Validate(obj, old) {
		errs = append(errs, Error{Source: "merged object", Ref: RefOf(obj), Field: e.Field, Text: e.ErrorBody()})
	}
	return errs.orNil()
}
