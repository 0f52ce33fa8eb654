package manifest

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate checks a defaulted object with Kubernetes' rules, paths and words, and refuses what picket cannot honour and must not
// ignore (see support.go). old is what obj replaces, nil on create.
func Validate(obj, old Object) field.ErrorList {
	k := kindOf(obj)
	metadata := field.NewPath("metadata")
	errs := apivalidation.ValidateObjectMetaAccessor(obj, k.namespaced, nameRule(k.name), metadata)
	if old != nil {
		errs = append(errs, apivalidation.ValidateImmutableField(obj.GetName(), old.GetName(), metadata.Child("name"))...)
		errs = append(errs, apivalidation.ValidateImmutableField(obj.GetNamespace(), old.GetNamespace(), metadata.Child("namespace"))...)
	}
	switch o := obj.(type) {
	case *appsv1.DaemonSet:
		errs = append(errs, validateDaemonSet(o)...)
		if was, ok := old.(*appsv1.DaemonSet); ok && was != nil {
			errs = append(errs, apivalidation.ValidateImmutableField(o.Spec.Selector, was.Spec.Selector, field.NewPath("spec", "selector"))...)
		}
		refused, _ := examine(o)
		errs = append(errs, refused...)
	case *corev1.ConfigMap:
		errs = append(errs, validateConfigMap(o)...)
		if was, ok := old.(*corev1.ConfigMap); ok && was != nil {
			errs = append(errs, validateConfigMapUpdate(o, was)...)
		}
	case *corev1.Secret:
		errs = append(errs, validateSecret(o)...)
		if was, ok := old.(*corev1.Secret); ok && was != nil {
			errs = append(errs, validateSecretUpdate(o, was)...)
		}
	case *corev1.Node:
		errs = append(errs, validateNode(o)...)
	}
	return errs
}

func nameRule(kindName string) apivalidation.ValidateNameFunc {
	if kindName == KindNamespace {
		return apivalidation.ValidateNamespaceName
	}
	return apivalidation.NameIsDNSSubdomain
}

func validateDaemonSet(ds *appsv1.DaemonSet) field.ErrorList {
	spec, path := &ds.Spec, field.NewPath("spec")
	errs := validateSelector(spec, path)
	template := path.Child("template")
	errs = append(errs, validateTemplate(&spec.Template, template)...)
	pod := template.Child("spec")
	if policy := spec.Template.Spec.RestartPolicy; policy != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(pod.Child("restartPolicy"), policy, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if spec.Template.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(pod.Child("activeDeadlineSeconds"), "activeDeadlineSeconds in DaemonSet is not Supported"))
	}
	errs = append(errs, apivalidation.ValidateNonnegativeField(int64(spec.MinReadySeconds), path.Child("minReadySeconds"))...)
	if limit := spec.RevisionHistoryLimit; limit != nil {
		errs = append(errs, apivalidation.ValidateNonnegativeField(int64(*limit), path.Child("revisionHistoryLimit"))...)
	}
	errs = append(errs, validateUpdateStrategy(&spec.UpdateStrategy, path.Child("updateStrategy"))...)
	return append(errs, validateSurgePorts(spec, pod)...)
}

func validateSelector(spec *appsv1.DaemonSetSpec, path *field.Path) field.ErrorList {
	at := path.Child("selector")
	if spec.Selector == nil {
		return field.ErrorList{field.Required(at, "")}
	}
	errs := metavalidation.ValidateLabelSelector(spec.Selector, metavalidation.LabelSelectorValidationOptions{}, at)
	if len(spec.Selector.MatchLabels)+len(spec.Selector.MatchExpressions) == 0 {
		return append(errs, field.Invalid(at, spec.Selector, "empty selector is invalid for daemonset"))
	}
	selector, err := metav1.LabelSelectorAsSelector(spec.Selector)
	if err != nil {
		return append(errs, field.Invalid(at, spec.Selector, err.Error()))
	}
	if !selector.Matches(labels.Set(spec.Template.Labels)) {
		errs = append(errs, field.Invalid(path.Child("template", "metadata", "labels"), spec.Template.Labels, "`selector` does not match template `labels`"))
	}
	return errs
}

func validateUpdateStrategy(s *appsv1.DaemonSetUpdateStrategy, path *field.Path) field.ErrorList {
	switch s.Type {
	case appsv1.OnDeleteDaemonSetStrategyType:
		return nil
	case appsv1.RollingUpdateDaemonSetStrategyType:
	default:
		return field.ErrorList{field.NotSupported(path.Child("type"), s.Type,
			[]appsv1.DaemonSetUpdateStrategyType{appsv1.RollingUpdateDaemonSetStrategyType, appsv1.OnDeleteDaemonSetStrategyType})}
	}
	path = path.Child("rollingUpdate")
	if s.RollingUpdate == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	unavailable, surge := s.RollingUpdate.MaxUnavailable, s.RollingUpdate.MaxSurge
	errs := validateIntOrPercent(unavailable, path.Child("maxUnavailable"))
	errs = append(errs, validateIntOrPercent(surge, path.Child("maxSurge"))...)
	switch hasUnavailable, hasSurge := nonZero(unavailable), nonZero(surge); {
	case hasUnavailable && hasSurge:
		errs = append(errs, field.Invalid(path.Child("maxSurge"), surge, "may not be set when maxUnavailable is non-zero"))
	case !hasUnavailable && !hasSurge:
		errs = append(errs, field.Required(path.Child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
	}
	return errs
}

func nonZero(v *intstr.IntOrString) bool {
	if v == nil {
		return false
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(v, 100, true)
	return err == nil && n != 0
}

func validateIntOrPercent(v *intstr.IntOrString, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case v == nil:
	case v.Type == intstr.Int:
		errs = apivalidation.ValidateNonnegativeField(int64(v.IntVal), path)
	default:
		for _, msg := range validation.IsValidPercent(v.StrVal) {
			errs = append(errs, field.Invalid(path, v, msg))
		}
		if n, err := intstr.GetScaledValueFromIntOrPercent(v, 100, true); err == nil && n > 100 {
			errs = append(errs, field.Invalid(path, v, "must not be greater than 100%"))
		}
	}
	return errs
}

// validateSurgePorts is a rule of ours: beside the old pod, the new one could never bind its port, and the rollout would hang.
func validateSurgePorts(spec *appsv1.DaemonSetSpec, pod *field.Path) field.ErrorList {
	u := spec.UpdateStrategy.RollingUpdate
	if u == nil || !nonZero(u.MaxSurge) {
		return nil
	}
	var errs field.ErrorList
	for i, c := range spec.Template.Spec.Containers {
		for j, port := range c.Ports {
			number, name := port.HostPort, "hostPort"
			if spec.Template.Spec.HostNetwork && number == 0 {
				number, name = port.ContainerPort, "containerPort"
			}
			if number != 0 {
				errs = append(errs, field.Forbidden(pod.Child("containers").Index(i).Child("ports").Index(j).Child(name), fmt.Sprintf(
					"the host's port %d cannot be bound twice, so maxSurge would never finish: use maxUnavailable, or no host port", number)))
			}
		}
	}
	return errs
}
