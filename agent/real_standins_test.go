package agent

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/picketd/picket/agent/manifest"
	"github.com/picketd/picket/runtime/runtimetest"
)

// What the manifests of the corpus find on the host: images, labels of the node, ConfigMaps and Secrets.

// pushStandIns makes an image for every name in the manifests. Several manifests may share one: it is able to do what all of them ask.
func pushStandIns(t *testing.T, cases []*corpusCase) {
	program, err := runtimetest.StandInProgram()
	if err != nil {
		t.Fatal(err)
	}
	images := map[string]*runtimetest.StandIn{}
	for _, c := range cases {
		if c.ds == nil {
			continue
		}
		for _, container := range allContainers(&c.ds.Spec.Template.Spec) {
			ref, err := name.ParseReference(container.Image)
			if err != nil {
				t.Fatal(err)
			}
			image := images[ref.Name()]
			if image == nil {
				image = &runtimetest.StandIn{Listen: map[int32]string{}}
				images[ref.Name()] = image
			}
			if len(container.Command) > 0 {
				image.Programs = append(image.Programs, container.Command[0])
			}
			image.Exec = append(image.Exec, execCommands(&container)...)
			maps.Copy(image.Listen, standInPorts(&container))
		}
	}
	for image, standIn := range images {
		content, err := standIn.Image(program)
		if err == nil {
			err = shared.registry.Push(image, content)
		}
		if err != nil {
			t.Fatalf("%s: %v", image, err)
		}
	}
}

func allContainers(spec *corev1.PodSpec) []corev1.Container {
	return slices.Concat(spec.InitContainers, spec.Containers)
}

// handlers are what a container's probes and hooks do.
func handlers(c *corev1.Container) (list []corev1.ProbeHandler) {
	for _, p := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		if p != nil {
			list = append(list, p.ProbeHandler)
		}
	}
	if c.Lifecycle != nil {
		for _, h := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if h != nil {
				list = append(list, corev1.ProbeHandler{Exec: h.Exec, HTTPGet: h.HTTPGet, TCPSocket: h.TCPSocket})
			}
		}
	}
	return list
}

func execCommands(c *corev1.Container) (commands [][]string) {
	for _, h := range handlers(c) {
		if h.Exec != nil {
			commands = append(commands, h.Exec.Command)
		}
	}
	return commands
}

// standInPorts are the ports that a container says it has, or is asked at, and what is spoken there.
func standInPorts(c *corev1.Container) map[int32]string {
	ports := map[int32]string{}
	for _, p := range c.Ports {
		ports[p.ContainerPort] = "http"
		if p.Protocol == corev1.ProtocolUDP {
			ports[p.ContainerPort] = "udp"
		}
	}
	for _, h := range handlers(c) {
		switch {
		case h.HTTPGet != nil && h.HTTPGet.Scheme == corev1.URISchemeHTTPS:
			ports[portOf(c, h.HTTPGet.Port)] = "https"
		case h.HTTPGet != nil:
			ports[portOf(c, h.HTTPGet.Port)] = "http"
		case h.TCPSocket != nil:
			ports[portOf(c, h.TCPSocket.Port)] = "http"
		}
	}
	return ports
}

func portOf(c *corev1.Container, port intstr.IntOrString) int32 {
	for _, p := range c.Ports {
		if port.Type == intstr.String && p.Name == port.StrVal {
			return p.ContainerPort
		}
	}
	return int32(port.IntValue())
}

// nodeLabels are labels with which a node is one of those that the DaemonSet is for.
func nodeLabels(ds *appsv1.DaemonSet) map[string]string {
	spec := ds.Spec.Template.Spec
	labels := maps.Clone(spec.NodeSelector)
	if labels == nil {
		labels = map[string]string{}
	}
	if a := spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, e := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchExpressions {
			if e.Operator == corev1.NodeSelectorOpIn {
				labels[e.Key] = e.Values[0]
			}
		}
	}
	maps.DeleteFunc(labels, func(key, _ string) bool {
		return slices.Contains([]string{corev1.LabelOSStable, corev1.LabelArchStable, corev1.LabelHostname}, key) // every node's
	})
	return labels
}

