package daemonset

import (
	"net/netip"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// View is what this host knows of one DaemonSet: the same on every host that has heard everything.
// The roster and the exclusions of ROLLOUT.md join it with the cluster.
type View struct {
	// DaemonSet is the desired object, defaulted and validated; nil when it was deleted (then every pod goes).
	DaemonSet *appsv1.DaemonSet
	// Generation is the version's generation; Status.ObservedGeneration when this view was acted on.
	Generation int64
	// Revision is the hash of the current revision (RevisionHash of the last of the DaemonSet's history, see NextHistory);
	// "" when there is none, and then nothing is started or replaced.
	Revision string
	// Digest names this view; a status that was said under it carries it (ROLLOUT.md). The caller computes it, nothing here reads it.
	Digest [16]byte
}

// Self is this host.
type Self struct {
	Node *corev1.Node // labels and taints as they stand now
}

// Observed is what runs here for the DaemonSet.
type Observed struct {
	Pods []Pod
	// Failures is the back-off of failed pods of the current generation, see Decision.
	Failures Failures
	// Warm are the pods that were made ahead of their turn, and the revisions whose images were pulled.
	Warm []Warm
	// Evictions says since when each NoExecute taint that is tolerated for a limited time has stood, keyed by taint
	// ("key=value:NoExecute"), and whether it evicted. The caller keeps what Decision returned.
	Evictions map[string]Eviction
}

// Pod is one pod of the DaemonSet on this host.
type Pod struct {
	UID  string
	Name string
	// Revision is the pod's label controller-revision-hash.
	Revision   string
	Phase      corev1.PodPhase
	Ready      bool
	ReadySince time.Time
	// UnreadySince is when the pod was last seen to become not ready; zero when it never was ready.
	UnreadySince time.Time
	Created      time.Time
	// Terminating: it was told to stop and is not gone yet. The caller sets it as soon as it has taken a Delete.
	Terminating bool
	// Ended: it was told to stop, its last process is gone and its host ports are free; what is left of it is no daemon any more.
	Ended bool
	// StoppedAt is when it was told; may be zero.
	StoppedAt time.Time
	// Reason is why the pod is not ready, as kubectl shows it, with what is known of it after ": " ("CrashLoopBackOff: back-off 10s
	// ..."); may be empty.
	Reason string
	// IPs are the pod's own addresses; none with hostNetwork, for those are known to be the host's.
	IPs []netip.Addr
	// Restarts is the sum over the containers, LastRestart when the newest ended attempt did so; zero when none has ended.
	Restarts    int32
	LastRestart time.Time
	// ReadyContainers has bit i set while the template's container i is ready; there is no bit for those beyond the sixteenth.
	ReadyContainers uint16
}

// Warm is a pod that was made but not started, so that it can take another one's place at once; or, with ImagesOnly, no more than its
// images. It is no pod as far as anybody else can see.
type Warm struct {
	UID        string // "" with ImagesOnly
	Revision   string
	ImagesOnly bool
	Prepared   bool
	// Trouble is why it cannot be made, "ErrImagePull: ..."; "" while nothing is wrong.
	Trouble string
}

// Failures is the create back-off of SEMANTICS.md 8: Count failed pods of Generation were removed, the last one at Last. It is
// zero while there is nothing to remember.
type Failures struct {
	Generation int64
	Count      int
	Last       time.Time
}

// Eviction is the timer of one NoExecute taint.
type Eviction struct {
	Since   time.Time
	Evicted bool
}

// ActionKind is what to do.
type ActionKind string

const (
	// Create starts a new pod of Action.Revision: the one that was prepared, if there is one.
	Create ActionKind = "create"
	// Prepare makes a pod of Action.Revision without starting it, Prefetch only pulls its images, Discard drops such a pod.
	Prepare  ActionKind = "prepare"
	Prefetch ActionKind = "prefetch"
	Discard  ActionKind = "discard"
	// Delete stops the pod Action.UID gracefully.
	Delete ActionKind = "delete"
)

// Action is one thing to do on this host, with the reason a person reads in events and logs.
type Action struct {
	Kind     ActionKind
	Revision string // Create, Prepare, Prefetch
	UID      string // Delete, Discard
	Reason   string // CamelCase, for events: one of the Reason constants
	Message  string
}

// Decision is what Plan returns.
type Decision struct {
	Placement Placement
	Actions   []Action
	// Status is this host's own word on the DaemonSet.
	Status Status
	// Failures and Evictions (nil when there are none) are to be kept and given back as Observed.
	Failures  Failures
	Evictions map[string]Eviction
	// WakeUp is when to plan again although nothing changed; zero: never.
	WakeUp time.Time
}

// Placement answers the two questions of NodeShouldRunDaemonPod, and why.
type Placement struct {
	ShouldRun      bool
	ShouldContinue bool
	Reason         string // "node selector disktype=ssd does not match", "taint dedicated=gpu:NoSchedule is not tolerated", ...

	because because // what Reason says
}

// Status is a node's word on one DaemonSet (ROLLOUT.md, Status); the fleet's status is the sum over nodes (see Sum). What Encode
// and DecodeStatus leave out is marked so. Everything of the pod is of the oldest one that is not on its way out, else of the oldest.
type Status struct {
	Node       string // not encoded: what carries a status names the node and is signed by it
	View       [16]byte
	Generation int64
	Placed     bool

	HasPod    bool
	Ready     bool // never while the pod is told to stop
	Available bool
	Updated   bool // Revision was the current one in the view that this was said of
	Updating  bool // a pod of an older revision is on its way out, or a newer one runs beside it
	// Terminating: the pod is on its way out, since Since.
	Terminating bool
	Phase       corev1.PodPhase
	Revision    string
	PodUID      types.UID // a UUID; the pod's name follows from it, see PodName
	// PodIPs are the pod's own addresses, the primary one first, at most one of a family. With hostNetwork there are none.
	PodIPs          [2]netip.Addr
	Restarts        int32
	LastRestart     time.Time
	ReadyContainers uint16 // see Pod
	Created         time.Time

	Code   Code      // why not available or not updated
	Detail string    // what Code is about, cut to maxDetail bytes: a taint, a label, a time
	Reason string    // the same for people, in full; not encoded, see Explain
	Since  time.Time // when what this says began, as far as the pod tells

	// What the reader of another host's word knows of that host, not encoded.

	// Silent says why the word is not to be relied on ("no word from it since 12:03:10"), SilentSince from when on: the host has
	// failed. Its pod is taken neither for ready nor for available.
	Silent      string
	SilentSince time.Time
	// Unheard: the host has not told of the DaemonSet's present generation. The rest is its last word; nothing when it never spoke.
	Unheard bool
}
