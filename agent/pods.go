package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/agent/daemonset"
	"github.com/picketd/picket/agent/pod"
	"github.com/picketd/picket/runtime"
)

var resourcePods = schema.GroupResource{Resource: "pods"}

// podSet is the loop's pods on this host: their records on disk, their workers and what those reported. Only the loop touches it.
//
// A record is a file of its own, not part of the state file: when that is lost, the records still say what runs here and why.
type podSet struct {
	dir    string // <dir>/<uid>.json is a record; <dir>/<uid>/ belongs to the pod's worker
	config *pod.Config
	cache  *api.Cache
	log    *slog.Logger
	byUID  map[types.UID]*hostPod
}

// hostPod is one pod on this host.
type hostPod struct {
	podRecord
	worker *pod.Worker // nil until containerd has told what runs
	ended  bool        // its last process is gone and its host ports are free, but not yet all that is left of it
	gone   bool        // all that was left of an evicted pod is gone

	// Of a warm pod:
	since      time.Time // when it was begun with
	imagesOnly bool      // and nothing else; it has no record
	prepared   bool
	trouble    string    // why it cannot be made, "" while nothing is wrong
	troubled   time.Time // since when there was trouble all the time; zero is none
	dropped    bool      // on its way out
}

// podRecord is what a restarted agent must know of a pod.
type podRecord struct {
	Pod  *corev1.Pod `json:"pod"`
	Stop *pod.Stop   `json:"stop,omitempty"`
	// Evicted: it was ended here for what it did, and is Failed until the planner has it removed.
	Evicted *eviction `json:"evicted,omitempty"`
	// Warm: it was made ahead of its turn and never started. It is no API Pod.
	Warm bool `json:"warm,omitempty"`
}

// load reads the records. An unreadable one is set aside and reported; its containers are judged by their labels.
//
// A clock that was ahead when a pod was told to stop must not keep it: from now on it has its grace period at most.
func (s *podSet) load(now time.Time) []error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return []error{fmt.Errorf("cannot read the pods of this host: %w", err)}
	}
	var errs []error
	for _, e := range entries {
		uid, isRecord := strings.CutSuffix(e.Name(), ".json")
		if !isRecord {
			continue
		}
		path := filepath.Join(s.dir, e.Name())
		b, err := os.ReadFile(path)
		var r podRecord
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err == nil && (r.Pod == nil || string(r.Pod.UID) != uid) {
			err = errors.New("it is not the record of this pod")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot read the pod record %s, set aside: %w", path, err))
			_ = os.Rename(path, path+".corrupt")
			continue
		}
		if seconds := r.Pod.DeletionGracePeriodSeconds; r.Stop != nil && seconds != nil {
			if latest := now.Add(pod.Grace(*seconds)); r.Stop.Deadline.After(latest) {
				r.Stop.Deadline = latest
			}
		}
		p := &hostPod{podRecord: r}
		s.byUID[r.Pod.UID] = p
		s.publish(p)
	}
	return errs
}

// leftovers are the uids of pods that have a directory, but neither a record nor containers.
func (s *podSet) leftovers(byPod map[types.UID][]runtime.ContainerStatus) []string {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil // load has told
	}
	var uids []string
	for _, e := range entries {
		_, recorded := s.byUID[types.UID(e.Name())]
		_, used := byPod[types.UID(e.Name())]
		if e.IsDir() && !recorded && !used && uuid.Validate(e.Name()) == nil {
			uids = append(uids, e.Name())
		}
	}
	return uids
}

// save writes a record; durable says whether it must survive the loss of power too.
func (s *podSet) save(r podRecord, durable bool) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(s.dir, string(r.Pod.UID)+".json"), b, durable); err != nil {
		if in := (*fs.PathError)(nil); errors.As(err, &in) {
			err = in.Err // without the pod's uid: every try is another pod, but the news is the same
		}
		return fmt.Errorf("cannot write the pod's record in %s: %w", s.dir, err)
	}
	return nil
}

