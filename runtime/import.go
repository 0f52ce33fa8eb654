package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"golang.org/x/sync/semaphore"
)

// Labels of image records that came from an archive: its name, and what it looked like then. As they are with the images, an
// agent that starts reads no archive twice, and one whose images were deleted is imported again.
const (
	labelArchive      = "picket.io/archive"
	labelArchiveStamp = "picket.io/archive-stamp"
)

// retryAfter is when an archive that could not be imported is tried again though it has not changed: a full disk may have space.
const retryAfter = 10 * time.Minute

// archives is what is remembered of imagesDir: why an archive could not be imported, as long as it looks the same.
type archives struct {
	lock   *semaphore.Weighted // over all below, and over imports: it can be waited for with a context
	failed map[string]failedArchive
}

type failedArchive struct {
	stamp string
	err   error
	at    time.Time
}

func newArchives() archives {
	return archives{lock: semaphore.NewWeighted(1), failed: map[string]failedArchive{}}
}

// ImportImages takes in the archives (docker save, OCI layout; *.tar, *.tar.gz, *.tgz, *.tar.zst) in imagesDir that are new or
// have changed, and counts the images if that was long ago. Without news it costs a look at the directory and one question to
// containerd. An archive that cannot be imported is an error that names it, at every call, and keeps no other from being imported.
func (r *Runtime) ImportImages(ctx context.Context) error {
	a := &r.library.archives
	if err := a.lock.Acquire(ctx, 1); err != nil {
		return err
	}
	defer a.lock.Release(1)
	stamps, errs := findArchives(r.cfg.ImagesDir)
	err := r.importChanged(ctx, stamps)
	if r.library.usage.stale() && !errors.Is(err, ErrUnavailable) {
		err = errors.Join(err, r.countImages(ctx))
	}
	return errors.Join(append(errs, err)...)
}

// findArchives returns the archives in a directory by name, with a stamp that changes when they do. A directory that is not
// there has none.
func findArchives(dir string) (map[string]string, []error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, []error{fmt.Errorf("cannot read the images directory: %w", err)}
	}
	stamps := map[string]string{}
	var errs []error
	for _, e := range entries {
		if !isArchive(e.Name()) {
			continue
		}
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // gone, or a link to nothing
		case err != nil:
			errs = append(errs, fmt.Errorf("cannot look at image archive: %w", err))
		case info.Mode().IsRegular():
			stamps[e.Name()] = strconv.FormatInt(info.Size(), 10) + "-" + strconv.FormatInt(info.ModTime().UnixNano(), 10)
		}
	}
	return stamps, errs
}

// isArchive leaves out hidden files: that is what copies under way are called.
func isArchive(name string) bool {
	if strings.HasPrefix(name, ".") {
		return false
	}
	for _, suffix := range []string{".tar", ".tar.gz", ".tgz", ".tar.zst"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// importChanged imports what containerd has not got from the archives as they are now.
func (r *Runtime) importChanged(ctx context.Context, stamps map[string]string) error {
	imported, err := r.client.ImageService().List(ctx, "labels."+strconv.Quote(labelArchive))
	if err != nil {
		return fmt.Errorf("cannot list imported images: %w", r.native(err))
	}
	done := map[string]bool{}
	for _, record := range imported {
		name, stamp := archiveOf(record)
		if _, there := stamps[name]; there {
			done[name+"/"+stamp] = true
		} else if err := r.disown(ctx, record); err != nil {
			return err
		}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(stamps)) {
		if done[name+"/"+stamps[name]] {
			continue
		}
		err := r.importOnce(ctx, name, stamps[name])
		if ctx.Err() != nil || errors.Is(err, ErrUnavailable) {
			return err
		}
		errs = append(errs, err)
	}
	r.library.archives.forgetOthers(stamps)
	return errors.Join(errs...)
}

// importOnce imports an archive, or says again why it cannot.
func (r *Runtime) importOnce(ctx context.Context, name, stamp string) error {
	a := &r.library.archives
	if known, ok := a.failed[name]; ok && known.stamp == stamp && time.Since(known.at) < retryAfter {
		return known.err
	}
	names, err := r.importArchive(ctx, name, stamp)
	if err == nil {
		delete(a.failed, name)
		r.log.Info("images imported", "archive", name, "images", names)
		r.imagesChanged(ctx)
		return nil
	}
	if broken := r.brokenOff(err); broken != nil {
		return broken
	}
	if noSpace(err) {
		err = fmt.Errorf("containerd's disk is full: %w", err)
	}
	err = fmt.Errorf("cannot import %s: %w", filepath.Join(r.cfg.ImagesDir, name), err)
	if ctx.Err() == nil {
		a.failed[name] = failedArchive{stamp, err, time.Now()}
	}
	return err
}

func (a *archives) forgetOthers(stamps map[string]string) {
	for name := range a.failed {
		if _, there := stamps[name]; !there {
			delete(a.failed, name)
		}
	}
}

// disown makes an image whose archive was taken away one like any other: under Always the registry is asked again.
func (r *Runtime) disown(ctx context.Context, record images.Image) error {
	delete(record.Labels, labelArchive)
	delete(record.Labels, labelArchiveStamp)
	if _, err := r.client.ImageService().Update(ctx, record, "labels"); err != nil {
		if err = r.native(err); !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("cannot update image %s: %w", record.Name, err)
		}
	}
	return nil
}

// archiveLabels are plain text whatever a file is called.
func archiveLabels(name, stamp string) map[string]string {
	return map[string]string{labelArchive: url.PathEscape(name), labelArchiveStamp: stamp}
}

func archiveOf(record images.Image) (name, stamp string) {
	name, err := url.PathUnescape(record.Labels[labelArchive])
	if err != nil {
		return "", ""
	}
	return name, record.Labels[labelArchiveStamp]
}
