package runtime

import (
	"io"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// PodConfig is what a pod's containers share: its namespaces, its network and its names.
type PodConfig struct {
	UID       string
	Namespace string
	Name      string

	HostNetwork           bool
	HostPID               bool
	HostIPC               bool
	ShareProcessNamespace bool

	// Hostname is set in the pod's own UTS namespace; with HostNetwork the host's name stays.
	Hostname string
	Ports    []PortMapping
	// CgroupParent is the pod's cgroup, relative to the root of every hierarchy, e.g. "/picket/pod<uid>".
	CgroupParent string
	// Resources are the limits of that cgroup, OOMScoreAdj apart; nil sets none.
	Resources *Resources
	Sysctls   map[string]string
}

// PortMapping publishes a port of the pod on the host (CNI portmap).
type PortMapping struct {
	HostIP        string
	HostPort      int32
	ContainerPort int32
	Protocol      string // "tcp", "udp" or "sctp"
}

// PodStatus is the shared part of a pod as it exists on this host.
type PodStatus struct {
	UID string
	// IPs are the pod's own addresses, empty with HostNetwork.
	IPs []string
}

// ContainerConfig is one container, translated from Kubernetes' terms: nothing here needs a lookup any more.
type ContainerConfig struct {
	// ID is "<pod uid>-<name>-<attempt>" and is never used twice.
	ID      string
	Pod     PodConfig
	Name    string
	Attempt int
	// Labels are kept on the containerd container, so that a restarted agent finds, adopts and judges it.
	Labels map[string]string

	// Image is a reference that EnsureImage returned (Image.Ref).
	Image string
	// Command and Args follow Kubernetes: empty takes the image's entrypoint and cmd.
	Command    []string
	Args       []string
	Env        []string // "KEY=value", appended to the image's
	WorkingDir string
	TTY        bool
	Stdin      bool

	Mounts    []Mount
	Resources Resources
	Security  Security
	// LogPath is the file that picket-logger writes, "" for none.
	LogPath string
}

// Mount is a bind mount from the host, or a tmpfs when Source is "tmpfs".
type Mount struct {
	Source      string
	Destination string
	ReadOnly    bool
	// RecursiveReadOnly makes submounts read-only too.
	RecursiveReadOnly bool
	// Propagation is "private" (default), "rslave" or "rshared".
	Propagation string
	// Options are "noexec", "nodev" and "nosuid".
	Options []string
}

// Resources are cgroup values; zero means unset.
type Resources struct {
	CPUShares      uint64 // cgroup v1 scale, 2 to 262144
	CPUQuota       int64  // microseconds per CPUPeriod
	CPUPeriod      uint64
	MemoryLimit    int64 // bytes
	OOMScoreAdj    int
	HugepageLimits map[string]uint64 // "2MB" -> bytes
}

// Security is the container's effective security context.
type Security struct {
	Privileged      bool
	NoNewPrivileges bool
	ReadOnlyRootfs  bool
	// RunAsUser and RunAsGroup override the image's user; nil leaves it.
	RunAsUser  *int64
	RunAsGroup *int64
	// RunAsNonRoot refuses to create the container when the effective user is 0 or a name that cannot be verified.
	RunAsNonRoot       bool
	SupplementalGroups []int64
	// OnlyTheseGroups leaves out the groups that the image's /etc/group gives the user.
	OnlyTheseGroups bool
	// AddCapabilities and DropCapabilities are normalised: "CAP_NET_ADMIN", or "ALL".
	AddCapabilities  []string
	DropCapabilities []string
	// Seccomp is nil for Unconfined, else the profile.
	Seccomp         *specs.LinuxSeccomp
	AppArmorProfile string
	SELinux         *SELinux
	// UnmaskedProc leaves /proc unmasked (procMount: Unmasked).
	UnmaskedProc bool
}

// SELinux is handed on to runc as "user:role:type:level".
type SELinux struct{ User, Role, Type, Level string }

// ContainerState is where a container is in its life.
type ContainerState string

const (
	ContainerCreated ContainerState = "created" // task exists, not started
	ContainerRunning ContainerState = "running"
	ContainerExited  ContainerState = "exited"
	ContainerUnknown ContainerState = "unknown" // no task: after a reboot, or its shim died
)

// ContainerStatus is a container of ours as containerd has it.
type ContainerStatus struct {
	ID        string
	PodUID    string
	Name      string
	Attempt   int
	Labels    map[string]string
	ImageRef  string // the reference it was created from
	State     ContainerState
	Pid       uint32
	CreatedAt time.Time
	// StartedAt and FinishedAt are zero when containerd does not know them.
	StartedAt  time.Time
	FinishedAt time.Time
	ExitCode   int32
	OOMKilled  bool
}

// EventKind says what an Event reports.
type EventKind string

const (
	// EventExit: the container's init process ended; ExitCode and At are set.
	EventExit EventKind = "exit"
	// EventOOM: the kernel killed a process of the container for memory.
	EventOOM EventKind = "oom"
	// EventLogWriterLost: the container's picket-logger died; the container must be restarted.
	EventLogWriterLost EventKind = "log-writer-lost"
	// EventDisconnected: containerd went away. Nothing is known to have exited.
	EventDisconnected EventKind = "disconnected"
	// EventConnected: containerd is back; list anew, exits may have been missed.
	EventConnected EventKind = "connected"
)

// Event is news from containerd about one container, or about containerd itself.
type Event struct {
	Kind        EventKind
	ContainerID string
	PodUID      string
	ExitCode    int32
	At          time.Time
}

// PullPolicy is Kubernetes' imagePullPolicy.
type PullPolicy string

const (
	PullAlways       PullPolicy = "Always"
	PullIfNotPresent PullPolicy = "IfNotPresent"
	PullNever        PullPolicy = "Never"
)

// ImageRequest asks for an image.
type ImageRequest struct {
	Ref    string // as in the manifest, normalised by EnsureImage ("busybox" = docker.io/library/busybox:latest)
	Policy PullPolicy
	// Credentials by registry host, tried in order; from imagePullSecrets.
	Credentials []Credential
}

// Credential is a login for one registry (host, or host/path prefix as in dockerconfigjson).
type Credential struct {
	Registry, Username, Password, IdentityToken string
}

// Image is an image that is present and unpacked.
type Image struct {
	Ref    string // normalised, tag and digest: what CreateContainer takes, and what means the same image for ever
	Digest string // manifest or index digest, "sha256:..."
	// ID is what Kubernetes shows as imageID: "name@digest".
	ID string
	// Warning is set when the image runs although the registry could not be reached.
	Warning string
	Pulled  bool
}

// ExecConfig runs a process in a running container.
type ExecConfig struct {
	Command []string
	TTY     bool
	Stdin   io.Reader // nil: none
	Stdout  io.Writer
	Stderr  io.Writer // nil with TTY
	// Resize delivers terminal sizes until it is closed; may be nil.
	Resize <-chan TerminalSize
}

// TerminalSize is in characters.
type TerminalSize struct{ Width, Height uint16 }

// Stats are a container's current figures from its cgroup.
type Stats struct {
	At            time.Time
	CPUUsage      time.Duration // total since start
	MemoryUsage   uint64        // bytes, page cache included
	MemoryWorking uint64        // bytes, usage less inactive file cache: what kubectl top shows
	Pids          uint64
}

// LogOptions select lines of a container's log, in PodLogOptions' terms.
type LogOptions struct {
	Follow     bool
	Timestamps bool
	Since      time.Time // zero: from the start
	TailLines  int64     // negative: all
	LimitBytes int64     // 0: no limit
	Stream     string    // "stdout" or "stderr"; "" is both
	// Running tells Follow whether the container still runs; when it does not, the log is read to its end. nil: it runs until ctx ends.
	Running func() bool
}
