package runtime

import (
	"errors"
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

// pidNamespacePath is where a pod's process namespace is mounted, of a pod that has one.
func (r *Runtime) pidNamespacePath(podUID string) string {
	return filepath.Join(r.podsDir(), podUID, "pid")
}

// checkUID refuses what would lead out of the pods' directory.
func checkUID(uid string) error {
	if uid == "" || uid == "." || uid == ".." || filepath.Base(uid) != uid {
		return fmt.Errorf("%w: %q cannot be a pod's uid", ErrConfig, uid)
	}
	return nil
}

// mountPodsDir prepares the directory of the pods' mounts, once per boot. It is a file system of its own that cannot be bound:
// containers that have a hostPath of / or /run (node-exporter, log shippers) do not get to see what is mounted in it, and so do
// not hold on to other pods' networks and /dev/shm until they end themselves. Services to which systemd gives a copy of the
// host's mount tree do get it; there a pod's mounts go when the files that they are mounted on are removed here, as the kernel
// has it since 3.18.
func (r *Runtime) mountPodsDir() error {
	r.network.mounting.Lock()
	defer r.network.mounting.Unlock()
	dir := r.podsDir()
	if isMountPoint(dir) {
		return nil
	}
	if err := mountTmpfs("picket", dir, 0o711, podsDirSize); err != nil {
		return err
	}
	if err := unix.Mount("", dir, "", unix.MS_UNBINDABLE, ""); err != nil {
		return errors.Join(fmt.Errorf("cannot make the pods' directory unbindable: %w", err), unmount(dir))
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
