package runtimetest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// temporary is the pattern of StartTemporary's directories.
const temporary = "pkt-"

// Close ends everything that containerd ran, containerd itself, and removes Dir with what is mounted in it. It goes on after
// an error: what could not be done in order is done by force.
func (c *Containerd) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	errs := []error{c.removeContainers(ctx), c.Stop(), c.killShims(), c.removeSockets()}
	removeCgroups(c.cgroups)
	errs = append(errs, unmountUnder(c.Dir))
	if mounts := mountsUnder(c.Dir); len(mounts) > 0 { // never delete through a mount
		return errors.Join(append(errs, fmt.Errorf("still mounted: %s", mounts))...)
	}
	if c.lock != nil {
		defer c.lock.Close()
	}
	return errors.Join(append(errs, os.RemoveAll(c.Dir))...)
}

// removeContainers removes the containers of every namespace through containerd.
func (c *Containerd) removeContainers(ctx context.Context) error {
	if c.cmd == nil {
		if err := c.Restart(ctx); err != nil {
			return err
		}
	}
	cl, err := c.Client("default")
	if err != nil {
		return err
	}
	defer func() { _ = cl.Close() }()
	all, err := cl.NamespaceService().List(ctx)
	if err != nil {
		return fmt.Errorf("cannot list containerd's namespaces: %w", err)
	}
	var errs []error
	for _, ns := range all {
		ctx := namespaces.WithNamespace(ctx, ns)
		list, err := cl.Containers(ctx)
		errs = append(errs, err)
		for _, ctr := range list {
			errs = append(errs, c.removeContainer(ctx, ctr))
		}
		_ = os.Remove(filepath.Join("/run/containerd/runc", ns)) // runc's, outside of Dir; one that is used stays
	}
	return errors.Join(errs...)
}

func (c *Containerd) removeContainer(ctx context.Context, ctr client.Container) error {
	if info, err := ctr.Info(ctx, client.WithoutRefreshedMetadata); err == nil && info.Spec != nil {
		var spec specs.Spec
		if json.Unmarshal(info.Spec.GetValue(), &spec) == nil && spec.Linux != nil && strings.HasPrefix(spec.Linux.CgroupsPath, "/") {
			c.cgroups[filepath.Dir(spec.Linux.CgroupsPath)] = true
		}
	}
	if task, err := ctr.Task(ctx, nil); err == nil {
		// A dead shim answers nothing; the container goes all the same.
		if _, err := task.Delete(ctx, client.WithProcessKill); err != nil {
			_ = err
		}
	}
	if err := ctr.Delete(ctx, client.WithSnapshotCleanup); err != nil {
		return fmt.Errorf("cannot remove container %s: %w", ctr.ID(), err)
	}
	return nil
}

// Shims lists the processes that keep this containerd's containers.
func (c *Containerd) Shims() []int { return shimsOf(c.Address) }

func shimsOf(address string) []int {
	var pids []int
	for _, pid := range processes() {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // gone: empty
		args := strings.Split(string(cmdline), "\x00")
		if strings.HasPrefix(filepath.Base(args[0]), "containerd-shim") && slices.Contains(args, address) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func processes() []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Children lists the processes whose parent is pid: of a shim, its containers' first processes and the log writers.
func Children(pid int) []int {
	var found []int
	for _, p := range processes() {
		if parentOf(p) == pid {
			found = append(found, p)
		}
	}
	return found
}

// Alive says whether a process is there and no zombie.
func Alive(pid int) bool {
	state := statOf(pid)[0]
	return state != "" && state != "Z" && state != "X"
}

func parentOf(pid int) int {
	parent, _ := strconv.Atoi(statOf(pid)[1])
	return parent
}

// statOf is a process's state and parent, both empty when it is gone.
func statOf(pid int) [2]string {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(stat), ") ") // the name before may contain anything
	if fields := strings.Fields(rest); len(fields) > 1 {
		return [2]string{fields[0], fields[1]}
	}
	return [2]string{}
}

// killShims kills the shims that are left, and before them what they keep; orphans of what was killed come to the shim.
func (c *Containerd) killShims() error {
	deadline := time.Now().Add(stopTimeout)
	for {
		shims := c.Shims()
		if len(shims) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("shims do not end: %v", shims)
		}
		for _, shim := range shims {
			children := Children(shim)
			for _, p := range children {
				_ = syscall.Kill(p, syscall.SIGKILL) // gone already
			}
			if len(children) == 0 {
				_ = syscall.Kill(shim, syscall.SIGKILL)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// removeSockets removes the sockets of shims that were killed: containerd keeps them outside its own directories.
func (c *Containerd) removeSockets() error {
	var errs []error
	for _, name := range []string{"address", "bootstrap.json"} {
		files, _ := filepath.Glob(filepath.Join(c.Dir, "state/io.containerd.runtime.v2.task/*/*", name))
		for _, file := range files {
			data, _ := os.ReadFile(file)
			_, path, found := strings.Cut(string(data), "unix://")
			path, _, _ = strings.Cut(path, `"`)
			if err := os.Remove(path); found && err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, fmt.Errorf("cannot remove a shim's socket: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}

// removeCgroups removes pods' cgroups that are empty, in every hierarchy.
func removeCgroups(parents map[string]bool) {
	for parent := range parents {
		for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
			dirs, _ := filepath.Glob(filepath.Join(root, parent))
			for _, dir := range dirs {
				_ = os.Remove(dir) // one that is used stays
			}
		}
	}
}

// Mounts lists what is mounted at and below dir, the latest first.
func Mounts(dir string) []string { return mountsUnder(dir) }

func mountsUnder(dir string) []string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	var found []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && (fields[4] == dir || strings.HasPrefix(fields[4], dir+"/")) {
			found = append(found, fields[4])
		}
	}
	slices.Reverse(found)
	return found
}

func unmountUnder(dir string) error {
	var errs []error
	for _, point := range mountsUnder(dir) {
		if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			errs = append(errs, fmt.Errorf("cannot unmount %s: %w", point, err))
		}
	}
	return errors.Join(errs...)
}

// sweep ends what a caller of StartTemporary that was killed left behind. Its containerd died with it; containers do not.
func sweep(ctx context.Context) {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), temporary+"*"))
	for _, dir := range dirs {
		lock, err := own(dir, 0)
		if err != nil {
			continue // being made, in use, or not ours
		}
		c, err := Start(ctx, dir)
		if err != nil {
			c = &Containerd{Dir: dir, Address: filepath.Join(dir, "c.sock")}
			_ = c.killShims()
			_ = unmountUnder(dir)
		} else {
			_ = c.Close()
		}
		lock.Close()
	}
}

// own takes the lock that says that dir is in use, as long as this process lives. flag is os.O_CREATE for a new dir.
func own(dir string, flag int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "owner"), os.O_RDWR|flag, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot lock %s: %w", f.Name(), err)
	}
	return f, nil
}
