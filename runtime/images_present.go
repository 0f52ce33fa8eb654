package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// configLimit bounds an image's configuration, which may come from anybody.
const configLimit = 16 << 20

// present looks for an image that can be run: two questions to containerd when the image is known already. One that is there
// but not unpacked is unpacked, if all its layers are there too.
func (r *Runtime) present(ctx context.Context, name imageName) (presentImage, error) {
	record, err := r.imageRecord(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return presentImage{}, nil
	}
	if err != nil {
		return presentImage{}, fmt.Errorf("cannot look up image %s: %w", name.record, err)
	}
	found := presentImage{digest: record.Target.Digest, imported: record.Labels[labelArchive] != ""}
	unpacked, err := r.isUnpacked(ctx, name.at(record.Target.Digest), record.Target)
	if err == nil && !unpacked {
		err = r.unpack(ctx, record)
	}
	switch {
	case errors.Is(err, ErrUnavailable) || ctx.Err() != nil:
		return presentImage{}, fmt.Errorf("cannot look at image %s: %w", name.record, err)
	case err != nil:
		r.log.Info("image is not complete; it has to be pulled", "image", name.record, "error", err)
		return presentImage{}, nil
	}
	r.warm(ctx, name.at(found.digest))
	return found, nil
}

// imageRecord finds what a name means. A digest needs no record of its own: whatever brought its content will do.
func (r *Runtime) imageRecord(ctx context.Context, name imageName) (images.Image, error) {
	record, err := r.client.ImageService().Get(ctx, name.record)
	if err = r.native(err); err == nil || name.digest == "" || !errors.Is(err, ErrNotFound) {
		return record, err
	}
	target, err := r.descriptor(ctx, name.digest)
	return images.Image{Name: name.record, Target: target}, err
}

// descriptor describes a manifest or index that is in containerd's store.
func (r *Runtime) descriptor(ctx context.Context, d digest.Digest) (ocispec.Descriptor, error) {
	store := r.client.ContentStore()
	info, err := store.Info(ctx, d)
	if err != nil {
		return ocispec.Descriptor{}, r.native(err)
	}
	if info.Size > docker.MaxManifestSize {
		return ocispec.Descriptor{}, fmt.Errorf("%s is too large for a manifest: %w", d, ErrNotFound)
	}
	desc := ocispec.Descriptor{Digest: d, Size: info.Size}
	data, err := content.ReadBlob(ctx, store, desc)
	if err != nil {
		return ocispec.Descriptor{}, r.native(err)
	}
	var document struct {
		MediaType string            `json:"mediaType"` // optional in OCI's
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(data, &document); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%s is not a manifest: %w", d, ErrNotFound)
	}
	switch desc.MediaType = document.MediaType; {
	case desc.MediaType != "":
	case document.Manifests != nil:
		desc.MediaType = ocispec.MediaTypeImageIndex
	default:
		desc.MediaType = ocispec.MediaTypeImageManifest
	}
	return desc, nil
}

// isUnpacked says whether the image's file system is there. ref is the one under which it is cached.
func (r *Runtime) isUnpacked(ctx context.Context, ref string, target ocispec.Descriptor) (bool, error) {
	chainID := ""
	if known := r.images.get(ref); known != nil {
		chainID = known.chainID
	} else {
		config, err := r.imageConfig(ctx, target)
		if err != nil {
			return false, err
		}
		chainID = identity.ChainID(config.RootFS.DiffIDs).String()
	}
	if chainID == "" {
		return true, nil // it has no layers
	}
	_, err := r.client.SnapshotService(snapshotter).Stat(ctx, chainID)
	if err = r.native(err); errors.Is(err, ErrNotFound) {
		r.images.forget(ref)
		return false, nil
	}
	return err == nil, err
}

// imageConfig reads the configuration for this host's platform.
func (r *Runtime) imageConfig(ctx context.Context, target ocispec.Descriptor) (ocispec.Image, error) {
	store := r.client.ContentStore()
	desc, err := images.Config(ctx, store, target, platforms.Default())
	if err != nil {
		return ocispec.Image{}, r.native(err)
	}
	if desc.Size > configLimit {
		return ocispec.Image{}, fmt.Errorf("the image's configuration is too large: %d bytes", desc.Size)
	}
	data, err := content.ReadBlob(ctx, store, desc)
	if err != nil {
		return ocispec.Image{}, r.native(err)
	}
	var config ocispec.Image
	if err := json.Unmarshal(data, &config); err != nil {
		return ocispec.Image{}, fmt.Errorf("cannot read the image's configuration: %w", err)
	}
	return config, nil
}

// unpack makes the image's file system from its layers, which must be there.
func (r *Runtime) unpack(ctx context.Context, record images.Image) error {
	ctx = r.quiet(r.ctx(ctx))
	if err := client.NewImageWithPlatform(r.client, record, platforms.Default()).Unpack(ctx, snapshotter); err != nil {
		return fmt.Errorf("cannot unpack: %w", r.native(err))
	}
	return nil
}
