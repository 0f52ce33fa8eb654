package runtime

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
)

// ContainerStatus reads one container. ErrNotFound: there is none of that id.
func (r *Runtime) ContainerStatus(ctx context.Context, id string) (ContainerStatus, error) {
	key := containerKey(id)
	record, err := r.client.ContainerService().Get(ctx, key)
	if err != nil {
		return ContainerStatus{}, fmt.Errorf("cannot look up container %s: %w", id, r.native(err))
	}
	response, err := r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: key})
	if err = r.native(err); err != nil && !errors.Is(err, ErrNotFound) {
		return ContainerStatus{}, fmt.Errorf("cannot look up the task of container %s: %w", id, err)
	}
	if err != nil {
		return r.status(record, nil), nil
	}
	return r.status(record, response.Process), nil
}

// Containers lists all containers of ours.
func (r *Runtime) Containers(ctx context.Context) ([]ContainerStatus, error) {
	records, processes, err := r.list(ctx)
	if err != nil {
		return nil, err
	}
	var all []ContainerStatus
	for _, record := range records {
		all = append(all, r.status(record, processes[record.ID]))
	}
	return all, nil
}

// list returns all containers that carry our labels and, by id, the processes of those that have a task.
func (r *Runtime) list(ctx context.Context) ([]containers.Container, map[string]*task.Process, error) {
	records, err := r.client.ContainerService().List(ctx, "labels."+strconv.Quote(labelID))
	if err != nil {
		return nil, nil, fmt.Errorf("cannot list containers: %w", r.native(err))
	}
	response, err := r.client.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, nil, fmt.Errorf("cannot list tasks: %w", r.native(err))
	}
	processes := map[string]*task.Process{}
	for _, p := range response.Tasks {
		processes[p.ID] = p
	}
	return records, processes, nil
}

// status puts together what containerd and we know; process is nil without a task.
func (r *Runtime) status(record containers.Container, process *task.Process) ContainerStatus {
	labels := maps.Clone(record.Labels)
	attempt, _ := strconv.Atoi(labels[labelAttempt]) // we wrote it
	c := r.known.get(record.ID)
	s := ContainerStatus{
		ID: labels[labelID], PodUID: labels[labelPodUID], Name: labels[labelName], Attempt: attempt, Labels: labels,
		ImageRef: record.Image, State: ContainerUnknown, CreatedAt: record.CreatedAt, StartedAt: c.startedAt,
		OOMKilled: c.oomKilled || labels[labelOOM] != "",
	}
	if process == nil {
		return s
	}
	s.Pid = process.Pid
	switch process.Status {
	case task.Status_CREATED:
		s.State = ContainerCreated
	case task.Status_RUNNING, task.Status_PAUSED, task.Status_PAUSING:
		s.State = ContainerRunning
	case task.Status_STOPPED:
		s.State, s.Pid, s.ExitCode = ContainerExited, 0, int32(process.ExitStatus)
		if process.ExitedAt != nil {
			s.FinishedAt = process.ExitedAt.AsTime()
		}
	}
	return s
}

// recognise learns of containers that an earlier agent made, or that this one lost sight of. It returns the processes of those
// that run, by the container's key.
func (r *Runtime) recognise(ctx context.Context) (running map[string]int, err error) {
	records, processes, err := r.list(ctx)
	if err != nil {
		return nil, err
	}
	running = map[string]int{}
	for _, record := range records {
		p := processes[record.ID]
		r.known.add(record.ID, record.Labels[labelID], record.Labels[labelPodUID], strings.HasPrefix(p.GetStdout(), "binary:"))
		if p.GetStatus() == task.Status_RUNNING {
			running[record.ID] = int(p.GetPid())
		}
	}
	return running, r.recogniseReapers(ctx)
}
