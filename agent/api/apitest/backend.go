package apitest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/agent/daemonset"
)

// The resources by their short names.
var (
	DaemonSets          = schema.GroupResource{Group: "apps", Resource: "daemonsets"}
	ControllerRevisions = schema.GroupResource{Group: "apps", Resource: "controllerrevisions"}
	Pods                = schema.GroupResource{Resource: "pods"}
	Nodes               = schema.GroupResource{Resource: "nodes"}
	ConfigMaps          = schema.GroupResource{Resource: "configmaps"}
	Secrets             = schema.GroupResource{Resource: "secrets"}
	Events              = schema.GroupResource{Resource: "events"}
	Namespaces          = schema.GroupResource{Resource: "namespaces"}
)

// Versions gives resourceVersions with an agent's prefix in the top 16 bits.
func Versions(agent uint16) func() uint64 {
	var n atomic.Uint64
	return func() uint64 { return uint64(agent)<<48 | n.Add(1) }
}

// Backend writes straight into the cache. Its functions replace logs, exec and why; without them there are none.
type Backend struct {
	Cache *api.Cache
	// OnWrite, when set, is called before a write and may refuse it.
	OnWrite func(api.Write) error
	OnLogs  func(ctx context.Context, pod *corev1.Pod, opts *corev1.PodLogOptions, w io.Writer) error
	OnExec  func(ctx context.Context, pod *corev1.Pod, container string, e api.Exec) (int, error)
	OnWhy   func(name types.NamespacedName) (*daemonset.Why, error)

	mu     sync.Mutex
	writes []api.Write
}

// Writes are those made so far, dry runs included.
func (b *Backend) Writes() []api.Write {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]api.Write(nil), b.writes...)
}

func (b *Backend) Write(_ context.Context, w api.Write) (api.Object, error) {
	if b.OnWrite != nil {
		if err := b.OnWrite(w); err != nil {
			return nil, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.writes = append(b.writes, w)
	old, exists := b.Cache.Get(w.Resource, w.Namespace, w.Name)
	switch {
	case w.Create && exists:
		return nil, apierrors.NewAlreadyExists(w.Resource, w.Name)
	case !w.Create && !exists:
		return nil, apierrors.NewNotFound(w.Resource, w.Name)
	case exists && w.UID != "" && w.UID != old.GetUID():
		return nil, apierrors.NewConflict(w.Resource, w.Name, fmt.Errorf("uid is %s", old.GetUID()))
	case exists && w.ResourceVersion != "" && w.ResourceVersion != old.GetResourceVersion():
		return nil, apierrors.NewConflict(w.Resource, w.Name, errors.New("the object has been modified; please apply your changes to the latest version and try again"))
	}
	if w.Object == nil {
		if w.DryRun {
			return old, nil
		}
		return b.Cache.Delete(w.Resource, w.Namespace, w.Name), nil
	}
	if w.DryRun {
		return w.Object, nil
	}
	obj := w.Object.DeepCopyObject().(api.Object)
	if !exists {
		obj.SetUID(types.UID(uuid.NewString()))
		obj.SetCreationTimestamp(metav1.Now().Rfc3339Copy())
	}
	if ds, ok := obj.(*appsv1.DaemonSet); ok {
		b.remember(ds)
	}
	return b.Cache.Set(w.Resource, obj), nil
}

// remember keeps the DaemonSet's revision history.
func (b *Backend) remember(ds *appsv1.DaemonSet) {
	var history []*appsv1.ControllerRevision
	for _, obj := range b.Cache.List(ControllerRevisions, ds.Namespace, nil, nil) {
		if rev := obj.(*appsv1.ControllerRevision); metav1.IsControlledBy(rev, ds) {
			history = append(history, rev.DeepCopy())
		}
	}
	for _, rev := range daemonset.NextHistory(history, ds, nil) {
		b.Cache.Set(ControllerRevisions, rev.DeepCopy())
	}
}

func (b *Backend) Logs(ctx context.Context, pod *corev1.Pod, opts *corev1.PodLogOptions, w io.Writer) error {
	if b.OnLogs == nil {
		return nil
	}
	return b.OnLogs(ctx, pod, opts, w)
}

func (b *Backend) Exec(ctx context.Context, pod *corev1.Pod, container string, e api.Exec) (int, error) {
	if b.OnExec == nil {
		return 0, errors.New("there is no exec in this test")
	}
	return b.OnExec(ctx, pod, container, e)
}

func (b *Backend) Why(_ context.Context, name types.NamespacedName) (*daemonset.Why, error) {
	if b.OnWhy == nil {
		return nil, apierrors.NewNotFound(DaemonSets, name.Name)
	}
	return b.OnWhy(name)
}
