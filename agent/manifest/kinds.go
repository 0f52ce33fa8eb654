package manifest

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// kind describes one kind of object that picket keeps.
type kind struct {
	name       string
	gv         schema.GroupVersion
	namespaced bool
	// retired are groups that once served this kind: their manifests are refused with a hint, not skipped as foreign.
	retired []string
	create  func() Object
}

var kinds = []kind{
	{KindDaemonSet, appsv1.SchemeGroupVersion, true, []string{"apps", "extensions"}, func() Object { return &appsv1.DaemonSet{} }},
	{KindConfigMap, corev1.SchemeGroupVersion, true, []string{""}, func() Object { return &corev1.ConfigMap{} }},
	{KindSecret, corev1.SchemeGroupVersion, true, []string{""}, func() Object { return &corev1.Secret{} }},
	{KindNamespace, corev1.SchemeGroupVersion, false, []string{""}, func() Object { return &corev1.Namespace{} }},
	{KindNode, corev1.SchemeGroupVersion, false, []string{""}, func() Object { return &corev1.Node{} }},
}

func kindNamed(name string) (kind, bool) {
	for _, k := range kinds {
		if k.name == name {
			return k, true
		}
	}
	return kind{}, false
}

func kindOf(obj Object) kind {
	name := ""
	switch obj.(type) {
	case *appsv1.DaemonSet:
		name = KindDaemonSet
	case *corev1.ConfigMap:
		name = KindConfigMap
	case *corev1.Secret:
		name = KindSecret
	case *corev1.Namespace:
		name = KindNamespace
	case *corev1.Node:
		name = KindNode
	}
	k, ok := kindNamed(name)
	if !ok {
		panic(fmt.Sprintf("manifest: %T is not a kind that picket keeps", obj))
	}
	return k
}

// lookUpKind finds the kind of a document. known is false for kinds of other APIs, which are skipped; an error says that the
// kind is ours but the version is not.
func lookUpKind(apiVersion, name string) (k kind, known bool, err error) {
	k, ok := kindNamed(name)
	if !ok {
		return kind{}, false, nil
	}
	if apiVersion == k.gv.String() {
		return k, true, nil
	}
	group, _, found := strings.Cut(apiVersion, "/")
	if !found {
		group = ""
	}
	for _, r := range k.retired {
		if group == r {
			hint := ""
			if name == KindDaemonSet {
				hint = " (there spec.selector is required)"
			}
			return kind{}, false, fmt.Errorf("%q is not served: write apiVersion: %s for a %s%s", apiVersion, k.gv, name, hint)
		}
	}
	return kind{}, false, nil
}

// create makes an empty object of the kind, with apiVersion and kind filled in.
func (k kind) new() Object {
	obj := k.create()
	obj.GetObjectKind().SetGroupVersionKind(k.gv.WithKind(k.name))
	return obj
}

// RefOf names an object.
func RefOf(obj Object) Ref {
	return Ref{Kind: kindOf(obj).name, Namespace: obj.GetNamespace(), Name: obj.GetName()}
}
