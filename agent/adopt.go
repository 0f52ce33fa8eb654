package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/daemonset"
	"github.com/picketd/picket/agent/pod"
	"github.com/picketd/picket/runtime"
)

// adopt takes over what runs, once, when containerd first answers: recorded pods get their workers with the containers that
// exist, unrecorded containers are judged by their labels. It reports whether containerd answered all the way.
func (l *loop) adopt(ctx context.Context) bool {
	list, err := l.runtime.Containers(ctx)
	if err != nil {
		l.log.Warn("cannot list the containers", "error", err)
		return false
	}
	byPod := map[types.UID][]runtime.ContainerStatus{}
	for _, c := range list {
		byPod[types.UID(c.PodUID)] = append(byPod[types.UID(c.PodUID)], c)
	}
	for uid, containers := range byPod {
		if _, recorded := l.pods.byUID[uid]; !recorded && !l.adoptUnrecorded(ctx, uid, containers) {
			delete(byPod, uid)
		}
	}
	for uid, h := range l.pods.byUID {
		if h.worker == nil {
			l.pods.recognise(h, byPod[uid])
			l.pods.start(h, byPod[uid])
		}
		if h.Warm {
			l.adoptWarm(h)
			continue
		}
		l.leaveOldName(h)
		name := ownerOf(h.Pod)
		if d := l.daemonSet(name); !d.known {
			l.events.record(referenceTo("v1", "Pod", h.Pod), corev1.EventTypeWarning, "UnknownDaemonSet",
				fmt.Sprintf("nothing is known of DaemonSet %s; the pod runs on until it is applied again", name))
		}
	}
	l.sweep(ctx, byPod)
	go l.removeLeftovers(l.pods.leftovers(byPod)) // there may be a lot in it
	l.planAll()
	return true
}

// leaveOldName ends a pod of a host that had another name then: what it was told of its node, in its spec, its environment and its
// files, is no longer true. The DaemonSet makes another, where it is placed on a host of the new name.
func (l *loop) leaveOldName(h *hostPod) {
	was := h.Pod.Spec.NodeName
	if was == l.node.name || h.Stop != nil {
		return
	}
	l.trouble("NodeRenamed", fmt.Errorf("this host was %s and is %s: pod %s is replaced; labels and taints that were given to node %s with kubectl are not those of node %s",
		was, l.node.name, h.Pod.Name, was, l.node.name))
	if err := l.pods.stop(h.Pod.UID, nil, "the host was renamed", l.now()); err != nil {
		l.trouble("FailedDelete", err)
	}
}

// adoptUnrecorded judges containers of a pod without a record by their labels. What runs is kept for its DaemonSet to claim, also
// when that is not known yet; containers that no longer run and belong to nothing are removed. It
// reports whether any is left.
func (l *loop) adoptUnrecorded(ctx context.Context, uid types.UID, containers []runtime.ContainerStatus) (left bool) {
	running := slices.ContainsFunc(containers, func(c runtime.ContainerStatus) bool { return c.State == runtime.ContainerRunning })
	if running {
		l.strays[uid] = containers
		name, podName := strayOf(containers)
		if d, ok := l.daemonSets[name]; !ok || d.object == nil {
			l.log.Warn("containers run that belong to nothing known; left alone", "pod", podName, "daemonset", name)
			l.events.record(l.node.reference(), corev1.EventTypeWarning, "UnknownPod",
				fmt.Sprintf("pod %s of DaemonSet %s runs here, but nothing else is known of it; it is left alone until that is applied again", podName, name))
		}
		return true
	}
	for _, c := range containers {
		if err := l.runtime.RemoveContainer(ctx, c.ID); err != nil {
			l.log.Warn("cannot remove a container that belongs to nothing", "container", c.ID, "error", err)
			left = true
		}
	}
	return left
}

// strayOf is what the labels say of a pod without a record.
func strayOf(containers []runtime.ContainerStatus) (daemonSet types.NamespacedName, podName string) {
	labels := containers[0].Labels
	return types.NamespacedName{Namespace: labels[pod.LabelPodNamespace], Name: labels[pod.LabelDaemonSet]}, labels[pod.LabelPodName]
}

