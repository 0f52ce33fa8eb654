package pod

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/kubectl/pkg/util/qos"

	"github.com/picketd/picket/runtime"
)

// The kubelet's numbers (SEMANTICS.md, Resources).
const (
	sharesPerCPU = 1024
	sharesMin    = 2
	sharesMax    = 262144
	quotaPeriod  = 100000
	quotaMin     = 1000

	oomScoreGuaranteed = -997
	oomScoreBestEffort = 1000
)

const systemNodeCritical = "system-node-critical"

// resources are a container's cgroup values.
func resources(pod *corev1.Pod, c *corev1.Container, allocatable corev1.ResourceList) runtime.Resources {
	limits, requests := c.Resources.Limits, c.Resources.Requests
	cpu, ok := requests[corev1.ResourceCPU]
	if !ok {
		cpu = limits[corev1.ResourceCPU]
	}
	r := runtime.Resources{
		CPUShares:   uint64(min(max(cpu.MilliValue()*sharesPerCPU/1000, sharesMin), sharesMax)),
		MemoryLimit: limits.Memory().Value(),
		OOMScoreAdj: oomScoreAdj(pod, c, allocatable),
	}
	if milli := limits.Cpu().MilliValue(); milli > 0 {
		r.CPUQuota, r.CPUPeriod = max(milli*quotaPeriod/1000, quotaMin), quotaPeriod
	}
	for name, q := range limits {
		if size, ok := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix); ok {
			if r.HugepageLimits == nil {
				r.HugepageLimits = map[string]uint64{}
			}
			r.HugepageLimits[hugepageSize(size)] = uint64(q.Value())
		}
	}
	return r
}

// hugepageSize turns Kubernetes' "2Mi" into the kernel's "2MB".
func hugepageSize(size string) string {
	q, err := resource.ParseQuantity(size)
	if err != nil {
		return size
	}
	q.Format = resource.BinarySI
	return strings.TrimSuffix(q.String(), "i") + "B"
}

// oomScoreAdj is the kubelet's: what asked for much of the host's memory is killed late.
func oomScoreAdj(pod *corev1.Pod, c *corev1.Container, allocatable corev1.ResourceList) int {
	if pod.Spec.PriorityClassName == systemNodeCritical {
		return oomScoreGuaranteed
	}
	switch qos.ComputePodQOS(pod) {
	case corev1.PodQOSGuaranteed:
		return oomScoreGuaranteed
	case corev1.PodQOSBestEffort:
		return oomScoreBestEffort
	}
	capacity := allocatable.Memory().Value()
	request := c.Resources.Requests.Memory().Value()
	if capacity <= 0 {
		return oomScoreBestEffort - 1
	}
	return int(min(max(oomScoreBestEffort-oomScoreBestEffort*request/capacity, oomScoreBestEffort+oomScoreGuaranteed), oomScoreBestEffort-1))
}
