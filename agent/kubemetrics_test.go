package agent

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestKubeStateMetrics pins names and labels to kube-state-metrics': alerts and dashboards are written against them.
func TestKubeStateMetrics(t *testing.T) {
	reg, _ := register(testSnapshot())
	expectSeries(t, reg, "kube_", `kube_daemonset_created{daemonset="web",namespace="default"} 1.7e+09
kube_daemonset_labels{daemonset="web",label_a_b="1",label_a_b_conflict1="2",label_app_kubernetes_io_part_of="shop",namespace="default"} 1
kube_daemonset_metadata_generation{daemonset="web",namespace="default"} 4
kube_daemonset_status_current_number_scheduled{daemonset="web",namespace="default"} 8
kube_daemonset_status_desired_number_scheduled{daemonset="web",namespace="default"} 9
kube_daemonset_status_number_available{daemonset="web",namespace="default"} 5
kube_daemonset_status_number_misscheduled{daemonset="web",namespace="default"} 1
kube_daemonset_status_number_ready{daemonset="web",namespace="default"} 7
kube_daemonset_status_number_unavailable{daemonset="web",namespace="default"} 2
kube_daemonset_status_observed_generation{daemonset="web",namespace="default"} 3
kube_daemonset_status_updated_number_scheduled{daemonset="web",namespace="default"} 6
kube_node_info{container_runtime_version="containerd://1.6",internal_ip="10.0.0.1",kernel_version="6.1",kubelet_version="v1",node="host-01",os_image="Debian",pod_cidr="10.88.0.0/16",provider_id="",system_uuid="u"} 1
kube_node_spec_taint{effect="NoSchedule",key="dedicated",node="host-01",value="gpu"} 1
kube_node_spec_unschedulable{node="host-01"} 1
kube_node_status_condition{condition="Ready",node="host-01",status="false"} 1
kube_node_status_condition{condition="Ready",node="host-01",status="true"} 0
kube_node_status_condition{condition="Ready",node="host-01",status="unknown"} 0
kube_pod_container_status_restarts_total{container="c",namespace="default",pod="web-abcde",uid="pod-uid"} 3
kube_pod_container_status_restarts_total{container="d",namespace="default",pod="web-abcde",uid="pod-uid"} 0
kube_pod_container_status_waiting_reason{container="c",namespace="default",pod="web-abcde",reason="CrashLoopBackOff",uid="pod-uid"} 1
kube_pod_info{created_by_kind="DaemonSet",created_by_name="web",host_ip="10.0.0.1",host_network="true",namespace="default",node="host-01",pod="web-abcde",pod_ip="10.0.0.1",priority_class="",uid="pod-uid"} 1
kube_pod_owner{namespace="default",owner_is_controller="true",owner_kind="DaemonSet",owner_name="web",pod="web-abcde",uid="pod-uid"} 1
kube_pod_status_phase{namespace="default",phase="Failed",pod="web-abcde",uid="pod-uid"} 0
kube_pod_status_phase{namespace="default",phase="Pending",pod="web-abcde",uid="pod-uid"} 0
kube_pod_status_phase{namespace="default",phase="Running",pod="web-abcde",uid="pod-uid"} 1
kube_pod_status_phase{namespace="default",phase="Succeeded",pod="web-abcde",uid="pod-uid"} 0
kube_pod_status_phase{namespace="default",phase="Unknown",pod="web-abcde",uid="pod-uid"} 0
`)
}

func TestKubeMetricsOfWhatIsNotKnownYet(t *testing.T) {
	s := testSnapshot()
	s.DaemonSets[0].CreationTimestamp = metav1.Time{}
	s.Node = nil
	s.Pods[0].OwnerReferences = nil
	s.Pods[0].Status = corev1.PodStatus{}
	reg, _ := register(s)
	for _, absent := range []string{"kube_daemonset_created", "kube_node_", "kube_pod_owner", "kube_pod_status_phase", "kube_pod_container_"} {
		expectSeries(t, reg, absent, "")
	}
	expectSeries(t, reg, "kube_pod_info", `kube_pod_info{created_by_kind="",created_by_name="",host_ip="",host_network="true",namespace="default",node="host-01",pod="web-abcde",pod_ip="",priority_class="",uid="pod-uid"} 1`+"\n")
}

func TestMetricLabel(t *testing.T) {
	for key, want := range map[string]string{
		"app": "label_app", "app.kubernetes.io/name": "label_app_kubernetes_io_name", "k8s-app": "label_k8s_app",
		"podTemplate": "label_pod_template", "HTTP2Only": "label_http2_only",
	} {
		if got := metricLabel(key); got != want {
			t.Errorf("%s: got %s, want %s", key, got, want)
		}
	}
}
