package pod

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/kubectl/pkg/util/fieldpath"
	"k8s.io/kubectl/pkg/util/resource"

	"github.com/picketd/picket/runtime"
)

// facts are what references in a pod are resolved against.
type facts struct {
	pod     *corev1.Pod
	host    Host
	ips     []string // of the pod
	objects Objects

	seccompDir string
}

// configError is a fault in what the pod refers to: reason CreateContainerConfigError, tried again when an object changes.
func configError(format string, args ...any) error {
	return &configFault{fmt.Errorf(format, args...)}
}

// configFault is runtime.ErrConfig with the kubelet's own text.
type configFault struct{ error }

func (e *configFault) Unwrap() []error { return []error{e.error, runtime.ErrConfig} }

// environment is a container's variables: in order, a later definition replacing an earlier one in its place.
type environment struct {
	names  []string
	values map[string]string
}

func (e *environment) set(name, value string) {
	if _, ok := e.values[name]; !ok {
		e.names = append(e.names, name)
	}
	e.values[name] = value
}

func (e *environment) lookup(name string) (string, bool) {
	value, ok := e.values[name]
	return value, ok
}

func (e *environment) list() []string {
	list := make([]string, 0, len(e.names))
	for _, name := range e.names {
		list = append(list, name+"="+e.values[name])
	}
	return list
}

// environment resolves envFrom, then env; $(NAME) sees what was defined before it.
func (f facts) environment(c *corev1.Container) (*environment, error) {
	env := &environment{values: map[string]string{}}
	for _, from := range c.EnvFrom {
		if err := f.envFrom(env, from); err != nil {
			return nil, err
		}
	}
	for i := range c.Env {
		v := &c.Env[i]
		value, ok, err := f.envValue(env, c, v)
		if err != nil {
			return nil, err
		}
		if ok {
			env.set(v.Name, value)
		}
	}
	return env, nil
}

func (f facts) envFrom(env *environment, from corev1.EnvFromSource) error {
	data := map[string]string{}
	switch {
	case from.ConfigMapRef != nil:
		o, err := f.configMap(from.ConfigMapRef.Name, from.ConfigMapRef.Optional)
		if err != nil {
			return err
		}
		data = o.Data
	case from.SecretRef != nil:
		o, err := f.secret(from.SecretRef.Name, from.SecretRef.Optional)
		if err != nil {
			return err
		}
		for k, v := range o.Data {
			data[k] = string(v)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(data)) {
		if name := from.Prefix + k; len(validation.IsRelaxedEnvVarName(name)) == 0 {
			env.set(name, data[k])
		}
	}
	return nil
}

// envValue returns false for an optional reference that leads nowhere: then the variable is not set.
func (f facts) envValue(env *environment, c *corev1.Container, v *corev1.EnvVar) (string, bool, error) {
	from := v.ValueFrom
	switch {
	case v.Value != "" || from == nil:
		return expand(v.Value, env.lookup), true, nil
	case from.FieldRef != nil:
		value, err := f.field(from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err := f.resourceField(c, from.ResourceFieldRef)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		return f.configMapKey(from.ConfigMapKeyRef)
	case from.SecretKeyRef != nil:
		return f.secretKey(from.SecretKeyRef)
	}
	return "", false, configError("env %s: its valueFrom is not supported", v.Name)
}

func (f facts) configMapKey(ref *corev1.ConfigMapKeySelector) (string, bool, error) {
	o, err := f.configMap(ref.Name, ref.Optional)
	if err != nil {
		return "", false, err
	}
	value, ok := o.Data[ref.Key]
	if !ok && !isTrue(ref.Optional) {
		return "", false, configError("couldn't find key %s in ConfigMap %s/%s", ref.Key, f.pod.Namespace, ref.Name)
	}
	return value, ok, nil
}

func (f facts) secretKey(ref *corev1.SecretKeySelector) (string, bool, error) {
	o, err := f.secret(ref.Name, ref.Optional)
	if err != nil {
		return "", false, err
	}
	value, ok := o.Data[ref.Key]
	if !ok && !isTrue(ref.Optional) {
		return "", false, configError("couldn't find key %s in Secret %s/%s", ref.Key, f.pod.Namespace, ref.Name)
	}
	return string(value), ok, nil
}

// configMap finds a ConfigMap of the pod's namespace; an optional one that is not there is empty.
func (f facts) configMap(name string, optional *bool) (*corev1.ConfigMap, error) {
	if o, ok := f.objects.ConfigMap(f.pod.Namespace, name); ok {
		return o, nil
	}
	if isTrue(optional) {
		return &corev1.ConfigMap{}, nil
	}
	return nil, configError("configmap %q not found", name)
}

// secret finds a Secret of the pod's namespace; an optional one that is not there is empty.
func (f facts) secret(name string, optional *bool) (*corev1.Secret, error) {
	if o, ok := f.objects.Secret(f.pod.Namespace, name); ok {
		return o, nil
	}
	if isTrue(optional) {
		return &corev1.Secret{}, nil
	}
	return nil, configError("secret %q not found", name)
}

// field resolves a fieldRef.
func (f facts) field(path string) (string, error) {
	switch path {
	case "spec.nodeName":
		return f.host.NodeName, nil
	case "spec.serviceAccountName":
		return f.pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(f.host.IPs), nil
	case "status.hostIPs":
		return strings.Join(f.host.IPs, ","), nil
	case "status.podIP":
		return first(f.ips), nil
	case "status.podIPs":
		return strings.Join(f.ips, ","), nil
	}
	value, err := fieldpath.ExtractFieldPathAsString(f.pod, path)
	if err != nil {
		return "", configError("fieldRef %s: %w", path, err)
	}
	return value, nil
}

// resourceField resolves a resourceFieldRef; a limit that is not set is what the node can give.
func (f facts) resourceField(c *corev1.Container, ref *corev1.ResourceFieldSelector) (string, error) {
	if ref.ContainerName != "" && ref.ContainerName != c.Name {
		c = containerNamed(f.pod, ref.ContainerName)
	}
	if c == nil {
		return "", configError("resourceFieldRef: container %q not found", ref.ContainerName)
	}
	limited := c.DeepCopy()
	if limited.Resources.Limits == nil {
		limited.Resources.Limits = corev1.ResourceList{}
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		if q, ok := limited.Resources.Limits[name]; !ok || q.IsZero() {
			if q, ok := f.host.Allocatable[name]; ok {
				limited.Resources.Limits[name] = q
			}
		}
	}
	value, err := resource.ExtractContainerResourceValue(ref, limited)
	if err != nil {
		return "", configError("resourceFieldRef %s: %w", ref.Resource, err)
	}
	return value, nil
}

func containerNamed(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

func isTrue(b *bool) bool { return b != nil && *b }

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
