package api

import (
	corev1 "k8s.io/api/core/v1"
)

// show is the object as the caller may see it. Values of Secrets are for admins; the others see which keys there are. The
// annotation of `kubectl apply` repeats the values, so it goes too.
func (u identity) show(obj Object) Object {
	secret, ok := obj.(*corev1.Secret)
	if !ok || u.role >= admin {
		return obj
	}
	hidden := secret.DeepCopy()
	for key := range hidden.Data {
		hidden.Data[key] = []byte{}
	}
	hidden.StringData = nil
	delete(hidden.Annotations, corev1.LastAppliedConfigAnnotation)
	return hidden
}
