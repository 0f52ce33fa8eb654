package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/agent/daemonset"
	"github.com/picketd/picket/runtime"
)

// imageGCEvery is the kubelet's period.
const imageGCEvery = 5 * time.Minute

// collectImages removes images that nothing uses when the disk is nearly full: every few minutes, when disk pressure begins, and when a
// pull was refused for want of room.
func (a *Agent) collectImages(ctx context.Context) {
	timer := time.NewTimer(imageGCEvery)
	defer timer.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-a.loop.collect:
		case <-a.runtime.ImageRoomWanted():
		}
		timer.Reset(imageGCEvery)
		if !a.loop.containerdUp.Load() {
			continue
		}
		c, err := a.collectOnce(ctx)
		a.metrics.collected(c)
		a.loop.tellCollection(c, err, failed)
		failed = err != nil
	}
}

func (a *Agent) collectOnce(ctx context.Context) (runtime.ImageCollection, error) {
	var pinned []string
	if err := a.loop.do(ctx, func() (err error) { pinned, err = a.loop.pinnedImages(); return err }); err != nil {
		return runtime.ImageCollection{}, err
	}
	return a.runtime.CollectImages(ctx, pinned)
}

// errNotAdopted: what runs here is not known yet.
var errNotAdopted = errors.New("what runs here is not known yet")

// pinnedImages are those that stay though no container may be made of them now: of all pods here, and of the current and the previous
// revision of every DaemonSet that is placed here. An update, or its end, must not wait for a registry because the disk was full.
func (l *loop) pinnedImages() ([]string, error) {
	if !l.adopted {
		return nil, errNotAdopted
	}
	pinned := map[string]bool{}
	for _, h := range l.pods.byUID {
		addImages(pinned, &h.Pod.Spec)
	}
	for _, d := range l.daemonSets {
		if d.object == nil {
			continue
		}
		if p := daemonset.Place(d.object, l.node.current); !p.ShouldRun && !p.ShouldContinue {
			continue
		}
		for _, r := range d.revisions[max(len(d.revisions)-2, 0):] {
			template, err := daemonset.Template(r)
			if err != nil {
				return nil, err // an image that is not known is not one that is not needed
			}
			addImages(pinned, &template.Spec)
		}
	}
	return slices.Sorted(maps.Keys(pinned)), nil
}

func addImages(to map[string]bool, pod *corev1.PodSpec) {
	for _, list := range [][]corev1.Container{pod.InitContainers, pod.Containers} {
		for _, c := range list {
			to[c.Image] = true
		}
	}
}

// tellCollection tells what became of a collection, in the kubelet's words. A failure is an event when it is the second in a row.
func (l *loop) tellCollection(c runtime.ImageCollection, err error, failedBefore bool) {
	if len(c.Removed) > 0 {
		l.log.Info("images that nothing uses were removed", "images", c.Removed, "freed", c.Freed, "wanted", c.Wanted)
	}
	switch {
	case errors.Is(err, errNotAdopted) || errors.Is(err, runtime.ErrUnavailable) || errors.Is(err, context.Canceled):
	case err != nil && failedBefore:
		l.trouble("ImageGCFailed", err)
	case err != nil:
		l.log.Warn("cannot remove images", "error", err)
	case c.Short():
		l.trouble("FreeDiskSpaceFailed", fmt.Errorf("Insufficient free disk space on the node's image filesystem (%d%% of %s used). "+ //nolint:staticcheck // the kubelet's words
			"Failed to free sufficient space by deleting unused images (freed %d bytes). "+
			"Investigate disk usage, as it could be used by active images, logs, volumes, or other data.", c.UsedPercent, binarySize(c.Capacity), c.Freed))
	}
}

// binarySize is a number of bytes as people read it: "10.0 GiB".
func binarySize(bytes int64) string {
	size, unit := float64(bytes), 0
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for size >= 1024 && unit < len(units)-1 {
		size, unit = size/1024, unit+1
	}
	return fmt.Sprintf("%.1f %s", size, units[unit])
}
