package agent

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// realWeb is a DaemonSet of the kind the documentation shows: a loop in a shell, its settings from a ConfigMap and a Secret.
const realWeb = `apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {greeting: Hello, page.txt: "first\n"}
---
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData: {password: s3cret}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web, labels: {app: web}}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 5
      nodeSelector: {disktype: ssd}
      containers:
      - name: web
        image: busybox:1
        command: [sh, -c]
        args: ["trap 'exit 0' TERM; echo $(GREETING) from $(NODE) $HOSTNAME; while true; do sleep 0.1; done"]
        env:
        - {name: GREETING, valueFrom: {configMapKeyRef: {name: settings, key: greeting}}}
        - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: login, key: password}}}
        resources: {limits: {memory: 64Mi, cpu: 500m}}
        volumeMounts:
        - {name: settings, mountPath: /settings}
        - {name: login, mountPath: /login, readOnly: true}
        - {name: scratch, mountPath: /scratch}
        - {name: host, mountPath: /host, readOnly: true}
      volumes:
      - {name: settings, configMap: {name: settings}}
      - {name: login, secret: {secretName: login}}
      - {name: scratch, emptyDir: {}}
      - {name: host, hostPath: {path: /etc}}
`

// Every command of the point 9, typed as a user would, against a live agent on a real containerd.
func TestRealKubectl(t *testing.T) {
	h := newRealHost(t)
	h.start()
	k := h.kubectl()
	expect := func(out, pattern string) {
		t.Helper()
		if !regexp.MustCompile("(?m)" + pattern).MatchString(out) {
			t.Errorf("%q is not in\n%s", pattern, out)
		}
	}
	manifest := filepath.Join(h.dir, "web.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(manifest, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Replace(realWeb, "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web}\n", "", 1))

	expect(k.Run("", "wait", "--for=condition=Ready", "node/host-01", "--timeout=60s"), `condition met`)
	expect(k.Run("", "get", "nodes", "-o", "wide"), `^host-01 +Ready .*containerd://`)
	expect(k.Run("", "apply", "-f", manifest), `^daemonset.apps/web created`)
	expect(k.Run("", "rollout", "status", "ds/web", "--timeout=60s"), `daemon set "web" successfully rolled out`)
	expect(k.Run("", "wait", "--for=condition=Available", "ds/web", "--timeout=60s"), `condition met`)
	expect(k.Run("", "apply", "-f", manifest), `^daemonset.apps/web unchanged`)
	expect(k.Run("", "get", "ds", "-o", "wide"), `^web +1 +1 +1 +1 +1 +disktype=ssd +\S+ +web +busybox:1 +app=web`)
	expect(k.Run("", "get", "pods", "-o", "wide"), `^web-\w+ +1/1 +Running +0 +\S+ +10\.90\.\d+\.\d+ +host-01`)
	expect(k.Run("", "describe", "ds", "web"), `Number of Nodes Scheduled with Available Pods: 1`)
	pod := strings.TrimSpace(k.Run("", "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"))
	expect(k.Run("", "describe", "pod", pod), `Normal +Started .*Started container web`)
	expect(k.Run("", "describe", "node", "host-01"), `default +web-`)
	expect(k.Run("", "get", "events"), `SuccessfulCreate`)

	h.eventually("the container has greeted", func() bool {
		return strings.HasPrefix(k.Run("", "logs", "ds/web"), "Hello from host-01 "+pod+"\n")
	})
	expect(k.Run("", "logs", pod, "--tail=1", "--timestamps"), `^\d{4}-\d\d-\d\dT\S+ Hello from`)
	expect(k.Run("", "logs", pod, "--since=1h"), `^Hello`)
	for command, want := range map[string]string{
		"cat /settings/page.txt": "first",
		"cat /login/password":    "s3cret",
		"sh -c 'echo $PASSWORD'": "s3cret",
		"cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max": "67108864",
		"sh -c 'echo x >/scratch/y && cat /scratch/y'":                              "x",
		"sh -c 'echo x >/host/picket-test || echo no'":                              "no",
		"ls /host/hostname": "/host/hostname",
	} {
		r := k.Try("", append([]string{"exec", pod, "--"}, shellWords(command)...)...)
		if !strings.Contains(r.Out, want) {
			t.Errorf("%s: %q, %s", command, r.Out, r.Err)
		}
	}
	if r := k.Try("", "exec", pod, "--", "sh", "-c", "exit 7"); r.Code != 7 {
		t.Errorf("exec's exit code is %d: %s", r.Code, r.Err)
	}
	var out, errOut bytes.Buffer
	if code := k.Stream(strings.NewReader("to the pod\n"), &out, &errOut, "exec", "-i", pod, "--", "cat"); code != 0 || out.String() != "to the pod\n" {
		t.Errorf("exec -i: %d %q %s", code, out.String(), errOut.String())
	}

	// A ConfigMap's change reaches the running pod's files.
	write(strings.Replace(readFile(t, manifest), `"first\n"`, `"second\n"`, 1))
	if r := k.Try("", "diff", "-f", manifest); r.Code != 1 || !strings.Contains(r.Out, "-    first\n+    second") {
		t.Errorf("diff: %d\n%s%s", r.Code, r.Out, r.Err)
	}
	expect(k.Run("", "apply", "-f", manifest), `^configmap/settings configured`)
	h.eventually("the new page is in the pod", func() bool {
		return k.Try("", "exec", pod, "--", "cat", "/settings/page.txt").Out == "second\n"
	})

	// The process dies: the container is restarted, and what it said before can still be read.
	k.Try("", "exec", pod, "--", "kill", "-9", "1") // in its own namespace 1 is immune; from outside it is not
	h.killContainers()
	h.eventually("the container was restarted", func() bool {
		return strings.TrimSpace(k.Run("", "get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}")) == "1 true"
	})
	expect(k.Run("", "logs", pod, "--previous"), `^Hello`)
	expect(k.Run("", "get", "pod", pod), `1 \(\d+s ago\)`)

	// An update, a look back, and labels and taints that act at once.
	expect(k.Run("", "set", "image", "ds/web", "web=busybox:2"), `image updated`)
	expect(k.Run("", "rollout", "status", "ds/web", "--timeout=60s"), `successfully rolled out`)
	expect(k.Run("", "rollout", "history", "ds/web"), `^2 `)
	expect(k.Run("", "rollout", "undo", "ds/web"), `rolled back`)
	expect(k.Run("", "rollout", "status", "ds/web", "--timeout=60s"), `successfully rolled out`)
	expect(k.Run("", "get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}"), `busybox:1`)
	if r := k.Try("", "label", "node", "host-01", "disktype-"); r.Code == 0 || !strings.Contains(r.Err, "disktype belongs to") {
		t.Errorf("a label of the config file: %d %s", r.Code, r.Err)
	}
	expect(k.Run("", "label", "node", "host-01", "rack=r1"), `labeled`)
	expect(k.Run("", "annotate", "ds/web", "note=x"), `annotated`)
	expect(k.Run("", "taint", "node", "host-01", "dedicated=gpu:NoExecute"), `tainted`)
	h.eventually("the pod was evicted", func() bool { return k.Run("", "get", "pods", "-o", "name") == "" })
	expect(k.Run("", "get", "ds", "web"), `^web +0 +0 `)
	expect(k.Run("", "taint", "node", "host-01", "dedicated-"), `untainted`)
	expect(k.Run("", "rollout", "status", "ds/web", "--timeout=60s"), `successfully rolled out`)
	expect(k.Run("", "cordon", "host-01"), `cordoned`)
	expect(k.Run("", "get", "nodes"), `SchedulingDisabled`)
	expect(k.Run("", "uncordon", "host-01"), `uncordoned`)

	expect(k.Run("", "explain", "ds.spec.template.spec.hostNetwork"), `hostNetwork <boolean>`)
	expect(k.Run("", "api-resources"), `^daemonsets +ds`)
	expect(k.Run("", "create", "configmap", "other", "--from-literal=a=b"), `created`)
	expect(k.Run("", "get", "cm,secret,ns"), `configmap/other`)
	expect(k.Run("", "replace", "-f", manifest), `daemonset.apps/web replaced`)

	edited, err := h.picket(t.Context(), "edit", "ds/web").CombinedOutput()
	if err != nil {
		t.Errorf("edit: %v", err)
	}
	expect(string(edited), `daemonset.apps/web edited`)
	expect(k.Run("", "rollout", "status", "ds/web", "--timeout=60s"), `successfully rolled out`)
	expect(k.Run("", "get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}"), `busybox:2`)

	// Watching and following see the end.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watched, followed := &logBuffer{}, &logBuffer{}
	watch, follow := h.picket(ctx, "get", "pods", "-w", "--output-watch-events"), h.picket(ctx, "logs", "-f", "ds/web")
	watch.Stdout, follow.Stdout = watched, followed
	if err := errors.Join(watch.Start(), follow.Start()); err != nil {
		t.Fatal(err)
	}
	h.eventually("the log is followed", func() bool { return followed.contains("Hello from host-01") })
	h.eventually("the watch shows the pod", func() bool { return watched.contains("ADDED") })
	expect(k.Run("", "delete", "-f", manifest), `daemonset.apps "web" deleted`)
	h.eventually("no pod is left", func() bool { return k.Run("", "get", "pods", "-o", "name") == "" })
	h.eventually("the watch saw it go", func() bool { return watched.contains("DELETED") })
	_ = watch.Process.Kill()
	_ = watch.Wait()
	if err := follow.Wait(); err != nil {
		t.Errorf("logs -f did not end well with its pod: %v", err)
	}
	if r := k.Try("", "get", "ds", "web"); r.Code == 0 || !strings.Contains(r.Err, `daemonsets.apps "web" not found`) {
		t.Errorf("%d %s", r.Code, r.Err)
	}
}

