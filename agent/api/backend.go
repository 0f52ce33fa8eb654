package api

import (
	"context"
	"io"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/daemonset"
)

// Object is what the cache holds: typed API objects with metadata. Once in the cache it must never be changed.
type Object interface {
	runtime.Object
	metav1.Object
}

// Write is one change asked for by a client, already decoded, patched, defaulted and validated.
type Write struct {
	Resource  schema.GroupResource // {"apps","daemonsets"}, {"","nodes"}, {"","pods"} (delete only), ...
	Namespace string
	Name      string
	// Object is the new object; nil deletes.
	Object Object
	// Create refuses when the object exists (AlreadyExists).
	Create bool
	// ResourceVersion, when not empty, must be the cached object's (else Conflict); UID likewise.
	ResourceVersion string
	UID             types.UID
	// GracePeriodSeconds of a pod's deletion; nil is the pod's own.
	GracePeriodSeconds *int64
	// Author is the client's certificate name or "unix-socket", for the record.
	Author string
	// DryRun checks everything and changes nothing.
	DryRun bool
}

// Backend takes the writes. Errors are apierrors.StatusError where a client should see their reason.
type Backend interface {
	// Write makes the change durable and visible in the cache before it returns; it returns the object as now cached
	// (for a deletion the last state), with the resourceVersion of the change.
	Write(ctx context.Context, w Write) (Object, error)
	// Logs copies a container's log to w until its end, or until ctx ends with Follow. The container is opts.Container,
	// already checked to exist in the pod.
	Logs(ctx context.Context, pod *corev1.Pod, opts *corev1.PodLogOptions, w io.Writer) error
	// Exec runs a command in a container; it returns the exit code, or an error when it could not be run.
	Exec(ctx context.Context, pod *corev1.Pod, container string, e Exec) (int, error)
	// Why tells how far a DaemonSet's rollout has come and what each host waits for; NotFound when there is no such DaemonSet.
	Why(ctx context.Context, daemonSet types.NamespacedName) (*daemonset.Why, error)
}

// Exec is a command to run with its streams.
type Exec struct {
	Command []string
	TTY     bool
	Stdin   io.Reader // nil: none
	Stdout  io.Writer // nil: discarded
	Stderr  io.Writer
	Resize  <-chan TerminalSize
}

// TerminalSize is in characters.
type TerminalSize struct{ Width, Height uint16 }
