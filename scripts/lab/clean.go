package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/picketd/picket/runtime/runtimetest"
)

const (
	// temporary is the pattern of New's directories in the system's temporary one; unlocked is what they are called until they
	// are locked.
	temporary = "picket-lab-"
	unlocked  = "new-picket-lab-"
	// endWithin is how long killed processes may take to end, and a cgroup to be empty.
	endWithin = 10 * time.Second
)

// Clean removes what a lab in dir has left behind whose process was killed. A lab that is in use is an error; no lab is none.
func Clean(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return unlinkHome(dir)
	}
	lock, err := take(dir)
	if err != nil {
		return err
	}
	if err := raze(dir); err != nil {
		return errors.Join(err, lock.Close())
	}
	return release(lock, dir)
}

// Owner is the process that a lab in dir belongs to, if there is one.
func Owner(dir string) (pid int, ok bool) {
	f, err := os.Open(filepath.Join(dir, "lock"))
	if err != nil {
		return 0, false
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return 0, false
	}
	_, err = fmt.Fscan(f, &pid)
	return pid, err == nil
}

// hold makes dir, or a new temporary directory, and takes the lock that says that it is in use, as long as this process lives.
func hold(dir string) (lock *os.File, held string, err error) {
	if dir == "" {
		return holdTemporary()
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, "", err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, "", err
	}
	lock, err = take(dir)
	return lock, dir, err
}

func holdTemporary() (lock *os.File, dir string, err error) {
	free, err := os.MkdirTemp("", unlocked)
	if err != nil {
		return nil, "", err
	}
	if lock, err = take(free); err != nil {
		return nil, "", err
	}
	dir = filepath.Join(filepath.Dir(free), temporary+filepath.Base(free)[len(unlocked):])
	if err := os.Rename(free, dir); err != nil {
		return nil, "", errors.Join(err, lock.Close())
	}
	return lock, dir, nil
}

// take locks a directory.
func take(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid, _ := Owner(dir)
		return nil, errors.Join(fmt.Errorf("the lab in %s is in use by process %d", dir, pid), f.Close())
	}
	ours, err := f.Stat()
	if there, gone := os.Stat(path); err != nil || gone != nil || !os.SameFile(ours, there) {
		return nil, errors.Join(fmt.Errorf("the lab in %s was taken away just now: try again", dir), err, f.Close())
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	_, err = fmt.Fprintln(f, os.Getpid())
	return f, err
}

// release removes a lab's directory, in which nothing is mounted, and its lock.
func release(lock *os.File, dir string) error { return errors.Join(os.RemoveAll(dir), lock.Close()) }

// sweep takes away what is left in dir, which is ours, and in temporary directories that nobody holds.
func sweep(dir string) error {
	if err := raze(dir); err != nil {
		return err
	}
	others, _ := filepath.Glob(filepath.Join(os.TempDir(), temporary+"*"))
	for _, other := range others {
		if other != dir {
			_ = Clean(other) // in use, or somebody else's to clean
		}
	}
	return nil
}

// raze removes everything in dir but the lock, and what it has elsewhere.
func raze(dir string) error {
	hosts, _ := filepath.Glob(filepath.Join(dir, "host-*"))
	errs := make([]error, 0, len(hosts)+2)
	for _, host := range hosts {
		errs = append(errs, killLeft(host), powerOff(host, nil))
	}
	errs = append(errs, unlinkHome(dir), unmountBelow(dir))
	if mounts := runtimetest.Mounts(dir); len(mounts) > 0 { // never delete through a mount
		return errors.Join(append(errs, fmt.Errorf("still mounted: %s", mounts))...)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != "lock" {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// killLeft kills a host's agent and containerd that have outlived their lab, as they should not: who runs with that file is ours.
func killLeft(host string) error {
	configs := [][]byte{[]byte(filepath.Join(host, "picketd.yaml")), []byte(filepath.Join(host, "c", "config.toml"))}
	for deadline := time.Now().Add(endWithin); ; time.Sleep(10 * time.Millisecond) {
		left := processesOf(configs)
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v do not end", left)
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone already
		}
	}
}

// processesOf are the agents and containerds that were started with one of the configuration files.
func processesOf(configs [][]byte) []int {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var pids []int
	for _, file := range files {
		cmdline, _ := os.ReadFile(file) // gone: empty
		args := bytes.Split(bytes.TrimSuffix(cmdline, []byte{0}), []byte{0})
		name := filepath.Base(string(args[0]))
		if len(args) != 3 || name != "picketd" && name != "containerd" || string(args[1]) != "--config" {
			continue
		}
		if slices.ContainsFunc(configs, func(c []byte) bool { return bytes.Equal(c, args[2]) }) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// powerOff ends what runs on a host without its agent, and leaves what is on its disk. A nil containerd is one that a process
// started that has died.
func powerOff(host string, containerd *runtimetest.Containerd) error {
	if containerd == nil {
		containerd = runtimetest.Leftover(filepath.Join(host, "c"))
	}
	if err := containerd.Crash(); err != nil {
		return err
	}
	run := filepath.Join(host, "run")
	pods, _ := filepath.Glob(filepath.Join(run, "pods", "*"))
	errs := make([]error, 0, len(pods)+1)
	for _, pod := range pods {
		errs = append(errs, removeCgroup("picket/pod"+filepath.Base(pod)))
	}
	if err := errors.Join(append(errs, unmountBelow(host))...); err != nil {
		return err
	}
	entries, _ := os.ReadDir(run) // none: it has never run
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(run, e.Name())))
	}
	return errors.Join(errs...)
}

func unmountBelow(dir string) error {
	var errs []error
	for _, m := range runtimetest.Mounts(dir) {
		if err := unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			errs = append(errs, fmt.Errorf("cannot unmount %s: %w", m, err))
		}
	}
	return errors.Join(errs...)
}

// removeCgroup removes a pod's cgroup, with those of its containers and what is in them, from every hierarchy.
func removeCgroup(name string) error {
	if _, err := os.Stat("/run/systemd/system"); err == nil { // systemd's driver: runtime.sliceOf
		slice := string(bytes.ReplaceAll(bytes.ReplaceAll([]byte(name), []byte("-"), []byte("_")), []byte("/"), []byte("-"))) + ".slice"
		_ = exec.Command("systemctl", "stop", slice).Run() // there is none on cgroup v1
	}
	for deadline := time.Now().Add(endWithin); ; time.Sleep(5 * time.Millisecond) {
		left := cgroups(name)
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cannot remove the cgroups %s", left)
		}
		for _, dir := range left {
			_ = unix.Rmdir(dir) // busy for a moment after its last process was killed
		}
	}
}

// cgroups are those of a pod and of its containers, which come first, in all hierarchies. What is in them is killed: the processes
// of a container whose shim has died.
func cgroups(name string) []string {
	var found []string
	for _, pattern := range []string{"/*", ""} {
		for _, root := range []string{"/sys/fs/cgroup/*", "/sys/fs/cgroup"} {
			dirs, _ := filepath.Glob(filepath.Join(root, name) + pattern + "/cgroup.procs")
			for _, file := range dirs {
				pids, _ := os.ReadFile(file) // gone: none
				for _, pid := range bytes.Fields(pids) {
					if n, err := strconv.Atoi(string(pid)); err == nil && n > 0 { // 0 is in another PID namespace
						_ = syscall.Kill(n, syscall.SIGKILL) // gone already
					}
				}
				found = append(found, filepath.Dir(file))
			}
		}
	}
	return found
}
