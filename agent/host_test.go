package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/agent/manifest"
	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

// testHost is an agent's trunk without listeners, on a containerd that lives in memory and outlives it. For use in a bubble of
// testing/synctest: quiet returns when everything that was to happen has happened.
type testHost struct {
	t    *testing.T
	dir  string
	fake *runtimetest.Fake
	cfg  Config
	loop *loop
	stop func()
}

// withHost runs f in virtual time with an agent that has started.
func withHost(t *testing.T, f func(t *testing.T, h *testHost)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newTestHost(t)
		h.boot()
		f(t, h)
		h.stop()
	})
}

func newTestHost(t *testing.T) *testHost {
	dir := t.TempDir()
	cfg := DefaultConfig()
	cfg.Node.Name, cfg.DataDir, cfg.RunDir, cfg.File = "host-01", dir, filepath.Join(dir, "run"), "/etc/picket/picketd.yaml"
	cfg.Node.Labels = map[string]string{"disktype": "ssd"}
	cfg.Runtime.PodLogs, cfg.Runtime.ContainerLogs = filepath.Join(dir, "logs"), filepath.Join(dir, "links")
	cfg.API.PKI = filepath.Join(dir, "etc-pki")
	cfg.FillIn("host-01", func(string) bool { return false })
	return &testHost{t: t, dir: dir, fake: runtimetest.NewFake(), cfg: cfg, stop: func() {}}
}

// boot starts the agent; the one before must have been stopped, or killed.
func (h *testHost) boot() {
	h.t.Helper()
	if err := os.MkdirAll(h.cfg.podsDir(), 0o700); err != nil {
		h.t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(h.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	trust, err := newTrust(h.cfg, log, []string{"10.0.0.1"})
	if err != nil {
		h.t.Fatal(err)
	}
	db, setAside, err := openBound(filepath.Join(h.dir, "state.db"), h.cfg.Cluster.Name, trust.identity(), log)
	if err != nil {
		h.t.Fatal(err)
	}
	if setAside != "" {
		h.t.Logf("state set aside: %s", setAside)
	}
	f, err := openFleet(h.cfg, log, db, trust.identity, time.Now)
	if err != nil {
		h.t.Fatal(err)
	}
	if h.loop, err = newLoop(h.cfg, log, db, h.fake, f); err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); h.loop.run(ctx) }()
	h.stop = func() {
		cancel()
		<-ended
		if err := db.Close(); err != nil {
			h.t.Error(err)
		}
		h.stop = func() {}
	}
	h.quiet()
}

// quiet lets everything that is due now happen.
func (h *testHost) quiet() { synctest.Wait() }

// after lets virtual time pass.
func (h *testHost) after(d time.Duration) {
	time.Sleep(d)
	h.quiet()
}

func (h *testHost) do(f func() error) error {
	err := h.loop.do(context.Background(), f)
	h.quiet()
	return err
}

// write does what the API does.
func (h *testHost) write(w api.Write) (written api.Object, err error) {
	h.t.Helper()
	w.Author = "tester"
	failed := h.do(func() error { written, err = h.loop.write(w); return nil })
	if failed != nil {
		h.t.Fatal(failed)
	}
	return written, err
}

// apply puts the objects of a manifest in, as kubectl create and replace would.
func (h *testHost) apply(text string) {
	h.t.Helper()
	for _, o := range h.objects(text) {
		ref := manifest.RefOf(o)
		_, exists := h.loop.cache.Get(resources[ref.Kind], ref.Namespace, ref.Name)
		manifest.Default(o)
		if _, err := h.write(api.Write{Resource: resources[ref.Kind], Namespace: ref.Namespace, Name: ref.Name, Object: o, Create: !exists}); err != nil {
			h.t.Fatalf("%s: %v", ref, err)
		}
	}
}

func (h *testHost) objects(text string) []manifest.Object {
	h.t.Helper()
	file, err := manifest.Decode("test.yaml", []byte(text))
	if err != nil {
		h.t.Fatal(err)
	}
	return file.Objects
}

func (h *testHost) delete(resource schema.GroupResource, namespace, name string) error {
	_, err := h.write(api.Write{Resource: resource, Namespace: namespace, Name: name})
	return err
}

func (h *testHost) pods() []*corev1.Pod { return cached[*corev1.Pod](h.loop, resourcePods) }

// onlyPod is the pod that is to run alone here.
func (h *testHost) onlyPod() *corev1.Pod {
	h.t.Helper()
	pods := h.pods()
	if len(pods) != 1 {
		h.t.Fatalf("%d pods instead of one: %s", len(pods), names(pods))
	}
	return pods[0]
}

func names(pods []*corev1.Pod) string {
	var list []string
	for _, p := range pods {
		list = append(list, p.Name)
	}
	return strings.Join(list, ", ")
}

func (h *testHost) daemonSet(name string) *appsv1.DaemonSet {
	h.t.Helper()
	o, ok := h.loop.cache.Get(resourceDaemonSets, "default", name)
	if !ok {
		h.t.Fatalf("there is no DaemonSet %s", name)
	}
	return o.(*appsv1.DaemonSet)
}

func (h *testHost) node() *corev1.Node {
	h.t.Helper()
	o, ok := h.loop.cache.Get(resourceNodes, "", "host-01")
	if !ok {
		h.t.Fatal("there is no Node")
	}
	return o.(*corev1.Node)
}

// changeNode writes the Node as a client would that read it before.
func (h *testHost) changeNode(change func(*corev1.Node)) error {
	h.t.Helper()
	n := h.node().DeepCopy()
	change(n)
	_, err := h.write(api.Write{Resource: resourceNodes, Name: n.Name, Object: n, ResourceVersion: n.ResourceVersion})
	return err
}

// running are the fake's running containers.
func (h *testHost) running() []runtime.ContainerStatus {
	var list []runtime.ContainerStatus
	for _, c := range h.fake.List() {
		if c.State == runtime.ContainerRunning {
			list = append(list, c)
		}
	}
	return list
}

// eventsOf are the messages of the events with a reason.
func (h *testHost) eventsOf(reason string) []string {
	var list []string
	for _, e := range cached[*corev1.Event](h.loop, resourceEvents) {
		if e.Reason == reason {
			list = append(list, e.Message)
		}
	}
	return list
}

// webOf is a DaemonSet named web; extra goes into its pods' spec, indented by six.
func webOf(image, extra string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      %s
      hostNetwork: true
      containers:
      - {name: web, image: %q}
`, extra, image)
}
