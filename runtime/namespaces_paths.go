package runtime

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// podsDirSize bounds the files in the pods' directory, most of them empty.
const podsDirSize = 16 << 20

func (r *Runtime) podsDir() string { return filepath.Join(r.cfg.RunDir, "pods") }

// namespacePaths are where a pod's namespaces are mounted, and its /dev/shm.
func (r *Runtime) namespacePaths(podUID string) (net, ipc, uts, shm string) {
	dir := filepath.Join(r.podsDir(), podUID)
	return filepath.Join(dir, "net"), filepath.Join(dir, "ipc"), filepath.Join(dir, "uts"), filepath.Join(dir, "shm")
}

// checkUID refuses what would lead out of the pods' directory.
func checkUID(uid string) error {
	if uid == "" || uid == "." || uid == ".." || filepath.Base(uid) != uid {
		return fmt.Errorf("%w: %q cannot be a pod's uid", ErrConfig, uid)
	}
	return nil
}

// mountPodsDir prepares the directory of the pods' mounts, once per boot. What is mounted in it must stay nowhere else when a pod
// goes: neither in containers that have a hostPath of / or /run (node-exporter, log shippers), which would hold on to other pods'
// networks and /dev/shm until they end, nor in the mount namespaces that systemd gives to services. Hence two mounts: the lower
// one cannot be bind-mounted, so a recursive bind of anything above leaves all of it out; the upper one is shared, so what is
// unmounted here is unmounted in every copy of the host's mount tree, too. (One mount cannot be both.)
func (r *Runtime) mountPodsDir() error {
	r.network.mounting.Lock()
	defer r.network.mounting.Unlock()
	dir := r.podsDir()
	if isMountPoint(dir) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the pods' directory: %w", err)
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot mount the pods' directory: %w", err)
	}
	if err := unix.Mount("", dir, "", unix.MS_UNBINDABLE, ""); err != nil {
		return fmt.Errorf("cannot make the pods' directory unbindable: %w", err)
	}
	if err := mountTmpfs("picket", dir, 0o711, podsDirSize); err != nil {
		return err
	}
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("cannot share the pods' directory: %w", err)
	}
	return nil
}

func mountTmpfs(name, path string, mode os.FileMode, size int) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("cannot make a directory to mount on: %w", err)
	}
	if err := unix.Mount(name, path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, fmt.Sprintf("mode=%o,size=%d", mode, size)); err != nil {
		return fmt.Errorf("cannot mount a tmpfs on %s: %w", path, err)
	}
	return nil
}

// isMountPoint says whether another file system begins at a path.
func isMountPoint(path string) bool {
	var here, above unix.Stat_t
	if unix.Lstat(path, &here) != nil || unix.Lstat(filepath.Dir(path), &above) != nil {
		return false
	}
	return here.Dev != above.Dev
}
