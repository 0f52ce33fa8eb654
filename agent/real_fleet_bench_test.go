package agent

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/picketd/picket/runtime/runtimetest"
	"github.com/picketd/picket/scripts/lab"
)

// clientset talks to a host of the lab.
func (f *realFleet) clientset(h *lab.Host) *kubernetes.Clientset {
	f.t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", h.Kubeconfig)
	f.must(err)
	config.Dial, config.QPS = h.Dial, -1
	return kubernetes.NewForConfigOrDie(config)
}

// containerd is a client of a host's containerd, in the namespace of its agent.
func (f *realFleet) containerd(h *lab.Host) (*client.Client, context.Context) {
	f.t.Helper()
	c, err := client.New(filepath.Join(h.Dir, "c", "c.sock"))
	f.must(err)
	f.t.Cleanup(func() { c.Close() })
	list, err := c.NamespaceService().List(context.Background())
	f.must(err)
	at := slices.IndexFunc(list, func(n string) bool { return strings.HasPrefix(n, "picket-") })
	if at < 0 {
		f.t.Fatalf("the agent's namespace is not among %v", list)
	}
	return c, namespaces.WithNamespace(context.Background(), list[at])
}

// probeSet is a DaemonSet whose pods write down, in a file of dir for each host, when they started.
func probeSet(name, dir string) (ds string) {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: DaemonSet
metadata: {name: %[1]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      hostNetwork: true
      containers:
      - name: probe
        image: probe:1
        command: [%[2]s, %[3]s/%[1]s-$(NODE)]
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        volumeMounts: [{name: dir, mountPath: %[3]s}]
      volumes: [{name: dir, hostPath: {path: %[3]s}}]
`, name, runtimetest.ProbePath, dir)
}

// newProbeFleet is a fleet with the probe's image in its registry, and a directory that all hosts share.
func newProbeFleet(b testing.TB, n, more int) (*realFleet, string) {
	b.Helper()
	f := newRealFleet(b, n, more, lab.Options{})
	probe, err := runtimetest.ProbeImage()
	f.must(err)
	image, err := probe.Build()
	f.must(err)
	f.must(f.Registry.Push("probe:1", image))
	return f, b.TempDir()
}

// bares are bare clients, one on each host, with contexts of theirs; their files are under dir.
func (f *realFleet) bares(dir string) (bare []*runtimetest.Bare, contexts []context.Context) {
	f.t.Helper()
	for _, h := range f.Hosts {
		c, ctx := f.containerd(h)
		image, err := c.GetImage(ctx, "docker.io/library/probe:1")
		f.must(err)
		own := filepath.Join(dir, h.Name)
		f.must(os.Mkdir(own, 0o755))
		bare = append(bare, &runtimetest.Bare{Client: c, Image: image, Logger: filepath.Join(shared.binaries, "picket-logger"), Dir: own})
		contexts = append(contexts, ctx)
	}
	return bare, contexts
}

// BenchmarkFleetStart prints how long it takes from the POST of a DaemonSet on one host until its container has run its first
// instruction on all three, beside three bare containerd clients that start one container each at the same time. Medians.
func BenchmarkFleetStart(b *testing.B) {
	f, dir := newProbeFleet(b, 3, 0)
	sets := f.clientset(f.Hosts[0]).AppsV1().DaemonSets("default")
	ctx := context.Background()
	run := func(n int) time.Duration {
		name := fmt.Sprintf("probe-%d", n)
		ds := decodeDaemonSet(b, probeSet(name, dir))
		began := time.Now()
		_, err := sets.Create(ctx, ds, metav1.CreateOptions{})
		f.must(err)
		var last time.Time
		for _, h := range f.Hosts {
			started, err := runtimetest.AwaitProbe(ctx, filepath.Join(dir, name+"-"+h.Name), 1)
			f.must(err)
			if started.After(last) {
				last = started
			}
		}
		f.must(sets.Delete(ctx, name, metav1.DeleteOptions{}))
		f.eventually("nothing runs", func() bool { return len(f.pods(f.Hosts[0])) == 0 })
		return last.Sub(began)
	}
	run(-1) // brings the image
	bare, contexts := f.bares(dir)
	var ours, floor []time.Duration
	n := 0
	for b.Loop() {
		took := make([]time.Duration, len(bare))
		var group sync.WaitGroup
		for i := range bare {
			group.Go(func() {
				var err error
				if took[i], err = bare[i].BareStart(contexts[i]); err != nil {
					b.Error(err)
				}
			})
		}
		group.Wait()
		floor = append(floor, slices.Max(took))
		for i := range bare {
			f.must(bare[i].Delete(contexts[i]))
		}
		ours = append(ours, run(n))
		n++
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(median(ours).Microseconds())/1000, "start-ms")
	b.ReportMetric(float64(median(floor).Microseconds())/1000, "bare-ms")
	b.ReportMetric(float64(median(ours))/float64(median(floor)), "ratio")
}

// BenchmarkLostHost prints after what time a host whose agent was killed is NotReady on all others. Median and maximum.
func BenchmarkLostHost(b *testing.B) {
	f := newRealFleet(b, 3, 0, lab.Options{})
	var took []time.Duration
	others := []*kubernetes.Clientset{f.clientset(f.Hosts[0]), f.clientset(f.Hosts[1])}
	for b.Loop() {
		began := time.Now()
		f.must(f.Hosts[2].Kill())
		f.eventually("it is NotReady", func() bool {
			return !slices.ContainsFunc(others, func(c *kubernetes.Clientset) bool { return nodeStatus(c, "host-03") == corev1.ConditionTrue })
		})
		took = append(took, time.Since(began))
		f.must(f.Hosts[2].Start(context.Background()))
		f.eventually("it is Ready", func() bool {
			return !slices.ContainsFunc(others, func(c *kubernetes.Clientset) bool { return nodeStatus(c, "host-03") != corev1.ConditionTrue })
		})
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(took).Seconds(), "median-s")
	b.ReportMetric(slices.Max(took).Seconds(), "max-s")
}

func nodeStatus(c *kubernetes.Clientset, name string) corev1.ConditionStatus {
	n, err := c.CoreV1().Nodes().Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		return ""
	}
	return conditionOf(n, corev1.NodeReady).Status
}

// BenchmarkLateHost prints after what time a host that is started beside two others runs what they run: from the start of its agent
// to its container's first instruction. The image is present.
func BenchmarkLateHost(b *testing.B) {
	f, dir := newProbeFleet(b, 2, 1)
	late := f.Hosts[2]
	ctx := context.Background()
	f.must(late.Start(ctx)) // once, for the image
	f.run(f.Hosts[0], probeSet("web", dir), "apply", "-f", "-")
	var took []time.Duration
	file := filepath.Join(dir, "web-host-03")
	starts := 0
	await := func() time.Time {
		starts++
		at, err := runtimetest.AwaitProbe(ctx, file, starts)
		f.must(err)
		return at
	}
	await()
	for b.Loop() {
		f.must(late.Crash())
		f.must(os.RemoveAll(filepath.Join(late.DataDir(), "state.db")))
		f.must(os.RemoveAll(filepath.Join(late.DataDir(), "pods")))
		began := time.Now()
		f.must(late.Start(ctx))
		took = append(took, await().Sub(began))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(median(took).Milliseconds()), "median-ms")
	b.ReportMetric(float64(slices.Max(took).Milliseconds()), "max-ms")
}

// No host is taken for dead in an hour in which the machine has twice as much to do as it can. For make soak.
func TestRealNoFalseAlarm(t *testing.T) {
	if os.Getenv("PICKET_SOAK") == "" {
		t.Skip("an hour: PICKET_SOAK=1")
	}
	f := newRealFleet(t, 3, 0, lab.Options{})
	f.run(f.Hosts[0], fleetWeb, "apply", "-f", "-")
	for range 4 {
		busy := exec.Command("busybox", "sh", "-c", "while :; do :; done")
		busy.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		f.must(busy.Start())
		t.Cleanup(func() { _ = busy.Process.Kill(); _ = busy.Wait() })
	}
	time.Sleep(time.Hour)
	alarms := 0
	for _, h := range f.Hosts {
		alarms += strings.Count(h.Log(), "is not heard any more")
	}
	t.Logf("%d alarms in an hour", alarms)
	if alarms > 0 {
		t.Errorf("%d hosts were taken for dead", alarms)
	}
}

// decodeDaemonSet reads a manifest of one DaemonSet.
func decodeDaemonSet(t testing.TB, text string) *appsv1.DaemonSet {
	t.Helper()
	var ds appsv1.DaemonSet
	if err := yaml.UnmarshalStrict([]byte(text), &ds); err != nil {
		t.Fatal(err)
	}
	return &ds
}
