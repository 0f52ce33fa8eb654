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
	// UnpublishPorts makes the host ports free that SetUpPod published for the pod; the rest of its network stays.
	UnpublishPorts(ctx context.Context, pod runtime.PodConfig) error
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
	// SeccompDir holds the host's seccomp profiles, for seccompProfile.localhostProfile.
	SeccompDir string
	// PodLogs and ContainerLogs are the kubelet's /var/log/pods and /var/log/containers.
	PodLogs       string
	ContainerLogs string
	Log           *slog.Logger
	// Prefetch holds one value for each image that is being pulled in StageImages: its capacity bounds them. nil is no bound.
	Prefetch chan struct{}
	// Checks bounds the probes that are asked at once. nil is no bound.
	Checks *Checks
	// OnPrepared is called with every change of how far a pod is that may not run yet (Begin.Stage): whether all is made, and
	// what keeps it from that ("CamelCaseReason: message"), "" while nothing does. It must not block.
	OnPrepared func(uid string, prepared bool, trouble string)
	// OnStatus is called with a private copy after every change of a pod's status. It must not block.
	OnStatus func(uid string, status corev1.PodStatus)
	// OnEvent reports what happens in a pod as kubectl describe shows it (type Normal|Warning, CamelCase reason). Must not block.
	OnEvent func(pod *corev1.Pod, eventType, reason, message string)
	// OnEnded is called once, before the status that goes with it, when a stopped pod's last process has exited and its host ports
	// are free: another pod may take its place. What is left of it is removed afterwards. Must not block.
	OnEnded func(uid string)
	// OnGone is called once, when a stopped pod's last trace (containers, namespaces, volumes) is removed.
	OnGone func(uid string)
}

// Stop tells a worker to end its pod.
type Stop struct {
	// Deadline is when SIGKILL follows; decided and made durable by the caller before it tells the worker.
	Deadline time.Time
	Reason   string
	// Linger is how long what is left of the pod stays after its last process has ended: the start of the next one comes first.
	Linger time.Duration
}

// Begin is how a worker begins.
type Begin struct {
	// Adopted are the pod's containers as containerd has them from an earlier agent.
	Adopted []runtime.ContainerStatus
	// Stop is set when the pod was already told to end.
	Stop *Stop
	// Stage is how far the pod may go, until Prepare or Release.
	Stage Stage
}