// writeFile replaces a file as a whole, readable for root alone; durable says whether it must survive the loss of power too.
func writeFile(path string, data []byte, durable bool) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && durable {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		_ = os.Remove(path + ".new")
		return err
	}
	if !durable {
		return nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync() // the name too
}

// taken says whether a new pod's uid or name is already that of another one here.
func (s *podSet) taken(p *corev1.Pod) bool {
	_, known := s.byUID[p.UID]
	for _, h := range s.byUID {
		known = known || h.Pod.Name == p.Name && h.Pod.Namespace == p.Namespace // a warm pod's, which nobody is shown
	}
	_, shown := s.cache.Get(resourcePods, p.Namespace, p.Name)
	return known || shown
}

// create records a new pod and starts its worker.
func (s *podSet) create(p *corev1.Pod, now time.Time) error {
	p.CreationTimestamp = metav1.NewTime(now)
	if p.Status.Phase == "" {
		p.Status.Phase = corev1.PodPending
	}
	h := &hostPod{podRecord: podRecord{Pod: p}}
	if err := s.save(h.podRecord, false); err != nil {
		return err
	}
	s.byUID[p.UID] = h
	s.publish(h)
	s.start(h, nil)
	return nil
}

func (s *podSet) start(h *hostPod, adopted []runtime.ContainerStatus) {
	h.worker = pod.Start(s.config, h.Pod.DeepCopy(), pod.Begin{Adopted: adopted, Stop: h.order(), Stage: h.stage()})
	if len(adopted) > 0 && !h.Warm {
		h.Pod.Status = h.worker.Status() // before anything is decided: one that seems not to run is replaced at once
		s.publish(h)
	}
}

// stop decides that a pod ends: on disk first, then its worker is told. grace overrides the pod's own, in seconds. A second stop
// may only bring the end nearer.
func (s *podSet) stop(uid types.UID, grace *int64, reason string, now time.Time) error {
	h, ok := s.byUID[uid]
	if !ok {
		return nil
	}
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if g := h.Pod.Spec.TerminationGracePeriodSeconds; g != nil {
		seconds = *g
	}
	if grace != nil {
		seconds = *grace
	}
	stop := pod.Stop{Deadline: now.Add(pod.Grace(seconds)), Reason: reason}
	if s.awaitsTurn(ownerOf(h.Pod)) {
		stop.Linger = handOverPause
	}
	if h.Stop != nil && !stop.Deadline.Before(h.Stop.Deadline) {
		return nil
	}
	record := h.podRecord
	record.Stop = &stop
	record.Pod = h.Pod.DeepCopy()
	deadline := metav1.NewTime(stop.Deadline)
	record.Pod.DeletionTimestamp, record.Pod.DeletionGracePeriodSeconds = &deadline, &seconds
	if err := s.save(record, true); err != nil {
		return err
	}
	h.podRecord = record
	s.publish(h)
	if h.worker != nil {
		h.worker.Stop(stop)
	}
	if h.gone {
		s.config.OnGone(string(uid)) // once more: now it may be forgotten
	}
	return nil
}

// setStatus takes in a worker's report and names the pod's DaemonSet.
func (s *podSet) setStatus(uid types.UID, status corev1.PodStatus) (types.NamespacedName, bool) {
	h, ok := s.byUID[uid]
	if !ok {
		return types.NamespacedName{}, false
	}
	h.Pod.Status = status
	s.publish(h)
	return ownerOf(h.Pod), true
}

