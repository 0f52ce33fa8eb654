package manifest

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kjson "sigs.k8s.io/json"
)

// Strictness is the fieldValidation of an API request.
type Strictness string

const (
	Ignore Strictness = "Ignore"
	Warn   Strictness = "Warn"
	Strict Strictness = "Strict"
)

// DecodeObject reads the JSON body of an API request for one object of the kind. Unknown and duplicate fields are dropped
// (Ignore), returned as warnings (Warn), or an error (Strict), in Kubernetes' words. The object is neither defaulted nor
// validated, and keeps the namespace that it has.
func DecodeObject(source, kindName string, raw []byte, strict Strictness) (Object, []string, error) {
	k, ok := kindNamed(kindName)
	if !ok {
		return nil, nil, fmt.Errorf("no kind %q is registered", kindName)
	}
	if len(raw) > maxDocument {
		return nil, nil, tooLarge(source, len(raw), maxDocument)
	}
	obj := k.new()
	strictErrs, err := kjson.UnmarshalStrict(raw, obj)
	if err != nil {
		return nil, nil, fmt.Errorf("%s in version %q cannot be handled as a %s: %w", k.name, k.gv.Version, k.name, err)
	}
	got := obj.GetObjectKind().GroupVersionKind()
	if want := k.gv.WithKind(k.name); !got.Empty() && got != want {
		return nil, nil, fmt.Errorf("the object provided is unrecognized: it is %s, not %s", got, want)
	}
	obj.GetObjectKind().SetGroupVersionKind(k.gv.WithKind(k.name))
	if len(strictErrs) == 0 || strict == Ignore {
		return obj, nil, nil
	}
	if strict == Strict {
		return nil, nil, runtime.NewStrictDecodingError(strictErrs)
	}
	warnings := make([]string, len(strictErrs))
	for i, e := range strictErrs {
		warnings[i] = e.Error()
	}
	return obj, warnings, nil
}

// Encode makes the stored body: all that the user wrote, with the last-applied annotation and managedFields, but without status
// and without what the store adds (uid, resourceVersion, generation, deletion). Equal objects have equal bytes.
func Encode(obj Object) ([]byte, error) {
	content, err := bodyOf(obj)
	if err != nil {
		return nil, err
	}
	return json.Marshal(content)
}

// DecodeBody reads what Encode made. It is not strict: another version of picket may have written more fields.
func DecodeBody(body []byte) (Object, error) {
	var h header
	if err := kjson.UnmarshalCaseSensitivePreserveInts(body, &h); err != nil {
		return nil, fmt.Errorf("cannot read stored object: %w", err)
	}
	k, ok := kindNamed(h.Kind)
	if !ok || h.APIVersion != k.gv.String() {
		return nil, fmt.Errorf("cannot read stored object: kind %q of %q is not known", h.Kind, h.APIVersion)
	}
	obj := k.new()
	if err := kjson.UnmarshalCaseSensitivePreserveInts(body, obj); err != nil {
		return nil, fmt.Errorf("cannot read stored %s %s/%s: %w", h.Kind, h.Metadata.Namespace, h.Metadata.Name, err)
	}
	return obj, nil
}

// Hash covers what the user wrote: not uid, creationTimestamp, managedFields, resourceVersion, generation, last-applied or
// status, nor the order of keys, nor whether defaults are written out. It is the hash of the object's Version.
func Hash(obj Object) [32]byte {
	defaulted := obj.DeepCopyObject().(Object)
	Default(defaulted)
	content, err := bodyOf(defaulted)
	if err != nil {
		panic(fmt.Sprintf("manifest: cannot encode %s: %v", RefOf(obj), err)) // typed API objects always encode
	}
	metadata := content["metadata"].(map[string]any)
	for _, name := range []string{"creationTimestamp", "managedFields"} {
		delete(metadata, name)
	}
	if annotations, ok := metadata["annotations"].(map[string]any); ok {
		if delete(annotations, corev1.LastAppliedConfigAnnotation); len(annotations) == 0 {
			delete(metadata, "annotations")
		}
	}
	body, err := json.Marshal(content)
	if err != nil {
		panic(fmt.Sprintf("manifest: cannot encode %s: %v", RefOf(obj), err))
	}
	return sha256.Sum256(body)
}

// AppliedHash is the hash of the manifest that was applied last, by a file or by kubectl apply, whatever others have changed in the
// object since; for an object that was never applied it is Hash. It is what the store remembers of an object's past.
func AppliedHash(obj Object) [32]byte {
	text := obj.GetAnnotations()[corev1.LastAppliedConfigAnnotation]
	applied := kindOf(obj).new()
	if text == "" || kjson.UnmarshalCaseSensitivePreserveInts([]byte(text), applied) != nil {
		return Hash(obj)
	}
	return Hash(applied)
}

// bodyOf is the object as JSON maps, which encoding/json writes with sorted keys.
func bodyOf(obj Object) (map[string]any, error) {
	k := kindOf(obj)
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil, fmt.Errorf("cannot encode %s: %w", RefOf(obj), err)
	}
	content["apiVersion"], content["kind"] = k.gv.String(), k.name
	delete(content, "status")
	metadata, ok := content["metadata"].(map[string]any)
	if !ok {
		metadata = map[string]any{}
		content["metadata"] = metadata
	}
	for _, name := range []string{"uid", "resourceVersion", "generation", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"} {
		delete(metadata, name)
	}
	if metadata["creationTimestamp"] == nil {
		delete(metadata, "creationTimestamp")
	}
	return content, nil
}
