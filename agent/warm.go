package agent

import (
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/daemonset"
	"github.com/picketd/picket/agent/manifest"
	"github.com/picketd/picket/agent/pod"
	"github.com/picketd/picket/runtime"
)

// A warm pod is made while the one before it still runs, and started the moment that one has ended. Until then it is no API Pod:
// nobody is shown it, and it is not among those that the planner counts. Its record is not durable: one that is lost with the
// power leaves containers without a record, which are removed.

const (
	// prefetchesAtOnce bounds the images that are pulled here for turns that are far away.
	prefetchesAtOnce = 1
	// handOverPause is how long what is left of a pod stays when a warm one is to take its place: removing it would take the
	// processor and the disk from the new one's start.
	handOverPause = time.Second
)

func revisionOf(p *corev1.Pod) string { return p.Labels[appsv1.ControllerRevisionHashLabelKey] }

// stage is how far the pod may go.
func (h *hostPod) stage() pod.Stage {
	switch {
	case h.imagesOnly:
		return pod.StageImages
	case h.Warm:
		return pod.StagePrepared
	}
	return pod.StageRun
}

// createPod starts a pod of a revision: the warm one, if there is one, or else one that is made anew. Nothing waits for the disk
// here: a pod whose record is lost with the power is simply decided anew, under another name.
func (l *loop) createPod(d *daemonSet, action daemonset.Action, now time.Time) (name string, err error) {
	of := types.NamespacedName{Namespace: d.object.Namespace, Name: d.object.Name}
	if h := l.pods.warmOf(of, action.Revision, d.restartsOn()); h != nil {
		l.pods.release(h, now)
		return h.Pod.Name, nil
	}
	p, err := l.newPod(d, action.Revision)
	if err != nil {
		return "", err
	}
	return p.Name, l.pods.create(p, now)
}

// preparePod makes the warm pod of a revision, or pulls no more than its images. What is there already is left as it is.
func (l *loop) preparePod(name types.NamespacedName, d *daemonSet, revision string, imagesOnly bool, now time.Time) error {
	if h := l.pods.warmOf(name, revision, d.restartsOn()); h != nil {
		if !imagesOnly {
			l.pods.complete(h, now)
		}
		return nil
	}
	p, err := l.newPod(d, revision)
	if err != nil {
		return err
	}
	l.pods.prepare(p, imagesOnly, now)
	return nil
}

// newPod is a new pod of a revision.
func (l *loop) newPod(d *daemonSet, hash string) (*corev1.Pod, error) {
	revision, err := revisionNamed(d.revisions, hash)
	if err != nil {
		return nil, err
	}
	for {
		p, err := daemonset.NewPod(d.object, revision, l.node.current, l.state.pods.Next())
		if err != nil {
			return nil, err
		}
		// A state file that was lost while the clock was behind begins with numbers that were given out before.
		if _, stray := l.strays[p.UID]; !stray && !l.pods.taken(p) {
			manifest.DefaultPod(p)
			metav1.SetMetaDataAnnotation(&p.ObjectMeta, daemonset.AnnotationConfig, d.config)
			return p, nil
		}
	}
}

// adoptWarm keeps a warm pod of an earlier agent for the planner to judge, unless it is made of what does not hold any more.
func (l *loop) adoptWarm(h *hostPod) {
	switch d := l.daemonSet(ownerOf(h.Pod)); {
	case d.object == nil:
		l.pods.discard(h.Pod.UID, "its DaemonSet is not known")
	case h.Pod.Spec.NodeName != l.node.name:
		l.pods.discard(h.Pod.UID, "the host was renamed")
	}
	h.since = l.now() // the time that the agent was away was not its
}

// recognise sees by its containers that a pod was released though its record does not say so: the disk was full.
func (s *podSet) recognise(h *hostPod, containers []runtime.ContainerStatus) {
	running := slices.ContainsFunc(containers, func(c runtime.ContainerStatus) bool { return c.State == runtime.ContainerRunning })
	if h.Warm && running {
		s.appear(h, containers[0].CreatedAt)
	}
}

// prepare starts the worker of a warm pod.
func (s *podSet) prepare(p *corev1.Pod, imagesOnly bool, now time.Time) {
	h := &hostPod{podRecord: podRecord{Pod: p, Warm: true}, imagesOnly: imagesOnly, since: now}
	s.byUID[p.UID] = h
	if !imagesOnly {
		s.saveWarm(h)
	}
	s.start(h, nil)
}

// complete makes a warm pod of one whose images were pulled.
func (s *podSet) complete(h *hostPod, now time.Time) {
	if !h.imagesOnly {
		return
	}
	h.imagesOnly, h.prepared, h.since = false, false, now
	s.saveWarm(h)
	h.worker.Prepare()
}

