package pod

import (
	"fmt"
	"os"
	"path"

	corev1 "k8s.io/api/core/v1"
)

// payloadOf renders a volume that is made of API objects, or returns false for one that is not.
func (f facts) payloadOf(v *corev1.Volume) (payload, bool, error) {
	p := payload{}
	var err error
	switch {
	case v.ConfigMap != nil:
		err = f.addConfigMap(p, v.ConfigMap.Name, v.ConfigMap.Items, v.ConfigMap.Optional, owned{v.ConfigMap.DefaultMode, v.ConfigMap.DefaultUser})
	case v.Secret != nil:
		err = f.addSecret(p, v.Secret.SecretName, v.Secret.Items, v.Secret.Optional, owned{v.Secret.DefaultMode, v.Secret.DefaultUser})
	case v.DownwardAPI != nil:
		err = f.addDownward(p, v.DownwardAPI.Items, owned{v.DownwardAPI.DefaultMode, v.DownwardAPI.DefaultUser})
	case v.Projected != nil:
		err = f.addProjected(p, v.Projected)
	default:
		return nil, false, nil
	}
	return p, true, err
}

// addProjected leaves out the sources that need an API server: serviceAccountToken, clusterTrustBundle, podCertificate.
func (f facts) addProjected(p payload, s *corev1.ProjectedVolumeSource) error {
	defaults := owned{s.DefaultMode, s.DefaultUser}
	for _, source := range s.Sources {
		var err error
		switch {
		case source.ConfigMap != nil:
			err = f.addConfigMap(p, source.ConfigMap.Name, source.ConfigMap.Items, source.ConfigMap.Optional, defaults)
		case source.Secret != nil:
			err = f.addSecret(p, source.Secret.Name, source.Secret.Items, source.Secret.Optional, defaults)
		case source.DownwardAPI != nil:
			err = f.addDownward(p, source.DownwardAPI.Items, defaults)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f facts) addConfigMap(p payload, name string, items []corev1.KeyToPath, optional *bool, defaults owned) error {
	o, err := f.configMap(name, optional)
	if err != nil {
		return err
	}
	data := make(map[string][]byte, len(o.Data)+len(o.BinaryData))
	for k, v := range o.Data {
		data[k] = []byte(v)
	}
	for k, v := range o.BinaryData {
		data[k] = v
	}
	return addItems(p, "configmap", name, data, items, isTrue(optional), defaults)
}

func (f facts) addSecret(p payload, name string, items []corev1.KeyToPath, optional *bool, defaults owned) error {
	o, err := f.secret(name, optional)
	if err != nil {
		return err
	}
	return addItems(p, "secret", name, o.Data, items, isTrue(optional), defaults)
}

// addItems takes all keys, or the ones that items name.
func addItems(p payload, kind, name string, data map[string][]byte, items []corev1.KeyToPath, optional bool, defaults owned) error {
	if len(items) == 0 {
		for k, v := range data {
			p[k] = defaults.file(v, nil, nil)
		}
		return nil
	}
	for _, item := range items {
		content, ok := data[item.Key]
		if !ok && optional {
			continue
		}
		if !ok {
			return configError("%s %q: references non-existent config key: %s", kind, name, item.Key)
		}
		p[path.Clean(item.Path)] = defaults.file(content, item.Mode, item.User)
	}
	return nil
}

func (f facts) addDownward(p payload, items []corev1.DownwardAPIVolumeFile, defaults owned) error {
	for _, item := range items {
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = f.field(item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			value, err = f.resourceField(containerNamed(f.pod, item.ResourceFieldRef.ContainerName), item.ResourceFieldRef)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", item.Path, err)
		}
		p[path.Clean(item.Path)] = defaults.file([]byte(value), item.Mode, item.User)
	}
	return nil
}

// owned says whose a volume's files are, and who may do what with them; nil leaves that to Kubernetes' default.
type owned struct {
	mode *int32
	user *int64
}

// file is a file of the volume; what its item says of it comes first.
func (o owned) file(data []byte, mode *int32, user *int64) payloadFile {
	f := payloadFile{data: data, mode: os.FileMode(corev1.ConfigMapVolumeSourceDefaultMode), uid: either(user, o.user)}
	if m := either(mode, o.mode); m != nil {
		f.mode = os.FileMode(*m)
	}
	return f
}

// hasLiveVolumes says whether the pod has volumes that follow ConfigMaps and Secrets.
func hasLiveVolumes(pod *corev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.ConfigMap != nil || v.Secret != nil || v.Projected != nil {
			return true
		}
	}
	return false
}

// needsPodIP says whether a volume shows the pod's own address, so that the network must come first.
func needsPodIP(pod *corev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.DownwardAPI != nil && asksForPodIP(v.DownwardAPI.Items) {
			return true
		}
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.DownwardAPI != nil && asksForPodIP(s.DownwardAPI.Items) {
				return true
			}
		}
	}
	return false
}

func asksForPodIP(items []corev1.DownwardAPIVolumeFile) bool {
	for _, item := range items {
		if item.FieldRef != nil && (item.FieldRef.FieldPath == "status.podIP" || item.FieldRef.FieldPath == "status.podIPs") {
			return true
		}
	}
	return false
}
