package daemonset

import (
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// reasonNodeNotReady is what Kubernetes' node lifecycle controller gives pods of a node that is not heard of.
const reasonNodeNotReady = "NodeNotReady"

// Blueprint makes the Pods of one revision that run on other hosts, out of what those say. They share its containers, volumes, labels
// and the like, so nobody may change them.
type Blueprint struct {
	daemonSet string
	pod       *corev1.Pod // what they have in common
	minReady  time.Duration
	grace     time.Duration
}

// NewBlueprint reads the template of rev; it is good until ds or rev changes. complete, if given, sees the common Pod once, to default
// it as the host that runs it does.
func NewBlueprint(ds *appsv1.DaemonSet, rev *appsv1.ControllerRevision, complete ...func(*corev1.Pod)) (*Blueprint, error) {
	pod, err := NewPod(ds, rev, &corev1.Node{}, 0)
	if err != nil {
		return nil, err
	}
	for _, c := range complete {
		c(pod)
	}
	grace := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if own := pod.Spec.TerminationGracePeriodSeconds; own != nil {
		grace = *own
	}
	return &Blueprint{daemonSet: ds.Name, pod: pod, minReady: seconds(int64(ds.Spec.MinReadySeconds)), grace: seconds(grace)}, nil
}

// Pod is the one that a host, with the address hostIP, says it runs; s.HasPod must be set. The pod of a host that is silent keeps its
// phase and its containers' states: the last that is known of them.
func (b *Blueprint) Pod(node, hostIP string, s Status) *corev1.Pod {
	pod := *b.pod
	pod.Name, pod.UID = PodName(b.daemonSet, s.PodUID), s.PodUID
	pod.CreationTimestamp = metav1.NewTime(s.Created)
	if s.Terminating {
		pod.DeletionTimestamp = &metav1.Time{Time: s.Since.Add(b.grace)} // as in Kubernetes: when it will be gone
		pod.DeletionGracePeriodSeconds = pod.Spec.TerminationGracePeriodSeconds
	}
	pod.Spec.NodeName = node
	affinity, nodeAffinity := *pod.Spec.Affinity, *pod.Spec.Affinity.NodeAffinity
	pod.Spec.Affinity, affinity.NodeAffinity = &affinity, &nodeAffinity
	bindTo(&pod.Spec, node)

	status := &pod.Status
	status.Phase = s.Phase
	status.StartTime = &pod.CreationTimestamp
	if hostIP != "" {
		status.HostIP, status.HostIPs = hostIP, []corev1.HostIP{{IP: hostIP}}
	}
	status.PodIPs = b.podIPs(hostIP, s)
	if len(status.PodIPs) > 0 {
		status.PodIP = status.PodIPs[0].IP
	}
	b.containers(s, status)
	status.Conditions = b.conditions(s, status)
	return &pod
}

func (b *Blueprint) podIPs(hostIP string, s Status) []corev1.PodIP {
	if b.pod.Spec.HostNetwork && hostIP != "" {
		return []corev1.PodIP{{IP: hostIP}}
	}
	var list []corev1.PodIP
	for _, ip := range s.PodIPs {
		if ip.IsValid() {
			list = append(list, corev1.PodIP{IP: ip.String()})
		}
	}
	return list
}

// conditions are those of SEMANTICS.md (Pod life); a pod whose host is silent is not ready, as in Kubernetes.
func (b *Blueprint) conditions(s Status, status *corev1.PodStatus) []corev1.PodCondition {
	ready := corev1.PodCondition{Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(s.Since)}
	if s.Available { // Since is when it became so
		ready.LastTransitionTime = metav1.NewTime(s.Since.Add(-b.minReady))
	}
	switch {
	case s.Silent != "":
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, reasonNodeNotReady, s.Silent
		if !s.SilentSince.IsZero() {
			ready.LastTransitionTime = metav1.NewTime(s.SilentSince)
		}
	case !s.Ready:
		ready.Status = corev1.ConditionFalse
		if names := unready(b.longLived(status)); len(names) > 0 {
			ready.Reason, ready.Message = "ContainersNotReady", fmt.Sprintf("containers with unready status: [%s]", strings.Join(names, " "))
		}
	}
	done := corev1.PodCondition{Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(s.Created)}
	initialized := done
	if !b.initialized(s) {
		incomplete := strings.Join(unready(status.InitContainerStatuses), " ")
		initialized.Status, initialized.Reason = corev1.ConditionFalse, "ContainersNotInitialized"
		initialized.Message = fmt.Sprintf("containers with incomplete status: [%s]", incomplete)
	}
	list := []corev1.PodCondition{initialized, ready, ready, done}
	for i, kind := range [...]corev1.PodConditionType{corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled} {
		list[i].Type = kind
	}
	return list
}

func unready(containers []corev1.ContainerStatus) []string {
	var names []string
	for i := range containers {
		if !containers[i].Ready {
			names = append(names, containers[i].Name)
		}
	}
	return names
}
