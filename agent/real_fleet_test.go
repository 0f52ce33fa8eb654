package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/picketd/picket/scripts/lab"
)

// realFleet is a lab of real hosts, with kubectl's commands through any of them.
type realFleet struct {
	*lab.Lab
	t testing.TB
}

// newRealFleet starts n hosts; more may be there that are not started yet.
func newRealFleet(t testing.TB, n, more int, options lab.Options) *realFleet {
	t.Helper()
	share(t)
	options.Binaries = shared.binaries
	l, err := lab.New("", n+more, options)
	if err != nil {
		t.Fatal(err)
	}
	f := &realFleet{Lab: l, t: t}
	t.Cleanup(func() {
		if t.Failed() {
			for _, h := range l.Hosts {
				t.Logf("%s:\n%s", h.Name, tail(h.Log(), 30))
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	errs := make(chan error, n)
	for _, h := range l.Hosts[:n] {
		go func() { errs <- h.Start(t.Context()) }()
	}
	for range n {
		f.must(<-errs)
	}
	f.eventually("all hosts are Ready everywhere", func() bool { return f.ready(l.Hosts[:n], n) })
	return f
}

func tail(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func (f *realFleet) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// picket runs a command through a host and returns its output.
func (f *realFleet) picket(h *lab.Host, stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	cmd := h.Picket(ctx, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("picket %s on %s: %w: %s", strings.Join(args, " "), h.Name, err, exit.Stderr)
	}
	return string(out), err
}

func (f *realFleet) run(h *lab.Host, stdin string, args ...string) string {
	f.t.Helper()
	out, err := f.picket(h, stdin, args...)
	f.must(err)
	return out
}

func (f *realFleet) eventually(what string, ok func() bool) {
	f.t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			f.t.Fatalf("did not come about: %s", what)
		}
		<-tick.C
	}
}

// ready says whether every one of the hosts shows n nodes, all Ready.
func (f *realFleet) ready(hosts []*lab.Host, n int) bool {
	return !slices.ContainsFunc(hosts, func(h *lab.Host) bool {
		out, err := f.picket(h, "", "get", "nodes", "-o", `jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{" "}{end}`)
		return err != nil || strings.TrimSpace(strings.Repeat("True ", n)) != strings.TrimSpace(out)
	})
}

// running are the names of the hosts, "-" and the pods that host h shows as running for the DaemonSet web.
func (f *realFleet) pods(h *lab.Host) []string {
	out, err := f.picket(h, "", "get", "pods", "-o", `jsonpath={range .items[?(@.status.phase=="Running")]}{.spec.nodeName}/{.metadata.name}{"\n"}{end}`)
	if err != nil {
		return nil
	}
	return strings.Fields(out)
}

func runsOn(pods []string, host string) bool {
	return slices.ContainsFunc(pods, func(p string) bool { return strings.HasPrefix(p, host+"/") })
}

const fleetWeb = `apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: busybox
        imagePullPolicy: IfNotPresent
        command: [sh, -c, "trap 'exit 0' TERM; echo web on $NODE; while true; do sleep 0.1; done"]
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
`

// Any door answers for all: what is asked of one host is told of the others.
func TestRealFleetAnyDoor(t *testing.T) {
	f := newRealFleet(t, 3, 0, lab.Options{})
	one, two, three := f.Hosts[0], f.Hosts[1], f.Hosts[2]
	f.run(one, fleetWeb, "apply", "-f", "-")
	f.run(two, "", "rollout", "status", "daemonset/web", "--timeout=60s")
	f.eventually("all pods are shown by all", func() bool {
		return !slices.ContainsFunc(f.Hosts, func(h *lab.Host) bool { return len(f.pods(h)) != 3 })
	})
	ds := strings.Fields(f.run(three, "", "get", "daemonset", "web", "--no-headers"))
	if got := strings.Join(ds[:6], " "); got != "web 3 3 3 3 3" {
		t.Errorf("get ds says %q", got)
	}
	var remote string
	for _, p := range f.pods(one) {
		if host, name, _ := strings.Cut(p, "/"); host == "host-03" {
			remote = name
		}
	}
	if out := f.run(one, "", "logs", remote); !strings.Contains(out, "web on host-03") {
		t.Errorf("logs through another host: %q", out)
	}
	if out := f.run(two, "", "exec", remote, "--", "sh", "-c", "echo in $NODE"); !strings.Contains(out, "in host-03") {
		t.Errorf("exec through another host: %q", out)
	}
	if _, err := f.picket(two, "", "exec", remote, "--", "sh", "-c", "exit 7"); err == nil || !strings.Contains(err.Error(), "exit code 7") {
		t.Errorf("a command that fails elsewhere: %v", err)
	}
	describe := f.run(one, "", "describe", "pod", remote)
	for _, want := range []string{"Node:", "host-03", "Started container", "Container ID:"} {
		if !strings.Contains(describe, want) {
			t.Errorf("describe of a pod elsewhere lacks %q:\n%s", want, describe)
		}
	}
	f.run(one, "", "label", "node", "host-03", "role=edge")
	f.run(two, "", "cordon", "host-03")
	f.eventually("the third host shows its own label and cordon", func() bool {
		out := f.run(three, "", "get", "node", "host-03", "-o", "jsonpath={.metadata.labels.role} {.spec.unschedulable}")
		return out == "edge true"
	})
	f.run(one, "", "delete", "pod", remote) // waits until it is gone
	f.run(one, "", "taint", "node", "host-03", "gone=yes:NoExecute")
	f.eventually("it runs on two hosts", func() bool { return len(f.pods(two)) == 2 })

	// A large object reaches all; one that is too large is refused with its size and the limit.
	large := filepath.Join(t.TempDir(), "large")
	f.must(os.WriteFile(large, bytes.Repeat([]byte("x"), 1_000_000), 0o600))
	f.run(one, "", "create", "configmap", "large", "--from-file", large)
	f.eventually("all have the large ConfigMap", func() bool {
		return !slices.ContainsFunc(f.Hosts, func(h *lab.Host) bool {
			out, err := f.picket(h, "", "get", "configmap", "large", "-o", "jsonpath={.data.large}")
			return err != nil || len(out) != 1_000_000
		})
	})
	f.must(os.WriteFile(large, bytes.Repeat([]byte("x"), 1<<20+1), 0o600))
	if _, err := f.picket(one, "", "create", "configmap", "larger", "--from-file", large); err == nil || !strings.Contains(err.Error(), "it has 1048577 bytes, may not be more than 1048576 bytes") {
		t.Errorf("a ConfigMap that is too large: %v", err)
	}

	// A host that is deleted stops its pods; the others refuse it until it is admitted.
	f.run(one, "", "delete", "node", "host-02")
	f.eventually("its pods stop", func() bool { return len(f.pods(one)) == 1 && !runsOn(f.pods(two), "host-02") })
	if _, err := f.picket(two, fleetWeb, "apply", "-f", "-"); err != nil {
		t.Logf("a deleted host says: %v", err)
	}
	f.run(three, "", "admit", "host-02")
	f.eventually("it is back", func() bool { return f.ready(f.Hosts, 3) && len(f.pods(one)) == 2 })

	// A host that leaves stops its pods and ends.
	f.run(two, "", "leave")
	<-two.Ended()
	if code := two.ExitCode(); code != 0 {
		t.Errorf("picketd ended with %d", code)
	}
	f.eventually("the others do not miss it", func() bool { return f.ready([]*lab.Host{one, three}, 2) && len(f.pods(one)) == 1 })
	f.must(two.Start(t.Context()))
	f.eventually("it comes back when it is started", func() bool { return f.ready(f.Hosts, 3) && len(f.pods(one)) == 2 })
	if out := f.run(one, "", "get", "daemonsets", "--no-headers"); strings.Join(strings.Fields(out)[:6], " ") != "web 2 2 2 2 2" {
		t.Errorf("get ds says %q", out)
	}
}
