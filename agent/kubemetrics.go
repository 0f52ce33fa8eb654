package agent

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Metrics under kube-state-metrics' names and labels, so that alerts and dashboards written for a Kubernetes cluster work here.
// Every agent tells the DaemonSets' status of the whole fleet, but only its own pods and its own node: every host is scraped.

// fleetWide ends the help of what every host tells of all.
const fleetWide = " Of the whole fleet, and told by every host: take the maximum, not the sum."

// podPhases are all there are, in kube-state-metrics' order.
var podPhases = []corev1.PodPhase{corev1.PodPending, corev1.PodSucceeded, corev1.PodFailed, corev1.PodUnknown, corev1.PodRunning}

// daemonSetMetrics are the metrics with labels namespace and daemonset.
var daemonSetMetrics = []struct {
	name, help string
	value      func(*appsv1.DaemonSet) float64
}{
	{"kube_daemonset_metadata_generation", "Sequence number of the desired state.", func(ds *appsv1.DaemonSet) float64 { return float64(ds.Generation) }},
	{"kube_daemonset_status_observed_generation", "The generation that every host has acted on.", func(ds *appsv1.DaemonSet) float64 { return float64(ds.Status.ObservedGeneration) }},
	{"kube_daemonset_status_desired_number_scheduled", "Hosts that should run the daemon pod.", func(ds *appsv1.DaemonSet) float64 { return float64(ds.Status.DesiredNumberScheduled) }},
	{"kube_daemonset_status_current_number_scheduled", "Hosts that run at least one daemon pod and should.", func(ds *appsv1.DaemonSet) float64 { return float64(ds.Status.CurrentNumberScheduled) }},
	{"kube_daemonset_status_number_misscheduled", "Hosts that run a daemon pod and should not.", func(ds *appsv1.DaemonSet) float64 { return float64(ds.Status.NumberMisscheduled) }},
	{"kube_daemonset_status_number_ready", "Hosts whose daemon pod is ready.", func(ds *appsv1.DaemonSet) float64 { return float64(ds.Status.NumberReady) }},
	{"kube_daemonset_status_number_available", "Hosts whose daemon pod is available.", func(ds *appsv1.DaemonSet) float64 { return float64(ds.Status.NumberAvailable) }},
	{"kube_daemonset_status_number_unavailable", "Hosts that should run an available daemon pod and do not.", func(ds *appsv1.DaemonSet) float64 { return float64(ds.Status.NumberUnavailable) }},
	{"kube_daemonset_status_updated_number_scheduled", "Hosts whose daemon pod is of the current revision.", func(ds *appsv1.DaemonSet) float64 { return float64(ds.Status.UpdatedNumberScheduled) }},
}

// kubeDescs are the descriptions of one collector.
type kubeDescs struct {
	daemonSets       []*prometheus.Desc // as daemonSetMetrics
	daemonSetCreated *prometheus.Desc

	podInfo, podOwner, podPhase, podRestarts, podWaiting  *prometheus.Desc
	nodeInfo, nodeCondition, nodeTaint, nodeUnschedulable *prometheus.Desc
}

func newKubeDescs() kubeDescs {
	d := kubeDescs{
		daemonSetCreated: describe("kube_daemonset_created", "Unix creation timestamp."+fleetWide, "namespace", "daemonset"),
		podInfo: describe("kube_pod_info", "What a pod of this host is; always 1.",
			"namespace", "pod", "uid", "host_ip", "pod_ip", "node", "created_by_kind", "created_by_name", "priority_class", "host_network"),
		podOwner:          describe("kube_pod_owner", "The owners of a pod of this host; always 1.", "namespace", "pod", "uid", "owner_kind", "owner_name", "owner_is_controller"),
		podPhase:          describe("kube_pod_status_phase", "Whether a pod of this host is in the phase.", "namespace", "pod", "uid", "phase"),
		podRestarts:       describe("kube_pod_container_status_restarts_total", "Restarts of a container of this host.", "namespace", "pod", "uid", "container"),
		podWaiting:        describe("kube_pod_container_status_waiting_reason", "Why a container of this host waits; absent when it does not.", "namespace", "pod", "uid", "container", "reason"),
		nodeInfo:          describe("kube_node_info", "What this host is; always 1. Other hosts tell of themselves.", "node", "kernel_version", "os_image", "container_runtime_version", "kubelet_version", "provider_id", "pod_cidr", "system_uuid", "internal_ip"),
		nodeCondition:     describe("kube_node_status_condition", "Whether a condition of this host has the status. Nothing is told of a host that is down: alert on picket_cluster_members.", "node", "condition", "status"),
		nodeTaint:         describe("kube_node_spec_taint", "The taints of this host; always 1.", "node", "key", "value", "effect"),
		nodeUnschedulable: describe("kube_node_spec_unschedulable", "Whether this host is cordoned.", "node"),
	}
	for _, m := range daemonSetMetrics {
		d.daemonSets = append(d.daemonSets, describe(m.name, m.help+fleetWide, "namespace", "daemonset"))
	}
	return d
}

