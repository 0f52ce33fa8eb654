package agent

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/runtime/runtimetest"
)

// retemplate updates a DaemonSet by an annotation of its pods.
func (h *realHost) retemplate(name string, n int) {
	h.t.Helper()
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"n":"%d"}}}}}`, n)
	if _, err := h.clientset().AppsV1().DaemonSets("default").Patch(h.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

// containerIDs are all containers of the host, running or not.
func (h *realHost) containerIDs() []string {
	h.t.Helper()
	c, ctx := h.containerd()
	all, err := c.Containers(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	var ids []string
	for _, container := range all {
		ids = append(ids, container.ID())
	}
	return ids
}

// The agent is killed while a pod is warm, and at any other moment of an update: the update is finished by the next one, never do two
// daemons run, and nothing of a pod that was made for nothing is left.
func TestRealKill9WhileAPodIsWarm(t *testing.T) {
	h := newRealHost(t)
	agent := h.launch()
	if _, err := h.clientset().AppsV1().DaemonSets("default").Create(t.Context(), busyDaemon("web", "busybox:1", ""), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	h.settled(h.clientset())
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for kill := range 10 {
		before := h.containerIDs()
		h.retemplate("web", kill)
		if kill%2 == 0 {
			h.eventually("there is a second container", func() bool { return len(h.containerIDs()) > len(before) })
		}
		time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond) // the random moment
		agent.signal(syscall.SIGKILL)
		h.atMostOneEach(kill)
		agent = h.launch()
		h.settled(h.clientset())
		h.atMostOneEach(kill)
	}
	for _, pattern := range []string{"data/pods/*.json", "data/pods/*-*-*-*-????????????", "run/pods/*-*"} {
		h.eventually("one of "+pattern, func() bool {
			found, err := filepath.Glob(filepath.Join(h.dir, pattern))
			return err == nil && len(found) == 1
		})
	}
	h.checkRestarts(h.clientset())
}

// BenchmarkExchange prints for how long a host is without its daemon in an update, from the old one's SIGTERM to the new one's first
// instruction, beside a bare containerd client that makes the same exchange, in turns with it. Image present, host network; medians.
func BenchmarkExchange(b *testing.B) {
	h := newRealHost(b)
	h.pushProbe()
	h.start()
	dir := filepath.Join(h.dir, "probe")
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	client, ctx := h.containerd()
	file := filepath.Join(dir, "exchange")
	ds := busyDaemon("probe", "probe:1", "")
	spec := &ds.Spec.Template.Spec
	spec.Containers[0].Command = []string{runtimetest.ProbePath, file}
	spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "dir", MountPath: dir}}
	spec.Volumes = []corev1.Volume{{Name: "dir", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}}}
	if _, err := h.clientset().AppsV1().DaemonSets("default").Create(ctx, ds, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	if _, err := runtimetest.AwaitProbe(ctx, file, 1); err != nil {
		b.Fatal(err)
	}
	present, err := client.GetImage(ctx, "docker.io/library/probe:1")
	if err != nil {
		b.Fatal(err)
	}
	bare := &runtimetest.Bare{Client: client, Image: present, Logger: h.cfg.Runtime.LoggerPath, Dir: dir}
	if _, err := bare.BareStart(ctx); err != nil {
		b.Fatal(err)
	}
	var ours, bares []time.Duration
	note := func(to *[]time.Duration, took time.Duration, err error) {
		if err != nil {
			b.Fatal(err)
		}
		*to = append(*to, took)
	}
	for n := 0; b.Loop(); n++ {
		took, err := bare.BareExchange(ctx)
		note(&bares, took, err)
		h.eventually("the update before is over", func() bool { return len(h.containerIDs()) == 2 })
		h.retemplate("probe", n)
		took, err = runtimetest.Without(ctx, file, n+2)
		note(&ours, took, err)
	}
	if err := bare.Delete(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(median(ours).Microseconds())/1000, "without-ms")
	b.ReportMetric(float64(median(bares).Microseconds())/1000, "bare-without-ms")
	b.ReportMetric(float64(median(ours))/float64(median(bares)), "ratio")
}
