package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/picketd/picket/runtime/runtimetest"
)

// BenchmarkHundredPods prints how long a hundred pods take that are asked for at once, from the first POST to the first instruction of
// the last, beside bare containerd clients that start a hundred such containers at once; then what the agent holds and uses.
func BenchmarkHundredPods(b *testing.B) {
	const pods = 100
	h := newRealHost(b)
	h.pushProbe()
	agent := h.launch()
	client := h.clientset()
	sets := client.AppsV1().DaemonSets("default")
	dir := filepath.Join(h.dir, "probe")
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	c, cctx := h.containerd()
	atOnce := func(file string, start func(i int) error) time.Duration {
		b.Helper()
		began := time.Now()
		errs := make([]error, pods)
		var all sync.WaitGroup
		for i := range pods {
			all.Go(func() { errs[i] = start(i) })
		}
		last, err := runtimetest.AwaitProbe(cctx, file, pods)
		all.Wait()
		if err := errors.Join(append(errs, err)...); err != nil {
			b.Fatal(err)
		}
		return last.Sub(began)
	}
	empty := func() {
		b.Helper()
		h.eventually("the host is empty", func() bool {
			all, err := c.Containers(cctx)
			return err == nil && len(all) == 0
		})
	}
	create := func(name, file string) error {
		_, err := sets.Create(ctx, probeDaemon(name, dir, file), metav1.CreateOptions{})
		return err
	}
	if err := create("first", filepath.Join(dir, "first")); err != nil { // it brings the image
		b.Fatal(err)
	}
	h.settled(client)
	if err := sets.Delete(ctx, "first", metav1.DeleteOptions{}); err != nil {
		b.Fatal(err)
	}
	empty()
	image, err := c.GetImage(cctx, "docker.io/library/probe:1")
	if err != nil {
		b.Fatal(err)
	}
	bare := make([]*runtimetest.Bare, pods)
	for i := range bare {
		bare[i] = &runtimetest.Bare{Client: c, Image: image, Logger: h.cfg.Runtime.LoggerPath, Dir: dir, Name: strconv.Itoa(i)}
	}
	floor := atOnce(filepath.Join(dir, "bare"), func(i int) error { return bare[i].Launch(cctx) })
	for _, x := range bare {
		if err := x.Delete(cctx); err != nil {
			b.Fatal(err)
		}
	}
	ours := atOnce(filepath.Join(dir, "ours"), func(i int) error { return create(fmt.Sprintf("probe-%d", i), filepath.Join(dir, "ours")) })
	h.settled(client)
	pid := agent.cmd.Process.Pid
	busy := statusKB(b, pid, "VmRSS") / 1024
	before := cpuTime(b, pid)
	time.Sleep(time.Minute) // the idle minute itself
	used := cpuTime(b, pid) - before
	for b.Loop() { // once, whatever -benchtime says
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ours.Seconds(), "start-s")
	b.ReportMetric(floor.Seconds(), "start-bare-s")
	b.ReportMetric(ours.Seconds()/floor.Seconds(), "start-ratio")
	b.ReportMetric(busy, "RSS-MB-at-once")
	b.ReportMetric(statusKB(b, pid, "VmRSS")/1024, "RSS-MB")
	b.ReportMetric(100*used.Seconds()/60, "cpu-%")
}

// probeDaemon runs the probe, which notes its starts in file.
func probeDaemon(name, dir, file string) *appsv1.DaemonSet {
	ds := busyDaemon(name, "probe:1", "")
	spec := &ds.Spec.Template.Spec
	spec.Containers[0].Command = []string{runtimetest.ProbePath, file}
	spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "dir", MountPath: dir}}
	spec.Volumes = []corev1.Volume{{Name: "dir", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}}}
	return ds
}
