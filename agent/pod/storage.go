package pod

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/picketd/picket/runtime"
)

// Storage is what a pod takes of the host's disk, in bytes.
type Storage struct {
	EmptyDirs  map[string]int64 // by volume; those in memory are not among them, they cannot grow beyond their size
	Containers map[string]int64 // by container: its writable layer and its logs
}

// LimitsStorage says whether a pod asked for a limit that somebody has to watch.
func LimitsStorage(pod *corev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		if limitedEmptyDir(&pod.Spec.Volumes[i]) {
			return true
		}
	}
	return podStorageLimit(pod) > 0
}

func limitedEmptyDir(v *corev1.Volume) bool {
	return onDisk(v) && v.EmptyDir.SizeLimit != nil && v.EmptyDir.SizeLimit.Sign() > 0
}

func onDisk(v *corev1.Volume) bool {
	return v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumDefault
}

// podStorageLimit is the sum over the containers that have a limit, as Kubernetes reckons with init containers; 0: none has.
func podStorageLimit(pod *corev1.Pod) int64 {
	limits := resourcehelper.AggregateContainerLimits(pod, resourcehelper.PodResourcesOptions{})
	return limits.StorageEphemeral().Value()
}

// Exceeds says in the kubelet's words which of its limits the pod is over; "" when it is over none. As there, the sum of the
// containers' limits holds for all of the pod.
func (s Storage) Exceeds(pod *corev1.Pod) string {
	total := int64(0)
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		used := s.EmptyDirs[v.Name]
		total += used
		if limitedEmptyDir(v) && used > v.EmptyDir.SizeLimit.Value() {
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, v.EmptyDir.SizeLimit.String())
		}
	}
	for _, used := range s.Containers {
		total += used
	}
	if limit := podStorageLimit(pod); limit > 0 && total > limit {
		limits := resourcehelper.AggregateContainerLimits(pod, resourcehelper.PodResourcesOptions{})
		return fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ", limits.StorageEphemeral())
	}
	for _, c := range pod.Spec.Containers {
		if limit := c.Resources.Limits.StorageEphemeral(); limit.Sign() > 0 && s.Containers[c.Name] > limit.Value() {
			return fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", c.Name, limit)
		}
	}
	return ""
}

// Storage measures what a pod takes. layer is runtime's LayerUsage.
func (c *Config) Storage(ctx context.Context, pod *corev1.Pod, layer func(ctx context.Context, id string) (int64, error)) (Storage, error) {
	s := Storage{EmptyDirs: map[string]int64{}, Containers: map[string]int64{}}
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; onDisk(v) {
			used, err := diskUsage(ctx, filepath.Join(c.Dir, string(pod.UID), "volumes", v.Name))
			if err != nil {
				return s, err
			}
			s.EmptyDirs[v.Name] = used
		}
	}
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, status := range list {
			used, err := diskUsage(ctx, filepath.Join(podLogDir(c.PodLogs, pod), status.Name))
			if err == nil && status.ContainerID != "" {
				var own int64
				own, err = layer(ctx, ContainerID(status.ContainerID))
				used += own
			}
			if err != nil && !errors.Is(err, runtime.ErrNotFound) {
				return s, err
			}
			s.Containers[status.Name] = used
		}
	}
	return s, nil
}

// diskUsage is what du says: blocks on the disk, files with several names once, nothing of what is mounted inside. What goes away in
// the meantime counts nothing, a directory that is not there neither.
func diskUsage(ctx context.Context, dir string) (bytes int64, err error) {
	var root syscall.Stat_t
	if err := syscall.Lstat(dir, &root); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
		return 0, fmt.Errorf("cannot measure %s: %w", dir, err)
	}
	seen := map[uint64]bool{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("cannot measure %s: %w", path, err)
		}
		stat := info.Sys().(*syscall.Stat_t)
		switch {
		case stat.Dev != root.Dev && d.IsDir():
			return fs.SkipDir
		case stat.Dev != root.Dev || seen[stat.Ino]:
			return nil
		case stat.Nlink > 1 && !d.IsDir():
			seen[stat.Ino] = true
		}
		bytes += stat.Blocks * 512
		return nil
	})
	return bytes, err
}
