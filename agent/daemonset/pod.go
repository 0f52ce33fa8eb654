package daemonset

import (
	"strconv"

	"github.com/google/uuid"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
)

// templateGenerationLabel is extensions/v1beta1's DaemonSetTemplateGenerationKey, kept by Kubernetes for old clients.
const templateGenerationLabel = "pod-template-generation"

// Lengths of a generated name, Kubernetes' own: long DaemonSet names are cut.
const (
	suffixLength  = 5
	maxNamePrefix = 63 - suffixLength
)

// NewPod is the pod that stands for rev on node, ready to be run: the template with the tolerations, affinity, labels and
// owner that Kubernetes' controller gives it. Equal arguments make an equal pod; n, a counter of the host, makes uid and name
// new. Status and creationTimestamp are the caller's.
func NewPod(ds *appsv1.DaemonSet, rev *appsv1.ControllerRevision, node *corev1.Node, n uint64) (*corev1.Pod, error) {
	template, err := Template(rev)
	if err != nil {
		return nil, err
	}
	id := derive("Pod", string(ds.UID), node.Name, strconv.FormatUint(n, 10))
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.Name = podName(ds.Name, id)
	pod.GenerateName = ds.Name + "-"
	pod.Namespace = ds.Namespace
	pod.UID = types.UID(id.String())
	pod.OwnerReferences = []metav1.OwnerReference{ownerRef(ds)}
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	pod.Labels[appsv1.ControllerRevisionHashLabelKey] = RevisionHash(rev)
	if generation, err := strconv.ParseInt(ds.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64); err == nil {
		pod.Labels[templateGenerationLabel] = strconv.FormatInt(generation, 10)
	}
	pod.Spec.Tolerations = Tolerations(&pod.Spec)
	pod.Spec.NodeName = node.Name
	bindTo(&pod.Spec, node.Name)
	return pod, nil
}

// PodName is the name of the pod with this uid, as NewPod gives it; "" when uid is no UUID.
func PodName(daemonSet string, uid types.UID) string {
	id, err := uuid.Parse(string(uid))
	if err != nil {
		return ""
	}
	return podName(daemonSet, id)
}

// podName is "<daemonset>-" and five characters of Kubernetes' vowel-free alphabet, taken from the pod's uid.
func podName(daemonSet string, id uuid.UUID) string {
	prefix := daemonSet + "-"
	var random [suffixLength]byte
	for i := range random {
		random[i] = id[len(id)-suffixLength+i] & 0x7f // SafeEncodeString reads runes, so ASCII it must be
	}
	return prefix[:min(len(prefix), maxNamePrefix)] + rand.SafeEncodeString(string(random[:]))
}

// bindTo replaces the pod's required node affinity by the one host it was made for; preferences stay.
func bindTo(spec *corev1.PodSpec, node string) {
	if spec.Affinity == nil {
		spec.Affinity = &corev1.Affinity{}
	}
	if spec.Affinity.NodeAffinity == nil {
		spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchFields: []corev1.NodeSelectorRequirement{{
				Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node},
			}},
		}},
	}
}
