package runtime

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

const (
	// unpackedPart is how much larger than as fetched a layer is, with both on the disk.
	unpackedPart = 3
	// spareRoom stays free after a pull, or this part of a small disk.
	spareRoom = 32 << 20
	sparePart = 20
)

// room refuses layers that containerd's disk has no room for, before they are fetched: a pull that fills the disk harms what runs.
// It asks for the room, which images that nothing uses may take (CollectImages).
type room struct {
	runtime *Runtime
	known   bool
	free    int64 // without what is spared
	spare   int64

	mu   sync.Mutex
	need int64
}

// roomNow looks where containerd keeps what it fetches. When it does not say, or lives elsewhere, nothing is refused.
func (r *Runtime) roomNow(ctx context.Context) *room {
	room := &room{runtime: r}
	plugins, err := r.client.IntrospectionService().Plugins(ctx, "type==io.containerd.content.v1")
	if err != nil || len(plugins.Plugins) == 0 {
		return room
	}
	var fs unix.Statfs_t
	if root := plugins.Plugins[0].Exports["root"]; root != "" && unix.Statfs(root, &fs) == nil {
		spare := min(spareRoom, int64(fs.Blocks)*fs.Bsize/sparePart)
		room.known, room.free, room.spare = true, int64(fs.Bavail)*fs.Bsize-spare, spare
	}
	return room
}

// handle is called with every part of an image before it is fetched.
func (r *room) handle(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if !r.known || !images.IsLayerType(desc.MediaType) {
		return nil, nil
	}
	if _, err := r.runtime.client.ContentStore().Info(ctx, desc.Digest); err == nil || !errdefs.IsNotFound(err) {
		return nil, nil // it is there
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.need += desc.Size * unpackedPart
	if r.need > r.free {
		r.runtime.library.wanted.ask(r.need + r.spare) // at least: the layers that follow have not been seen
		return nil, fmt.Errorf("it needs about %d MiB and %d MiB are free: %w", r.need>>20, r.free>>20, unix.ENOSPC)
	}
	return nil, nil
}
