package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// importArchive imports one archive and returns the images' names. They are unpacked before a name is given to any: an archive
// that proves broken takes nothing away from an older image of the same name.
func (r *Runtime) importArchive(ctx context.Context, name, stamp string) (names []string, err error) {
	ctx, unlease, err := r.lease(r.quiet(r.ctx(ctx)))
	if err != nil {
		return nil, r.native(err)
	}
	defer func() { unlease(err) }()
	index, err := r.readArchive(ctx, filepath.Join(r.cfg.ImagesDir, name))
	if err != nil {
		return nil, err
	}
	records, err := r.imagesOf(ctx, index)
	if err != nil {
		return nil, err
	}
	for _, record := range records {
		if err := r.unpack(ctx, record); err != nil {
			return nil, fmt.Errorf("image %s: %w", record.Name, err)
		}
	}
	for _, record := range records {
		record.Labels = archiveLabels(name, stamp)
		if err := r.name(ctx, record); err != nil {
			return nil, err
		}
		names = append(names, record.Name)
	}
	return names, nil
}

// readArchive puts an archive's content into containerd's store; the lease keeps it there.
func (r *Runtime) readArchive(ctx context.Context, path string) (ocispec.Descriptor, error) {
	f, err := os.Open(path)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("cannot open archive: %w", err)
	}
	defer f.Close()
	stream, err := compression.DecompressStream(f)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("cannot decompress: %w", err)
	}
	defer stream.Close()
	index, err := archive.ImportIndex(ctx, r.client.ContentStore(), stream)
	if err != nil {
		return ocispec.Descriptor{}, r.native(err)
	}
	return index, nil
}

// imagesOf returns what an archive's index names and this host can run, and binds its content together for containerd's garbage
// collector.
func (r *Runtime) imagesOf(ctx context.Context, index ocispec.Descriptor) ([]images.Image, error) {
	store := r.client.ContentStore()
	children := func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if (images.IsManifestType(desc.MediaType) || images.IsIndexType(desc.MediaType)) && desc.Size > docker.MaxManifestSize {
			return nil, fmt.Errorf("manifest %s is too large: %d bytes", desc.Digest, desc.Size)
		}
		return images.Children(ctx, store, desc)
	}
	bind := images.SetChildrenLabels(store, images.FilterPlatforms(children, platforms.Default()))
	if err := images.WalkNotEmpty(ctx, bind, index); err != nil {
		if errors.Is(err, images.ErrEmptyWalk) {
			return nil, fmt.Errorf("it has no image for %s", platforms.DefaultString())
		}
		return nil, r.native(err)
	}
	data, err := content.ReadBlob(ctx, store, index)
	if err != nil {
		return nil, r.native(err)
	}
	var list ocispec.Index
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("cannot read its index: %w", err)
	}
	var records []images.Image
	for _, manifest := range list.Manifests {
		if manifest.Platform != nil && !platforms.Default().Match(*manifest.Platform) {
			continue
		}
		name, err := archivedName(manifest)
		if err != nil {
			return nil, err
		}
		records = append(records, images.Image{Name: name, Target: manifest})
	}
	if len(records) == 0 {
		return nil, fmt.Errorf("it has no image for %s", platforms.DefaultString())
	}
	return records, nil
}

// archivedName is the image's name as EnsureImage looks for it. A tag alone, which OCI layouts may have, names no image.
func archivedName(manifest ocispec.Descriptor) (string, error) {
	name := manifest.Annotations[images.AnnotationImageName]
	if name == "" {
		name = manifest.Annotations[ocispec.AnnotationRefName]
		if !strings.ContainsAny(name, "/:@") {
			return "", fmt.Errorf("it names no image, only %q: save it under its full name", name)
		}
	}
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return "", fmt.Errorf("it has an image with an impossible name %q: %w", name, err)
	}
	return named.String(), nil
}

// name makes a name mean an image.
func (r *Runtime) name(ctx context.Context, record images.Image) error {
	service := r.client.ImageService()
	_, err := service.Update(ctx, record, "target", "labels")
	if errdefs.IsNotFound(err) {
		_, err = service.Create(ctx, record)
	}
	if err != nil {
		return fmt.Errorf("cannot name image %s: %w", record.Name, r.native(err))
	}
	r.images.forget(record.Name)
	return nil
}
