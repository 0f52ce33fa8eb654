package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/picketd/picket/runtime/runtimetest"
)

var binaries string

func TestMain(m *testing.M) {
	if dir := os.Getenv("PICKET_LAB_VICTIM"); dir != "" {
		victim(dir)
	}
	var err error
	if binaries, err = os.MkdirTemp("", "picket-bin"); err == nil {
		err = Build(binaries)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(binaries)
	os.Exit(code)
}

// fixture is a lab that ends with the test.
type fixture struct {
	*Lab
	t *testing.T
}

func newLab(t *testing.T, n int) fixture {
	t.Helper()
	l, err := New("", n, Options{Binaries: binaries, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && l.Hosts[0].agent != nil {
			for _, h := range l.Hosts {
				t.Logf("%s:\n%s", h.Name, h.lastWords())
			}
		}
		if err := l.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
	return fixture{l, t}
}

func (f fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f fixture) picket(h *Host, args ...string) string {
	f.t.Helper()
	out, err := h.Picket(f.t.Context(), args...).CombinedOutput()
	if err != nil {
		f.t.Fatalf("picket %s: %v: %s", args, err, out)
	}
	return string(out)
}

func (f fixture) eventually(what string, condition func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatal("in vain: " + what)
		}
	}
}

// restarts is how often the pod hello of a host was restarted; "" when it does not run.
func (f fixture) restarts(h *Host) string {
	const path = `jsonpath={.items[?(@.status.phase=="Running")].status.containerStatuses[?(@.ready)].restartCount}`
	out, _ := h.Picket(f.t.Context(), "get", "pods", "--field-selector=spec.nodeName="+h.Name, "-l", "app=hello", "-o", path).Output()
	return string(out)
}

// Two hosts run what one of them was told, a power cut ends all of it, the host boots with what its disk holds, and in the end nothing
// is left of it.
func TestHosts(t *testing.T) {
	f := newLab(t, 2)
	one, two := f.Hosts[0], f.Hosts[1]
	f.must(f.Start(t.Context()))
	f.must(f.Meet(t.Context()))
	f.picket(one, "apply", "-f", "../../configs/examples/hello.yaml")
	for _, h := range f.Hosts {
		f.eventually("hello runs on "+h.Name, func() bool { return f.restarts(h) == "0" })
	}
	t.Run("networks", f.networks)

	shims := one.containerd.Shims()
	if len(shims) == 0 {
		t.Fatal("no pod runs")
	}
	for _, pid := range shims {
		shims = append(shims, runtimetest.Children(pid)...)
	}
	pid := one.PID()
	f.must(f.Cut(two, one))
	f.must(one.Crash())
	for _, p := range append(shims, pid) {
		if runtimetest.Alive(p) {
			t.Errorf("process %d has survived a power cut", p)
		}
	}
	if left, _ := os.ReadDir(one.runDir()); len(left) > 0 || one.PID() != 0 {
		t.Errorf("after a power cut there is %v in memory, and a picketd %d", left, one.PID())
	}
	f.must(one.Start(t.Context()))
	f.eventually("hello runs again", func() bool { return f.restarts(one) == "1" })
	if f.reaches(two, one) {
		t.Error("a boot has mended the wire")
	}
	f.must(f.Heal())
	if !f.reaches(two, one) {
		t.Error("a mended wire does not carry")
	}

	f.must(two.Kill())
	if code := two.ExitCode(); code != -1 {
		t.Errorf("killed, picketd ended with %d", code)
	}
	f.must(two.Restart(t.Context()))
	if got := f.restarts(two); got != "0" {
		t.Errorf("with its agent killed, hello has restarted %q times", got)
	}
	f.picket(one, "taint", "node", two.Name, "kept=free:NoExecute")
	f.eventually("its pod goes", func() bool {
		return strings.HasPrefix(f.picket(two, "get", "pods", "--field-selector=spec.nodeName="+two.Name), "No resources")
	})
	f.leavesNothing(f.Close)
}

// networks: a host's own address, the machine's way to kubectl, the agent's metrics.
func (f fixture) networks(t *testing.T) {
	one := f.Hosts[0]
	metrics, err := one.Metrics(t.Context())
	if err != nil || !strings.Contains(metrics, "picket_") {
		t.Errorf("metrics: %v: %.200s", err, metrics)
	}
	out, err := one.Picket(t.Context(), "--kubeconfig", one.Kubeconfig, "get", "nodes", "-o", "jsonpath={.items[?(@.metadata.name==\"host-01\")].status.addresses[0].address}").CombinedOutput()
	if err != nil || string(out) != one.Address.String() {
		t.Errorf("over TCP from outside: %v: %s, want %s", err, out, one.Address)
	}
	var names []string
	f.must(one.Inside(func() error {
		all, err := net.Interfaces()
		for _, i := range all {
			names = append(names, i.Name)
		}
		return err
	}))
	if !slices.Contains(names, "eth0") || slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "picket-lab-") }) {
		t.Errorf("the host's interfaces: %s", names)
	}
}

