package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxPatchOperations is Kubernetes' own limit of a JSON patch.
const maxPatchOperations = 10000

var acceptedPatches = []string{string(types.JSONPatchType), string(types.MergePatchType), string(types.StrategicMergePatchType)}

func init() {
	jsonpatch.AccumulatedCopySizeLimit = maxBody // "copy" operations could otherwise double the object with every line
}

func (s *Server) patch(w http.ResponseWriter, c *call) error {
	kind := types.PatchType(mediaType(c.Header.Get("Content-Type")))
	apply, err := patcher(kind)
	if err != nil {
		return err
	}
	opts, err := patchOptions(c.URL.Query(), kind)
	if err != nil {
		return err
	}
	body, err := c.body(w)
	if err != nil {
		return err
	}
	return s.modify(w, c, opts.dryRun, func(current Object) (Object, []string, error) {
		return patched(c, opts, current, body, apply)
	})
}

// patched applies a patch to an object.
func patched(c *call, opts writeOptions, current Object, body []byte, apply patchFunc) (Object, []string, error) {
	before, err := json.Marshal(current)
	if err != nil {
		return nil, nil, err
	}
	after, err := apply(before, body, current)
	if err != nil {
		return nil, nil, err
	}
	obj, err := codecs.newObject(c.resource)
	if err != nil {
		return nil, nil, err
	}
	problems, err := codecs.decode(after, mediaJSON, obj)
	if err != nil {
		return nil, nil, err
	}
	warnings, err := opts.judge(problems)
	if err != nil {
		return nil, nil, apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{field.Invalid(field.NewPath("patch"), string(body), err.Error())})
	}
	if err := c.checkNames(obj); err != nil {
		return nil, nil, err
	}
	if obj.GetResourceVersion() == current.GetResourceVersion() && !strings.Contains(string(body), "resourceVersion") {
		obj.SetResourceVersion("") // the patch does not insist on it
	}
	return obj, warnings, nil
}

// judge turns unknown and duplicate fields into an error (Strict), warnings (Warn) or nothing (Ignore).
func (o writeOptions) judge(problems []error) (warnings []string, err error) {
	if len(problems) == 0 || o.fieldValidation == metav1.FieldValidationIgnore {
		return nil, nil
	}
	if o.fieldValidation == metav1.FieldValidationStrict {
		return nil, runtime.NewStrictDecodingError(problems)
	}
	for _, problem := range problems {
		warnings = append(warnings, problem.Error())
	}
	return warnings, nil
}

// patchFunc changes a JSON document; like is an object of its type.
type patchFunc func(doc, patch []byte, like Object) ([]byte, error)

func patcher(kind types.PatchType) (patchFunc, error) {
	switch kind {
	case types.JSONPatchType:
		return applyJSONPatch, nil
	case types.MergePatchType:
		return applyMergePatch, nil
	case types.StrategicMergePatchType:
		return applyStrategicPatch, nil
	case types.ApplyYAMLPatchType:
		return nil, failure(http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType,
			"server-side apply is not served: use kubectl apply without --server-side")
	}
	return nil, errUnsupportedMediaType(strings.Join(acceptedPatches, ", "))
}

func applyJSONPatch(doc, body []byte, _ Object) ([]byte, error) {
	operations, err := jsonpatch.DecodePatch(body)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if len(operations) > maxPatchOperations {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("The allowed maximum operations in a JSON patch is %d, got %d", maxPatchOperations, len(operations)))
	}
	out, err := guarded(func() ([]byte, error) { return operations.Apply(doc) })
	if err != nil {
		return nil, failure(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "the server rejected our request due to an error in our request: %v", err)
	}
	return out, nil
}

func applyMergePatch(doc, body []byte, _ Object) ([]byte, error) {
	out, err := guarded(func() ([]byte, error) { return jsonpatch.MergePatch(doc, body) })
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return out, nil
}

func applyStrategicPatch(doc, body []byte, like Object) ([]byte, error) {
	out, err := guarded(func() ([]byte, error) { return strategicpatch.StrategicMergePatch(doc, body, like) })
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return out, nil
}

// guarded keeps a patch that trips the library over its own types from looking like a fault of the server.
func guarded(apply func() ([]byte, error)) (out []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the patch does not fit the object: %v", p)
		}
	}()
	return apply()
}
