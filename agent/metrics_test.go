package agent

import (
	"errors"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/picketd/picket/runtime"
)

// testSnapshot has one of everything.
func testSnapshot() MetricsSnapshot {
	ds := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: "web", Generation: 4, CreationTimestamp: metav1.Unix(1700000000, 0),
			Labels: map[string]string{"app.kubernetes.io/partOf": "shop", "a-b": "1", "a.b": "2"},
		},
		Status: appsv1.DaemonSetStatus{
			ObservedGeneration: 3, DesiredNumberScheduled: 9, CurrentNumberScheduled: 8, NumberReady: 7, UpdatedNumberScheduled: 6,
			NumberAvailable: 5, NumberUnavailable: 2, NumberMisscheduled: 1,
			Conditions: []appsv1.DaemonSetCondition{{Type: "RolloutBlocked", Status: corev1.ConditionTrue, Reason: "HostLost"}},
		},
	}
	owner := metav1.OwnerReference{Kind: "DaemonSet", Name: "web", UID: "ds-uid", Controller: new(true)}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-abcde", UID: "pod-uid", OwnerReferences: []metav1.OwnerReference{owner}},
		Spec:       corev1.PodSpec{NodeName: "host-01", HostNetwork: true},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, HostIP: "10.0.0.1", PodIP: "10.0.0.1",
			InitContainerStatuses: []corev1.ContainerStatus{{Name: "side", RestartCount: 1}},
			ContainerStatuses: []corev1.ContainerStatus{
				{Name: "c", RestartCount: 3, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}},
				{Name: "d", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
			},
		},
	}
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "host-01"},
		Spec:       corev1.NodeSpec{Unschedulable: true, PodCIDR: "10.88.0.0/16", Taints: []corev1.Taint{{Key: "dedicated", Value: "gpu", Effect: corev1.TaintEffectNoSchedule}}},
		Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "h"}, {Type: corev1.NodeInternalIP, Address: "10.0.0.1"}, {Type: corev1.NodeInternalIP, Address: "fd00::1"}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse}},
			NodeInfo:   corev1.NodeSystemInfo{KernelVersion: "6.1", OSImage: "Debian", ContainerRuntimeVersion: "containerd://1.6", KubeletVersion: "v1", SystemUUID: "u"},
		},
	}
	return MetricsSnapshot{
		DaemonSets: []*appsv1.DaemonSet{ds}, Pods: []*corev1.Pod{pod}, Node: node, ContainerdUp: true, Images: 2, ImageBytes: 4096,
		ManifestErrors: map[string]int{"web.yaml": 0, "bad.yaml": 2}, Objects: map[string]int{"DaemonSet": 1, "Secret": 3},
		Events: map[string]uint64{"SuccessfulCreate": 5}, Certificates: map[string]time.Time{"host": time.Unix(1800000000, 0), "authority": time.Unix(1900000000, 0)},
	}
}

// register makes the metrics of a snapshot in a registry of their own.
func register(s MetricsSnapshot) (*prometheus.Registry, *metrics) {
	reg := prometheus.NewRegistry()
	return reg, newMetrics(reg, "v1.2.3", func() MetricsSnapshot { return s })
}

// series are the lines of a scrape that begin with prefix, without comments.
func series(t *testing.T, reg prometheus.Gatherer, prefix string) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(&text, family); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	for line := range strings.Lines(text.String()) {
		if strings.HasPrefix(line, prefix) {
			out.WriteString(line)
		}
	}
	return out.String()
}

