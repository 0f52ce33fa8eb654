package runtime

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/identifiers"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/moby/sys/signal"
)

// Labels of ours on every containerd container, beside the caller's.
const (
	labelID      = "picket.io/container-id" // the caller's id; containerd's own may be a shorter one
	labelPodUID  = "picket.io/pod-uid"
	labelName    = "picket.io/container"
	labelAttempt = "picket.io/attempt"
	labelOOM     = "picket.io/oom-killed"
	// labelImage keeps containerd from collecting the image's content while the container is there: its tag may have moved on, and
	// a restart takes the same image. (The snapshots are kept by the container's own.)
	labelImage = "containerd.io/gc.ref.content.image"
)

const (
	// undoTimeout bounds the removal of what a failed create left.
	undoTimeout = 20 * time.Second
	// wholeTimeout bounds calls that are not cancelled.
	wholeTimeout = time.Minute
	// createTries is how often a task is created in a shim that may just be ending, createPause what is between.
	createTries = 3
	createPause = 20 * time.Millisecond
	// undoneWithin is how long containerd may take to undo the creation that an agent which was killed had asked for.
	undoneWithin = 10 * time.Second
)

// containerKey is containerd's id for a container. containerd takes no id longer than 76 characters and no "--"; ids for which
// that matters are shortened to a hash.
func containerKey(id string) string {
	if identifiers.Validate(id) == nil {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "c" + hex.EncodeToString(sum[:])
}

// CreateContainer makes snapshot, container and task; the process is not started. A container that is there, task and all, is
// left as it is. ErrNotFound: the image or the pod's namespaces are gone. ErrStart: runc could not make the process.
func (r *Runtime) CreateContainer(ctx context.Context, c ContainerConfig) error {
	key := containerKey(c.ID)
	img, err := r.unpacked(ctx, c.Image)
	if err != nil {
		return err
	}
	if err := r.checkReaper(ctx, c.Pod); err != nil {
		return err
	}
	record, err := r.record(ctx, key, c, img)
	if err != nil {
		return err
	}
	r.known.add(key, c.ID, c.Pod.UID, r.logURI(c.LogPath) != "")
	// The record comes first: it keeps containerd from collecting the snapshot.
	_, err = r.client.ContainerService().Create(ctx, record)
	if errdefs.IsAlreadyExists(err) {
		var there bool
		if there, err = r.alreadyThere(ctx, key); there || err != nil {
			return err
		}
		_, err = r.client.ContainerService().Create(ctx, record)
	}
	if err != nil {
		return fmt.Errorf("cannot create container: %w", r.native(err))
	}
	if err := r.createTask(ctx, record, c, img); err != nil {
		r.undo(ctx, c.ID, err)
		if gone := r.checkReaper(ctx, c.Pod); errors.Is(gone, ErrNotFound) {
			return gone // the kernel lets nobody in any more
		}
		return err
	}
	return nil
}

// alreadyThere says whether an earlier call made the container completely. What it made only in part is removed.
func (r *Runtime) alreadyThere(ctx context.Context, key string) (bool, error) {
	_, err := r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: key})
	if err == nil {
		return true, nil
	}
	if err = r.native(err); !errors.Is(err, ErrNotFound) {
		return false, fmt.Errorf("cannot look at container: %w", err)
	}
	return false, r.remove(ctx, key)
}

// undo removes what a create that failed left. The caller may be gone already.
func (r *Runtime) undo(ctx context.Context, id string, cause error) {
	if errors.Is(cause, ErrUnavailable) {
		return // the next create or remove of the same id finds it
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := r.RemoveContainer(ctx, id); err != nil {
		r.log.Warn("cannot remove what a failed create left", "container", id, "error", err)
	}
}

// record is the container as containerd keeps it.
func (r *Runtime) record(ctx context.Context, key string, c ContainerConfig, img *unpackedImage) (containers.Container, error) {
	spec, err := r.spec(ctx, key, c, img)
	if err != nil {
		return containers.Container{}, err
	}
	encoded, err := typeurl.MarshalAny(spec)
	if err != nil {
		return containers.Container{}, fmt.Errorf("cannot encode the container's spec: %w", err)
	}
	labels := maps.Clone(c.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[labelID], labels[labelPodUID], labels[labelName], labels[labelAttempt] = c.ID, c.Pod.UID, c.Name, strconv.Itoa(c.Attempt)
	labels[labelImage] = img.digest
	if s := img.config.StopSignal; s != "" {
		labels[client.StopSignalLabel] = s
	}
	return containers.Container{
		ID: key, Labels: labels, Image: c.Image, Spec: encoded, Snapshotter: snapshotter, SnapshotKey: key,
		Runtime: containers.RuntimeInfo{Name: plugins.RuntimeRuncV2, Options: r.cgroups.runcOptions()},
	}, nil
}

// createTask makes the container's file system and its process, which waits to be started.
func (r *Runtime) createTask(ctx context.Context, record containers.Container, c ContainerConfig, img *unpackedImage) error {
	mounts, err := r.prepare(ctx, record.SnapshotKey, img)
	if err != nil {
		return err
	}
	request := &tasks.CreateTaskRequest{
		ContainerID: record.ID, Terminal: c.TTY, Rootfs: r.rootfs(mounts, c.Security), Stdout: r.logURI(c.LogPath),
	}
	if !c.TTY { // a terminal has one output
		request.Stderr = request.Stdout
	}
	return r.makeTask(ctx, c.Pod.UID, request)
}

// makeTask has containerd make a task in a pod's shim.
func (r *Runtime) makeTask(ctx context.Context, podUID string, request *tasks.CreateTaskRequest) error {
	defer r.pods.lock(podUID)()
	began := time.Now()
	for try := 1; ; try++ {
		err := r.createOnce(ctx, request)
		if err == nil {
			return nil
		}
		if err = r.native(err); errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
			return fmt.Errorf("cannot create the container's task: %w", err)
		}
		switch undoing := beingUndone(err); {
		case undoing && time.Since(began) > undoneWithin:
			return fmt.Errorf("cannot create the container's task: %w", err)
		case undoing:
		case try >= createTries || !shimEnded(err):
			return fmt.Errorf("%w: %w", ErrStart, err)
		}
		r.log.Debug("the pod's shim was just ending, trying again", "container", request.ContainerID, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(createPause):
		}
	}
}

func (r *Runtime) createOnce(ctx context.Context, request *tasks.CreateTaskRequest) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := wholly(ctx)
	defer cancel()
	_, err := r.client.TaskService().Create(ctx, request)
	return err
}

