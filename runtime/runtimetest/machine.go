package runtimetest

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// envMachine tells a test that it is inside of the machine; it is an empty directory, in which the machine's disk is made.
	envMachine = "PICKET_TEST_MACHINE"
	// MachineName is the machine's host name.
	MachineName = "machine-01"
	// MachineAddress is the address of the machine's only interface, which leads nowhere.
	MachineAddress = "198.51.100.10"
	// machineTemp is $TMPDIR in there: no overlay, as containerd needs it, and short, as sockets do.
	machineTemp = "/m"
)

// InMachine says whether this test was run by Machine, which it has to call before it does anything.
func InMachine() bool { return os.Getenv(envMachine) != "" }

// Machine runs the calling test again in a throw-away machine, and returns true there. Here it returns false when that is over, and
// has failed the test if it failed there: the caller has nothing left to do. The machine has this one's disk, but writes to memory, its
// own /proc, /run, network, host name and process ids, and the root of its mounts is shared, as systemd has it. Only the kernel, /dev,
// what /sys shows of the hardware, and Go's build cache are the real ones. All of it ends with the test. flags are further ones for the
// test in there.
func Machine(t *testing.T, flags ...string) (inside bool) {
	t.Helper()
	if dir := os.Getenv(envMachine); dir != "" {
		if err := enterMachine(dir); err != nil {
			t.Fatalf("cannot make the machine: %v", err)
		}
		return true
	}
	args := append([]string{"-test.run", "^" + t.Name() + "$", "-test.v"}, flags...)
	if end, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout", time.Until(end).String())
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), envMachine+"="+t.TempDir())
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	goruntime.LockOSThread() // the kernel means this thread by the "parent" of Pdeathsig
	defer goruntime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		t.Errorf("in the machine: %v", err)
	}
	return false
}

// enterMachine makes this process, which has new namespaces, the first one of the machine.
func enterMachine(dir string) error {
	cwd, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("cannot tell the working directory: %w", err)
	}
	disk, err := machineDisk(dir)
	if err == nil {
		err = machineMounts(disk, dir)
	}
	if err == nil {
		err = changeRoot(disk)
	}
	if err == nil {
		err = machineNetwork()
	}
	if err != nil {
		return err
	}
	return errors.Join(os.Unsetenv(envMachine), os.Setenv("TMPDIR", machineTemp), unix.Sethostname([]byte(MachineName)), os.Chdir(cwd))
}

// machineDisk makes a file system that shows what is on the real disk and keeps what is written in memory.
func machineDisk(dir string) (disk string, err error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", fmt.Errorf("cannot keep the mounts apart: %w", err)
	}
	if err := mountAt(dir, "tmpfs", "mode=755"); err != nil {
		return "", err
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"disk", "written", "work", "temp"} {
		if err := os.Mkdir(at(name), 0o755); err != nil {
			return "", fmt.Errorf("cannot make the machine's disk: %w", err)
		}
	}
	err = mountAt(at("disk"), "overlay", fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s", at("written"), at("work")))
	if err != nil {
		return "", err
	}
	return at("disk"), bind(at("temp"), filepath.Join(at("disk"), machineTemp), 0)
}

// machineMounts mounts what every machine has, and other disks of this one, which cannot be written to.
func machineMounts(disk, dir string) error {
	at := func(name string) string { return filepath.Join(disk, name) }
	err := errors.Join(
		mountAt(at("proc"), "proc", ""), mountAt(at("sys"), "sysfs", ""), mountAt(at("run"), "tmpfs", "mode=755"),
		bind("/sys/fs/cgroup", at("sys/fs/cgroup"), unix.MS_REC), bind("/dev", at("dev"), unix.MS_REC), mountAt(at("dev/shm"), "tmpfs", "mode=1777"),
	)
	if err != nil {
		return err
	}
	if cache := goCache(); cache != "" {
		if err := bind(cache, at(cache), 0); err != nil {
			return err
		}
	}
	others, err := otherDisks(dir)
	if err != nil {
		return err
	}
	for _, path := range others {
		if err := bind(path, at(path), 0); err != nil {
			return err
		}
		if err := unix.Mount("", at(path), "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("cannot protect %s: %w", path, err)
		}
	}
	return nil
}

// goCache is the directory of Go's build cache, "" if there is none. It is the real one: go sets the times of what it finds there, and in
// an overlay that copies it.
func goCache() string {
	dir := os.Getenv("GOCACHE")
	if user, err := os.UserCacheDir(); dir == "" && err == nil {
		dir = filepath.Join(user, "go-build")
	}
	if _, err := os.Stat(dir); err != nil {
		return ""
	}
	return dir
}

// otherDisks lists where something is mounted that is neither the root nor what machineMounts makes anew, parents first.
func otherDisks(dir string) (paths []string, err error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("cannot read the mounts: %w", err)
	}
	defer f.Close()
	anew := []string{"/proc", "/sys", "/dev", "/run", "/tmp", dir}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		path := strings.Fields(lines.Text())[4]
		if path == "/" || slices.ContainsFunc(anew, func(a string) bool { return path == a || strings.HasPrefix(path, a+"/") }) {
			continue
		}
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return slices.Compact(paths), nil
}

func mountAt(path, kind, options string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("cannot make a mount point: %w", err)
	}
	if err := unix.Mount(kind, path, kind, 0, options); err != nil {
		return fmt.Errorf("cannot mount %s at %s: %w", kind, path, err)
	}
	return nil
}

func bind(from, to string, flags uintptr) error {
	info, err := os.Stat(from)
	if err != nil {
		return fmt.Errorf("cannot bind: %w", err)
	}
	if _, err := os.Stat(to); errors.Is(err, fs.ErrNotExist) && info.IsDir() {
		if err := os.MkdirAll(to, 0o755); err != nil {
			return fmt.Errorf("cannot make a mount point: %w", err)
		}
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND|flags, ""); err != nil {
		return fmt.Errorf("cannot bind %s to %s: %w", from, to, err)
	}
	return nil
}

// changeRoot moves every thread of the process to a new root, and lets go of the old one.
func changeRoot(root string) error {
	if err := os.Chdir(root); err != nil {
		return fmt.Errorf("cannot go to the new root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil { // pivot_root(2): the old one is on top of the new one then
		return fmt.Errorf("cannot change the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("cannot let go of the old root: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("cannot share the root: %w", err)
	}
	return nil
}

// machineNetwork gives the machine an address; the other end of its cable hangs beside it.
func machineNetwork() error {
	for _, command := range []string{
		"link set lo up", "link add eth0 type veth peer name nowhere", "addr add " + MachineAddress + "/24 dev eth0", "link set eth0 up",
		"link set nowhere up", "route add default via 198.51.100.1",
	} {
		cmd := exec.Command("ip", strings.Fields(command)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", command, err, out)
		}
	}
	return nil
}
