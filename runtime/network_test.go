package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

const envInside = "PICKET_TEST_INSIDE"

// inside runs the test in a process with a network and a mount tree of its own, in which it may do what it likes to a host: all
// of it ends with the process. The mount tree is shared, as systemd makes it. In the test's own process it returns false.
func inside(t *testing.T) bool {
	t.Helper()
	if os.Getenv(envInside) != "" {
		if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
			t.Fatal(err)
		}
		run(t, "ip", "link", "set", "lo", "up")
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), envInside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	output, err := cmd.CombinedOutput()
	if err != nil || testing.Verbose() {
		t.Logf("%s", output)
	}
	if err != nil {
		t.Fatal(err)
	}
	return false
}

func run(t testing.TB, command string, args ...string) string {
	t.Helper()
	output, err := exec.Command(command, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", command, args, err, output)
	}
	return string(output)
}

// netHost is a runtime that only makes pods, not containers.
type netHost struct {
	*runtime.Runtime
	t      testing.TB
	config runtime.Config
	// plugins is a directory of CNI plugins that note how they are called, in calls.
	plugins, calls string
}

func newNetHost(t testing.TB) *netHost {
	t.Helper()
	dir := t.TempDir()
	h := &netHost{t: t, plugins: filepath.Join(dir, "plugins"), calls: filepath.Join(dir, "calls"), config: runtime.Config{
		Address: filepath.Join(dir, "none.sock"), Namespace: "net-test", RunDir: filepath.Join(dir, "run"), DataDir: filepath.Join(dir, "data"),
		PodCIDR: "10.91.7.0/24", Log: slog.New(slog.NewTextHandler(logTo{t}, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}}
	h.config.CNIBin = []string{filepath.Join(dir, "nothing"), h.plugins}
	if err := os.Mkdir(h.plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, plugin := range []string{"bridge", "host-local", "portmap"} {
		h.plugin(plugin, fmt.Sprintf("echo %s $CNI_COMMAND >> %s\nexec %s", plugin, h.calls, realPlugin(t, plugin)))
	}
	t.Cleanup(func() { // the directory can only be removed when nothing is mounted in it
		for _, m := range runtimetest.Mounts(h.config.RunDir) {
			_ = unix.Unmount(m, unix.MNT_DETACH)
		}
	})
	h.open()
	return h
}

func realPlugin(t testing.TB, name string) string {
	for _, dir := range []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"} {
		if path := filepath.Join(dir, name); isFile(path) {
			return path
		}
	}
	t.Fatalf("cannot find CNI plugin %s (scripts/install-deps.sh installs it)", name)
	return ""
}

// plugin makes a CNI plugin of a shell script.
func (h *netHost) plugin(name, script string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.plugins, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		h.t.Fatal(err)
	}
}

// called returns which plugins were called since the last time, and how.
func (h *netHost) called() []string {
	h.t.Helper()
	data, err := os.ReadFile(h.calls)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		h.t.Fatal(err)
	}
	_ = os.Remove(h.calls)
	return slices.Collect(strings.Lines(string(data)))
}

func (h *netHost) open() {
	h.t.Helper()
	r, err := runtime.New(h.config)
	if err != nil {
		h.t.Fatal(err)
	}
	h.Runtime = r
	h.t.Cleanup(func() { _ = r.Close() })
}

func (h *netHost) reopen() {
	h.t.Helper()
	if err := h.Close(); err != nil {
		h.t.Fatal(err)
	}
	h.open()
}

func aPod() runtime.PodConfig {
	uid := uuid.NewString()
	return runtime.PodConfig{UID: uid, Namespace: "default", Name: "web", Hostname: "web-" + uid[:5]}
}

// setUp returns the pod's address.
func (h *netHost) setUp(p runtime.PodConfig) string {
	h.t.Helper()
	s, err := h.SetUpPod(h.t.Context(), p)
	if err != nil {
		h.t.Fatal(err)
	}
	if s.UID != p.UID || len(s.IPs) != 1 || !strings.HasPrefix(s.IPs[0], "10.91.7.") {
		h.t.Fatalf("%+v", s)
	}
	return s.IPs[0]
}

