package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// What the agent says of itself: metrics and health read the cache and a few atomics, never the loop's own state.

// snapshot is what a scrape shows.
func (a *Agent) snapshot() MetricsSnapshot {
	l := a.loop
	s := MetricsSnapshot{
		ContainerdUp: l.containerdUp.Load(), ManifestErrors: a.files.counts(), Objects: map[string]int{}, Events: l.events.totals(),
		DaemonSets: cached[*appsv1.DaemonSet](l, resourceDaemonSets), Fleet: a.fleet.snapshot(),
	}
	host, authority := a.fleet.identity().Expiry()
	s.Certificates = map[string]time.Time{"host": host, "authority": authority}
	// Every host is scraped: each tells of its own pods and Node.
	for _, p := range cached[*corev1.Pod](l, resourcePods) {
		if p.Spec.NodeName == a.cfg.Node.Name {
			s.Pods = append(s.Pods, p)
		}
	}
	if n, ok := l.cache.Get(resourceNodes, "", a.cfg.Node.Name); ok {
		s.Node, _ = n.(*corev1.Node)
	}
	for kind, resource := range resources {
		s.Objects[kind] = len(cached[any](l, resource))
	}
	s.Images, s.ImageBytes = a.runtime.ImageUsage()
	return s
}

// cached lists the objects of a resource that are of type T; nobody may change them.
func cached[T any](l *loop, resource schema.GroupResource) []T {
	var list []T
	for _, o := range l.cache.List(resource, "", labels.Everything(), fields.Everything()) {
		if t, ok := any(o).(T); ok {
			list = append(list, t)
		}
	}
	return list
}

// liveChecks fail when only a restart of the agent helps.
func (a *Agent) liveChecks() []healthCheck {
	last := func() time.Time { return time.Unix(a.loop.turned.Load(), 0) }
	return []healthCheck{turnedWithin(stuckAfter, last, a.loop.now)}
}

// readyChecks fail while this host does not do its work.
func (a *Agent) readyChecks() []healthCheck {
	containerd := healthCheck{Name: "containerd", Check: func(context.Context) error {
		if !a.loop.containerdUp.Load() {
			return fmt.Errorf("containerd does not answer at %s; what runs goes on running", a.cfg.Runtime.Address)
		}
		return nil
	}}
	state := healthCheck{Name: "state", Check: func(context.Context) error { return writable(a.cfg.DataDir) }}
	return append(a.liveChecks(), containerd, state)
}

// minFree is what a write to the state file may need at least.
const minFree = 1 << 20

// writable is whether a directory's file system takes writes, without writing.
func writable(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("cannot look at dataDir %s: %w", dir, err)
	}
	switch {
	case fs.Flags&unix.ST_RDONLY != 0:
		return fmt.Errorf("the file system of dataDir %s is read-only: nothing new can be applied", dir)
	case fs.Bavail*uint64(fs.Bsize) < minFree:
		return fmt.Errorf("the file system of dataDir %s is full: nothing new can be applied", dir)
	}
	return nil
}

// firstFailure makes one error of the checks, as the API's own /healthz and /readyz want it.
func firstFailure(checks []healthCheck) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), healthCheckLimit)
		defer cancel()
		var errs []error
		for _, c := range checks {
			if err := c.Check(ctx); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", c.Name, err))
			}
		}
		return errors.Join(errs...)
	}
}