// reaches tells whether a connection can be made.
func (f fixture) reaches(from, to *Host) bool {
	patience := 10 * time.Second
	if rules, err := to.rules(); err != nil || len(rules) > 0 {
		patience = 300 * time.Millisecond // nothing is expected; the kernel tries again after a second
	}
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", to.at(portMetrics))
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// victim is a process that runs a lab until it is killed.
func victim(dir string) {
	l, err := New(dir, 1, Options{Binaries: os.Getenv("PICKET_LAB_BINARIES")})
	if err == nil {
		err = l.Start(context.Background())
	}
	fmt.Println("started:", err)
	select {}
}

// A lab whose process was killed is told from one that is in use, and what is left of it goes.
func TestClean(t *testing.T) {
	dir, err := os.MkdirTemp("", "victim-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PICKET_LAB_VICTIM="+dir, "PICKET_LAB_BINARIES="+binaries)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := runtimetest.Launch(cmd, ""); err != nil {
		t.Fatal(err)
	}
	if said, err := bufio.NewReader(out).ReadString('\n'); said != "started: <nil>\n" {
		t.Fatalf("%q %v", said, err)
	}
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := fixture{l, t}
	f.picket(l.Hosts[0], "apply", "-f", "../../configs/examples")
	f.eventually("hello runs", func() bool { return f.restarts(l.Hosts[0]) == "0" })
	if pid, ok := Owner(dir); !ok || pid != cmd.Process.Pid {
		t.Errorf("the lab belongs to %d, not to %d", pid, cmd.Process.Pid)
	}
	if _, err := New(dir, 1, Options{Binaries: binaries}); err == nil {
		t.Error("a lab was made on top of another")
	}
	if err := errors.Join(Clean(dir), l.Close(), l.Hosts[0].Crash()); err == nil {
		t.Error("another's lab was taken away")
	}
	if _, err := l.Hosts[0].get(t.Context(), "/readyz"); err != nil {
		t.Errorf("another's lab was harmed: %v", err)
	}
	for _, pid := range runtimetest.Leftover(l.Hosts[0].containerdDir()).Shims() {
		f.must(syscall.Kill(pid, syscall.SIGKILL)) // and nobody keeps the containers
	}
	f.must(cmd.Process.Kill())
	f.eventually("the lab is nobody's", func() bool { _, ok := Owner(dir); return !ok })
	f.leavesNothing(func() error { return Clean(dir) })
}

// leavesNothing takes the lab away and looks for what it had.
func (f fixture) leavesNothing(takeAway func() error) {
	f.t.Helper()
	var networks []string
	paths, _ := filepath.Glob(filepath.Join(f.netDir(), "*"))
	for _, path := range paths {
		var st syscall.Stat_t
		f.must(syscall.Stat(path, &st))
		networks = append(networks, fmt.Sprintf("net:[%d]", st.Ino))
	}
	pods, _ := filepath.Glob(filepath.Join(f.Dir, "*/run/pods/*"))
	if len(networks) != len(f.Hosts)+1 || len(pods) == 0 {
		f.t.Fatalf("nothing to look for: networks %s, pods %s", networks, pods)
	}
	f.must(takeAway())

	if _, err := os.Stat(f.Dir); err == nil {
		f.t.Error("the directory is left")
	}
	for _, pod := range pods {
		if found, _ := filepath.Glob("/sys/fs/cgroup/*/picket/pod" + filepath.Base(pod)); len(found) > 0 {
			f.t.Errorf("cgroups are left: %s", found)
		}
	}
	for _, h := range f.Hosts {
		if _, err := os.Stat("/run/containerd/runc/" + h.containerdNamespace()); err == nil {
			f.t.Errorf("runc remembers %s", h.Name)
		}
	}
	f.untouched()
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		cmdline, _ := os.ReadFile(p + "/cmdline")
		network, _ := os.Readlink(p + "/ns/net")
		if bytes.Contains(cmdline, []byte(f.Dir)) || slices.Contains(networks, network) {
			f.t.Errorf("process %s is left: %q", p, cmdline)
		}
		mounts, _ := os.ReadFile(p + "/mountinfo")
		for _, network := range append(networks, f.Dir) {
			if bytes.Contains(mounts, []byte(network)) {
				f.t.Errorf("process %s has %s mounted", p, network)
			}
		}
	}
}

// untouched: the network of the machine itself has no trace of the lab.
func (f fixture) untouched() {
	f.t.Helper()
	for _, args := range [][]string{{"iptables-save"}, {"ip", "addr"}, {"ip", "route", "show", "table", "all"}, {"ip", "neigh"}} {
		out, err := exec.Command(tool(args[0]), args[1:]...).CombinedOutput()
		if err != nil {
			f.t.Fatalf("%s: %v: %s", args, err, out)
		}
		network, _, _ := strings.Cut(f.Network.String(), "0/24")
		if strings.Contains(string(out), network) || strings.Contains(string(out), homeMAC(f.Dir).String()) {
			f.t.Errorf("%s shows the lab:\n%s", args, out)
		}
	}
}