func (h *netHost) tearDown(uid string) {
	h.t.Helper()
	if err := h.TearDownPod(h.t.Context(), runtime.PodConfig{UID: uid}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *netHost) path(uid, file string) string {
	return filepath.Join(h.config.RunDir, "pods", uid, file)
}

// leases are the addresses that are taken.
func (h *netHost) leases() []string {
	h.t.Helper()
	files, err := filepath.Glob(filepath.Join(h.config.DataDir, "cni", "picket-*", "*"))
	if err != nil {
		h.t.Fatal(err)
	}
	var list []string
	for _, f := range files {
		if name := filepath.Base(f); net.ParseIP(name) != nil {
			list = append(list, name)
		}
	}
	return list
}

// traces is all that pods leave on a host.
func (h *netHost) traces() string {
	h.t.Helper()
	var rules []string
	for line := range strings.Lines(run(h.t, "iptables-save") + run(h.t, "ip6tables-save")) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ":") { // times, and counters
			rules = append(rules, line)
		}
	}
	var links []string
	for line := range strings.Lines(run(h.t, "ip", "-o", "link")) {
		links = append(links, strings.Fields(line)[1])
	}
	cache, _ := filepath.Glob(filepath.Join(h.config.DataDir, "cni", "cache", "results", "*"))
	dirs, _ := filepath.Glob(h.path("*", "*"))
	uids, err := h.PodUIDs(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	mounts := runtimetest.Mounts(h.config.RunDir)
	return fmt.Sprintf("%s\n%v\n%v\n%v\n%v\n%v\n%v", strings.Join(rules, ""), links, h.leases(), cache, dirs, uids, mounts)
}

// warmUp makes what stays of the first pod: the bridge and portmap's common chains.
func (h *netHost) warmUp() {
	h.t.Helper()
	p := aPod()
	p.Ports = []runtime.PortMapping{{HostPort: 9999, ContainerPort: 9, Protocol: "tcp"}}
	h.setUp(p)
	h.tearDown(p.UID)
	h.called()
}

// in runs f in a network namespace; sockets that it opens stay there.
func in(t testing.TB, netns string, f func() error) {
	t.Helper()
	err := runtime.OnThreadOfItsOwn(func() error {
		fd, err := unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, 0); err != nil {
			return err
		}
		return f()
	})
	if err != nil {
		t.Error(err)
	}
}

// serve answers with a word on an address inside a pod, until the listener is closed or the test ends.
func serve(t testing.TB, netns, address, word string) (l net.Listener) {
	t.Helper()
	in(t, netns, func() (err error) {
		l, err = net.Listen("tcp", address)
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, word)
				c.Close()
			}
		}()
		return nil
	})
	return l
}

// ask returns what is answered at an address.
func ask(address string) (string, error) {
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	data, err := io.ReadAll(c)
	return string(data), err
}

func expect(address, word string) error {
	if got, err := ask(address); err != nil || got != word {
		return fmt.Errorf("%s: %q, %w", address, got, err)
	}
	return nil
}

const ownNetwork = "/proc/thread-self/ns/net"

