package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/picketd/picket/runtime/runtimetest"
	"github.com/picketd/picket/scripts/lab"
)

// kubectls are the commands that a user may type on a host: picket, and kubectl of the machine, if it has one.
func (f *realFleet) kubectls(h *lab.Host) map[string]func(ctx context.Context, args ...string) *exec.Cmd {
	list := map[string]func(context.Context, ...string) *exec.Cmd{"picket": h.Picket}
	if path, err := exec.LookPath("kubectl"); err == nil {
		list["kubectl"] = func(ctx context.Context, args ...string) *exec.Cmd {
			return exec.CommandContext(ctx, path, append([]string{"--kubeconfig", h.Kubeconfig}, args...)...)
		}
	}
	return list
}

// said is what a command prints, with "exit: " before what it says when it fails. It runs in the host's network.
func (f *realFleet) said(h *lab.Host, cmd *exec.Cmd, out *transcript) string {
	f.t.Helper()
	var failure bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &failure
	err := h.Inside(cmd.Run)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return out.String() + "exit: " + failure.String()
	case err != nil:
		f.t.Fatal(err)
	}
	return out.String()
}

// transcript is what a command has printed so far.
type transcript struct {
	mu   sync.Mutex
	text strings.Builder
}

func (t *transcript) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(b)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// changed is rolloutSet in a version with its change cause, slow enough to be followed.
func changed(dir, version string) string {
	text := rolloutSet(dir, version, `kubernetes.io/change-cause: "version `+version+`"`)
	return strings.Replace(text, "spec:\n", "spec:\n  minReadySeconds: 1\n", 1)
}

// TestRealRolloutTexts: kubectl's own words (SEMANTICS.md 15, 16) for an update, one that is taken back, and a restart.
func TestRealRolloutTexts(t *testing.T) {
	f, dir := newRolloutFleet(t)
	f.run(f.Hosts[0], strings.Replace(probeSet("once", dir), "spec:\n", "spec:\n  updateStrategy: {type: OnDelete}\n", 1), "apply", "-f", "-")
	number := 1 // of the current revision
	for name, command := range f.kubectls(f.Hosts[1]) {
		t.Run(name, func(t *testing.T) {
			run := func(args ...string) string {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				return f.said(f.Hosts[1], command(ctx, args...), &transcript{})
			}
			expect := func(out, pattern string) {
				t.Helper()
				if !regexp.MustCompile(`^(?s:` + pattern + `)$`).MatchString(out) {
					t.Errorf("it says\n%s\nwant\n%s", out, pattern)
				}
			}
			follow := f.follows(command, dir, name)
			expect(follow, `(Waiting for daemon set spec update to be observed\.\.\.\n)+`+
				`(Waiting for daemon set "web" rollout to finish: [0-2] out of 3 new pods have been updated\.\.\.\n)+`+
				`(Waiting for daemon set "web" rollout to finish: [0-2] of 3 updated pods are available\.\.\.\n)*`+
				`daemon set "web" successfully rolled out\n`)
			expect(run("get", "ds", "web", "--no-headers"), `web +3 +3 +3 +3 +3 +<none> +\S+\n`)
			number++
			expect(run("rollout", "history", "ds/web"), fmt.Sprintf(`daemonset\.apps/web *\nREVISION +CHANGE-CAUSE\n.*%d +version %s\n\n`, number, name))
			expect(run("rollout", "history", "ds/web", fmt.Sprint("--revision=", number)), fmt.Sprintf(`daemonset\.apps/web with revision #%d\nPod Template:\n.*version: %s\n.*`, number, name))
			skipped := fmt.Sprintf(`daemonset\.apps/web skipped rollback \(current template already matches revision %d\)\n`, number)
			if name == "kubectl" { // one before 1.34 compares with a template that has creationTimestamp: null; nothing comes of that
				skipped += `|daemonset\.apps/web rolled back\n`
			}
			expect(run("rollout", "undo", "ds/web", fmt.Sprint("--to-revision=", number)), skipped)
			expect(run("rollout", "undo", "ds/web", "--to-revision=99"), `exit: (Warning: [^\n]*\n)?error: unable to find specified revision 99 in history\n`)
			expect(run("rollout", "undo", "ds/web"), `daemonset\.apps/web rolled back\n`)
			number++
			f.rolledOut(f.Hosts[0])
			expect(run("get", "ds", "web", "-o", "jsonpath={.spec.template.metadata.annotations.version}"), `0`)
			expect(run("rollout", "restart", "ds/web"), `daemonset\.apps/web restarted\n`)
			number++
			f.rolledOut(f.Hosts[0])
			expect(run("get", "ds", "web", "-o", `jsonpath={.spec.template.metadata.annotations.kubectl\.kubernetes\.io/restartedAt}`), `20\d\d-.*`)
			expect(run("rollout", "undo", "ds/once"), `exit: (Warning: [^\n]*\n)?error: no last revision to roll back to\n`)
			expect(run("rollout", "status", "ds/once"), `exit: error: rollout status is only available for RollingUpdate strategy type\n`)
			f.run(f.Hosts[0], rolloutSet(dir, "0", ""), "apply", "-f", "-")
			f.run(f.Hosts[0], "", "rollout", "undo", "ds/web", fmt.Sprint("--to-revision=", number-1))
			number++
			f.rolledOut(f.Hosts[0])
		})
	}
	events := f.run(f.Hosts[0], "", "get", "events", "--field-selector", "reason=SuccessfulCreate")
	if !regexp.MustCompile(`Created pod: web-\w+ \(it takes the place of pod web-\w+ of revision \w+, which has ended\)`).MatchString(events) {
		t.Errorf("no pod took another one's place:\n%s", events)
	}
}

// follows applies a version and is what rollout status prints from then on. One agent stands still until the rest waits for it.
func (f *realFleet) follows(command func(context.Context, ...string) *exec.Cmd, dir, version string) string {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	still := f.Hosts[2].PID()
	f.must(syscall.Kill(still, syscall.SIGSTOP))
	f.run(f.Hosts[0], changed(dir, version), "apply", "-f", "-")
	out, said := &transcript{}, make(chan string)
	go func() { said <- f.said(f.Hosts[1], command(ctx, "rollout", "status", "ds/web"), out) }()
	f.eventually("it waits for the one that stands still", func() bool { return strings.Contains(out.String(), "to be observed") })
	f.must(syscall.Kill(still, syscall.SIGCONT))
	for _, h := range f.Hosts {
		_, err := runtimetest.AwaitProbe(ctx, filepath.Join(dir, "web-"+h.Name), 2)
		f.must(err)
	}
	return <-said
}
