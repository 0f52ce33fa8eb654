package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/picketd/picket/runtime"
)

// collecting runs the collection of images on a host until the test ends it.
func (h *testHost) collecting() (m *metrics, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	m = newMetrics(prometheus.NewRegistry(), "test", func() MetricsSnapshot { return MetricsSnapshot{} })
	a := &Agent{loop: h.loop, runtime: h.fake, metrics: m}
	done := make(chan struct{})
	go func() { defer close(done); a.collectImages(ctx) }()
	return m, func() { cancel(); <-done }
}

func collections(calls []string) (list []string) {
	for _, c := range calls {
		if rest, ok := strings.CutPrefix(c, "collect images but "); ok {
			list = append(list, rest)
		}
	}
	return list
}

// Every five minutes, and when disk pressure begins, images are collected but those of the current and the previous revision of what
// is placed here, and of the pods that are here.
func TestImagesPinned(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		m, stop := h.collecting()
		defer stop()
		for _, image := range []string{"web:1", "web:2", "web:3"} {
			h.apply(webOf(image, ""))
			h.after(time.Minute)
		}
		h.apply(strings.ReplaceAll(webOf("away:1", "nodeSelector: {disktype: hdd}"), "web", "away"))
		h.fake.Take()
		h.fake.SetCollection(runtime.ImageCollection{Wanted: 10, Freed: 12, Removed: []string{"old:1", "old:2"}})
		h.after(imageGCEvery)
		if got := collections(h.fake.Take()); !slices.Equal(got, []string{"web:2 web:3"}) {
			t.Errorf("%q", got)
		}
		if removed, freed := testutil.ToFloat64(m.imagesRemoved), testutil.ToFloat64(m.imageBytesFreed); removed != 2 || freed != 12 {
			t.Errorf("%v images, %v bytes", removed, freed)
		}
		// A pod that stays with an older revision keeps its image.
		for _, image := range []string{"web:4", "web:5"} {
			h.apply(strings.Replace(webOf(image, ""), "  selector:", "  updateStrategy: {type: OnDelete}\n  selector:", 1))
		}
		h.after(imageGCEvery)
		if got := collections(h.fake.Take()); !slices.Equal(got, []string{"web:3 web:4 web:5"}) {
			t.Errorf("with OnDelete: %q", got)
		}
		h.fake.SetDown(true)
		h.after(imageGCEvery)
		if got := collections(h.fake.Take()); got != nil {
			t.Errorf("without containerd: %q", got)
		}
		h.fake.SetDown(false)
		h.after(time.Second)
		h.press(fullDisk)
		if got := collections(h.fake.Take()); len(got) != 1 {
			t.Errorf("under disk pressure: %q", got)
		}
		h.press(fullDisk)
		if got := collections(h.fake.Take()); len(got) != 0 {
			t.Errorf("still under disk pressure: %q", got)
		}
	})
}

// Failures are told in the kubelet's words: once is no event, twice is one, too little freed is another.
func TestImageGCEvents(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		_, stop := h.collecting()
		defer stop()
		h.fake.SetFail("collect", errors.New("cannot remove image old:1: read-only file system"))
		h.after(imageGCEvery)
		if got := h.eventsOf("ImageGCFailed"); got != nil {
			t.Errorf("after the first failure: %q", got)
		}
		h.after(imageGCEvery)
		if got := h.eventsOf("ImageGCFailed"); len(got) != 1 || !strings.Contains(got[0], "read-only") {
			t.Errorf("after the second failure: %q", got)
		}
		h.fake.SetFail("collect", nil)
		h.fake.SetCollection(runtime.ImageCollection{Wanted: 100, Freed: 7, UsedPercent: 91, Capacity: 27 << 30})
		h.after(imageGCEvery)
		want := "Insufficient free disk space on the node's image filesystem (91% of 27.0 GiB used). Failed to free sufficient space by deleting unused images (freed 7 bytes)."
		if got := h.eventsOf("FreeDiskSpaceFailed"); len(got) != 1 || !strings.HasPrefix(got[0], want) {
			t.Errorf("%q", got)
		}
	})
}
