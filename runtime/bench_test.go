package runtime_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"

	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

// BenchmarkStart compares create and start, and remove, create and start, with a bare client that does the same: the median from
// the call to the container's first instruction, and the ratio. They take turns, so that a busy host is busy for both.
func BenchmarkStart(b *testing.B) {
	h := newHost(b)
	image := "docker.io/library/probe:1"
	probe, err := runtimetest.ProbeImage()
	if err != nil {
		b.Fatal(err)
	}
	h.importImage(image, probe)
	c := h.client()
	img, err := c.GetImage(b.Context(), image)
	if err != nil {
		b.Fatal(err)
	}
	bare := &runtimetest.Bare{Client: c, Image: client.NewImage(c, img.Metadata()), Logger: h.config.LoggerPath, Dir: h.dir}
	var took struct{ start, bareStart, restart, bareRestart []time.Duration }
	for i := range b.N {
		n, err := bare.BareStart(b.Context())
		took.bareStart = append(took.bareStart, measured(b, n, err))
		n, err = bare.BareRestart(b.Context())
		took.bareRestart = append(took.bareRestart, measured(b, n, err))
		if err := bare.Delete(b.Context()); err != nil {
			b.Fatal(err)
		}
		start, restart := h.timed(image, i)
		took.start, took.restart = append(took.start, start), append(took.restart, restart)
	}
	report := func(what string, ours, bare []time.Duration) {
		a, b2 := median(ours), median(bare)
		b.ReportMetric(float64(a.Microseconds())/1000, what+"-ms")
		b.ReportMetric(float64(b2.Microseconds())/1000, "bare-"+what+"-ms")
		b.ReportMetric(float64(a)/float64(b2), what+"-ratio")
	}
	report("start", took.start, took.bareStart)
	report("restart", took.restart, took.bareRestart)
	b.ReportMetric(0, "ns/op")
}

// timed measures a start of a new pod's container, and its replacement as the pod's worker makes it: new, then remove the old.
func (h *host) timed(image string, i int) (start, restart time.Duration) {
	p := h.newPod()
	file := filepath.Join(h.dir, fmt.Sprint("probe-", i))
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		h.t.Fatal(err)
	}
	w := h.watch()
	c := runtime.ContainerConfig{
		ID: p.UID + "-probe-0", Pod: p, Name: "probe", Image: image, Command: []string{runtimetest.ProbePath, "/out"},
		LogPath: filepath.Join(h.dir, p.UID+".log"), Mounts: []runtime.Mount{{Source: file, Destination: "/out"}},
	}
	began := time.Now()
	h.start(c)
	at, err := runtimetest.AwaitProbe(h.t.Context(), file, 1)
	start = measured(h.t, at.Sub(began), err)
	if err := h.SignalContainer(h.t.Context(), c.ID, "SIGKILL"); err != nil {
		h.t.Fatal(err)
	}
	w.expect(runtime.EventExit, c.ID)
	began = time.Now()
	next := c
	next.ID = p.UID + "-probe-1"
	h.start(next)
	at, err = runtimetest.AwaitProbe(h.t.Context(), file, 2)
	restart = measured(h.t, at.Sub(began), err)
	h.remove(c.ID)
	h.remove(next.ID)
	return start, restart
}

func measured(t testing.TB, d time.Duration, err error) time.Duration {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}