// release lets a warm pod run, which makes it an API Pod. Its start comes first, all else is not what the host's daemon waits for.
func (s *podSet) release(h *hostPod, now time.Time) {
	h.worker.Release()
	s.appear(h, now)
}

// appear makes an API Pod of a warm one.
func (s *podSet) appear(h *hostPod, now time.Time) {
	h.Warm, h.imagesOnly, h.trouble = false, false, ""
	h.Pod.CreationTimestamp = metav1.NewTime(now)
	h.Pod.Status.Phase = corev1.PodPending
	s.saveWarm(h)
	s.publish(h)
}

// saveWarm writes the record of a pod that is, or just was, a warm one. It goes on without: an agent that finds its containers
// without a record removes them, or claims them if they run.
func (s *podSet) saveWarm(h *hostPod) {
	if err := s.save(h.podRecord, false); err != nil {
		s.log.Warn("a restarted agent will not know this pod", "pod", h.Pod.Name, "error", err)
	}
}

// discard drops a warm pod. It is gone for the planner at once; what was made of it is removed by and by.
func (s *podSet) discard(uid types.UID, reason string) {
	h, ok := s.byUID[uid]
	if !ok || !h.Warm || h.dropped {
		return
	}
	h.dropped = true
	s.log.Info("warm pod is dropped", "pod", h.Pod.Name, "revision", revisionOf(h.Pod), "reason", reason)
	if h.worker != nil {
		h.worker.Stop(pod.Stop{Reason: reason})
	}
}

// discardAll drops all warm pods of a DaemonSet.
func (s *podSet) discardAll(name types.NamespacedName, reason string) {
	for _, h := range s.allWarm(name) {
		s.discard(h.Pod.UID, reason)
	}
}

// allWarm are the warm pods of a DaemonSet that are not being dropped.
func (s *podSet) allWarm(name types.NamespacedName) []*hostPod {
	var list []*hostPod
	for _, h := range s.byUID {
		if h.Warm && !h.dropped && ownerOf(h.Pod) == name {
			list = append(list, h)
		}
	}
	slices.SortFunc(list, func(a, b *hostPod) int { return strings.Compare(string(a.Pod.UID), string(b.Pod.UID)) })
	return list
}

// warmOf is the warm pod of a revision and, unless that is "", its config (see daemonset.View); nil when there is none.
func (s *podSet) warmOf(name types.NamespacedName, revision, config string) *hostPod {
	for _, h := range s.allWarm(name) {
		if revisionOf(h.Pod) == revision && (config == "" || h.Pod.Annotations[daemonset.AnnotationConfig] == config) {
			return h
		}
	}
	return nil
}

// warm tells the planner what is made ahead for a DaemonSet.
func (s *podSet) warm(name types.NamespacedName) []daemonset.Warm {
	var list []daemonset.Warm
	for _, h := range s.allWarm(name) {
		list = append(list, daemonset.Warm{
			UID: string(h.Pod.UID), Since: h.since, Revision: revisionOf(h.Pod), Config: h.Pod.Annotations[daemonset.AnnotationConfig],
			ImagesOnly: h.imagesOnly, Prepared: h.prepared, Trouble: h.trouble, TroubleSince: h.troubled,
		})
	}
	return list
}

// awaitsTurn says whether a warm pod of a DaemonSet is ready to take another one's place.
func (s *podSet) awaitsTurn(name types.NamespacedName) bool {
	return slices.ContainsFunc(s.allWarm(name), func(h *hostPod) bool { return h.prepared && !h.imagesOnly })
}

// any says whether anything of a DaemonSet is here, warm pods that are being dropped too.
func (s *podSet) any(name types.NamespacedName) bool {
	for _, h := range s.byUID {
		if ownerOf(h.Pod) == name {
			return true
		}
	}
	return false
}

// setPrepared takes in how far a warm pod is, and names its DaemonSet.
func (s *podSet) setPrepared(uid types.UID, p preparedness, now time.Time) (types.NamespacedName, bool) {
	h, ok := s.byUID[uid]
	if !ok || !h.Warm || h.dropped {
		return types.NamespacedName{}, false
	}
	switch {
	case p.trouble == "":
		h.troubled = time.Time{}
	case h.trouble == "":
		h.troubled = now
	}
	h.prepared, h.trouble = p.prepared, p.trouble
	return ownerOf(h.Pod), true
}

// setEnded takes in that a stopped pod has ended, and names its DaemonSet.
func (s *podSet) setEnded(uid types.UID) (types.NamespacedName, bool) {
	h, ok := s.byUID[uid]
	if !ok || h.ended {
		return types.NamespacedName{}, false
	}
	h.ended = true
	return ownerOf(h.Pod), true
}
