package runtime

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// ImageCollection is what CollectImages did.
type ImageCollection struct {
	Wanted  int64    // bytes that were to be freed; 0: there was room enough
	Freed   int64    // bytes by which the file system's free space has grown
	Removed []string // names of the images that are gone

	UsedPercent, Capacity int64 // of the file system, before
}

// Short says whether too little was freed: what fills the disk is in use, or no image.
func (c ImageCollection) Short() bool { return c.Freed < c.Wanted }

// CollectImages removes images of ours that nothing uses while the file system of containerd's snapshots is over the high mark, until
// it is below the low one (unusedImages has the order and what is kept). pinned are references as in manifests that are kept though
// no container is made of them. It is to be called every few minutes: it also notes which images are in use. Where containerd's files
// cannot be seen, nothing is removed.
func (r *Runtime) CollectImages(ctx context.Context, pinned []string) (ImageCollection, error) {
	return r.collectImages(ctx, pinned, time.Now())
}

func (r *Runtime) collectImages(ctx context.Context, pinned []string, began time.Time) (ImageCollection, error) {
	stored, err := r.storedImages(ctx, began)
	if err != nil {
		return ImageCollection{}, err
	}
	dir, err := r.ImageStore(ctx)
	if err != nil {
		return ImageCollection{}, err
	}
	before, err := spaceOf(dir)
	if err != nil {
		return ImageCollection{}, err
	}
	c := ImageCollection{Wanted: before.toFree(r.library.wanted.take()), UsedPercent: before.used(), Capacity: before.capacity}
	if c.Wanted == 0 {
		return c, nil
	}
	err = r.removeImages(ctx, unusedImages(stored, parseImageNames(pinned), began), began, func() (enough bool, err error) {
		now, err := spaceOf(dir)
		c.Freed = max(now.available-before.available, 0)
		return !c.Short(), err
	}, func(i storedImage) { c.Removed = append(c.Removed, i.names...) })
	if len(c.Removed) > 0 {
		r.imagesChanged(ctx)
	}
	return c, err
}

// parseImageNames leaves out what is no reference: no image has that name.
func parseImageNames(refs []string) []imageName {
	var names []imageName
	for _, ref := range refs {
		if name, err := parseImageName(ref); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// removeImages removes images one by one until there is enough. Layers are shared: what the end of one frees is known afterwards only.
// One that was asked for in the meantime stays.
func (r *Runtime) removeImages(ctx context.Context, unused []storedImage, began time.Time, enough func() (bool, error), removed func(storedImage)) error {
	var errs []error
	for _, image := range unused {
		if r.library.uses.at(image.digest).After(began) {
			continue
		}
		if err := r.removeImage(ctx, image); err != nil {
			if ctx.Err() != nil || errors.Is(err, ErrUnavailable) {
				return err
			}
			errs = append(errs, err)
			continue
		}
		removed(image)
		if done, err := enough(); done || err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	return errors.Join(errs...)
}

// removeImage removes all names of an image, and waits until containerd has removed what no other image has.
func (r *Runtime) removeImage(ctx context.Context, image storedImage) error {
	defer r.images.forgetDigest(image.digest.String())
	for i, name := range image.names {
		var options []images.DeleteOpt
		if i == len(image.names)-1 {
			options = append(options, images.SynchronousDelete())
		}
		if err := r.client.ImageService().Delete(ctx, name, options...); err != nil {
			if err = r.native(err); !errors.Is(err, ErrNotFound) {
				return fmt.Errorf("cannot remove image %s: %w", name, err)
			}
		}
	}
	return nil
}

// storedImages lists the images of ours, and notes the use of those that containers are made of.
func (r *Runtime) storedImages(ctx context.Context, now time.Time) ([]storedImage, error) {
	records, err := r.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot list images: %w", r.native(err))
	}
	containers, err := r.client.ContainerService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot list containers: %w", r.native(err))
	}
	used := map[string]bool{}
	for _, c := range containers {
		used[c.Labels[labelImage]], used[c.Image] = true, true // by its name, if it was not made by us
	}
	byDigest := map[digest.Digest]*storedImage{}
	for _, record := range records {
		d := record.Target.Digest
		image := byDigest[d]
		if image == nil {
			image = &storedImage{digest: d, inUse: used[d.String()]}
			byDigest[d] = image
		}
		image.names, image.inUse = append(image.names, record.Name), image.inUse || used[record.Name]
		image.imported = image.imported || record.Labels[labelArchive] != ""
		if record.UpdatedAt.After(image.pulled) {
			image.pulled = record.UpdatedAt
		}
	}
	return r.library.uses.note(byDigest, now), nil
}

// ImageStore is the directory in which containerd keeps the file systems of images and containers: the kubelet's imagefs.
func (r *Runtime) ImageStore(ctx context.Context) (string, error) {
	plugins, err := r.client.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1,id=="+snapshotter)
	if err != nil {
		return "", fmt.Errorf("cannot ask where images are kept: %w", r.native(err))
	}
	for _, p := range plugins.Plugins {
		if root := p.Exports["root"]; root != "" {
			return root, nil
		}
	}
	return "", fmt.Errorf("containerd does not tell where images are kept: %w", ErrNotFound)
}

func spaceOf(dir string) (diskSpace, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return diskSpace{}, fmt.Errorf("cannot look at the file system of %s: %w", dir, err)
	}
	return diskSpace{capacity: int64(fs.Blocks) * fs.Bsize, available: int64(fs.Bavail) * fs.Bsize}, nil
}

// imageUses is when images were last asked for or seen with a container. What this agent did not see was used when it was pulled.
type imageUses struct {
	mu   sync.Mutex
	last map[digest.Digest]time.Time
}

func (u *imageUses) now(d digest.Digest) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == nil {
		u.last = map[digest.Digest]time.Time{}
	}
	u.last[d] = time.Now()
}

func (u *imageUses) at(d digest.Digest) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.last[d]
}

// note gives images their last use, and forgets those that are gone.
func (u *imageUses) note(images map[digest.Digest]*storedImage, now time.Time) []storedImage {
	u.mu.Lock()
	defer u.mu.Unlock()
	seen := map[digest.Digest]time.Time{}
	var list []storedImage
	for d, image := range images {
		image.lastUsed = image.pulled
		if image.inUse {
			image.lastUsed = now
		}
		if at := u.last[d]; at.After(image.lastUsed) {
			image.lastUsed = at
		}
		seen[d] = image.lastUsed
		slices.Sort(image.names)
		list = append(list, *image)
	}
	u.last = seen
	return list
}

// wantedRoom is what pulls needed that were refused for want of room, since somebody last looked.
type wantedRoom struct {
	mu    sync.Mutex
	bytes int64
	bell  chan struct{}
}

func (w *wantedRoom) ask(bytes int64) {
	w.mu.Lock()
	w.bytes = max(w.bytes, bytes)
	w.mu.Unlock()
	select {
	case w.bell <- struct{}{}:
	default:
	}
}

func (w *wantedRoom) take() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	bytes := w.bytes
	w.bytes = 0
	return bytes
}

// ImageRoomWanted rings when a pull was refused because it would fill the disk: CollectImages then makes room for it, if images that
// nothing uses take it. The pull is tried again by who wants it.
func (r *Runtime) ImageRoomWanted() <-chan struct{} { return r.library.wanted.bell }