// wholly is for calls that, once made, had better come to their end: containerd hands a cancellation on to the shim, which kills
// runc in the middle of its work and forgets the process that it made.
func wholly(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if most := time.Now().Add(wholeTimeout); !ok || deadline.After(most) {
		deadline = most
	}
	return context.WithDeadline(context.WithoutCancel(ctx), deadline)
}

// prepare makes the container's own layer over the image's.
func (r *Runtime) prepare(ctx context.Context, key string, img *unpackedImage) ([]mount.Mount, error) {
	snapshots := r.client.SnapshotService(snapshotter)
	mounts, err := snapshots.Prepare(ctx, key, img.chainID)
	if errdefs.IsAlreadyExists(err) { // of a create that was cut off
		if err = snapshots.Remove(ctx, key); err == nil {
			mounts, err = snapshots.Prepare(ctx, key, img.chainID)
		}
	}
	if err != nil {
		if errdefs.IsNotFound(err) {
			r.images.forget(img.ref)
		}
		return nil, fmt.Errorf("cannot prepare the container's file system: %w", r.native(err))
	}
	return mounts, nil
}

func (r *Runtime) rootfs(mounts []mount.Mount, s Security) []*types.Mount {
	label := r.mountLabel(s)
	var list []*types.Mount
	for _, m := range mounts {
		options := m.Options
		if label != "" {
			options = append(options, "context="+strconv.Quote(label))
		}
		list = append(list, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: options})
	}
	return list
}

// logURI has the shim start picket-logger for the container's output; "" is none.
func (r *Runtime) logURI(path string) string {
	if path == "" || r.cfg.LoggerPath == "" {
		return ""
	}
	arguments := url.Values{
		"path": {path}, "max-size": {strconv.FormatInt(r.cfg.LogMaxBytes, 10)}, "max-files": {strconv.Itoa(r.cfg.LogMaxFiles)},
	}
	return (&url.URL{Scheme: "binary", Path: r.cfg.LoggerPath, RawQuery: arguments.Encode()}).String()
}

// StartContainer starts the created task's process. Its exit arrives as an Event.
func (r *Runtime) StartContainer(ctx context.Context, id string) error {
	key := containerKey(id)
	whole, cancel := wholly(ctx)
	defer cancel()
	response, err := r.client.TaskService().Start(whole, &tasks.StartRequest{ContainerID: key})
	if err == nil {
		r.known.started(key, time.Now())
		r.watchLogWriter(key, int(response.Pid))
		return nil
	}
	if err = r.native(err); errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
		return fmt.Errorf("cannot start container: %w", err)
	}
	status, lookErr := r.ContainerStatus(ctx, id)
	switch {
	case lookErr != nil:
		return fmt.Errorf("cannot start container: %w", lookErr)
	case status.State == ContainerRunning:
		return nil
	case status.State == ContainerUnknown:
		return fmt.Errorf("cannot start container: its task is gone: %w", ErrNotFound)
	}
	return fmt.Errorf("%w: %w", ErrStart, err)
}

// SignalContainer sends a signal to the container's init process ("SIGTERM", "TERM" or "15"; "" is the image's stop signal, or
// SIGTERM). ErrNotFound: there is no such process any more.
func (r *Runtime) SignalContainer(ctx context.Context, id, name string) error {
	key := containerKey(id)
	if name == "" {
		record, err := r.client.ContainerService().Get(ctx, key)
		if err != nil {
			return fmt.Errorf("cannot look up the stop signal: %w", r.native(err))
		}
		name = record.Labels[client.StopSignalLabel]
	}
	number, err := signal.ParseSignal(name)
	if err != nil {
		if name != "" {
			r.log.Warn("not a signal, SIGTERM is sent instead", "container", id, "signal", name)
		}
		number = syscall.SIGTERM
	}
	if _, err := r.client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: key, Signal: uint32(number)}); err != nil {
		return fmt.Errorf("cannot signal container: %w", r.native(err))
	}
	return nil
}