// remove forgets a pod whose last trace is gone.
func (s *podSet) remove(uid types.UID) (types.NamespacedName, bool) {
	h, ok := s.byUID[uid]
	if !ok {
		return types.NamespacedName{}, false
	}
	if h.Evicted != nil && h.Stop == nil {
		h.worker, h.ended, h.gone = nil, true, true
		s.publish(h)
		return ownerOf(h.Pod), true
	}
	if err := os.Remove(filepath.Join(s.dir, string(uid)+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("cannot remove the pod's record", "pod", h.Pod.Name, "error", err)
	}
	delete(s.byUID, uid)
	s.cache.Delete(resourcePods, h.Pod.Namespace, h.Pod.Name)
	return ownerOf(h.Pod), true
}

func (s *podSet) publish(h *hostPod) {
	if !h.Warm {
		s.cache.Set(resourcePods, h.shown())
	}
}

// of are the pods of one DaemonSet here, without those that are only warm.
func (s *podSet) of(name types.NamespacedName) []*hostPod {
	var list []*hostPod
	for _, h := range s.byUID {
		if ownerOf(h.Pod) == name && !h.Warm {
			list = append(list, h)
		}
	}
	slices.SortFunc(list, func(a, b *hostPod) int { return strings.Compare(string(a.Pod.UID), string(b.Pod.UID)) })
	return list
}

// observed tells the planner what runs here for one DaemonSet.
func (s *podSet) observed(name types.NamespacedName) daemonset.Observed {
	var list []daemonset.Pod
	for _, h := range s.of(name) {
		o := daemonset.Pod{
			UID: string(h.Pod.UID), Name: h.Pod.Name, Revision: h.Pod.Labels[appsv1.ControllerRevisionHashLabelKey],
			Config: h.Pod.Annotations[daemonset.AnnotationConfig],
			Phase:  h.phase(), Created: h.Pod.CreationTimestamp.Time, Terminating: h.Stop != nil, Ended: h.replaceable(),
		}
		for _, c := range h.Pod.Status.Conditions {
			switch {
			case c.Type != corev1.PodReady:
			case c.Status == corev1.ConditionTrue:
				o.Ready, o.ReadySince = true, c.LastTransitionTime.Time
			default:
				o.UnreadySince = c.LastTransitionTime.Time
			}
		}
		o.Reason = waitingReason(h.Pod)
		if grace := h.Pod.DeletionGracePeriodSeconds; h.Stop != nil && grace != nil {
			o.StoppedAt = h.Stop.Deadline.Add(-pod.Grace(*grace))
		}
		for _, ip := range h.Pod.Status.PodIPs {
			if addr, err := netip.ParseAddr(ip.IP); err == nil && !h.Pod.Spec.HostNetwork {
				o.IPs = append(o.IPs, addr)
			}
		}
		for i, c := range containerStatuses(h.Pod) {
			if c.Ready && i < 16 {
				o.ReadyContainers |= 1 << i
			}
			if c.Ready && c.State.Running == nil { // an init container that is done
				continue
			}
			o.Restarts += c.RestartCount
			if t := c.LastTerminationState.Terminated; t != nil && t.FinishedAt.After(o.LastRestart) {
				o.LastRestart = t.FinishedAt.Time
			}
			if t := c.State.Terminated; t != nil && o.Reason == "" && h.Stop == nil {
				o.Reason = t.Reason
			}
		}
		list = append(list, o)
	}
	return daemonset.Observed{Pods: list, Warm: s.warm(name)}
}

// containerStatuses are those of all of a pod's containers, in the order in which they start.
func containerStatuses(p *corev1.Pod) []corev1.ContainerStatus {
	return slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses)
}

// waitingReason is why a pod is not ready, as kubectl shows it; "" when no container says.
func waitingReason(p *corev1.Pod) string {
	for _, c := range containerStatuses(p) {
		if w := c.State.Waiting; w != nil && w.Reason != "ContainerCreating" && w.Reason != "PodInitializing" {
			if w.Message == "" {
				return w.Reason
			}
			return w.Reason + ": " + w.Message
		}
	}
	if i := slices.IndexFunc(p.Status.Conditions, isInitialized); i >= 0 && p.Status.Conditions[i].Status == corev1.ConditionFalse {
		return "PodInitializing: " + p.Status.Conditions[i].Message
	}
	return p.Status.Message
}

