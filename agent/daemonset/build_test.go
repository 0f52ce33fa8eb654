package daemonset

import (
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// t0 is the time of all tests; nothing here depends on which it is.
var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const (
	revA = "aaaa" // the older revision
	revB = "bbbb" // the current one
)

func makeNode(labels map[string]string, taints ...corev1.Taint) *corev1.Node {
	all := map[string]string{"kubernetes.io/hostname": "host-01", "kubernetes.io/os": "linux", "disktype": "ssd", "zone": "a"}
	for k, v := range labels {
		all[k] = v
	}
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "host-01", Labels: all}, Spec: corev1.NodeSpec{Taints: taints}}
}

func taint(effect corev1.TaintEffect) corev1.Taint {
	return corev1.Taint{Key: "dedicated", Value: "gpu", Effect: effect}
}

func toleration(effect corev1.TaintEffect, seconds ...int64) corev1.Toleration {
	t := corev1.Toleration{Key: "dedicated", Operator: corev1.TolerationOpEqual, Value: "gpu", Effect: effect}
	if len(seconds) > 0 {
		t.TolerationSeconds = &seconds[0]
	}
	return t
}

// makeDS is a DaemonSet as defaulting leaves it, with changes.
func makeDS(change ...func(*appsv1.DaemonSet)) *appsv1.DaemonSet {
	labels := map[string]string{"app": "web"}
	ds := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: "f2b1e5a8-0000-5000-8000-000000000001", Generation: 1},
		Spec: appsv1.DaemonSetSpec{
			Selector:             &metav1.LabelSelector{MatchLabels: labels},
			RevisionHistoryLimit: new(int32(10)),
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "busybox:1"}}},
			},
		},
	}
	ds.Spec.UpdateStrategy = rolling(intstr.FromInt32(1), intstr.FromInt32(0))
	for _, c := range change {
		c(ds)
	}
	return ds
}

func rolling(maxUnavailable, maxSurge intstr.IntOrString) appsv1.DaemonSetUpdateStrategy {
	return appsv1.DaemonSetUpdateStrategy{
		Type:          appsv1.RollingUpdateDaemonSetStrategyType,
		RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &maxUnavailable, MaxSurge: &maxSurge},
	}
}

func surging(ds *appsv1.DaemonSet) {
	ds.Spec.UpdateStrategy = rolling(intstr.FromInt32(0), intstr.FromInt32(1))
}

func deleting(ds *appsv1.DaemonSet) {
	ds.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}
}

func pausing(ds *appsv1.DaemonSet) { ds.Annotations = map[string]string{AnnotationPaused: "true"} }

func minReady(seconds int32) func(*appsv1.DaemonSet) {
	return func(ds *appsv1.DaemonSet) { ds.Spec.MinReadySeconds = seconds }
}

func tolerating(t ...corev1.Toleration) func(*appsv1.DaemonSet) {
	return func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Tolerations = t }
}

func selecting(key, value string) func(*appsv1.DaemonSet) {
	return func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.NodeSelector = map[string]string{key: value} }
}

// makePod makes pod n of a revision, created n minutes after t0-1h, running and not ready.
func makePod(n int, revision string, change ...func(*Pod)) Pod {
	pod := Pod{
		UID: fmt.Sprintf("uid-%d", n), Name: fmt.Sprintf("web-%d", n), Revision: revision,
		Phase: corev1.PodRunning, Created: t0.Add(-time.Hour + time.Duration(n)*time.Minute),
	}
	for _, c := range change {
		c(&pod)
	}
	return pod
}

func ready(p *Pod)       { p.Ready, p.ReadySince = true, t0.Add(-10*time.Minute) }
func terminating(p *Pod) { p.Terminating = true }
func failed(p *Pod)      { p.Phase = corev1.PodFailed }

func readySince(t time.Time) func(*Pod) {
	return func(p *Pod) { p.Ready, p.ReadySince = true, t }
}

// planOn runs Plan for generation 1 with current revision revB at t0.
func planOn(node *corev1.Node, ds *appsv1.DaemonSet, pods ...Pod) Decision {
	return Plan(viewOf(ds), Self{Node: node}, Observed{Pods: pods, Warm: warmed}, t0)
}

// viewOf is generation 1 with current revision revB, in a fleet of one.
func viewOf(ds *appsv1.DaemonSet) View {
	v := View{DaemonSet: ds, Generation: 1, Revision: revB, Common: Common{Generation: 1, Roster: map[string]Entry{"host-01": {Number: 1}}}}
	v.Digest = v.Common.Digest()
	return v
}

// warmed is a next pod that is ready to be started. That it is dropped when it is not needed is not worth telling every time.
var warmed = []Warm{{UID: "warmed", Since: t0, Revision: revB, Prepared: true}}

// said is an action in short: "create bbbb SuccessfulCreate", "delete uid-1 RollingUpdate".
func said(d Decision) []string {
	out := []string{}
	for _, a := range d.Actions {
		if a.Kind == Discard && a.UID == warmed[0].UID {
			continue
		}
		out = append(out, fmt.Sprintf("%s %s%s %s", a.Kind, a.Revision, a.UID, a.Reason))
	}
	return out
}

// assertEqual compares as Kubernetes compares objects.
func assertEqual(t *testing.T, got, want any) {
	t.Helper()
	if !equality.Semantic.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
