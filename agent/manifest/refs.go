package manifest

import (
	"cmp"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// ConfigRefs are the ConfigMaps and Secrets that the containers and volumes of a DaemonSet's template name, sorted, each once.
func ConfigRefs(ds *appsv1.DaemonSet) []Ref {
	var refs []Ref
	add := func(kind, name string) {
		if name != "" {
			refs = append(refs, Ref{Kind: kind, Namespace: ds.Namespace, Name: name})
		}
	}
	spec := &ds.Spec.Template.Spec
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		containerRefs(&c, add)
	}
	for i := range spec.Volumes {
		volumeRefs(&spec.Volumes[i], add)
	}
	slices.SortFunc(refs, func(a, b Ref) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name)) })
	return slices.Compact(refs)
}

func containerRefs(c *corev1.Container, add func(kind, name string)) {
	for _, from := range c.EnvFrom {
		if from.ConfigMapRef != nil {
			add(KindConfigMap, from.ConfigMapRef.Name)
		}
		if from.SecretRef != nil {
			add(KindSecret, from.SecretRef.Name)
		}
	}
	for _, env := range c.Env {
		if env.ValueFrom == nil {
			continue
		}
		if ref := env.ValueFrom.ConfigMapKeyRef; ref != nil {
			add(KindConfigMap, ref.Name)
		}
		if ref := env.ValueFrom.SecretKeyRef; ref != nil {
			add(KindSecret, ref.Name)
		}
	}
}

func volumeRefs(v *corev1.Volume, add func(kind, name string)) {
	if v.ConfigMap != nil {
		add(KindConfigMap, v.ConfigMap.Name)
	}
	if v.Secret != nil {
		add(KindSecret, v.Secret.SecretName)
	}
	if v.Projected == nil {
		return
	}
	for _, source := range v.Projected.Sources {
		if source.ConfigMap != nil {
			add(KindConfigMap, source.ConfigMap.Name)
		}
		if source.Secret != nil {
			add(KindSecret, source.Secret.Name)
		}
	}
}