func isInitialized(c corev1.PodCondition) bool { return c.Type == corev1.PodInitialized }

// revisionsOf are the revisions that pods of a DaemonSet run here: history must keep them.
func (s *podSet) revisionsOf(name types.NamespacedName) []string {
	var list []string
	for _, h := range s.of(name) {
		list = append(list, h.Pod.Labels[appsv1.ControllerRevisionHashLabelKey])
	}
	return list
}

// broadcast tells every worker; deliver tells the one whose container it is about.
func (s *podSet) broadcast(e runtime.Event) {
	for _, h := range s.byUID {
		if h.worker != nil {
			h.worker.Event(e)
		}
	}
}

func (s *podSet) deliver(e runtime.Event) {
	if h, ok := s.byUID[types.UID(e.PodUID)]; ok && h.worker != nil {
		h.worker.Event(e)
	}
}

// objectsChanged lets the pods of a namespace look at their ConfigMaps and Secrets again.
func (s *podSet) objectsChanged(namespace string) {
	for _, h := range s.byUID {
		if h.worker != nil && h.Pod.Namespace == namespace {
			h.worker.ObjectsChanged()
		}
	}
}

// abandonWithin bounds how long the workers may take to finish what they are doing when the agent ends.
const abandonWithin = 5 * time.Second

// abandon ends the workers and leaves the containers running.
func (s *podSet) abandon() {
	for _, h := range s.byUID {
		if h.worker != nil {
			h.worker.Abandon()
		}
	}
	late := time.After(abandonWithin)
	for _, h := range s.byUID {
		if h.worker == nil {
			continue
		}
		select {
		case <-h.worker.Done():
		case <-late:
			s.log.Warn("some pods' workers did not end in time")
			return
		}
	}
}

// own gives the pods of a DaemonSet's name its present uid: it was deleted and made anew, or its state was lost, while they ran.
func (s *podSet) own(ds *appsv1.DaemonSet) {
	for _, h := range s.of(types.NamespacedName{Namespace: ds.Namespace, Name: ds.Name}) {
		if h.Stop != nil || metav1.GetControllerOf(h.Pod).UID == ds.UID {
			continue
		}
		h.Pod = h.Pod.DeepCopy()
		for i := range h.Pod.OwnerReferences {
			h.Pod.OwnerReferences[i].UID = ds.UID
		}
		if err := s.save(h.podRecord, false); err != nil {
			s.log.Warn("pod's record does not name its present owner", "pod", h.Pod.Name, "error", err)
		}
		s.publish(h)
	}
}

// ownerOf names the DaemonSet a pod belongs to. The name counts, not the uid: a DaemonSet that was lost and came back finds its
// pods again.
func ownerOf(p *corev1.Pod) types.NamespacedName {
	if owner := metav1.GetControllerOf(p); owner != nil {
		return types.NamespacedName{Namespace: p.Namespace, Name: owner.Name}
	}
	return types.NamespacedName{Namespace: p.Namespace}
}

// deletePod takes kubectl delete pod: the pod ends, and the DaemonSet makes another.
func (l *loop) deletePod(w api.Write, current api.Object) (api.Object, error) {
	if w.Object != nil {
		return nil, apierrors.NewMethodNotSupported(w.Resource, "update")
	}
	if on := current.(*corev1.Pod).Spec.NodeName; on != l.node.name {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("pod %s is on %s: only that host can end it", w.Name, on))
	}
	if !w.DryRun {
		if err := l.pods.stop(current.GetUID(), w.GracePeriodSeconds, "deleted by "+w.Author, l.now()); err != nil {
			return nil, asStatus(err)
		}
		l.daemonSet(ownerOf(current.(*corev1.Pod))).dirty = true
	}
	if now, ok := l.cache.Get(resourcePods, w.Namespace, w.Name); ok {
		return now, nil
	}
	return current, nil
}
