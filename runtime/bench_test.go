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

// bare imports the probe's image and is a bare client that runs it.
func (h *host) bare(image string) *runtimetest.Bare {
	h.t.Helper()
	probe, err := runtimetest.ProbeImage()
	if err != nil {
		h.t.Fatal(err)
	}
	h.importImage(image, probe)
	c := h.client()
	img, err := c.GetImage(h.t.Context(), image)
	if err != nil {
		h.t.Fatal(err)
	}
	return &runtimetest.Bare{Client: c, Image: client.NewImage(c, img.Metadata()), Logger: h.config.LoggerPath, Dir: h.dir}
}

// BenchmarkStart compares create and start, and remove, create and start, with a bare client that does the same: the median from
// the call to the container's first instruction, and the ratio. They take turns, so that a busy host is busy for both.
func BenchmarkStart(b *testing.B) {
	h := newHost(b)
	image := "docker.io/library/probe:1"
	bare := h.bare(image)
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

// BenchmarkExchange compares the exchange of a container for one that was created beside it with a bare client that does the same: the
// median of how long no probe ran, and the ratio. The bare client waits for the old one's exit, we hear of it as an event.
func BenchmarkExchange(b *testing.B) {
	h := newHost(b)
	image := "docker.io/library/probe:1"
	bare := h.bare(image)
	if _, err := bare.BareStart(b.Context()); err != nil {
		b.Fatal(err)
	}
	e := &exchanges{host: h, image: image, file: filepath.Join(h.dir, "exchanges")}
	if err := os.WriteFile(e.file, nil, 0o644); err != nil {
		b.Fatal(err)
	}
	old := e.create()
	e.start(old)
	var ours, bares []time.Duration
	for range b.N {
		without, err := bare.BareExchange(b.Context())
		bares = append(bares, measured(b, without, err))
		next := e.create()
		ours = append(ours, e.exchange(old, next))
		old = next
	}
	h.remove(old)
	if err := bare.Delete(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(median(ours).Microseconds())/1000, "without-ms")
	b.ReportMetric(float64(median(bares).Microseconds())/1000, "bare-without-ms")
	b.ReportMetric(float64(median(ours))/float64(median(bares)), "ratio")
	b.ReportMetric(0, "ns/op")
}

// exchanges are pods of one probe each, which take each other's place.
type exchanges struct {
	*host
	image, file string
	starts      int
}

func (e *exchanges) create() (id string) {
	e.t.Helper()
	p := e.newPod()
	c := runtime.ContainerConfig{
		ID: p.UID + "-probe-0", Pod: p, Name: "probe", Image: e.image, Command: []string{runtimetest.ProbePath, "/out"},
		LogPath: filepath.Join(e.dir, p.UID+".log"), Mounts: []runtime.Mount{{Source: e.file, Destination: "/out"}},
	}
	if err := e.CreateContainer(e.t.Context(), c); err != nil {
		e.t.Fatal(err)
	}
	return c.ID
}

func (e *exchanges) start(id string) {
	e.t.Helper()
	if err := e.StartContainer(e.t.Context(), id); err != nil {
		e.t.Fatal(err)
	}
	e.starts++
}

func (e *exchanges) exchange(old, next string) time.Duration {
	e.t.Helper()
	w := e.watch()
	if err := e.SignalContainer(e.t.Context(), old, ""); err != nil {
		e.t.Fatal(err)
	}
	w.expect(runtime.EventExit, old)
	e.start(next)
	without, err := runtimetest.Without(e.t.Context(), e.file, e.starts)
	e.remove(old)
	return measured(e.t, without, err)
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
