package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// With shareProcessNamespace the pod's containers join the process namespace of a reaper: "picket-logger --pause", without an image.
//
// It is a task of containerd's, in the pod's shim, and no child of ours: so it outlives the agent, whatever systemd does to the
// agent's own cgroup; the next agent finds it by its name, not by a process number that somebody else may have by then; and a shim
// that dies ends it together with the pod's containers.
//
// Its namespace is mounted like the others, for the same reason: a number under /proc may change hands between the look and the
// join, a mount does not. A namespace whose reaper is dead lets nobody in, and the kernel has killed all that was in it: their
// exits arrive as of any container, the next CreateContainer returns ErrNotFound, and SetUpPod makes another reaper.

const (
	// labelReaper marks a reaper with the uid of its pod. It has no labelID: it is none of the pod's containers.
	labelReaper = "picket.io/reaper-of"

	reaperPath = "/pause"
	// reaperUser is nobody in particular, as in Kubernetes' own pause image.
	reaperUser = 65535
	// reaperOOMScore is what the kubelet gives pause containers: nearly everything else is killed before.
	reaperOOMScore = -998
)

// reaperRoot is a file system for the mount points that runc makes; with them in it, containerd could not remove the directory of a task.
var reaperRoot = &types.Mount{Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=755", "size=64k"}}

// reaperKey is containerd's id for a pod's reaper. No container of a pod is called so: their ids begin with the uid.
func reaperKey(podUID string) string { return containerKey("pause." + podUID) }

// hasReaper says whether the pod's containers share a process namespace of their own.
func (p PodConfig) hasReaper() bool { return p.ShareProcessNamespace && !p.HostPID }

// keepReaper makes the pod's reaper run and its namespace be mounted, or finds both as they should be.
func (r *Runtime) keepReaper(ctx context.Context, p PodConfig) error {
	pid, err := r.reaperPid(ctx, p.UID)
	if errors.Is(err, ErrNotFound) {
		pid, err = r.startReaper(ctx, p)
	}
	if err != nil {
		return fmt.Errorf("cannot make the pod's shared process namespace: %w", err)
	}
	path := r.pidNamespacePath(p.UID)
	if err := mountNamespace(fmt.Sprintf("/proc/%d/ns/pid", pid), path); err != nil {
		return err
	}
	// It was the reaper's if the reaper has lived until now.
	again, err := r.reaperPid(ctx, p.UID)
	if err == nil && again == pid {
		return nil
	}
	return errors.Join(errors.New("the reaper of the pod's process namespace has ended"), err, unmount(path))
}

// reaperPid is the process number of a pod's reaper. ErrNotFound: it does not run.
func (r *Runtime) reaperPid(ctx context.Context, podUID string) (uint32, error) {
	response, err := r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: reaperKey(podUID)})
	if err != nil {
		return 0, fmt.Errorf("cannot look for the reaper: %w", r.native(err))
	}
	if response.Process.Status != task.Status_RUNNING {
		return 0, fmt.Errorf("the reaper does not run: %w", ErrNotFound)
	}
	return response.Process.Pid, nil
}

// checkReaper says whether containers can join the pod's process namespace. ErrNotFound: it is gone.
func (r *Runtime) checkReaper(ctx context.Context, p PodConfig) error {
	if !p.hasReaper() {
		return nil
	}
	if _, err := r.reaperPid(ctx, p.UID); err != nil {
		return fmt.Errorf("the pod's process namespace is gone: %w", err)
	}
	return nil
}

// startReaper makes a reaper in the place of what is left of one.
func (r *Runtime) startReaper(ctx context.Context, p PodConfig) (pid uint32, err error) {
	if r.cfg.LoggerPath == "" {
		return 0, fmt.Errorf("%w: picket-logger is the reaper, and runtime.loggerPath does not name it", ErrConfig)
	}
	if err := r.removeReaper(ctx, p.UID); err != nil {
		return 0, err
	}
	record, err := r.reaperRecord(ctx, p)
	if err != nil {
		return 0, err
	}
	r.known.addReaper(record.ID, p.UID)
	if _, err := r.client.ContainerService().Create(ctx, record); err != nil {
		return 0, fmt.Errorf("cannot create the reaper: %w", r.native(err))
	}
	// What fails from here on is found by the next call, or by the pod's end.
	if err := r.makeTask(ctx, p.UID, &tasks.CreateTaskRequest{ContainerID: record.ID, Rootfs: []*types.Mount{reaperRoot}}); err != nil {
		return 0, err
	}
	ctx, cancel := wholly(ctx)
	defer cancel()
	response, err := r.client.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: record.ID})
	if err != nil {
		return 0, fmt.Errorf("cannot start the reaper: %w", r.native(err))
	}
	return response.Pid, nil
}

