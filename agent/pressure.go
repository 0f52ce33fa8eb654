package agent

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// pressure is one of the conditions by which a Node says that something of the host runs short.
type pressure int

const (
	memoryPressure pressure = iota
	diskPressure
	pidPressure
	pressureKinds
)

// pressureNames are the kubelet's, so that what people look for in Kubernetes is found here.
var pressureNames = [pressureKinds]struct {
	condition               corev1.NodeConditionType
	taint                   string // NoSchedule, while the condition is true
	short, enough           reasonText
	shortEvent, enoughEvent string
}{
	memoryPressure: {
		corev1.NodeMemoryPressure, corev1.TaintNodeMemoryPressure,
		reasonText{"KubeletHasInsufficientMemory", "kubelet has insufficient memory available"},
		reasonText{"KubeletHasSufficientMemory", "kubelet has sufficient memory available"},
		"NodeHasInsufficientMemory", "NodeHasSufficientMemory",
	},
	diskPressure: {
		corev1.NodeDiskPressure, corev1.TaintNodeDiskPressure,
		reasonText{"KubeletHasDiskPressure", "kubelet has disk pressure"},
		reasonText{"KubeletHasNoDiskPressure", "kubelet has no disk pressure"},
		"NodeHasDiskPressure", "NodeHasNoDiskPressure",
	},
	pidPressure: {
		corev1.NodePIDPressure, corev1.TaintNodePIDPressure,
		reasonText{"KubeletHasInsufficientPID", "kubelet has insufficient PID available"},
		reasonText{"KubeletHasSufficientPID", "kubelet has sufficient PID available"},
		"NodeHasInsufficientPID", "NodeHasSufficientPID",
	},
}

type reasonText struct{ reason, message string }

// The kubelet's default thresholds of hard eviction. For process ids it has none; one in a hundred is what a host needs to be logged
// in to and looked at.
const (
	memoryLeast        = 100 << 20 // bytes
	nodefsLeast        = 10        // percent
	imagefsLeast       = 15        // percent
	inodesLeast        = 5         // percent, of both
	pidsLeast          = 1         // percent
	pressureTransition = 5 * time.Minute
)

// supply is how much there is of something and how much of that is free. Without a total it is not known.
type supply struct{ total, free int64 }

func (s supply) below(percent int64) bool { return s.total > 0 && s.free*100 < s.total*percent }

// reading is what a look at the host says: bytes of memory and of the file systems of dataDir and containerd's snapshots (nodefs and
// imagefs, as the kubelet calls them), inodes, and process ids.
type reading struct {
	memory, nodefs, nodefsInodes, imagefs, imagefsInodes, pids supply
}

// short says what runs short, and in words why.
func (r reading) short() (now [pressureKinds]bool, why string) {
	for _, signal := range []struct {
		pressure pressure
		name     string
		supply   supply
		short    bool
	}{
		{memoryPressure, "memory.available", r.memory, r.memory.total > 0 && r.memory.free < memoryLeast},
		{diskPressure, "nodefs.available", r.nodefs, r.nodefs.below(nodefsLeast)},
		{diskPressure, "nodefs.inodesFree", r.nodefsInodes, r.nodefsInodes.below(inodesLeast)},
		{diskPressure, "imagefs.available", r.imagefs, r.imagefs.below(imagefsLeast)},
		{diskPressure, "imagefs.inodesFree", r.imagefsInodes, r.imagefsInodes.below(inodesLeast)},
		{pidPressure, "pid.available", r.pids, r.pids.below(pidsLeast)},
	} {
		if signal.short {
			now[signal.pressure] = true
			why += fmt.Sprintf("%s is %d of %d; ", signal.name, signal.supply.free, signal.supply.total)
		}
	}
	return now, why
}

// strain remembers when each thing last ran short: a condition becomes true at once, and false when that was some time ago.
type strain [pressureKinds]time.Time

func (s *strain) take(short [pressureKinds]bool, now time.Time) (conditions [pressureKinds]bool) {
	for p := range s {
		if short[p] || s[p].After(now) { // the clock was set back
			s[p] = now
		}
		if short[p] {
			conditions[p] = true
			continue
		}
		conditions[p] = !s[p].IsZero() && now.Sub(s[p]) < pressureTransition
	}
	return conditions
}
