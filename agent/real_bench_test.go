package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/picketd/picket/runtime/runtimetest"
)

// pushProbe puts the probe's image into the registry.
func (h *realHost) pushProbe() {
	h.t.Helper()
	probe, err := runtimetest.ProbeImage()
	if err != nil {
		h.t.Fatal(err)
	}
	image, err := probe.Build()
	if err == nil {
		err = shared.registry.Push("probe:1", image)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// BenchmarkStart prints how long a container takes from the POST of its DaemonSet to its first instruction, and from the death of
// its process to the first instruction of the next: beside a bare containerd client that does no more than start the same
// container with the same logger, in turns with it. Image present, host network; medians.
func BenchmarkStart(b *testing.B) {
	h := newRealHost(b)
	h.pushProbe()
	h.start()
	sets := h.clientset().AppsV1().DaemonSets("default")
	dir := filepath.Join(h.dir, "probe")
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	client, ctx := h.containerd()

	// One run of the agent's: the first brings the image.
	run := func(n int) (start, restart time.Duration) {
		name := fmt.Sprintf("probe-%d", n)
		file := filepath.Join(dir, name)
		ds := probeDaemon(name, dir, file)
		began := time.Now()
		if _, err := sets.Create(ctx, ds, metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
		first, err := runtimetest.AwaitProbe(ctx, file, 1)
		if err != nil {
			b.Fatal(err)
		}
		start = first.Sub(began)
		h.eventually("the container is known to run", func() bool { return len(h.pids()) == 1 })
		var killed time.Time
		for _, pid := range h.pids() {
			killed = time.Now()
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				b.Fatal(err)
			}
		}
		if first, err = runtimetest.AwaitProbe(ctx, file, 2); err != nil {
			b.Fatal(err)
		}
		restart = first.Sub(killed)
		if err := sets.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			b.Fatal(err)
		}
		h.eventually("the host is empty", func() bool {
			all, err := client.Containers(ctx)
			return err == nil && len(all) == 0
		})
		return start, restart
	}
	run(-1)
	present, err := client.GetImage(ctx, "docker.io/library/probe:1")
	if err != nil {
		b.Fatal(err)
	}
	bare := &runtimetest.Bare{Client: client, Image: present, Logger: h.cfg.Runtime.LoggerPath, Dir: dir}
	var start, restart, bareStart, bareRestart []time.Duration
	note := func(to *[]time.Duration, took time.Duration, err error) {
		if err != nil {
			b.Fatal(err)
		}
		*to = append(*to, took)
	}
	n := 0
	for b.Loop() {
		took, err := bare.BareStart(ctx)
		note(&bareStart, took, err)
		took, err = bare.BareRestart(ctx)
		note(&bareRestart, took, err)
		if err := bare.Delete(ctx); err != nil {
			b.Fatal(err)
		}
		first, again := run(n)
		note(&start, first, nil)
		note(&restart, again, nil)
		n++
	}
	b.ReportMetric(0, "ns/op")
	for _, m := range []struct {
		name       string
		ours, bare []time.Duration
	}{{"start", start, bareStart}, {"restart", restart, bareRestart}} {
		ours, floor := median(m.ours), median(m.bare)
		b.ReportMetric(float64(ours.Microseconds())/1000, m.name+"-ms")
		b.ReportMetric(float64(floor.Microseconds())/1000, m.name+"-bare-ms")
		b.ReportMetric(float64(ours)/float64(floor), m.name+"-ratio")
	}
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}