func (r *Runtime) reaperRecord(ctx context.Context, p PodConfig) (containers.Container, error) {
	key := reaperKey(p.UID)
	spec, err := r.reaperSpec(ctx, key, p)
	if err != nil {
		return containers.Container{}, err
	}
	encoded, err := typeurl.MarshalAny(spec)
	if err != nil {
		return containers.Container{}, fmt.Errorf("cannot encode the reaper's spec: %w", err)
	}
	return containers.Container{
		ID: key, Labels: map[string]string{labelReaper: p.UID}, Spec: encoded,
		Runtime: containers.RuntimeInfo{Name: plugins.RuntimeRuncV2, Options: r.cgroups.runcOptions()},
	}, nil
}

// reaperSpec is a process that may do nothing but wait.
func (r *Runtime) reaperSpec(ctx context.Context, key string, p PodConfig) (*oci.Spec, error) {
	s, err := oci.GenerateSpec(r.ctx(ctx), nil, &containers.Container{ID: key}, oci.WithoutRunMount)
	if err != nil {
		return nil, fmt.Errorf("cannot make the default spec: %w", err)
	}
	s.Annotations = map[string]string{annotationGroup: p.UID}
	score := r.clampOOMScore(reaperOOMScore)
	s.Process = &specs.Process{
		Args: []string{reaperPath, "--pause"}, Cwd: "/", User: specs.User{UID: reaperUser, GID: reaperUser},
		Capabilities: &specs.LinuxCapabilities{}, NoNewPrivileges: true, OOMScoreAdj: &score,
	}
	s.Root.Readonly = true
	s.Mounts = append(s.Mounts, specs.Mount{
		Destination: reaperPath, Type: "bind", Source: r.cfg.LoggerPath, Options: []string{"bind", "ro", "nosuid", "nodev"},
	})
	p.ShareProcessNamespace = false // what the others share is its own
	if err := r.specNamespaces(s, ContainerConfig{Pod: p}); err != nil {
		return nil, err
	}
	s.Linux.CgroupsPath = r.cgroups.path(p.cgroupParent(), key)
	r.cgroups.apply(s.Linux, Resources{CPUShares: 2})
	return s, nil
}

// removeReaper ends a pod's reaper, and all that is in its namespace. One that is not there is no error.
func (r *Runtime) removeReaper(ctx context.Context, podUID string) error {
	key := reaperKey(podUID)
	if _, err := r.client.ContainerService().Get(ctx, key); errdefs.IsNotFound(err) {
		r.known.remove(key)
		return nil
	}
	r.known.addReaper(key, podUID) // remove wants to know whose it is
	if err := r.remove(ctx, key); err != nil {
		return fmt.Errorf("cannot remove the reaper of the pod's process namespace: %w", err)
	}
	r.known.remove(key)
	return nil
}

// recogniseReapers learns of reapers that an earlier agent made.
func (r *Runtime) recogniseReapers(ctx context.Context) error {
	records, err := r.client.ContainerService().List(ctx, `labels."`+labelReaper+`"`)
	if err != nil {
		return fmt.Errorf("cannot list the pods' reapers: %w", r.native(err))
	}
	for _, record := range records {
		r.known.addReaper(record.ID, record.Labels[labelReaper])
	}
	return nil
}

// mountNamespace mounts a process's namespace at a path, in the place of what was mounted there.
func mountNamespace(from, path string) error {
	var is, want unix.Stat_t
	if err := unix.Stat(from, &want); err != nil {
		return fmt.Errorf("cannot look at %s: %w", from, err)
	}
	if unix.Stat(path, &is) == nil && is.Dev == want.Dev && is.Ino == want.Ino {
		return nil
	}
	if err := unmount(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o400)
	if err != nil {
		return fmt.Errorf("cannot make a file to mount on: %w", err)
	}
	f.Close()
	if err := unix.Mount(from, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot mount namespace %s: %w", from, err)
	}
	return nil
}
