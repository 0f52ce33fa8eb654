package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/agent/pod"
	"github.com/picketd/picket/runtime"
)

// backend carries out what the API's clients ask for: writes in the loop, logs and commands beside it.
type backend struct {
	loop    *loop
	runtime containers
	podLogs string
}

// Write hands a write to the loop. When the client goes away first, the loop may still be at it: what it wrote is then nobody's.
func (b *backend) Write(ctx context.Context, w api.Write) (api.Object, error) {
	var written api.Object
	if err := b.loop.do(ctx, func() (err error) {
		written, err = b.loop.write(w)
		return err
	}); err != nil {
		return nil, err
	}
	return written, nil
}

// Logs copies the log of the container's present attempt, or with Previous of the one before it.
func (b *backend) Logs(ctx context.Context, p *corev1.Pod, opts *corev1.PodLogOptions, w io.Writer) error {
	status := containerStatusOf(p, opts.Container)
	if status == nil {
		return apierrors.NewBadRequest(fmt.Sprintf("container %q in pod %q is not available", opts.Container, p.Name))
	}
	id := status.ContainerID
	if opts.Previous {
		id = previousOf(status)
	}
	attempt, ok := pod.AttemptOf(id)
	if !ok || b.podLogs == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("container %q in pod %q has no log", opts.Container, p.Name))
	}
	o := runtime.LogOptions{Follow: opts.Follow && !opts.Previous, Timestamps: opts.Timestamps, TailLines: -1}
	if opts.TailLines != nil {
		o.TailLines = *opts.TailLines
	}
	if opts.LimitBytes != nil {
		o.LimitBytes = *opts.LimitBytes
	}
	switch {
	case opts.SinceTime != nil:
		o.Since = opts.SinceTime.Time
	case opts.SinceSeconds != nil:
		o.Since = b.loop.now().Add(-time.Duration(*opts.SinceSeconds) * time.Second)
	}
	if opts.Stream != nil && *opts.Stream != corev1.LogStreamAll {
		o.Stream = strings.ToLower(*opts.Stream)
	}
	o.Running = func() bool { return b.runs(p, opts.Container, id) }
	err := runtime.ReadLog(ctx, pod.LogPath(b.podLogs, p, opts.Container, attempt), o, w)
	if errors.Is(err, runtime.ErrNotFound) {
		return apierrors.NewBadRequest(fmt.Sprintf("the log of container %q in pod %q is no longer there", opts.Container, p.Name))
	}
	return err
}

// previousOf is the id of the attempt before the one whose log is shown by default.
func previousOf(s *corev1.ContainerStatus) string {
	if t := s.LastTerminationState.Terminated; t != nil && t.ContainerID != s.ContainerID {
		return t.ContainerID
	}
	// The container waits for its next attempt: the one that ended last is both the present and the previous one.
	return s.ContainerID
}

// runs is whether the attempt is still running, as far as the pod's status tells.
func (b *backend) runs(p *corev1.Pod, container, id string) bool {
	now, ok := b.loop.cache.Get(resourcePods, p.Namespace, p.Name)
	if !ok || now.GetUID() != p.UID {
		return false
	}
	s := containerStatusOf(now.(*corev1.Pod), container)
	return s != nil && s.ContainerID == id && s.State.Running != nil
}

// Exec runs a command in a running container.
func (b *backend) Exec(ctx context.Context, p *corev1.Pod, container string, e api.Exec) (int, error) {
	status := containerStatusOf(p, container)
	if status == nil || status.State.Running == nil {
		return 0, apierrors.NewBadRequest(fmt.Sprintf("container %q in pod %q is not running", container, p.Name))
	}
	resize := make(chan runtime.TerminalSize)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(resize)
		for size := range e.Resize {
			select {
			case resize <- runtime.TerminalSize(size):
			case <-ctx.Done():
				return
			}
		}
	}()
	if e.Stdout == nil {
		e.Stdout = io.Discard
	}
	if e.Stderr == nil && !e.TTY {
		e.Stderr = io.Discard
	}
	return b.runtime.Exec(ctx, pod.ContainerID(status.ContainerID), runtime.ExecConfig{
		Command: e.Command, TTY: e.TTY, Stdin: e.Stdin, Stdout: e.Stdout, Stderr: e.Stderr, Resize: resize,
	})
}

func containerStatusOf(p *corev1.Pod, name string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// objects finds ConfigMaps and Secrets for the pods' workers; they read the cache, never the loop.
type objects struct{ cache *api.Cache }

func (o objects) ConfigMap(namespace, name string) (*corev1.ConfigMap, bool) {
	obj, ok := o.cache.Get(resourceConfigMaps, namespace, name)
	if !ok {
		return nil, false
	}
	cm, ok := obj.(*corev1.ConfigMap)
	return cm, ok
}

func (o objects) Secret(namespace, name string) (*corev1.Secret, bool) {
	obj, ok := o.cache.Get(resourceSecrets, namespace, name)
	if !ok {
		return nil, false
	}
	s, ok := obj.(*corev1.Secret)
	return s, ok
}