// claim writes the lost records of pods that run for a DaemonSet: beside them another one would be a second pod of it.
func (l *loop) claim(name types.NamespacedName, d *daemonSet, now time.Time) error {
	for uid, containers := range l.strays {
		if owner, _ := strayOf(containers); owner != name {
			continue
		}
		h, err := l.rebuild(d, uid, containers, now)
		if err != nil {
			return fmt.Errorf("cannot rebuild the record of a running pod: %w", err)
		}
		delete(l.strays, uid)
		l.pods.start(h, containers)
		h.worker.Event(runtime.Event{Kind: runtime.EventConnected}) // what became of them since they were listed
	}
	return nil
}

// rebuild makes a pod's record from its containers' labels and the DaemonSet's history. A pod of a revision that is not in the
// history is of a template nobody knows: it ends, as in an update.
func (l *loop) rebuild(d *daemonSet, uid types.UID, containers []runtime.ContainerStatus, now time.Time) (*hostPod, error) {
	hash := containers[0].Labels[pod.LabelRevision]
	revision, unknown := revisionNamed(d.revisions, hash)
	if unknown != nil {
		revision = d.revisions[len(d.revisions)-1]
	}
	p, err := daemonset.NewPod(d.object, revision, l.node.current, 0)
	if err != nil {
		return nil, err
	}
	_, p.Name = strayOf(containers)
	p.UID, p.Labels[appsv1.ControllerRevisionHashLabelKey] = uid, hash
	oldest := slices.MinFunc(containers, func(a, b runtime.ContainerStatus) int { return a.CreatedAt.Compare(b.CreatedAt) })
	p.CreationTimestamp.Time = oldest.CreatedAt
	if unknown != nil {
		p.Spec.Containers = containersNamed(containers)
	}
	h := &hostPod{podRecord: podRecord{Pod: p}}
	if err := l.pods.save(h.podRecord, false); err != nil {
		return nil, err
	}
	l.pods.byUID[uid] = h
	l.pods.publish(h)
	if unknown != nil {
		return h, l.pods.stop(uid, nil, unknown.Error(), now)
	}
	return h, nil
}

// containersNamed are the containers of a pod of which nothing but their names is known: enough to end them.
func containersNamed(list []runtime.ContainerStatus) []corev1.Container {
	var named []corev1.Container
	for _, c := range list {
		if !slices.ContainsFunc(named, func(o corev1.Container) bool { return o.Name == c.Name }) {
			named = append(named, corev1.Container{Name: c.Name})
		}
	}
	return named
}

// sweep removes namespaces and networks left of pods that are no more.
func (l *loop) sweep(ctx context.Context, byPod map[types.UID][]runtime.ContainerStatus) {
	uids, err := l.runtime.PodUIDs(ctx)
	if err != nil {
		l.log.Warn("cannot list the pods' namespaces", "error", err)
		return
	}
	for _, uid := range uids {
		_, recorded := l.pods.byUID[types.UID(uid)]
		if _, used := byPod[types.UID(uid)]; recorded || used {
			continue
		}
		if err := l.runtime.TearDownPod(ctx, runtime.PodConfig{UID: uid}); err != nil {
			l.log.Warn("cannot remove what is left of a pod", "pod", uid, "error", err)
		}
	}
}

// removeLeftovers removes the directories and logs of pods whose record was lost and whose containers are no more.
func (l *loop) removeLeftovers(uids []string) {
	for _, uid := range uids {
		l.log.Warn("a pod's files are left, but nothing is known of it and none of its containers is there; removed", "pod", uid)
		if err := l.pods.config.RemoveLeftovers(uid); err != nil {
			l.log.Warn("cannot remove what is left of a pod", "pod", uid, "error", err)
		}
	}
}

// revisionNamed finds a revision by the hash that its pods carry.
func revisionNamed(list []*appsv1.ControllerRevision, hash string) (*appsv1.ControllerRevision, error) {
	for _, r := range list {
		if r.Labels[appsv1.ControllerRevisionHashLabelKey] == hash {
			return r, nil
		}
	}
	return nil, fmt.Errorf("revision %q is not in the history", hash)
}
