package pod

import (
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
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

// resources are a container's cgroup values. Where it has no limit of its own, that of spec.resources is the container's, too.
func resources(pod *corev1.Pod, c *corev1.Container, allocatable corev1.ResourceList) runtime.Resources {
	limits := limitsOf(pod, c)
	cpu, ok := c.Resources.Requests[corev1.ResourceCPU]
	if !ok {
		cpu = limits[corev1.ResourceCPU]
	}
	r := cgroupValues(cpu, limits)
	r.OOMScoreAdj = oomScoreAdj(pod, c, allocatable)
	return r
}

// limitsOf are a container's limits, and for CPU and memory the pod's where it has none.
func limitsOf(pod *corev1.Pod, c *corev1.Container) corev1.ResourceList {
	limits := c.Resources.Limits.DeepCopy()
	if pod.Spec.Resources == nil {
		return limits
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if q, ok := pod.Spec.Resources.Limits[name]; ok && isZero(limits, name) {
			if limits == nil {
				limits = corev1.ResourceList{}
			}
			limits[name] = q
		}
	}
	return limits
}

func isZero(list corev1.ResourceList, name corev1.ResourceName) bool {
	q := list[name]
	return q.IsZero()
}

// podResources are the values of the pod's own cgroup: what its containers request together, by Kubernetes' formula, and their
// limits, each if every container has that limit; spec.resources comes before both.
func podResources(pod *corev1.Pod) *runtime.Resources {
	options := resourcehelper.PodResourcesOptions{ExcludeOverhead: true} // there are no runtime classes
	requests, limits := resourcehelper.PodRequests(pod, options), resourcehelper.PodLimits(pod, options)
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if !isLimited(pod, name) {
			delete(limits, name)
		}
	}
	r := cgroupValues(requests[corev1.ResourceCPU], limits)
	return &r
}

// isLimited says whether the whole pod has a limit.
func isLimited(pod *corev1.Pod, name corev1.ResourceName) bool {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if isZero(limitsOf(pod, &list[i]), name) {
				return false
			}
		}
	}
	return true
}

// cgroupValues translates a CPU request and limits.
func cgroupValues(cpu resource.Quantity, limits corev1.ResourceList) runtime.Resources {
	r := runtime.Resources{
		CPUShares:   uint64(min(max(cpu.MilliValue()*sharesPerCPU/1000, sharesMin), sharesMax)),
		MemoryLimit: limits.Memory().Value(),
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
	if capacity <= 0 {
		return oomScoreBestEffort - 1
	}
	request := c.Resources.Requests.Memory().Value()
	if initRole(c) == roleSidecar { // it is killed no sooner than those that it serves
		request = max(request, leastRequest(pod))
	}
	request += sharedRequest(pod)
	return int(min(max(oomScoreBestEffort-oomScoreBestEffort*request/capacity, oomScoreBestEffort+oomScoreGuaranteed), oomScoreBestEffort-1))
}

// leastRequest is the least memory that one of the pod's main containers requests.
func leastRequest(pod *corev1.Pod) int64 {
	least := int64(math.MaxInt64)
	for _, c := range pod.Spec.Containers {
		least = min(least, c.Resources.Requests.Memory().Value())
	}
	return least
}

// sharedRequest is each container's part of what spec.resources requests of memory beyond the containers' own requests.
func sharedRequest(pod *corev1.Pod) int64 {
	if !resourcehelper.IsPodLevelRequestsSet(pod) || isZero(pod.Spec.Resources.Requests, corev1.ResourceMemory) {
		return 0
	}
	own := resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{})
	rest := pod.Spec.Resources.Requests.Memory().Value() - own.Memory().Value()
	return rest / int64(len(pod.Spec.Containers)+len(pod.Spec.InitContainers))
}
