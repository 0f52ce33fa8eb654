package runtime

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
)

// usageAge is when the images are counted anew though we changed nothing: containerd collects what nobody uses.
const usageAge = 10 * time.Minute

// usage is what the images took when they were last counted.
type usage struct {
	mu    sync.Mutex
	count int
	bytes int64
	at    time.Time // zero: they have changed since
}

// ImageUsage is the number of images and the size of their content as it came from the registry, in bytes. It asks nobody: the
// figures are those of the last pull or ImportImages.
func (r *Runtime) ImageUsage() (count int, bytes int64) {
	u := &r.library.usage
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.count, u.bytes
}

// imagesChanged counts anew.
func (r *Runtime) imagesChanged(ctx context.Context) {
	r.library.usage.set(0, 0, time.Time{})
	if err := r.countImages(ctx); err != nil {
		r.log.Debug("cannot count the images", "error", err) // the next ImportImages does
	}
}

func (u *usage) stale() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return time.Since(u.at) > usageAge
}

// set leaves the figures as they are when at is zero.
func (u *usage) set(count int, bytes int64, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.at = at; !at.IsZero() {
		u.count, u.bytes = count, bytes
	}
}

func (r *Runtime) countImages(ctx context.Context) error {
	records, err := r.client.ImageService().List(ctx)
	if err != nil {
		return fmt.Errorf("cannot list images: %w", r.native(err))
	}
	different := map[digest.Digest]bool{}
	for _, record := range records {
		different[record.Target.Digest] = true
	}
	var bytes int64
	if err := r.client.ContentStore().Walk(ctx, func(i content.Info) error {
		bytes += i.Size
		return nil
	}); err != nil {
		return fmt.Errorf("cannot list the images' content: %w", r.native(err))
	}
	r.library.usage.set(len(different), bytes, time.Now())
	return nil
}
