package agent

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/picketd/picket/runtime/runtimetest"
)

// The host goes down: every process ends, /run is empty, the disk stays. It comes up without network, registry or anybody to ask,
// and runs what it ran.
func TestRealReboot(t *testing.T) {
	own := runtimetest.StartContainerd(t)
	h := newRealHost(t)
	h.cfg.Runtime.Address, h.ownContainerd = own.Address, own
	agent := h.launch()
	sets := h.clientset().AppsV1().DaemonSets("default")
	for name, hostNetwork := range map[string]bool{"host": true, "bridge": false} {
		ds := busyDaemon(name, "busybox", "") // :latest, so Always: the registry would be asked
		ds.Spec.Template.Spec.HostNetwork = hostNetwork
		if _, err := sets.Create(t.Context(), ds, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	h.settled(h.clientset())
	before := h.pids()

	agent.signal(syscall.SIGKILL)
	if err := own.Kill(); err != nil {
		t.Fatal(err)
	}
	ended := own.Shims()
	for _, pid := range before {
		ended = append(ended, pid)
	}
	for _, pid := range ended {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	h.eventually("all processes have ended", func() bool {
		for _, pid := range ended {
			if runtimetest.Alive(pid) {
				return false
			}
		}
		return true
	})
	for _, dir := range []string{h.cfg.RunDir, filepath.Join(own.Dir, "state")} {
		for _, mount := range runtimetest.Mounts(dir) {
			if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	h.removeRules()
	h.removeBridge()
	// A registry that is not there: nobody listens on the discard port.
	nowhere := "server = \"http://127.0.0.1:9\"\n[host.\"http://127.0.0.1:9\"]\n"
	if err := os.WriteFile(filepath.Join(h.cfg.Runtime.HostsDir, "docker.io", "hosts.toml"), []byte(nowhere), 0o600); err != nil {
		t.Fatal(err)
	}

	if err := own.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.launch()
	h.settled(h.clientset())
	after := h.pids()
	for id := range after {
		if _, same := before[id]; same || !strings.Contains(id, "-c-1") {
			t.Errorf("container %s is not the attempt after the one that ended", id)
		}
	}
	pods := strings.Fields(h.kubectl().Run("", "get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[0].restartCount} {.items[*].status.containerStatuses[0].lastState.terminated.reason}"))
	if strings.Join(pods, " ") != "1 1 Unknown Unknown" {
		t.Errorf("restarts and reasons: %v", pods)
	}
}

// removeRules removes the masquerading rules of the host's pods: a reboot leaves none.
func (h *realHost) removeRules() {
	h.t.Helper()
	rules, err := exec.Command("iptables-save", "-t", "nat").Output()
	if err != nil {
		h.t.Fatal(err)
	}
	for line := range strings.Lines(string(rules)) {
		rule, found := strings.CutPrefix(strings.TrimSpace(line), "-A POSTROUTING ")
		if !found || !strings.Contains(rule, h.cfg.runtimeConfig(h.cfg.Logger).BridgeName()) {
			continue
		}
		chain := rule[strings.LastIndexByte(rule, ' ')+1:]
		script := "iptables -t nat -D POSTROUTING " + rule + " && iptables -t nat -F " + chain + " && iptables -t nat -X " + chain
		if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
			h.t.Fatalf("cannot remove a rule: %v %s", err, out)
		}
	}
}
