package agent

import (
	"context"
	"fmt"
	"slices"

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
		if _, recorded := l.pods.byUID[uid]; !recorded {
			l.adoptUnrecorded(ctx, uid, containers)
		}
	}
	for uid, h := range l.pods.byUID {
		if h.worker == nil {
			l.pods.start(h, byPod[uid])
		}
		name := ownerOf(h.Pod)
		if d := l.daemonSet(name); !d.known {
			l.events.record(referenceTo("v1", "Pod", h.Pod), corev1.EventTypeWarning, "UnknownDaemonSet",
				fmt.Sprintf("nothing is known of DaemonSet %s; the pod runs on until it is applied again", name))
		}
	}
	l.sweep(ctx, byPod)
	l.planAll()
	return true
}

// adoptUnrecorded writes the lost record of a pod that runs, from its containers' labels and the DaemonSet's history. Containers
// that no longer run and belong to nothing are removed.
func (l *loop) adoptUnrecorded(ctx context.Context, uid types.UID, containers []runtime.ContainerStatus) {
	labels := containers[0].Labels
	name := types.NamespacedName{Namespace: labels[pod.LabelPodNamespace], Name: labels[pod.LabelDaemonSet]}
	running := slices.ContainsFunc(containers, func(c runtime.ContainerStatus) bool { return c.State == runtime.ContainerRunning })
	if d, ok := l.daemonSets[name]; ok && d.object != nil && running {
		revision, err := revisionNamed(d.revisions, labels[pod.LabelRevision])
		if err == nil {
			err = l.rebuild(d, revision, uid, containers)
		}
		if err == nil {
			return
		}
		l.log.Warn("cannot rebuild the record of a running pod", "pod", labels[pod.LabelPodName], "daemonset", name, "error", err)
	}
	if running {
		l.log.Warn("containers run that belong to nothing known; left alone", "pod", labels[pod.LabelPodName], "daemonset", name)
		l.events.record(l.node.reference(), corev1.EventTypeWarning, "UnknownPod",
			fmt.Sprintf("pod %s of DaemonSet %s runs here, but nothing else is known of it; it is left alone", labels[pod.LabelPodName], name))
		return
	}
	for _, c := range containers {
		if err := l.runtime.RemoveContainer(ctx, c.ID); err != nil {
			l.log.Warn("cannot remove a container that belongs to nothing", "container", c.ID, "error", err)
		}
	}
}

func (l *loop) rebuild(d *daemonSet, revision *appsv1.ControllerRevision, uid types.UID, containers []runtime.ContainerStatus) error {
	p, err := daemonset.NewPod(d.object, revision, l.node.current, 0)
	if err != nil {
		return err
	}
	p.UID, p.Name = uid, containers[0].Labels[pod.LabelPodName]
	oldest := slices.MinFunc(containers, func(a, b runtime.ContainerStatus) int { return a.CreatedAt.Compare(b.CreatedAt) })
	p.CreationTimestamp.Time = oldest.CreatedAt
	h := &hostPod{podRecord: podRecord{Pod: p}}
	if err := l.pods.save(h.podRecord, false); err != nil {
		return err
	}
	l.pods.byUID[uid] = h
	l.pods.publish(h)
	return nil
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

// revisionNamed finds a revision by the hash that its pods carry.
func revisionNamed(list []*appsv1.ControllerRevision, hash string) (*appsv1.ControllerRevision, error) {
	for _, r := range list {
		if r.Labels[appsv1.ControllerRevisionHashLabelKey] == hash {
			return r, nil
		}
	}
	return nil, fmt.Errorf("revision %q is not in the history", hash)
}