// Pods have addresses at which they reach each other and the host reaches them, keep them over an agent's restart without a
// plugin being run, and leave nothing.
func TestPodNetwork(t *testing.T) {
	if !inside(t) {
		return
	}
	h := newNetHost(t)
	h.warmUp()
	before := h.traces()
	a, b := aPod(), aPod()
	addressA, addressB := h.setUp(a), h.setUp(b)
	if addressA == addressB {
		t.Fatalf("both pods have %s", addressA)
	}
	serve(t, h.path(b.UID, "net"), ":80", "b")
	serve(t, h.path(a.UID, "net"), "127.0.0.1:80", "loopback")
	serve(t, ownNetwork, "10.91.7.1:80", "host")
	in(t, h.path(a.UID, "net"), func() error {
		return errors.Join(expect(addressB+":80", "b"), expect("127.0.0.1:80", "loopback"), expect("10.91.7.1:80", "host"))
	})
	in(t, ownNetwork, func() error { return expect(addressB+":80", "b") })
	h.called()
	for range 2 {
		if again := h.setUp(a); again != addressA {
			t.Errorf("%s became %s", addressA, again)
		}
		h.reopen()
	}
	if calls := h.called(); len(calls) != 0 {
		t.Errorf("plugins were called for pods that are set up: %v", calls)
	}
	uids, err := h.PodUIDs(t.Context())
	if want := []string{a.UID, b.UID}; err != nil || len(uids) != 2 || !slices.Contains(want, uids[0]) || !slices.Contains(want, uids[1]) {
		t.Errorf("%v, %v", uids, err)
	}
	for range 2 {
		h.tearDown(a.UID)
		h.tearDown(b.UID)
	}
	if after := h.traces(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// A pod's namespaces are its own, with its name; what it shares with the host is not made.
func TestPodNamespaces(t *testing.T) {
	if !inside(t) {
		return
	}
	h := newNetHost(t)
	h.config.CNIBin = nil // pods on the host's network need no plugin
	h.reopen()
	for _, c := range []struct {
		name                 string
		hostNetwork, hostIPC bool
		made                 []string
	}{
		{"hostNetwork", true, false, []string{"ipc", "shm"}},
		{"hostNetwork and hostIPC", true, true, nil},
	} {
		p := aPod()
		p.HostNetwork, p.HostIPC = c.hostNetwork, c.hostIPC
		for range 2 {
			s, err := h.SetUpPod(t.Context(), p)
			if err != nil || len(s.IPs) != 0 {
				t.Fatalf("%s: %+v, %v", c.name, s, err)
			}
		}
		files, _ := filepath.Glob(h.path(p.UID, "*"))
		var made []string
		for _, f := range files {
			made = append(made, filepath.Base(f))
		}
		if mounts := runtimetest.Mounts(h.path(p.UID, "")); !slices.Equal(made, c.made) || len(mounts) != len(c.made) {
			t.Errorf("%s: %v, mounted %v", c.name, made, mounts)
		}
		if uids, _ := h.PodUIDs(t.Context()); !slices.Equal(uids, []string{p.UID}) {
			t.Errorf("%s: %v", c.name, uids)
		}
		h.tearDown(p.UID)
		if uids, _ := h.PodUIDs(t.Context()); len(uids) != 0 {
			t.Errorf("%s: left %v", c.name, uids)
		}
	}
	for _, uid := range []string{"", ".", "..", "../x", "a/b"} {
		_, err := h.SetUpPod(t.Context(), runtime.PodConfig{UID: uid, HostNetwork: true})
		want(t, err, runtime.ErrConfig)
		want(t, h.TearDownPod(t.Context(), runtime.PodConfig{UID: uid}), runtime.ErrConfig)
	}
}

// The host's port leads to the pod from the host itself and from other pods, until the pod is gone. A crash in the middle of
// publishing leaves nothing either.
func TestHostPort(t *testing.T) {
	if !inside(t) {
		return
	}
	h := newNetHost(t)
	h.warmUp()
	before := h.traces()
	p, other := aPod(), aPod()
	p.Ports = []runtime.PortMapping{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp", HostIP: "0.0.0.0"}, {HostPort: 8081, ContainerPort: 81, Protocol: "udp"}}
	h.setUp(p)
	serve(t, h.path(p.UID, "net"), ":80", "web")
	h.setUp(other)
	in(t, ownNetwork, func() error { return errors.Join(expect("127.0.0.1:8080", "web"), expect("10.91.7.1:8080", "web")) })
	in(t, h.path(other.UID, "net"), func() error { return expect("10.91.7.1:8080", "web") })
	in(t, h.path(p.UID, "net"), func() error { return expect("10.91.7.1:8080", "web") }) // round the hairpin
	rival := aPod()
	rival.Ports = []runtime.PortMapping{{HostPort: 8081, ContainerPort: 81, Protocol: "udp", HostIP: "10.91.7.1"}}
	if _, err := h.SetUpPod(t.Context(), rival); err == nil || !strings.Contains(err.Error(), "8081/udp is taken") {
		t.Errorf("a port that another pod has: %v", err)
	}
	h.called()
	h.setUp(p)
	if calls := h.called(); len(calls) != 0 {
		t.Errorf("published again: %v", calls)
	}
	h.tearDown(p.UID)
	h.setUp(rival)
	h.tearDown(rival.UID)
	in(t, ownNetwork, func() error {
		if got, err := ask("127.0.0.1:8080"); err == nil {
			return fmt.Errorf("a port that nobody has any more answers %q", got)
		}
		return nil
	})
	h.setUp(p)
	for _, file := range must(filepath.Glob(filepath.Join(h.config.DataDir, "cni", "cache", "results", "*-ports-"+p.UID+"-eth0"))) {
		if err := os.Remove(file); err != nil { // as if libcni had not come so far
			t.Fatal(err)
		}
	}
	h.reopen()
	h.tearDown(p.UID)
	h.tearDown(other.UID)
	if after := h.traces(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// A pod that was set up without its ports publishes them when the one before it has given them back; both stay on the network.
func TestHostPortChangesHands(t *testing.T) {
	if !inside(t) {
		return
	}
	h := newNetHost(t)
	h.warmUp()
	before := h.traces()
	old, next := aPod(), aPod()
	old.Ports = []runtime.PortMapping{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}}
	h.setUp(old)
	h.setUp(next)
	serve(t, h.path(old.UID, "net"), ":80", "old")
	serve(t, h.path(next.UID, "net"), ":80", "next")
	next.Ports = old.Ports
	if _, err := h.SetUpPod(t.Context(), next); err == nil || !strings.Contains(err.Error(), "8080/tcp is taken") {
		t.Errorf("a port that another pod has: %v", err)
	}
	in(t, ownNetwork, func() error { return expect("127.0.0.1:8080", "old") })
	h.called()
	for range 2 { // what is free stays free
		if err := h.UnpublishPorts(t.Context(), old); err != nil {
			t.Fatal(err)
		}
	}
	h.setUp(next)
	in(t, ownNetwork, func() error { return expect("127.0.0.1:8080", "next") })
	in(t, h.path(next.UID, "net"), func() error { return expect("10.91.7.1:8080", "next") })
	h.tearDown(old.UID)
	in(t, ownNetwork, func() error { return expect("127.0.0.1:8080", "next") })
	h.tearDown(next.UID)
	if after := h.traces(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// After a reboot the namespaces, the bridge and the rules are gone; the files on disk say that addresses are taken.
func TestPodsAfterReboot(t *testing.T) {
	if !inside(t) {
		return
	}
	h := newNetHost(t)
	back, lost := aPod(), aPod()
	lost.Ports = []runtime.PortMapping{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}}
	h.setUp(back)
	h.setUp(lost)
	forgotten := aPod()
	address := h.setUp(forgotten)
	for _, file := range must(filepath.Glob(filepath.Join(h.config.DataDir, "cni", "cache", "results", "*"+forgotten.UID+"*"))) {
		if err := os.Remove(file); err != nil { // the agent was killed before libcni took note
			t.Fatal(err)
		}
	}
	if !slices.Contains(h.leases(), address) {
		t.Fatal("no lease to be lost")
	}
	h.reboot()
	// A run directory on a disk keeps the files that were mounted on.
	for _, file := range []string{"net", "ipc", "uts"} {
		if err := errors.Join(os.MkdirAll(h.path(back.UID, ""), 0o700), os.WriteFile(h.path(back.UID, file), nil, 0o400)); err != nil {
			t.Fatal(err)
		}
	}
	h.open()
	address = h.setUp(back)
	if got := h.leases(); !slices.Equal(got, []string{address}) {
		t.Errorf("taken: %v, want only %s", got, address)
	}
	if left := must(filepath.Glob(filepath.Join(h.config.DataDir, "cni", "cache", "results", "*"))); len(left) != 1 {
		t.Errorf("remembered: %v", left)
	}
	serve(t, h.path(back.UID, "net"), ":80", "back")
	in(t, ownNetwork, func() error { return expect(address+":80", "back") })
	h.tearDown(lost.UID)
	h.tearDown(back.UID)
	if got := h.leases(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

// reboot takes away what no disk keeps.
func (h *netHost) reboot() {
	h.t.Helper()
	if err := h.Close(); err != nil {
		h.t.Fatal(err)
	}
	for _, m := range runtimetest.Mounts(h.config.RunDir) {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			h.t.Fatal(err)
		}
	}
	for line := range strings.Lines(run(h.t, "ip", "-o", "link")) {
		if name := strings.TrimSuffix(strings.Fields(line)[1], ":"); strings.HasPrefix(name, "picket") {
			run(h.t, "ip", "link", "del", name)
		}
	}
	run(h.t, "iptables", "-t", "nat", "-F")
	run(h.t, "iptables", "-t", "nat", "-X")
}

// A pod whose namespace somebody unmounted leaves nothing either, and can be set up anew.
func TestLostNamespace(t *testing.T) {
	if !inside(t) {
		return
	}
	h := newNetHost(t)
	h.warmUp()
	before := h.traces()
	p := aPod()
	p.Ports = []runtime.PortMapping{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}}
	for range 2 {
		h.setUp(p)
		run(t, "umount", h.path(p.UID, "net"))
	}
	h.setUp(p)
	l := serve(t, h.path(p.UID, "net"), ":80", "web")
	in(t, ownNetwork, func() error { return expect("127.0.0.1:8080", "web") })
	l.Close() // like a process it would keep the namespace
	run(t, "umount", h.path(p.UID, "net"))
	h.tearDown(p.UID)
	after := h.traces()
	for deadline := time.Now().Add(10 * time.Second); after != before && time.Now().Before(deadline); after = h.traces() {
		time.Sleep(10 * time.Millisecond) // the kernel takes its time to remove the interface of a namespace that is gone
	}
	if after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// An agent that is killed at any moment leaves nothing that the next one does not find, and no pod that it cannot set up.
func TestKilledAtAnyMoment(t *testing.T) {
	if os.Getenv(envChurn) != "" {
		churn(t)
		return
	}
	if !inside(t) {
		return
	}
	h := newNetHost(t)
	h.warmUp()
	for _, plugin := range []string{"bridge", "portmap"} { // slow ones outlive the agent that called them
		h.plugin(plugin, "[ $CNI_COMMAND = DEL ] || sleep 0.05\nexec "+realPlugin(t, plugin))
	}
	before := h.traces()
	for round := range 12 {
		if err := h.Close(); err != nil { // two agents at a time are kept apart
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledAtAnyMoment$", "-test.v")
		cmd.Env = append(os.Environ(), envChurn+"="+h.config.RunDir+":"+h.config.DataDir+":"+h.plugins)
		output := must(cmd.StdoutPipe())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for uid := ""; uid == ""; { // the pod that it begins with
			var line [64]byte
			n, err := output.Read(line[:])
			if err != nil {
				t.Fatal(err)
			}
			_, uid, _ = strings.Cut(string(line[:n]), "churn ")
		}
		time.Sleep(time.Duration(15*round) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		h.open()
		uids := must(h.PodUIDs(t.Context()))
		for i, uid := range uids {
			if i%2 == round%2 {
				p := aPod()
				p.UID, p.Ports = uid, churnPorts
				h.setUp(p)
			}
			h.tearDown(uid)
		}
		p := aPod() // the first pod of an agent gives back what was lost
		h.setUp(p)
		h.tearDown(p.UID)
		if after := h.traces(); after != before {
			t.Fatalf("round %d, before:\n%s\nafter:\n%s", round, before, after)
		}
	}
}

const envChurn = "PICKET_TEST_CHURN"

var churnPorts = []runtime.PortMapping{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}}

// churn sets up pods and tears them down until it is killed.
func churn(t *testing.T) {
	dirs := strings.Split(os.Getenv(envChurn), ":")
	h := &netHost{t: t, config: runtime.Config{
		Address: dirs[0] + "/none.sock", Namespace: "net-test", RunDir: dirs[0], DataDir: dirs[1], CNIBin: dirs[2:], PodCIDR: "10.91.7.0/24",
	}}
	h.open()
	for {
		p := aPod()
		p.Ports = churnPorts
		fmt.Println("churn", p.UID)
		h.setUp(p)
		h.tearDown(p.UID)
	}
}

func TestNetworkTrouble(t *testing.T) {
	if !inside(t) {
		return
	}
	h := newNetHost(t)
	h.config.PodCIDR = "10.91.7.0/29" // five pods and the bridge
	h.reopen()
	h.warmUp()
	fails := func(says ...string) {
		t.Helper()
		p := aPod()
		_, err := h.SetUpPod(t.Context(), p)
		for _, s := range says {
			if err == nil || !strings.Contains(err.Error(), s) {
				t.Errorf("%v, want %q", err, s)
			}
		}
		h.tearDown(p.UID)
	}
	var pods []runtime.PodConfig
	for range 5 {
		p := aPod()
		h.setUp(p)
		pods = append(pods, p)
	}
	full := h.traces()
	fails("addresses", "runtime.podCIDR 10.91.7.0/29")
	if after := h.traces(); after != full {
		t.Errorf("before:\n%s\nafter:\n%s", full, after)
	}
	h.tearDown(pods[0].UID)
	h.setUp(pods[0])

	h.called()
	h.plugin("portmap", "echo portmap $CNI_COMMAND >> "+h.calls+"\n[ $CNI_COMMAND = DEL ] || { echo '{\"cniVersion\":\"1.0.0\",\"code\":100,\"msg\":\"no luck\"}'; exit 1; }")
	pods[0].Ports = []runtime.PortMapping{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}}
	_, err := h.SetUpPod(t.Context(), pods[0])
	if calls := h.called(); err == nil || !strings.Contains(err.Error(), "no luck") || !slices.Equal(calls, []string{"portmap ADD\n", "portmap DEL\n"}) {
		t.Errorf("%v, %v", err, calls)
	}
	for _, p := range pods {
		h.tearDown(p.UID)
	}
	if err := os.Remove(filepath.Join(h.plugins, "host-local")); err != nil {
		t.Fatal(err)
	}
	p := aPod()
	_, err = h.SetUpPod(t.Context(), p)
	for _, s := range []string{"host-local", h.plugins, "containernetworking-plugins"} {
		if err == nil || !strings.Contains(err.Error(), s) {
			t.Errorf("%v, want %q", err, s)
		}
	}
	h.config.PodCIDR = "nonsense"
	h.reopen()
	fails("runtime.podCIDR")
}

// A configuration of the host's own is used: the first file of a directory. Its portmap runs apart from the rest.
func TestConfiguredNetwork(t *testing.T) {
	if !inside(t) {
		return
	}
	h := newNetHost(t)
	dir := t.TempDir()
	conf := func(file, name, more string) {
		content := fmt.Sprintf(`{"cniVersion": "0.4.0", "name": %q, "plugins": [
			{"type": "bridge", "bridge": "br-%s", "isGateway": true, "ipam": {"type": "host-local", "dataDir": %q, "subnet": "10.91.7.0/24"}}%s]}`,
			name, name, filepath.Join(dir, "ipam"), more)
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	conf("20-second.conflist", "second", "")
	conf("10-first.conflist", "first", `, {"type": "portmap", "capabilities": {"portMappings": true}, "snat": false}`)
	h.config.CNIConf = dir
	h.reopen()
	p := aPod()
	p.Ports = []runtime.PortMapping{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}}
	h.setUp(p)
	if calls := h.called(); !slices.Equal(calls, []string{"bridge ADD\n", "host-local ADD\n", "portmap ADD\n"}) {
		t.Errorf("%v", calls)
	}
	if links := run(t, "ip", "-o", "link"); !strings.Contains(links, "br-first") || strings.Contains(links, "br-second") {
		t.Errorf("%s", links)
	}
	serve(t, h.path(p.UID, "net"), ":80", "web")
	in(t, ownNetwork, func() error { return expect("10.91.7.1:8080", "web") })
	// What a pod was attached with is what it is detached with.
	h.config.CNIConf = filepath.Join(dir, "20-second.conflist")
	h.reopen()
	h.tearDown(p.UID)
	if leases := must(filepath.Glob(filepath.Join(dir, "ipam", "*", "10.*"))); len(leases) != 0 {
		t.Errorf("left: %v", leases)
	}
	h.setUp(p) // without a portmap in the file there is the usual one
	if calls := h.called(); !slices.Contains(calls, "portmap ADD\n") {
		t.Errorf("%v", calls)
	}
	h.tearDown(p.UID)
	h.config.CNIConf = filepath.Join(dir, "none")
	h.reopen()
	if _, err := h.SetUpPod(t.Context(), p); err == nil || !strings.Contains(err.Error(), "runtime.cniConf") {
		t.Errorf("%v", err)
	}
}

// Neither containers that see the host's files nor services with a mount tree of their own hold on to pods that are gone.
func TestPodsMountsStayHere(t *testing.T) {
	if !inside(t) {
		return
	}
	h := newNetHost(t)
	p := aPod()
	h.setUp(p)
	view := t.TempDir()
	if err := unix.Mount(filepath.Dir(h.config.RunDir), view, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(view, unix.MNT_DETACH) }()
	if mounts := runtimetest.Mounts(view); len(mounts) != 1 { // itself
		t.Errorf("a hostPath holds on to %v", mounts)
	}
	ctx, cancel := context.WithCancel(t.Context())
	service := exec.CommandContext(ctx, "unshare", "--mount", "--propagation", "slave", "sh", "-c", "echo ready; exec sleep 1000")
	output := must(service.StdoutPipe())
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = service.Wait()
	}()
	if _, err := io.ReadFull(output, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	mounts := func() string {
		return string(must(os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", service.Process.Pid))))
	}
	if !strings.Contains(mounts(), p.UID) {
		t.Error("the service's mount tree is no copy of the host's: nothing is tested")
	}
	h.tearDown(p.UID)
	if strings.Contains(mounts(), p.UID) {
		t.Errorf("a service holds on to a pod's mounts:\n%s", mounts())
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// What a start pays for its pod, and its end.
func BenchmarkSetUpPod(b *testing.B) {
	for name, hostNetwork := range map[string]bool{"hostNetwork": true, "bridge": false} {
		b.Run(name, func(b *testing.B) {
			h := newNetHost(b)
			if !hostNetwork && os.Getenv(envInside) == "" {
				b.Skip("only in a network of its own: unshare -nm env " + envInside + "=1 go test -bench SetUpPod")
			}
			h.config.CNIBin = []string{"/usr/lib/cni", "/opt/cni/bin"}
			h.reopen()
			for b.Loop() {
				p := aPod()
				p.HostNetwork = hostNetwork
				if _, err := h.SetUpPod(b.Context(), p); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				h.tearDown(p.UID)
				b.StartTimer()
			}
		})
	}
}