func (d *kubeDescs) describe(out chan<- *prometheus.Desc) {
	for _, desc := range append(slices.Clone(d.daemonSets), d.daemonSetCreated, d.podInfo, d.podOwner, d.podPhase, d.podRestarts, d.podWaiting,
		d.nodeInfo, d.nodeCondition, d.nodeTaint, d.nodeUnschedulable) {
		out <- desc
	}
}

func (d *kubeDescs) send(send sender, s MetricsSnapshot) {
	for _, ds := range s.DaemonSets {
		if !ds.CreationTimestamp.IsZero() {
			send.gauge(d.daemonSetCreated, float64(ds.CreationTimestamp.Unix()), ds.Namespace, ds.Name)
		}
		for i, m := range daemonSetMetrics {
			send.gauge(d.daemonSets[i], m.value(ds), ds.Namespace, ds.Name)
		}
	}
	for _, pod := range s.Pods {
		d.sendPod(send, pod)
	}
	if s.Node != nil {
		d.sendNode(send, s.Node)
	}
}

func (d *kubeDescs) sendPod(send sender, pod *corev1.Pod) {
	id := []string{pod.Namespace, pod.Name, string(pod.UID)}
	with := func(labels ...string) []string { return slices.Concat(id, labels) }

	creatorKind, creatorName := "", ""
	if c := metav1.GetControllerOfNoCopy(pod); c != nil {
		creatorKind, creatorName = c.Kind, c.Name
	}
	send.gauge(d.podInfo, 1, with(pod.Status.HostIP, pod.Status.PodIP, pod.Spec.NodeName, creatorKind, creatorName,
		pod.Spec.PriorityClassName, strconv.FormatBool(pod.Spec.HostNetwork))...)
	for _, o := range pod.OwnerReferences {
		send.gauge(d.podOwner, 1, with(o.Kind, o.Name, strconv.FormatBool(o.Controller != nil && *o.Controller))...)
	}
	if pod.Status.Phase != "" {
		for _, phase := range podPhases {
			send.gauge(d.podPhase, truth(pod.Status.Phase == phase), with(string(phase))...)
		}
	}
	for _, c := range pod.Status.ContainerStatuses {
		send.counter(d.podRestarts, float64(c.RestartCount), with(c.Name)...)
		if c.State.Waiting != nil {
			send.gauge(d.podWaiting, 1, with(c.Name, c.State.Waiting.Reason)...)
		}
	}
}

func (d *kubeDescs) sendNode(send sender, node *corev1.Node) {
	info, internalIP := node.Status.NodeInfo, ""
	for _, a := range node.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			internalIP = a.Address
			break
		}
	}
	send.gauge(d.nodeInfo, 1, node.Name, info.KernelVersion, info.OSImage, info.ContainerRuntimeVersion, info.KubeletVersion,
		node.Spec.ProviderID, node.Spec.PodCIDR, info.SystemUUID, internalIP)
	send.gauge(d.nodeUnschedulable, truth(node.Spec.Unschedulable), node.Name)
	for _, t := range node.Spec.Taints {
		send.gauge(d.nodeTaint, 1, node.Name, t.Key, t.Value, string(t.Effect))
	}
	for _, c := range node.Status.Conditions {
		for _, status := range []corev1.ConditionStatus{corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionUnknown} {
			send.gauge(d.nodeCondition, truth(c.Status == status), node.Name, string(c.Type), strings.ToLower(string(status)))
		}
	}
}

// labelsCollector tells the labels of the DaemonSets. Their names make the metric's label names, so nothing can be described
// beforehand: Prometheus' registry calls this an unchecked collector.
type labelsCollector struct{ read func() MetricsSnapshot }

// Describe names nothing.
func (labelsCollector) Describe(chan<- *prometheus.Desc) {}

// Collect sends one metric a DaemonSet.
func (c labelsCollector) Collect(out chan<- prometheus.Metric) {
	for _, ds := range c.read().DaemonSets {
		names, values := []string{"namespace", "daemonset"}, []string{ds.Namespace, ds.Name}
		used := map[string]int{}
		for _, key := range slices.Sorted(maps.Keys(ds.Labels)) {
			name := metricLabel(key)
			if used[name]++; used[name] > 1 {
				name += fmt.Sprint("_conflict", used[name]-1) // as kube-state-metrics does
			}
			names, values = append(names, name), append(values, ds.Labels[key])
		}
		sender(out).gauge(describe("kube_daemonset_labels", "The labels of a DaemonSet; always 1."+fleetWide, names...), 1, values...)
	}
}

var (
	notInLabel = regexp.MustCompile(`[^a-zA-Z0-9_]`)
	wordStart  = regexp.MustCompile(`([a-z0-9])([A-Z])`)
)

// metricLabel is kube-state-metrics' name of a Kubernetes label: "app.kubernetes.io/partOf" is label_app_kubernetes_io_part_of.
func metricLabel(key string) string {
	name := notInLabel.ReplaceAllString(key, "_")
	return "label_" + strings.ToLower(wordStart.ReplaceAllString(name, "${1}_${2}"))
}
