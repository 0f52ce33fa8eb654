package daemonset

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Why is how far a DaemonSet's rollout has come and what each host does about it, as the host that was asked knows it: what
// `picket why` prints.
type Why struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"` // namespace, name, uid and generation of the DaemonSet
	Rollout           WhyRollout        `json:"rollout"`
	Hosts             []WhyHost         `json:"hosts"` // in the order of their turns
}

// WhyRollout is the rollout as a whole.
type WhyRollout struct {
	State   string `json:"state"`   // one of the Rollout constants
	Message string `json:"message"` // one sentence
	// Command would move it on, where one would.
	Command      string `json:"command,omitempty"`
	Revision     int64  `json:"revision"` // the current one, as `rollout history` numbers it
	RevisionHash string `json:"revisionHash"`
	Desired      int32  `json:"desired"`
	Updated      int32  `json:"updated"`
	Available    int32  `json:"available"`
}

// States of a rollout.
const (
	RolloutComplete    = "Complete"
	RolloutProgressing = "Progressing"
	RolloutBlocked     = "Blocked"
	RolloutPaused      = "Paused"
	RolloutOnDelete    = "WaitingForDelete"
)

// WhyHost is one host of the fleet.
type WhyHost struct {
	Host   string `json:"host"`
	Placed bool   `json:"placed"`
	// Guess: the host has not told of this generation. Placed and By are then read from its labels and taints as they are known here.
	Guess bool `json:"guess,omitempty"`
	// By is the label or taint that decides; empty where the DaemonSet asks for nothing.
	By           string `json:"by,omitempty"`
	Pod          string `json:"pod,omitempty"`
	Revision     int64  `json:"revision,omitempty"` // 0 when the history does not have it any more
	RevisionHash string `json:"revisionHash,omitempty"`
	Current      bool   `json:"current"`
	State        string `json:"state"` // one of the Host constants
	// Since is when that state began, as far as is known.
	Since *metav1.Time `json:"since,omitempty"`
	// Message is why the host is not available or not up to date, and whom it waits for.
	Message string `json:"message,omitempty"`
}

// States of a host.
const (
	HostAvailable   = "Available"
	HostReady       = "Ready" // not yet for minReadySeconds
	HostNotReady    = "NotReady"
	HostUpdating    = "Updating"
	HostTerminating = "Terminating"
	HostFailed      = "Failed" // its new pod was not available in time
	HostSilent      = "Silent" // it is not heard; what runs there goes on running
	HostNoPod       = "NoPod"
	HostNotPlaced   = "NotPlaced"
)

// NewWhy answers for a DaemonSet with its history and the words of the fleet's hosts, in the order of their turns; nodes are the hosts'
// Nodes by name.
func NewWhy(ds *appsv1.DaemonSet, history []*appsv1.ControllerRevision, words []Status, nodes map[string]*corev1.Node) *Why {
	q := question{ds: ds, history: history, words: words}
	why := &Why{ObjectMeta: metav1.ObjectMeta{Namespace: ds.Namespace, Name: ds.Name, UID: ds.UID, Generation: ds.Generation}, Rollout: q.rollout()}
	for _, w := range words {
		why.Hosts = append(why.Hosts, q.host(w, nodes[w.Node]))
	}
	return why
}

// question is one call of NewWhy.
type question struct {
	ds      *appsv1.DaemonSet
	history []*appsv1.ControllerRevision
	words   []Status
}

// current is the revision that the pods are to be of; its hash is "" when there is none.
func (q question) current() (hash string, number int64) {
	if len(q.history) == 0 {
		return "", 0
	}
	last := q.history[len(q.history)-1]
	return RevisionHash(last), last.Revision
}

// number is a revision's, 0 when the history does not have it.
func (q question) number(hash string) int64 {
	for _, r := range q.history {
		if RevisionHash(r) == hash {
			return r.Revision
		}
	}
	return 0
}

// host is one host's line.
func (q question) host(w Status, node *corev1.Node) WhyHost {
	h := WhyHost{Host: w.Node, State: stateOf(w)}
	h.Placed, h.Guess, h.By = q.placed(w, node)
	if w.HasPod {
		current, _ := q.current()
		h.Pod, h.RevisionHash = PodName(q.ds.Name, w.PodUID), w.Revision
		h.Current = w.Revision == current && (w.Updated || w.Unheard)
		h.Revision = q.number(w.Revision)
	}
	since := w.Since
	if w.Silent != "" {
		since = w.SilentSince
	}
	if !since.IsZero() {
		h.Since = &metav1.Time{Time: since}
	}
	h.Message = q.said(w)
	return h
}

// placed says whether the DaemonSet is placed on the host, whether that is a guess, and by which label or taint. A host that has not
// told yet is judged by its Node, as it will judge itself.
func (q question) placed(w Status, node *corev1.Node) (placed, guess bool, by string) {
	placed, guess = w.Placed, w.Unheard
	here := Place(q.ds, node)
	if guess {
		placed = here.ShouldRun
	}
	switch {
	case placed:
		by = chosenBy(&q.ds.Spec.Template.Spec, node)
	case !here.ShouldRun:
		by = here.Reason // in full, where the host's own word is cut
	default:
		by = w.Explain(q.ds.Name)
	}
	return placed, guess, by
}

// chosenBy are the labels of the node that the pod's template asks about, and the taints that it tolerates.
func chosenBy(spec *corev1.PodSpec, node *corev1.Node) string {
	var keys []string
	for key := range spec.NodeSelector {
		keys = append(keys, key)
	}
	if a := spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			for _, r := range term.MatchExpressions {
				keys = append(keys, r.Key)
			}
		}
	}
	slices.Sort(keys)
	var by []string
	for _, key := range slices.Compact(keys) {
		if value, ok := node.Labels[key]; ok {
			by = append(by, key+"="+value)
		}
	}
	for _, t := range node.Spec.Taints {
		if t.Effect != corev1.TaintEffectPreferNoSchedule {
			by = append(by, "tolerates "+t.ToString())
		}
	}
	return strings.Join(by, ", ")
}

func stateOf(w Status) string {
	switch {
	case w.Silent != "":
		return HostSilent
	case w.Stuck:
		return HostFailed
	case w.Updating:
		return HostUpdating
	case !w.HasPod && !w.Placed && !w.Unheard:
		return HostNotPlaced
	case !w.HasPod:
		return HostNoPod
	case w.Terminating:
		return HostTerminating
	case w.Available:
		return HostAvailable
	case w.Ready:
		return HostReady
	}
	return HostNotReady
}

// said is why the host is not available or not up to date, and whom it waits for.
func (q question) said(w Status) string {
	switch {
	case w.Silent != "":
		return w.Silent
	case behind(q.ds, w):
		return fmt.Sprintf("it has not told of generation %d yet", q.ds.Generation)
	case !w.Placed && !w.HasPod:
		return "" // By says it
	case !w.Placed && !w.Terminating:
		return "a pod that runs already may stay"
	}
	return w.Explain(q.ds.Name)
}
