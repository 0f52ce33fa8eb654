package daemonset

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation"
)

func labelSet(l map[string]string) labels.Set           { return l }
func revisionJSON(ds *appsv1.DaemonSet) ([]byte, error) { return json.Marshal(ds) }
func readJSON(data []byte, ds *appsv1.DaemonSet) error  { return json.Unmarshal(data, ds) }

func mustPod(t *testing.T, ds *appsv1.DaemonSet, node *corev1.Node, n uint64) *corev1.Pod {
	t.Helper()
	pod, err := NewPod(ds, NextHistory(nil, ds, nil)[0], node, n)
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func TestNewPod(t *testing.T) {
	ds := makeDS(func(ds *appsv1.DaemonSet) {
		ds.Annotations = map[string]string{appsv1.DeprecatedTemplateGeneration: "4"}
		ds.Spec.Template.Annotations = map[string]string{"note": "yes"}
	})
	rev := NextHistory(nil, ds, nil)[0]
	pod := mustPod(t, ds, makeNode(nil), 7)

	if prefix, suffix, _ := strings.Cut(pod.Name, "-"); prefix != "web" || len(suffix) != 5 || strings.Trim(suffix, "bcdfghjklmnpqrstvwxz2456789") != "" {
		t.Errorf("name %q is not web- and five safe characters", pod.Name)
	}
	if pod.Namespace != "default" || pod.GenerateName != "web-" || pod.Spec.NodeName != "host-01" {
		t.Errorf("got %s/%s (%s) on %s", pod.Namespace, pod.Name, pod.GenerateName, pod.Spec.NodeName)
	}
	if uid := string(pod.UID); len(uid) != 36 || uid[14] != '5' {
		t.Errorf("uid %q is not a UUIDv5", uid)
	}
	owner := metav1.GetControllerOf(pod)
	if owner == nil || owner.UID != ds.UID || owner.Kind != "DaemonSet" || owner.APIVersion != "apps/v1" || owner.Name != "web" {
		t.Errorf("owner: got %+v", owner)
	}
	assertEqual(t, pod.Labels, map[string]string{"app": "web", "controller-revision-hash": RevisionHash(rev), "pod-template-generation": "4"})
	assertEqual(t, pod.Annotations, map[string]string{"note": "yes"})
	assertEqual(t, pod.Spec.Tolerations, Tolerations(&ds.Spec.Template.Spec))
	assertEqual(t, pod.Spec.Containers, ds.Spec.Template.Spec.Containers)
	if !pod.CreationTimestamp.IsZero() {
		t.Errorf("the core has no clock, but the pod was made at %v", pod.CreationTimestamp)
	}
}

func TestNewPodIsDeterministicAndUnique(t *testing.T) {
	ds := makeDS()
	other := makeNode(nil)
	other.Name = "host-02"
	assertEqual(t, mustPod(t, ds, makeNode(nil), 7), mustPod(t, ds, makeNode(nil), 7))
	uids, names := map[string]bool{}, map[string]bool{}
	for n := range uint64(200) {
		for _, node := range []*corev1.Node{makeNode(nil), other} {
			pod := mustPod(t, ds, node, n)
			uids[string(pod.UID)], names[pod.Name] = true, true
		}
	}
	if len(uids) != 400 || len(names) < 399 { // 27^5 names: a chance of 1 in 180 that two of 400 are equal
		t.Errorf("%d uids and %d names for 400 pods", len(uids), len(names))
	}
}

func TestNewPodAffinity(t *testing.T) {
	want := &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"host-01"}}},
	}}}
	preferred := []corev1.PreferredSchedulingTerm{{Weight: 1, Preference: term("zone", corev1.NodeSelectorOpIn, "z")}}
	for name, before := range map[string]*corev1.Affinity{
		"none":             nil,
		"no node affinity": {PodAntiAffinity: &corev1.PodAntiAffinity{}},
		"preferred only":   {NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: preferred}},
		"required": {NodeAffinity: &corev1.NodeAffinity{
			PreferredDuringSchedulingIgnoredDuringExecution: preferred,
			RequiredDuringSchedulingIgnoredDuringExecution:  &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{term("zone", corev1.NodeSelectorOpIn, "a")}},
		}},
	} {
		ds := makeDS(func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Affinity = before.DeepCopy() })
		t.Log(name)
		got := mustPod(t, ds, makeNode(nil), 1).Spec.Affinity
		assertEqual(t, got.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution, want)
		if before != nil {
			assertEqual(t, got.PodAntiAffinity, before.PodAntiAffinity)
			if before.NodeAffinity != nil {
				assertEqual(t, got.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution, before.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
			}
		}
		assertEqual(t, ds.Spec.Template.Spec.Affinity, before)
	}
}

func TestLongNames(t *testing.T) {
	for _, name := range []string{strings.Repeat("a", 58), strings.Repeat("b", 57) + "." + strings.Repeat("c", 100), strings.Repeat("d", 240)} {
		pod := mustPod(t, makeDS(func(ds *appsv1.DaemonSet) { ds.Name = name }), makeNode(nil), 1)
		if len(pod.Name) != 63 || len(validation.IsDNS1123Subdomain(pod.Name)) > 0 {
			t.Errorf("%d characters: pod name %q", len(name), pod.Name)
		}
	}
}

func TestTemplateWithoutLabelsOrWithABadGeneration(t *testing.T) {
	ds := makeDS(func(ds *appsv1.DaemonSet) {
		ds.Spec.Template.Labels = nil
		ds.Annotations = map[string]string{appsv1.DeprecatedTemplateGeneration: "four"}
	})
	pod := mustPod(t, ds, makeNode(nil), 1)
	if len(pod.Labels) != 1 || pod.Labels[appsv1.ControllerRevisionHashLabelKey] == "" {
		t.Errorf("labels: got %v", pod.Labels)
	}
}

func TestUID(t *testing.T) {
	first := UID("DaemonSet", "default", "web", 1)
	if first != "8d4841e6-3698-5264-9fab-82ce533b0bcd" {
		t.Errorf("got %s: objects would lose their identity with this version", first)
	}
	for name, other := range map[string]string{
		"kind": string(UID("Secret", "default", "web", 1)), "namespace": string(UID("DaemonSet", "kube-system", "web", 1)),
		"name": string(UID("DaemonSet", "default", "we", 1)), "birth": string(UID("DaemonSet", "default", "web", 2)),
		"where one part ends": string(UID("DaemonSetd", "efault", "web", 1)),
	} {
		if other == string(first) {
			t.Errorf("the uid does not depend on the %s", name)
		}
	}
}
