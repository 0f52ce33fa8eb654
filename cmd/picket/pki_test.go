package main

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/picketd/picket/agent"
	"github.com/picketd/picket/cluster/pki"
)

// picket runs a command in this process, with nothing to talk to.
func picket(args ...string) (string, error) {
	var out bytes.Buffer
	root := newCommand(genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &out}, func(string) (string, bool) { return "", false })
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetArgs(args)
	err := root.Execute()
	return out.String(), err
}

func mustPicket(t *testing.T, args ...string) {
	t.Helper()
	if out, err := picket(args...); err != nil {
		t.Fatalf("picket %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestPKIRefusesHostileNames(t *testing.T) {
	dir, long := t.TempDir(), strings.Repeat("a", 300)
	mustPicket(t, "pki", "init", "--dir", filepath.Join(dir, "fleet"))
	hostile := []string{"", " ", ".", "..", "../x", "/etc/passwd", "a/b", `a\b`, "a\nb", "a\x00b", "\x1b[31m", "a b", "Host-01", "-a", "a-", long, "hóst", "a\u202eb", "*", "a,", "a,,b", "a,O=picket:admins"}
	for _, name := range hostile {
		to := []string{"--dir", filepath.Join(dir, "fleet"), "--out", filepath.Join(dir, "out")}
		for what, args := range map[string][]string{
			"fleet":   {"pki", "init", "--dir", filepath.Join(dir, "out"), "--cluster=" + name},
			"host":    append([]string{"pki", "host", "--address=10.0.0.1"}, append(to, "--", name)...),
			"address": append([]string{"pki", "host", "host-01", "--address=" + name}, to...),
			"user":    append([]string{"pki", "user", "--role=viewer", "--server=10.0.0.1:9746"}, append(to, "--", name)...),
			"server":  append([]string{"pki", "user", "ana", "--role=viewer", "--server=" + name + ":9746"}, to...),
		} {
			out, err := picket(args...)
			switch {
			case err == nil:
				t.Errorf("%q is the name of a %s: %s", name, what, out)
			case len(err.Error()) > 600 || strings.ContainsAny(err.Error(), "\x00\x1b\u202e"):
				t.Errorf("%q as a %s: an error nobody can read: %q", name, what, err)
			}
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("beside the fleet's directory: %v %v", entries, err)
	}
}

func TestPKIChecks(t *testing.T) {
	for address, good := range map[string]bool{
		"10.0.0.1": true, "fd00::1": true, "host-01.lan": true, "host-01": true, "127.0.0.1": true,
		"10.0.0.1:9746": false, "[fd00::1]:9746": false, "[fd00::1]": false, "0.0.0.0": false, "::": false, "224.0.0.1": false, "10.0.0.300": false, "10.0.0": false, "1": false, "10.0.0.0/24": false, "https://host-01": false,
	} {
		if err := checkAddress(address); (err == nil) != good {
			t.Errorf("address %s: %v", address, err)
		}
	}
	for server, good := range map[string]bool{
		"10.0.0.1:9746": true, "[fd00::1]:9746": true, "host-01.lan:1": true,
		"10.0.0.1": false, "fd00::1:9746": false, ":9746": false, "host:0": false, "host:65536": false, "host:api": false, "0.0.0.0:9746": false, "https://host:9746": false, "host:9746/x": false,
	} {
		if err := checkServer(server); (err == nil) != good {
			t.Errorf("server %s: %v", server, err)
		}
	}
	for user, good := range map[string]bool{
		"ana": true, "ana@example.com": true, "ci+deploy_1": true, strings.Repeat("a", 64): true,
		strings.Repeat("a", 65): false, socketUser: false, "system:masters": false, ".ana": false,
	} {
		if err := checkUser(user); (err == nil) != good {
			t.Errorf("user %s: %v", user, err)
		}
	}
	for node, good := range map[string]bool{"host-01": true, "host-01.lan": true, strings.Repeat("a", 63): true, strings.Repeat("a", 64): false} {
		if err := checkHost(pki.Host{Node: node, Addresses: []string{"10.0.0.1"}}); (err == nil) != good {
			t.Errorf("host %s: %v", node, err)
		}
	}
}

// startAgent runs an agent with the certificates of a directory, on a loopback port, without a containerd; it returns its address.
func startAgent(t *testing.T, certificates, node string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pk") // short: it holds unix sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	cfg := agent.DefaultConfig()
	cfg.Node.Name, cfg.API.PKI, cfg.API.Listen, cfg.Metrics.Listen, cfg.Cluster.Bind = node, certificates, freeAddress(t), freeAddress(t), freeAddress(t)
	cfg.Cluster.GossipKeys = filepath.Join(certificates, pki.FileGossipKeys)
	cfg.DataDir, cfg.RunDir, cfg.Manifests = filepath.Join(dir, "data"), filepath.Join(dir, "run"), filepath.Join(dir, "manifests.d")
	cfg.Runtime.Address, cfg.Runtime.LoggerPath = filepath.Join(dir, "containerd.sock"), filepath.Join(dir, "picket-logger")
	cfg.Runtime.PodLogs, cfg.Runtime.ContainerLogs = filepath.Join(dir, "logs"), filepath.Join(dir, "links")
	cfg.FillIn(node, func(path string) bool { _, err := os.Stat(path); return err == nil })
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- a.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the agent ended with %v", err)
		}
	})
	<-ready
	return cfg.API.Listen
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestPKIServes holds that what the commands make is all that an agent and stock kubectl need.
func TestPKIServes(t *testing.T) {
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("no kubectl here")
	}
	dir := t.TempDir()
	fleet, host := filepath.Join(dir, "fleet"), filepath.Join(dir, "host-07")
	mustPicket(t, "pki", "init", "--dir", fleet, "--cluster", "prod")
	mustPicket(t, "pki", "host", "host-07", "--address", "127.0.0.1", "--dir", fleet, "--out", host)
	server := startAgent(t, host, "host-07")
	run := func(user string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), kubectl, append([]string{"--kubeconfig", filepath.Join(dir, user), "--cache-dir", filepath.Join(dir, "cache")}, args...)...)
		cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	allowed := map[string][]bool{"viewer": {true, false, false}, "operator": {true, true, false}, "admin": {true, true, true}}
	for role, may := range allowed {
		mustPicket(t, "pki", "user", "ana", "--role", role, "--server", server, "--dir", fleet, "--out", filepath.Join(dir, role))
		if out, err := run(role, "auth", "whoami"); err != nil || !strings.Contains(out, "ana") || !strings.Contains(out, "picket:"+role) {
			t.Errorf("%s: %v: %s", role, err, out)
		}
		for i, args := range [][]string{
			{"get", "node", "host-07"},
			{"label", "node", "host-07", "role-" + role + "=yes"},
			{"create", "configmap", "made-by-" + role},
		} {
			if out, err := run(role, args...); (err == nil) != may[i] {
				t.Errorf("%s: kubectl %s: %v: %s", role, strings.Join(args, " "), err, out)
			}
		}
	}

	// Another fleet's user is nobody here, and this host is nobody to that user.
	other := filepath.Join(dir, "other")
	mustPicket(t, "pki", "init", "--dir", other, "--cluster", "prod")
	mustPicket(t, "pki", "user", "ana", "--role", "admin", "--server", server, "--dir", other, "--out", filepath.Join(dir, "stranger"))
	if out, err := run("stranger", "get", "nodes"); err == nil || !strings.Contains(out, "certificate") {
		t.Errorf("a stranger: %v: %s", err, out)
	}

	// A renewed certificate is served from the next connection on.
	before, err := pki.ReadAuthority(fleet)
	if err != nil {
		t.Fatal(err)
	}
	mustPicket(t, "pki", "host", "host-07", "--address", "127.0.0.1", "--dir", fleet, "--out", host, "--force", "--door=false")
	if out, err := run("admin", "get", "nodes"); err != nil {
		t.Errorf("after a renewal: %v: %s", err, out)
	}
	if after, err := pki.ReadAuthority(fleet); err != nil || !bytes.Equal(after.CertificatePEM(), before.CertificatePEM()) {
		t.Errorf("the authority has changed: %v", err)
	}
}
