package runtime

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
)

// RemoveContainer deletes task (killing what still runs), container and snapshot. Logs stay. What is gone is gone: no
// error. The end of a process that is killed here may not be told as an Event: the shim goes too soon.
func (r *Runtime) RemoveContainer(ctx context.Context, id string) error {
	key := containerKey(id)
	r.writers.forget(key) // it ends with the task, as it should
	if err := r.remove(ctx, key); err != nil {
		return err
	}
	r.known.remove(key)
	return nil
}

// remove removes in an order that leaves the record until nothing else is left: a removal that is cut off is done again.
func (r *Runtime) remove(ctx context.Context, key string) error {
	if err := r.deleteTask(ctx, key); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if err := r.client.SnapshotService(snapshotter).Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("cannot remove the container's file system: %w", r.native(err))
	}
	if err := r.client.ContainerService().Delete(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("cannot remove container: %w", r.native(err))
	}
	return nil
}

// deleteTask kills the task's processes, waits for its end and deletes it. A created task that was never started needs the kill
// like one that runs.
func (r *Runtime) deleteTask(ctx context.Context, key string) error {
	service := r.client.TaskService()
	_, err := service.Kill(ctx, &tasks.KillRequest{ContainerID: key, Signal: uint32(syscall.SIGKILL), All: true})
	if err = r.native(err); errors.Is(err, ErrUnavailable) {
		return fmt.Errorf("cannot kill container: %w", err)
	}
	// The kill may have found no process: it ended before, or its shim died. Wait and Delete know. A containerd that was killed while
	// it made a task knows its shim, which knows nothing of the task: Delete then ends the shim, and says that there is no task.
	if _, waitErr := service.Wait(ctx, &tasks.WaitRequest{ContainerID: key}); waitErr != nil {
		if waitErr = r.native(waitErr); ctx.Err() != nil || errors.Is(waitErr, ErrUnavailable) {
			return fmt.Errorf("cannot wait for the container's end: %w", waitErr)
		}
	}
	defer r.pods.lock(r.known.get(key).podUID)()
	ctx, cancel := wholly(ctx)
	defer cancel()
	if _, err := service.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: key}); err != nil {
		return fmt.Errorf("cannot delete the container's task: %w", r.native(err))
	}
	return nil
}

// beingUndone says whether containerd still has to do with an earlier creation of the same task: that of an agent that was killed in
// the middle of it. Seen are "failed to start shim: mkdir .../<container>: file exists" and "failed to start shim: ... getwd: no such
// file or directory", of a shim whose directory was removed as that of the one before.
func beingUndone(err error) bool {
	return strings.Contains(err.Error(), "mkdir ") && strings.Contains(err.Error(), "file exists") || strings.Contains(err.Error(), "getwd: no such file")
}

// shimEnded says whether an error of containerd's comes from a shim that was just ending. Seen are, for a create beside the
// deletion of the pod's last task, "ttrpc: closed" and "failed to start shim: ... connect: no such file or directory".
func shimEnded(err error) bool {
	return slices.ContainsFunc([]string{"ttrpc: closed", "failed to start shim", "connect: "}, func(sign string) bool {
		return strings.Contains(err.Error(), sign)
	})
}
