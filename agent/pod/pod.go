package pod

import (
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/runtime"
)

// Runtime is what a worker needs of package runtime; runtime/runtimetest has a fake. All calls are idempotent and return
// the sentinel errors of package runtime.
type Runtime interface {
	// EnsureImage makes the image present and unpacked, following the pull policy.
	EnsureImage(ctx context.Context, req runtime.ImageRequest) (runtime.Image, error)
	// SetUpPod makes (or finds again) the pod's namespaces and network.
	SetUpPod(ctx context.Context, pod runtime.PodConfig) (runtime.PodStatus, error)
	// TearDownPod removes the pod's namespaces, network and cgroup. Its containers must be gone.
	TearDownPod(ctx context.Context, pod runtime.PodConfig) error
	// CreateContainer makes snapshot, container and task; the process is not started.
	CreateContainer(ctx context.Context, c runtime.ContainerConfig) error
	// StartContainer starts the created task's process. Its exit arrives as an Event.
	StartContainer(ctx context.Context, id string) error
	// SignalContainer sends a signal to the container's init process ("SIGTERM"; "" is the image's StopSignal or SIGTERM).
	SignalContainer(ctx context.Context, id, signal string) error
	// RemoveContainer deletes task (killing what still runs), container and snapshot. Logs stay.
	RemoveContainer(ctx context.Context, id string) error
	// ContainerStatus reads one container.
	ContainerStatus(ctx context.Context, id string) (runtime.ContainerStatus, error)
	// Exec runs a command in the container and returns its exit code.
	Exec(ctx context.Context, id string, e runtime.ExecConfig) (int, error)
}

// Objects finds the ConfigMaps and Secrets a pod refers to. Safe for concurrent use; what it returns must not be changed.
type Objects interface {
	ConfigMap(namespace, name string) (*corev1.ConfigMap, bool)
	Secret(namespace, name string) (*corev1.Secret, bool)
}

// Host describes the machine to the pods on it.
type Host struct {
	NodeName string
	Hostname string
	IPs      []string // status.hostIPs, first is status.hostIP
	// Allocatable is what resourceFieldRef falls back to and what oom_score_adj is computed from.
	Allocatable corev1.ResourceList
}

// Config is what all workers of an agent share.
type Config struct {
	Runtime Runtime
	Objects Objects
	Host    func() Host
	// Dir holds one directory per pod uid: volumes, etc-hosts, termination logs, status.json. Owned by the worker.
	Dir string
	// PodLogs and ContainerLogs are the kubelet's /var/log/pods and /var/log/containers.
	PodLogs       string
	ContainerLogs string
	Log           *slog.Logger
	// OnStatus is called with a private copy after every change of a pod's status. It must not block.
	OnStatus func(uid string, status corev1.PodStatus)
	// OnEvent reports what happens in a pod as kubectl describe shows it (type Normal|Warning, CamelCase reason). Must not block.
	OnEvent func(pod *corev1.Pod, eventType, reason, message string)
	// OnGone is called once, when a stopped pod's last trace (containers, namespaces, volumes) is removed.
	OnGone func(uid string)
}

// Stop tells a worker to end its pod.
type Stop struct {
	// Deadline is when SIGKILL follows; decided and made durable by the caller before it tells the worker.
	Deadline time.Time
	Reason   string
}
