package main

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestDiagnosis(t *testing.T) {
	running := t.TempDir()
	for pid, comm := range map[string]string{"1": "systemd", "77": "picketd", "self": "picketd"} {
		if err := os.MkdirAll(filepath.Join(running, pid), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(running, pid, "comm"), []byte(comm+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, proc string
		err        error
		want       []string
	}{
		{"nothing there", t.TempDir(), fs.ErrNotExist, []string{"no socket /s", "does not run", "systemctl start picketd"}},
		{"another socket", running, fs.ErrNotExist, []string{"no socket /s", "process 77", "--socket"}},
		{"dead", t.TempDir(), syscall.ECONNREFUSED, []string{"nobody answers on /s", "does not run", "journalctl -u picketd"}},
		{"starting", running, syscall.ECONNREFUSED, []string{"nobody answers on /s", "process 77"}},
		{"not allowed", running, fs.ErrPermission, []string{"may not open /s", "group picket", "sudo"}},
	} {
		message := diagnosis{proc: c.proc}.explain("/s", &net.OpError{Op: "dial", Err: c.err}).Error()
		for _, want := range c.want {
			if !strings.Contains(message, want) {
				t.Errorf("%s: %q does not say %q", c.name, message, want)
			}
		}
	}
}

func TestRenamed(t *testing.T) {
	for text, want := range map[string]string{
		"kubectl get pods":                      "picket get pods",
		"  kubectl apply -f - | kubectl diff":   "  picket apply -f - | picket diff",
		`See "kubectl api-resources".`:          `See "picket api-resources".`,
		"This is kubectl. It is":                "This is picket. It is",
		"kubectl":                               "picket",
		"kubectl.kubernetes.io/restartedAt":     "kubectl.kubernetes.io/restartedAt",
		"manager kubectl-client-side-apply":     "manager kubectl-client-side-apply",
		"https://k.io/docs/reference/kubectl/x": "https://k.io/docs/reference/kubectl/x",
	} {
		if got := renamed(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}