// picket is the built picket, talking to the agent's socket; its editor puts the image busybox:2 in.
func (h *realHost) picket(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(shared.binaries, "picket"), append([]string{"--socket", h.cfg.API.Socket}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+h.dir, "KUBE_EDITOR=sed -i s/busybox:1/busybox:2/")
	return cmd
}

// shellWords splits a command at blanks, but for what is in single quotes.
func shellWords(s string) []string {
	var words []string
	for i, part := range strings.Split(s, "'") {
		if i%2 == 1 {
			words = append(words, part)
			continue
		}
		words = append(words, strings.Fields(part)...)
	}
	return words
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// killContainers sends SIGKILL to every container's process of this host, as a crash would.
func (h *realHost) killContainers() {
	h.t.Helper()
	for _, pid := range h.pids() {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill()
		}
	}
}

// pids are the processes of the host's containers by container id.
func (h *realHost) pids() map[string]int {
	h.t.Helper()
	c, ctx := h.containerd()
	containers, err := c.Containers(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	pids := map[string]int{}
	for _, container := range containers {
		task, err := container.Task(ctx, nil)
		if err != nil {
			continue // none yet, or none any more
		}
		if s, err := task.Status(ctx); err == nil && s.Status == "running" {
			pids[container.ID()] = int(task.Pid())
		}
	}
	return pids
}
