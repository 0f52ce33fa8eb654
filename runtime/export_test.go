package runtime

import (
	"context"
	"time"
)

// RemovePodCgroup is what TearDownPod does about cgroups.
func (r *Runtime) RemovePodCgroup(ctx context.Context, parent string) error {
	return r.removePodCgroup(ctx, parent)
}

// CollectImagesAt is CollectImages as if it were called at another time.
func (r *Runtime) CollectImagesAt(ctx context.Context, pinned []string, now time.Time) (ImageCollection, error) {
	return r.collectImages(ctx, pinned, now)
}

// Native translates an error of containerd's.
func (r *Runtime) Native(err error) error { return r.native(err) }
