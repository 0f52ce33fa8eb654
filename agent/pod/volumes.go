package pod

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// volumes makes a pod's volumes below <dir>/volumes and finds them for a container. Everything is idempotent: a restarted
// agent runs it again beside running containers and changes nothing that is as it should be.
type volumes struct {
	facts
	dir string // of the pod
}

func (w *Worker) volumes(ips []string) volumes { return volumes{facts: w.facts(ips), dir: w.dir} }

func (w *Worker) facts(ips []string) facts {
	return facts{pod: w.pod, host: w.cfg.Host(), ips: ips, objects: w.cfg.Objects, seccompDir: w.cfg.SeccompDir}
}

// path is where a volume is on the host.
func (v volumes) path(volume *corev1.Volume) string {
	if volume.HostPath != nil {
		return volume.HostPath.Path
	}
	return filepath.Join(v.dir, "volumes", volume.Name)
}

// mount makes all volumes.
func (v volumes) mount(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(v.dir, "volumes"), 0o750); err != nil {
		return fmt.Errorf("cannot make the pod's directory: %w", err)
	}
	for i := range v.pod.Spec.Volumes {
		if err := ctx.Err(); err != nil {
			return err
		}
		volume := &v.pod.Spec.Volumes[i]
		if err := v.mountOne(volume); err != nil {
			return fmt.Errorf("MountVolume.SetUp failed for volume %q: %w", volume.Name, err)
		}
	}
	return nil
}

// refresh brings the volumes made of API objects up to date.
func (v volumes) refresh(ctx context.Context) error {
	var failed error
	for i := range v.pod.Spec.Volumes {
		if err := ctx.Err(); err != nil {
			return err
		}
		volume := &v.pod.Spec.Volumes[i]
		if volume.ConfigMap == nil && volume.Secret == nil && volume.Projected == nil {
			continue
		}
		if err := v.mountOne(volume); err != nil {
			failed = errors.Join(failed, fmt.Errorf("volume %q keeps its old content: %w", volume.Name, err))
		}
	}
	return failed
}

func (v volumes) mountOne(volume *corev1.Volume) error {
	switch {
	case volume.HostPath != nil:
		return prepareHostPath(volume.HostPath)
	case volume.EmptyDir != nil || volume.VolumeSource == (corev1.VolumeSource{}):
		return v.mountEmptyDir(volume)
	}
	content, ok, err := v.payloadOf(volume)
	if err != nil {
		return err
	}
	if !ok {
		return errors.New("this kind of volume is not supported")
	}
	return v.mountPayload(volume, content)
}

// mountPayload writes a volume made of API objects; all but ConfigMaps may hold secrets and are kept off the disk.
func (v volumes) mountPayload(volume *corev1.Volume, content payload) error {
	dir := v.path(volume)
	if volume.ConfigMap == nil {
		if err := mountAt(dir, "tmpfs", unix.TMPFS_MAGIC, "mode=0755"); err != nil {
			return err
		}
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot make the volume's directory: %w", err)
	}
	if err := v.ownOne(dir, 0o440); err != nil {
		return err
	}
	_, err := writePayload(dir, content, func(dir string) error { return v.own(dir, 0o440) })
	return err
}

// fsGroup is the pod's, nil for none.
func (v volumes) fsGroup() *int64 {
	if sc := v.pod.Spec.SecurityContext; sc != nil {
		return sc.FSGroup
	}
	return nil
}

// own gives what is below dir to the pod's fsGroup, as the kubelet does: the group gets what files allow in add, directories
// pass the group on.
func (v volumes) own(dir string, add fs.FileMode) error {
	if v.fsGroup() == nil {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = v.ownOne(path, add)
		}
		return err
	})
}

// ownOne is own for one file or directory.
func (v volumes) ownOne(path string, add fs.FileMode) error {
	group := v.fsGroup()
	if group == nil {
		return nil
	}
	info, err := os.Lstat(path)
	if err == nil {
		err = os.Lchown(path, -1, int(*group))
	}
	if err == nil && info.Mode()&fs.ModeSymlink == 0 {
		mode := info.Mode() | add
		if info.IsDir() {
			mode |= fs.ModeSetgid | 0o110
		}
		err = os.Chmod(path, mode)
	}
	if err != nil {
		return fmt.Errorf("cannot give %s to fsGroup %d: %w", path, *group, err)
	}
	return nil
}

func (v volumes) byName(name string) *corev1.Volume {
	for i := range v.pod.Spec.Volumes {
		if v.pod.Spec.Volumes[i].Name == name {
			return &v.pod.Spec.Volumes[i]
		}
	}
	return nil
}
