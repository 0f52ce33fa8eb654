package daemonset

import (
	"net/netip"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// View is what this host knows of one DaemonSet.
type View struct {
	// DaemonSet is the desired object, defaulted and validated; nil when it was deleted (then every pod goes).
	DaemonSet *appsv1.DaemonSet
	// Generation is the version's generation; Status.ObservedGeneration when this view was acted on.
	Generation int64
	// Revision is the hash of the current revision (RevisionHash of the last of the DaemonSet's history, see NextHistory);
	// "" when there is none, and then nothing is started or replaced.
	Revision string
	// Config stands for the contents of the ConfigMaps and Secrets that make the revision together with the template (see
	// RestartsOnConfig); "" when none do.
	Config string
	// Common is what the rule of a rolling update reads (ROLLOUT.md, View): the same on every host that has heard everything. Digest is
	// Common's; the caller keeps it, for it takes long in a large fleet.
	Common Common
	Digest Digest
	// Others are the other hosts, by name.
	Others map[string]Word
}

// Word is what another host has said of the DaemonSet, and how that host is.
type Word struct {
	Status Status
	Told   bool // there is one
	// Failed: the host is not heard. Quiet: there was no word of it for longer than there should be.
	Failed, Quiet bool
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
	// Memory and Said are as Decision returned them; Said is lost when the agent ends.
	Memory Memory
	Said   Said
	// Found is zero when the agent found no version.
	Found Found
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
	Revision string
	// Config is View.Config when the pod was made.
	Config     string
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
	// ReadyContainers has bit i set while the template's container i is ready, init containers being the first; there is no bit for
	// those beyond the sixteenth.
	ReadyContainers uint16
}

// Warm is a pod that was made but not started, so that it can take another one's place at once; or, with ImagesOnly, no more than its
// images. It is no pod as far as anybody else can see.
type Warm struct {
	UID        string
	Since      time.Time // when the agent began with it
	Revision   string
	Config     string // as of a Pod
	ImagesOnly bool
	Prepared   bool
	// Trouble is why it cannot be made, "ErrImagePull: ..."; "" while nothing is wrong. TroubleSince is when the first began of those that
	// followed each other.
	Trouble      string
	TroubleSince time.Time
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
	// Failures, Evictions (nil when there are none) and Memory are to be kept, on disk before the actions are carried out and the status
	// is told, and given back as Observed; so is Said, in memory.
	Failures  Failures
	Evictions map[string]Eviction
	Memory    Memory
	Said      Said
	// Raise: this host's entry in the roster is to be raised; nothing is started before.
	Raise bool
	// Blockers are the hosts that this one waits for in a rolling update.
	Blockers []Blocker
	// Next are the hosts whose turn comes first, this one not among them: they are told directly.
	Next []string
	// Exclude are hosts that the version goes on without, and up to which entry; any door may write that.
	Exclude map[string]uint64
	// Returned are hosts that the version is to go on without, wrongly: unless they raise their entries soon, a door lets them count again.
	Returned []string
	// Rollback: the update has failed, and a door is to write the previous revision.
	Rollback bool
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
	Node       string  // not encoded: what carries a status names the node and is signed by it
	View       Digest  // that it acknowledges
	Tag        [4]byte // of the version it has acted on, see Version
	Generation int64   // of that version
	Placed     bool
	Aside      bool // it cannot make the next pod, and does not start under this view
	Stuck      bool // it has taken a pod down, and none was available again within the progress deadline

	HasPod    bool
	Ready     bool // never while the pod is told to stop
	Available bool
	Updated   bool // Revision was the current one in the view that this was said of
	Updating  bool // its pod was taken down for an update, or has a newer one beside it, and the host is not back to one available pod
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