func expectSeries(t *testing.T, reg prometheus.Gatherer, prefix, want string) {
	t.Helper()
	if got := series(t, reg, prefix); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestMetricsOfTheAgent(t *testing.T) {
	reg, m := register(testSnapshot())
	m.planned(300 * time.Microsecond)
	m.reloaded(errors.New("unknown key"))
	m.collected(runtime.ImageCollection{Freed: 4096, Removed: []string{"a:1", "b:1"}})
	got := strings.ReplaceAll(series(t, reg, "picket_"), goruntime.Version(), "GO")
	want := `picket_build_info{goversion="GO",version="v1.2.3"} 1
picket_certificate_expiry_timestamp_seconds{certificate="authority"} 1.9e+09
picket_certificate_expiry_timestamp_seconds{certificate="host"} 1.8e+09
picket_config_last_reload_successful 0
picket_config_reload_errors_total 1
picket_container_restarts_total{container="c",daemonset="web",namespace="default",pod="web-abcde"} 3
picket_container_restarts_total{container="d",daemonset="web",namespace="default",pod="web-abcde"} 0
picket_container_restarts_total{container="side",daemonset="web",namespace="default",pod="web-abcde"} 1
picket_containerd_up 1
picket_events_total{reason="SuccessfulCreate"} 5
picket_image_bytes 4096
picket_image_gc_freed_bytes_total 4096
picket_image_gc_removed_images_total 2
picket_images 2
picket_manifest_errors{file="bad.yaml"} 2
picket_manifest_errors{file="web.yaml"} 0
picket_objects{kind="DaemonSet"} 1
picket_objects{kind="Secret"} 3
picket_plan_duration_seconds_bucket{le="0.0001"} 0
picket_plan_duration_seconds_bucket{le="0.0004"} 1
picket_plan_duration_seconds_bucket{le="0.0016"} 1
picket_plan_duration_seconds_bucket{le="0.0064"} 1
picket_plan_duration_seconds_bucket{le="0.0256"} 1
picket_plan_duration_seconds_bucket{le="0.1024"} 1
picket_plan_duration_seconds_bucket{le="0.4096"} 1
picket_plan_duration_seconds_bucket{le="1.6384"} 1
picket_plan_duration_seconds_bucket{le="+Inf"} 1
picket_plan_duration_seconds_sum 0.0003
picket_plan_duration_seconds_count 1
picket_pods{phase="Failed"} 0
picket_pods{phase="Pending"} 0
picket_pods{phase="Running"} 1
picket_pods{phase="Succeeded"} 0
picket_pods{phase="Unknown"} 0
picket_rollout_blocked{daemonset="web",namespace="default",reason="CannotMakePod"} 0
picket_rollout_blocked{daemonset="web",namespace="default",reason="HostLost"} 1
picket_rollout_blocked{daemonset="web",namespace="default",reason="HostStuck"} 0
picket_rollout_blocked{daemonset="web",namespace="default",reason="Paused"} 0
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	m.reloaded(nil)
	expectSeries(t, reg, "picket_config", "picket_config_last_reload_successful 1\npicket_config_reload_errors_total 1\n")
}

func TestMetricsOfAnEmptyHost(t *testing.T) {
	reg, _ := register(MetricsSnapshot{})
	expectSeries(t, reg, "kube_", "")
	expectSeries(t, reg, "picket_containerd", "picket_containerd_up 0\n")
}

// TestMetricsLint holds every name, help and label against Prometheus' own rules.
func TestMetricsLint(t *testing.T) {
	s := testSnapshot()
	s.Fleet = testFleetSnapshot()
	reg, _ := register(s)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if n, err := testutil.GatherAndCount(reg); err != nil || n < 100 {
		t.Errorf("only %d series were looked at: %v", n, err)
	}
}

// TestMetricsAreDescribed: a pedantic registry refuses what the collector sends but did not describe.
func TestMetricsAreDescribed(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(newSnapshotCollector(func() MetricsSnapshot {
		s := testSnapshot()
		s.Fleet = testFleetSnapshot()
		return s
	}))
	if _, err := reg.Gather(); err != nil {
		t.Error(err)
	}
}

func TestMetricsSurviveHostileNames(t *testing.T) {
	s := testSnapshot()
	s.ManifestErrors = map[string]int{"a\xff\n\".yaml": 1}
	s.DaemonSets[0].Labels = map[string]string{"x": "\xfe"}
	reg, _ := register(s)
	expectSeries(t, reg, "picket_manifest", `picket_manifest_errors{file="a?\n\".yaml"} 1`+"\n")
	expectSeries(t, reg, "kube_daemonset_labels", `kube_daemonset_labels{daemonset="web",label_x="?",namespace="default"} 1`+"\n")
}

// TestOneBadMetricSpoilsNoOther: two files whose names differ only in what is no UTF-8 make the same series.
func TestOneBadMetricSpoilsNoOther(t *testing.T) {
	s := testSnapshot()
	s.ManifestErrors = map[string]int{"\xff": 1, "\xfe": 1}
	reg, _ := register(s)
	families, err := reg.Gather()
	if err == nil || len(families) < 20 {
		t.Errorf("%d families, error %v", len(families), err)
	}
}
