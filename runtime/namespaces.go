package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// shmSize is the size of a pod's /dev/shm, as a kubelet's pods have it.
const shmSize = 64 << 20

// namespace is one kind of those that a pod's containers share.
type namespace struct {
	kind string // its name under /proc/<pid>/ns
	flag int
	path string // where it is mounted
}

// podNamespaces are those that the pod does not share with the host.
func (r *Runtime) podNamespaces(p PodConfig) []namespace {
	net, ipc, uts, _ := r.namespacePaths(p.UID)
	var list []namespace
	if !p.HostNetwork { // who is on the host's network has the host's name
		list = append(list, namespace{"net", unix.CLONE_NEWNET, net}, namespace{"uts", unix.CLONE_NEWUTS, uts})
	}
	if !p.HostIPC {
		list = append(list, namespace{"ipc", unix.CLONE_NEWIPC, ipc})
	}
	return list
}

// makeNamespaces makes those of the pod's namespaces that are not there: all of them for a new pod, and after a reboot, when only
// the plain files are left that they were mounted on. It needs no process to keep them: the mounts do.
func (r *Runtime) makeNamespaces(p PodConfig) error {
	if err := r.mountPodsDir(); err != nil {
		return err
	}
	_, _, _, shm := r.namespacePaths(p.UID)
	if err := os.MkdirAll(filepath.Dir(shm), 0o700); err != nil {
		return fmt.Errorf("cannot make the pod's directory: %w", err)
	}
	var missing []namespace
	for _, n := range r.podNamespaces(p) {
		if isNamespace(n.path) != nil {
			missing = append(missing, n)
		}
	}
	if len(missing) > 0 {
		if err := onThreadOfItsOwn(func() error { return unshare(missing, p.Hostname) }); err != nil {
			return fmt.Errorf("cannot make the pod's namespaces: %w", err)
		}
	}
	if p.HostIPC || isMountPoint(shm) {
		return nil
	}
	return mountTmpfs("shm", shm, 0o1777, shmSize)
}

// onThreadOfItsOwn runs f on a thread that ends with it, so that what f does to its thread happens to nothing else.
func onThreadOfItsOwn(f func() error) error {
	result := make(chan error, 1)
	go func() {
		goruntime.LockOSThread() // never unlocked: a goroutine that ends so takes the thread with it
		if unix.Gettid() == unix.Getpid() {
			// The first thread never ends, and it is what /proc/self shows. While it is held here f gets another.
			defer goruntime.UnlockOSThread()
			result <- onThreadOfItsOwn(f)
			return
		}
		result <- f()
	}()
	return <-result
}

// unshare moves the thread into new namespaces and mounts these.
func unshare(list []namespace, hostname string) error {
	flags := 0
	for _, n := range list {
		flags |= n.flag
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if flags&unix.CLONE_NEWUTS != 0 && hostname != "" {
		if err := unix.Sethostname([]byte(hostname)); err != nil {
			return fmt.Errorf("cannot set hostname %q: %w", hostname, err)
		}
	}
	if flags&unix.CLONE_NEWNET != 0 {
		if err := setLoopbackUp(); err != nil {
			return err
		}
	}
	for _, n := range list {
		f, err := os.OpenFile(n.path, os.O_RDONLY|os.O_CREATE, 0o400)
		if err != nil {
			return fmt.Errorf("cannot make a file to mount on: %w", err)
		}
		f.Close()
		if err := unix.Mount("/proc/thread-self/ns/"+n.kind, n.path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cannot mount the %s namespace: %w", n.kind, err)
		}
	}
	return nil
}

func setLoopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open a socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("cannot set lo up: %w", err)
	}
	return nil
}

// removeNamespaces unmounts and removes all that makeNamespaces made for a pod. A namespace lives on while a process is in it.
func (r *Runtime) removeNamespaces(podUID string) error {
	net, ipc, uts, shm := r.namespacePaths(podUID)
	var errs []error
	for _, path := range []string{net, ipc, uts, shm, r.pidNamespacePath(podUID)} {
		errs = append(errs, unmount(path), removeFile(path))
	}
	errs = append(errs, removeFile(r.portsNote(podUID)), removeFile(filepath.Dir(net)))
	return errors.Join(errs...)
}

// unmount takes away all mounts on a path, or none.
func unmount(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch {
		case err == nil:
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT): // not a mount point, not there
			return nil
		default:
			return fmt.Errorf("cannot unmount %s: %w", path, err)
		}
	}
}

// removeFile removes a file or an empty directory, never a tree: something might still be mounted in it.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot clean up: %w", err)
	}
	return nil
}

// PodUIDs lists the pods of which something is left on this host besides containers.
func (r *Runtime) PodUIDs(context.Context) ([]string, error) {
	entries, err := os.ReadDir(r.podsDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot list pods: %w", err)
	}
	uids := r.known.reapers()
	for _, e := range entries {
		if e.IsDir() && !slices.Contains(uids, e.Name()) {
			uids = append(uids, e.Name())
		}
	}
	return uids, nil
}
