package pod

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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

func (v volumes) mountEmptyDir(volume *corev1.Volume) error {
	medium, size := corev1.StorageMediumDefault, int64(0)
	if e := volume.EmptyDir; e != nil {
		medium = e.Medium
		if e.SizeLimit != nil {
			size = e.SizeLimit.Value()
		}
	}
	switch medium {
	case corev1.StorageMediumDefault:
		return v.makeEmptyDir(v.path(volume))
	case corev1.StorageMediumMemory:
		return v.mountMemory(v.path(volume), size)
	}
	return fmt.Errorf("emptyDir medium %q is not supported", medium)
}

// makeEmptyDir makes the directory whole or not at all: once it is there, its mode and content are the containers'.
func (v volumes) makeEmptyDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	unfinished := dir + ".new" // no volume has a name with a dot
	if err := os.MkdirAll(unfinished, 0o755); err != nil {
		return fmt.Errorf("cannot make emptyDir: %w", err)
	}
	if err := v.open(unfinished); err != nil {
		return err
	}
	if err := os.Rename(unfinished, dir); err != nil {
		return fmt.Errorf("cannot make emptyDir: %w", err)
	}
	return nil
}

func (v volumes) mountMemory(dir string, size int64) error {
	if mounted, err := isTmpfs(dir); err != nil || mounted {
		return err
	}
	if err := mountTmpfs(dir, size, 0o777); err != nil {
		return err
	}
	return v.open(dir)
}

// open lets every container write. The umask has narrowed what MkdirAll made.
func (v volumes) open(dir string) error {
	if err := os.Chmod(dir, 0o777); err != nil {
		return fmt.Errorf("cannot open emptyDir to its containers: %w", err)
	}
	return v.own(dir, 0o660)
}

// mountPayload writes a volume made of API objects; all but ConfigMaps may hold secrets and are kept off the disk.
func (v volumes) mountPayload(volume *corev1.Volume, content payload) error {
	dir := v.path(volume)
	if volume.ConfigMap == nil {
		if err := mountTmpfs(dir, 0, 0o755); err != nil {
			return err
		}
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot make the volume's directory: %w", err)
	}
	_, err := writePayload(dir, content, func(dir string) error { return v.own(dir, 0o440) })
	return err
}

// own gives what is below dir to the pod's fsGroup, as the kubelet does: the group gets what files allow in add, directories
// pass the group on.
func (v volumes) own(dir string, add fs.FileMode) error {
	sc := v.pod.Spec.SecurityContext
	if sc == nil || sc.FSGroup == nil {
		return nil
	}
	group := int(*sc.FSGroup)
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("cannot give %s to fsGroup %d: %w", path, group, err)
		}
		if err := os.Lchown(path, -1, group); err != nil {
			return fmt.Errorf("cannot give %s to fsGroup %d: %w", path, group, err)
		}
		if d.Type()&fs.ModeSymlink != 0 {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return fmt.Errorf("cannot give %s to fsGroup %d: %w", path, group, err)
		}
		mode := info.Mode().Perm() | add
		if d.IsDir() {
			mode |= fs.ModeSetgid | 0o110
		}
		if err := os.Chmod(path, mode); err != nil {
			return fmt.Errorf("cannot give %s to fsGroup %d: %w", path, group, err)
		}
		return nil
	})
}

func (v volumes) byName(name string) *corev1.Volume {
	for i := range v.pod.Spec.Volumes {
		if v.pod.Spec.Volumes[i].Name == name {
			return &v.pod.Spec.Volumes[i]
		}
	}
	return nil
}
