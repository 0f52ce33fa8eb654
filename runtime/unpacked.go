package runtime

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/continuity/fs"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// unpackedImage is what a container needs of its image. It never changes once it is made.
type unpackedImage struct {
	ref     string
	digest  string // of the manifest or index that ref named when it was read
	chainID string // the snapshot of its top layer
	config  ocispec.ImageConfig
	// passwd and group are the image's accounts, nil where it has none.
	passwd, group []byte
}

// imageCache keeps unpacked images by reference, so that a start asks containerd nothing about them.
type imageCache struct {
	mu    sync.Mutex
	byRef map[string]*unpackedImage
}

func (c *imageCache) get(ref string) *unpackedImage {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byRef[ref]
}

func (c *imageCache) put(i *unpackedImage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byRef == nil {
		c.byRef = map[string]*unpackedImage{}
	}
	c.byRef[i.ref] = i
}

// forget must be called when ref has come to mean another image, or is gone.
func (c *imageCache) forget(ref string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byRef, ref)
}

// forgetDigest is forget for all names of an image that is gone.
func (c *imageCache) forgetDigest(digest string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.byRef, func(_ string, i *unpackedImage) bool { return i.digest == digest })
}

// unpacked reads an image that EnsureImage made present. EnsureImage calls it too, so that the first start finds it cached.
func (r *Runtime) unpacked(ctx context.Context, ref string) (*unpackedImage, error) {
	if i := r.images.get(ref); i != nil {
		return i, nil
	}
	name, err := parseImageName(ref)
	if err != nil {
		return nil, err
	}
	record, err := r.imageRecord(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("cannot look up image %s: %w", ref, err)
	}
	config, err := r.imageConfig(ctx, record.Target)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration of image %s: %w", ref, err)
	}
	i := &unpackedImage{
		ref: ref, digest: record.Target.Digest.String(), chainID: identity.ChainID(config.RootFS.DiffIDs).String(), config: config.Config,
	}
	if err := r.readAccounts(ctx, i); err != nil {
		return nil, err
	}
	r.images.put(i)
	return i, nil
}

// readAccounts reads the image's users and groups through a view of its file system.
func (r *Runtime) readAccounts(ctx context.Context, i *unpackedImage) error {
	ctx, done, err := r.client.WithLease(r.ctx(ctx)) // keeps the view from being collected, and has it collected if we die
	if err != nil {
		return fmt.Errorf("cannot get a lease: %w", r.native(err))
	}
	defer func() { _ = done(ctx) }() // it expires by itself
	snapshots := r.client.SnapshotService(snapshotter)
	key := fmt.Sprintf("accounts-%d-%s", time.Now().UnixNano(), i.chainID)
	mounts, err := snapshots.View(ctx, key, i.chainID)
	if err != nil {
		return fmt.Errorf("cannot look into image %s: %w", i.ref, r.native(err))
	}
	defer func() { _ = snapshots.Remove(context.WithoutCancel(ctx), key) }() // the lease's end does it too
	err = mount.WithReadonlyTempMount(ctx, mounts, func(root string) error {
		var err error
		if i.passwd, err = readInside(root, "/etc/passwd"); err == nil {
			i.group, err = readInside(root, "/etc/group")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot read the users of image %s: %w", i.ref, err)
	}
	return nil
}

// accountsLimit bounds a file that may come from anybody.
const accountsLimit = 1 << 20

// readInside reads a file of an image, wherever its links lead inside root; nil when there is none.
func readInside(root, name string) ([]byte, error) {
	path, err := fs.RootPath(root, name)
	if err != nil {
		return nil, fmt.Errorf("cannot resolve %s: %w", name, err)
	}
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil, nil // none that could be read
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, accountsLimit))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	return data, nil
}
