package runtime

import (
	"context"
	"fmt"
)

// LayerUsage is how many bytes of the disk a container has written beside its volumes, as containerd counts them: it walks through
// them. ErrNotFound: there is no such container.
func (r *Runtime) LayerUsage(ctx context.Context, id string) (int64, error) {
	usage, err := r.client.SnapshotService(snapshotter).Usage(ctx, containerKey(id))
	if err != nil {
		return 0, fmt.Errorf("cannot measure what container %s has written: %w", id, r.native(err))
	}
	return usage.Size, nil
}