// missing are the ConfigMaps and Secrets that the pod needs and no file has, with the keys it asks for.
func (c *corpusCase) missing() (objects []manifest.Object) {
	have := map[manifest.Ref]bool{}
	for _, obj := range c.parsed.Objects {
		have[manifest.RefOf(obj)] = true
	}
	refs := references(&c.ds.Spec.Template.Spec)
	for _, ref := range slices.SortedFunc(maps.Keys(refs), func(a, b manifest.Ref) int { return strings.Compare(a.String(), b.String()) }) {
		keys := refs[ref]
		if ref.Namespace = c.ds.Namespace; have[ref] {
			continue
		}
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ref.Namespace, Name: ref.Name}, Data: map[string]string{}}
		secret := &corev1.Secret{ObjectMeta: cm.ObjectMeta, Data: map[string][]byte{}}
		for _, key := range keys {
			cm.Data[key], secret.Data[key] = "stand-in for "+key+"\n", []byte("stand-in for "+key)
		}
		if ref.Kind == manifest.KindSecret {
			objects = append(objects, secret)
		} else {
			objects = append(objects, cm)
		}
	}
	return objects
}

// references are the ConfigMaps and Secrets that a pod cannot do without, with the keys that it names.
func references(spec *corev1.PodSpec) map[manifest.Ref][]string {
	refs := map[manifest.Ref][]string{}
	kinds := map[string]string{
		"configMap": manifest.KindConfigMap, "configMapRef": manifest.KindConfigMap, "configMapKeyRef": manifest.KindConfigMap,
		"secret": manifest.KindSecret, "secretRef": manifest.KindSecret, "secretKeyRef": manifest.KindSecret,
	}
	type reference struct {
		Name, SecretName, Key string
		Optional              bool
		Items                 []corev1.KeyToPath
	}
	eachField(spec, func(_, key string, value any) {
		var r reference
		if raw, err := json.Marshal(value); kinds[key] == "" || err != nil || json.Unmarshal(raw, &r) != nil || r.Optional {
			return
		}
		keys := []string{r.Key}
		for _, item := range r.Items {
			keys = append(keys, item.Key)
		}
		ref := manifest.Ref{Kind: kinds[key], Name: r.Name + r.SecretName}
		refs[ref] = append(refs[ref], slices.DeleteFunc(keys, func(k string) bool { return k == "" })...)
	})
	for _, v := range spec.Volumes {
		if v.ConfigMap != nil && len(v.ConfigMap.Items) == 0 {
			ref := manifest.Ref{Kind: manifest.KindConfigMap, Name: v.ConfigMap.Name}
			refs[ref] = append(refs[ref], subPathsOf(spec, v.Name)...)
		}
	}
	return refs
}

// eachField visits every field and list element of an object as it is written in JSON, with its path; what is in it comes later.
func eachField(object any, visit func(path, key string, value any)) {
	raw, _ := json.Marshal(object)
	var value any
	_ = json.Unmarshal(raw, &value)
	var walk func(path string, value any)
	walk = func(path string, value any) {
		switch v := value.(type) {
		case map[string]any:
			for key, below := range v {
				at := strings.TrimPrefix(path+"."+key, ".")
				visit(at, key, below)
				walk(at, below)
			}
		case []any:
			for i, below := range v {
				at := fmt.Sprintf("%s[%d]", path, i)
				visit(at, "", below)
				walk(at, below)
			}
		}
	}
	walk("", value)
}

// subPathsOf are files of a volume that are mounted alone: keys, where the volume has no items.
func subPathsOf(spec *corev1.PodSpec, volume string) (keys []string) {
	for _, c := range allContainers(spec) {
		for _, m := range c.VolumeMounts {
			if m.Name == volume && m.SubPath != "" && filepath.Base(m.SubPath) == m.SubPath {
				keys = append(keys, m.SubPath)
			}
		}
	}
	return keys
}

// honouredFields counts the values in the DaemonSet that nothing is said about.
func honouredFields(c *corpusCase) (n int) {
	if c.ds == nil {
		return 0
	}
	eachField(c.ds, func(path, _ string, value any) {
		told := slices.ContainsFunc(c.parsed.Warnings, func(w manifest.Warning) bool { return strings.HasPrefix(path+".", w.Field+".") })
		_, isMap := value.(map[string]any)
		_, isList := value.([]any)
		if !told && !isMap && !isList && value != nil && !strings.HasPrefix(path, "status.") {
			n++
		}
	})
	return n
}
