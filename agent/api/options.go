package api

import (
	"fmt"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	internalvalidation "k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// writeOptions are the query parameters that create, update and patch share.
type writeOptions struct {
	dryRun          bool
	fieldValidation string
}

func newWriteOptions(dryRun []string, fieldValidation string) writeOptions {
	if fieldValidation == "" {
		fieldValidation = metav1.FieldValidationWarn
	}
	return writeOptions{dryRun: len(dryRun) > 0, fieldValidation: fieldValidation}
}

// invalidOptions makes validation errors of query parameters an answer, as Kubernetes does: kind "CreateOptions" and so on.
func invalidOptions(kind string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: kind}, "", errs)
}

func createOptions(q url.Values) (writeOptions, error) {
	var o metav1.CreateOptions
	if err := metav1.Convert_url_Values_To_v1_CreateOptions(&q, &o, nil); err != nil {
		return writeOptions{}, apierrors.NewBadRequest(err.Error())
	}
	return newWriteOptions(o.DryRun, o.FieldValidation), invalidOptions("CreateOptions", metavalidation.ValidateCreateOptions(&o))
}

func updateOptions(q url.Values) (writeOptions, error) {
	var o metav1.UpdateOptions
	if err := metav1.Convert_url_Values_To_v1_UpdateOptions(&q, &o, nil); err != nil {
		return writeOptions{}, apierrors.NewBadRequest(err.Error())
	}
	return newWriteOptions(o.DryRun, o.FieldValidation), invalidOptions("UpdateOptions", metavalidation.ValidateUpdateOptions(&o))
}

func patchOptions(q url.Values, patch types.PatchType) (writeOptions, error) {
	var o metav1.PatchOptions
	if err := metav1.Convert_url_Values_To_v1_PatchOptions(&q, &o, nil); err != nil {
		return writeOptions{}, apierrors.NewBadRequest(err.Error())
	}
	return newWriteOptions(o.DryRun, o.FieldValidation), invalidOptions("PatchOptions", metavalidation.ValidatePatchOptions(&o, patch))
}

// listOptions reads the parameters of list and watch.
func listOptions(q url.Values) (metav1.ListOptions, error) {
	var o metav1.ListOptions
	if err := metav1.Convert_url_Values_To_v1_ListOptions(&q, &o, nil); err != nil {
		return o, apierrors.NewBadRequest(err.Error())
	}
	// The validation wants the internal type; it looks at these fields only.
	errs := internalvalidation.ValidateListOptions(&internalversion.ListOptions{
		Watch: o.Watch, ResourceVersion: o.ResourceVersion, ResourceVersionMatch: o.ResourceVersionMatch,
		Continue: o.Continue, SendInitialEvents: o.SendInitialEvents,
	}, true)
	if o.Limit < 0 {
		errs = append(errs, field.Invalid(field.NewPath("limit"), o.Limit, "must be greater than or equal to 0"))
	}
	return o, invalidOptions("ListOptions", errs)
}

// deleteOptions reads the parameters of a deletion from its body, or from the query when there is no body, as Kubernetes does.
func (c *codec) deleteOptions(q url.Values, body []byte, contentType string) (metav1.DeleteOptions, error) {
	var o metav1.DeleteOptions
	if len(body) > 0 {
		problems, err := c.decodeOptions(body, contentType, &o)
		if err != nil {
			return o, err
		}
		if len(problems) > 0 {
			return o, apierrors.NewBadRequest("strict decoding error: " + problems[0].Error())
		}
	} else if err := metav1.Convert_url_Values_To_v1_DeleteOptions(&q, &o, nil); err != nil {
		return o, apierrors.NewBadRequest(err.Error())
	}
	return o, invalidOptions("DeleteOptions", metavalidation.ValidateDeleteOptions(&o))
}

// decodeOptions reads a DeleteOptions, which clients send in any group's version, or in none at all.
func (c *codec) decodeOptions(body []byte, contentType string, o *metav1.DeleteOptions) ([]error, error) {
	decoder := c.decoder(contentType)
	if decoder == nil {
		return nil, errUnsupportedMediaType(acceptedBodies)
	}
	defaults := metav1.SchemeGroupVersion.WithKind("DeleteOptions")
	out, _, err := decoder.Decode(body, &defaults, o)
	problems, err := splitStrict(err)
	if err == nil && out != runtime.Object(o) {
		err = fmt.Errorf("a DeleteOptions is expected, not a %T", out)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest("cannot read the DeleteOptions: " + err.Error())
	}
	return problems, nil
}
