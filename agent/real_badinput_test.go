package agent

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/picketd/picket/agent/api/apitest"
	"github.com/picketd/picket/runtime/runtimetest"
)

// steady makes a DaemonSet that must go on running whatever comes, and returns how to check that.
func (h *realHost) steady() (check func()) {
	h.t.Helper()
	client := h.clientset()
	if _, err := client.AppsV1().DaemonSets("default").Create(h.t.Context(), busyDaemon("steady", "busybox:1", ""), metav1.CreateOptions{}); err != nil {
		h.t.Fatal(err)
	}
	h.settled(client)
	return h.sameProcesses()
}

// sameProcesses returns a check that what runs now still does.
func (h *realHost) sameProcesses() (check func()) {
	before := fmt.Sprint(h.pids())
	return func() {
		h.t.Helper()
		if after := fmt.Sprint(h.pids()); after != before {
			h.t.Errorf("what ran was %s and is %s", before, after)
		}
	}
}

// Wrong input gets a clear error each time, through the API and in the manifests directory; nothing that runs is lost.
func TestRealBadInput(t *testing.T) {
	h := newRealHost(t)
	if err := os.MkdirAll(h.cfg.Manifests, 0o755); err != nil {
		t.Fatal(err)
	}
	a := h.start()
	k := h.kubectl()
	check := h.steady()
	good := strings.ReplaceAll(webOf("busybox:1", "nodeSelector: {disktype: hdd}"), "name: web}", "name: good}")
	huge := good + "# " + strings.Repeat("x", 10<<20) + "\n"
	for name, c := range map[string]struct{ text, want string }{
		"malformed.yaml":   {"kind: DaemonSet\n\tapiVersion: apps/v1\n", "malformed.yaml"},
		"unknown.yaml":     {strings.Replace(good, "hostNetwork: true", "hostNetwrok: true", 1), "spec.template.spec.hostNetwrok"},
		"selector.yaml":    {strings.Replace(good, "labels: {app: web}", "labels: {app: other}", 1), "spec.template.metadata.labels"},
		"huge.yaml":        {huge, "huge.yaml"},
		"\x1b[31mx\n.yaml": {"kind: [", `\x1b[31mx\n.yaml`},
		"binary.yaml":      {"\x00\x01\xff\xfe", "binary.yaml"},
	} {
		t.Run(fmt.Sprintf("%q", name), func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(h.cfg.Manifests, name), []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			h.eventually("an event names what is wrong", func() bool {
				return strings.Contains(k.Run("", "get", "events", "-o", "jsonpath={.items[*].message}"), c.want)
			})
			if strings.Contains(k.Run("", "get", "events", "-o", "jsonpath={.items[*].message}"), "\x1b") {
				t.Error("a control character of the file's name went through")
			}
			if len(c.text) > 5<<20 {
				return // kubectl would send it; the API's own limit is tested below
			}
			if r := k.Try(c.text, "apply", "-f", "-"); r.Code == 0 || r.Err == "" {
				t.Errorf("kubectl apply: %d %s", r.Code, r.Out)
			}
		})
	}
	if out := k.Run("", "get", "ds", "-o", "name"); out != "daemonset.apps/steady\n" {
		t.Errorf("something was applied: %s", out)
	}
	socket := socketClient(h.cfg.API.Socket)
	answer, err := socket.Post("http://picket/apis/apps/v1/namespaces/default/daemonsets", "application/yaml", strings.NewReader(huge))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(answer.Body)
	answer.Body.Close()
	if answer.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a manifest of 10 MB: %d %s", answer.StatusCode, body)
	}
	// An image that nobody has.
	k.Run(strings.ReplaceAll(webOf("nowhere/nothing:1", ""), "name: web}", "name: missing}"), "apply", "-f", "-")
	h.eventually("the pod says that its image is missing", func() bool {
		return strings.Contains(k.Run("", "get", "pods"), "ErrImagePull") || strings.Contains(k.Run("", "get", "pods"), "ImagePullBackOff")
	})
	k.Run("", "delete", "ds", "missing")
	// 200 files at once, one of them wrong.
	for i := range 200 {
		text := strings.ReplaceAll(good, "name: good}", fmt.Sprintf("name: good-%03d}", i))
		if i == 100 {
			text = "kind: ["
		}
		if err := os.WriteFile(filepath.Join(h.cfg.Manifests, fmt.Sprintf("good-%03d.yaml", i)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.eventually("199 of 200 manifests are there", func() bool { return strings.Count(k.Run("", "get", "ds", "-o", "name"), "/good-") == 199 })
	h.eventually("the wrong one is named", func() bool { return a.files.counts()[filepath.Join(h.cfg.Manifests, "good-100.yaml")] > 0 })
	check()
	if err := a.Alive(); err != nil {
		t.Error(err)
	}
}

// A full disk: the write is refused and says why, /readyz too, what runs goes on and is restarted, and when there is room again
// all is well. On a read-only disk the agent does not start and says why; what runs is left alone.
func TestRealFullDisk(t *testing.T) {
	h := newRealHost(t)
	if err := os.MkdirAll(h.cfg.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", h.cfg.DataDir, "tmpfs", 0, "size=6m"); err != nil {
		t.Fatal(err)
	}
	h.removed = func() {
		if err := syscall.Unmount(h.cfg.DataDir, 0); err != nil {
			t.Error(err)
		}
	}
	a := h.start()
	k := apitest.NewKubectl(t, copyOf(t, h.kubeconfig()))
	check := h.steady()
	refused := func(what string) {
		t.Helper()
		r := k.Try("{apiVersion: v1, kind: ConfigMap, metadata: {name: big}, data: {x: "+strings.Repeat("x", 200<<10)+"}}", "create", "-f", "-")
		if r.Code == 0 || !strings.Contains(r.Err, what) {
			t.Errorf("%d %s", r.Code, r.Err)
		}
		if ready := get(t, a, "/readyz"); !strings.Contains(ready, "dataDir") {
			t.Errorf("/readyz says %s", ready)
		}
		if out := k.Run("", "get", "cm", "-o", "name"); strings.Contains(out, "big") {
			t.Errorf("it is there all the same: %s", out)
		}
		before := fmt.Sprint(h.pids())
		h.killContainers() // restarts go on
		h.eventually("the killed container runs again", func() bool {
			now := h.pids() // asked once: between two answers the old one may have gone
			return len(now) == 1 && fmt.Sprint(now) != before
		})
	}
	filler := filepath.Join(h.cfg.DataDir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, io.LimitReader(zeros{}, 100<<20)); err == nil {
		t.Fatal("the disk is not full")
	}
	f.Close()
	check()
	refused("no space left on device")
	// An agent that starts now is no worse off.
	check = h.sameProcesses()
	h.stop()
	a = h.start()
	h.eventually("the pod is known again", func() bool { return strings.Contains(k.Run("", "get", "pods"), "1/1") })
	check()
	refused("no space left on device")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	k.Run("{apiVersion: v1, kind: ConfigMap, metadata: {name: small}}", "create", "-f", "-")
	if ready := get(t, a, "/readyz"); !strings.Contains(ready, "readyz check passed") {
		t.Errorf("/readyz says %s", ready)
	}
	check = h.sameProcesses()
	h.stop()
	if err := syscall.Mount("", h.cfg.DataDir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := New(h.cfg); err == nil || !strings.Contains(err.Error(), h.cfg.DataDir) || !strings.Contains(err.Error(), "read-only file system") {
		t.Errorf("on a read-only disk: %v", err)
	}
	if err := syscall.Mount("", h.cfg.DataDir, "", syscall.MS_REMOUNT, "size=6m"); err != nil {
		t.Fatal(err)
	}
	check()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func copyOf(t *testing.T, path string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), filepath.Base(path))
	if err := os.WriteFile(to, []byte(readFile(t, path)), 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

// get asks the metrics listener.
func get(t *testing.T, a *Agent, path string) string {
	t.Helper()
	answer, err := http.Get("http://" + a.httpOn.Addr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var body bytes.Buffer
	_, _ = body.ReadFrom(answer.Body)
	return body.String()
}

// containerd stops and comes back: nothing that runs is touched, applies are taken meanwhile, /readyz tells the truth.
func TestRealContainerdStops(t *testing.T) {
	own := runtimetest.StartContainerd(t)
	h := newRealHost(t) // after: it is removed with the help of its containerd
	h.cfg.Runtime.Address = own.Address
	h.ownContainerd = own
	a := h.start()
	k := h.kubectl()
	check := h.steady()
	if err := own.Kill(); err != nil {
		t.Fatal(err)
	}
	h.eventually("/readyz says that containerd is gone", func() bool { return strings.Contains(get(t, a, "/readyz"), "containerd does not answer") })
	h.eventually("the node is not ready", func() bool { return strings.Contains(k.Run("", "get", "nodes"), "NotReady") })
	if live := get(t, a, "/healthz"); !strings.Contains(live, "passed") {
		t.Errorf("/healthz says %s", live)
	}
	if _, err := h.clientset().AppsV1().DaemonSets("default").Create(t.Context(), busyDaemon("later", "busybox:2", ""), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := own.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.eventually("the host is ready again", func() bool { return strings.Contains(get(t, a, "/readyz"), "readyz check passed") })
	k.Run("", "rollout", "status", "ds/later", "--timeout=60s")
	k.Run("", "delete", "ds", "later")
	h.eventually("only the steady pod is left", func() bool { return len(h.pids()) == 1 })
	check()
	h.checkRestarts(h.clientset())
	// The other order: the agent starts while containerd is away.
	h.stop()
	if err := own.Kill(); err != nil {
		t.Fatal(err)
	}
	h.start()
	if err := own.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.eventually("the pod is known again", func() bool { return strings.Contains(k.Run("", "get", "pods"), "1/1") })
	check()
	h.checkRestarts(h.clientset())
}
