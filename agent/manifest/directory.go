package manifest

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// rescanEvery is how often the directory is read when no event comes: events get lost on some file systems, and a directory
	// that does not exist sends none.
	rescanEvery = 30 * time.Second
	// settleFor is how long the directory must be quiet after an event, at most settleAtMost after the first: files are often
	// written in several steps, and many at once.
	settleFor    = 200 * time.Millisecond
	settleAtMost = 2 * time.Second
)

// FileChange is a manifest file with a content that was not applied on this host before.
type FileChange struct {
	Path string
	Hash [sha256.Size]byte // of the file's bytes
	File File
	// Known says that another content of this path was applied here: then the change is a write. Else the objects are written only
	// if their own past does not hold this content (a new host must not bring back what the fleet has left behind).
	Known bool
}

// DirectoryConsumer takes what Directory finds. Its methods are called by one goroutine at a time.
type DirectoryConsumer interface {
	// Applied is the hash of the content that was last applied on this host from the path; it survives restarts.
	Applied(path string) (hash [sha256.Size]byte, known bool)
	// Apply writes the file's objects and remembers path and hash, durably. After an error (an Errors names fields) it is asked
	// again at every rescan.
	Apply(ctx context.Context, change FileChange) error
	// Report says what is wrong with the file, or with the directory itself, whenever that changes; nil when nothing is any more.
	Report(path string, errs Errors)
}

// DirectoryConfig configures a Directory. Zero durations take the defaults.
type DirectoryConfig struct {
	Path     string
	Consumer DirectoryConsumer
	Logger   *slog.Logger
	Rescan   time.Duration
	Settle   time.Duration
}

// Directory watches a directory of manifests. A file is taken whole or not at all; a removed file deletes nothing.
type Directory struct {
	DirectoryConfig
	files map[string]fileState
	// dirErrs is what was last reported about the directory itself, dir the one that is being watched.
	dirErrs string
	dir     stamp
}

// fileState is what is known of a file from the last time it was read.
type fileState struct {
	stamp stamp
	// again: it must be read again although its stamp has not changed.
	again bool
	errs  string // as reported
}

// NewDirectory makes a Directory; Run starts it.
func NewDirectory(cfg DirectoryConfig) *Directory {
	if cfg.Rescan == 0 {
		cfg.Rescan = rescanEvery
	}
	if cfg.Settle == 0 {
		cfg.Settle = settleFor
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Directory{DirectoryConfig: cfg, files: map[string]fileState{}}
}

// Run reads the directory, then again after every change in it, until ctx ends. A directory that does not exist (yet), or cannot
// be watched, is no reason to stop.
func (d *Directory) Run(ctx context.Context) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		d.Logger.Warn("manifests directory is only read from time to time: it cannot be watched", "path", d.Path, "every", d.Rescan, "error", err)
		watcher = &fsnotify.Watcher{} // nil channels: no event ever
	} else {
		defer func() { _ = watcher.Close() }()
	}
	for ctx.Err() == nil {
		if err == nil {
			d.watch(watcher)
		}
		settle := d.Rescan
		if changing := d.scan(ctx); changing {
			settle = d.Settle
		}
		d.wait(ctx, watcher, settle)
	}
}

// watch follows the directory when it is replaced.
func (d *Directory) watch(watcher *fsnotify.Watcher) {
	info, err := os.Stat(d.Path)
	if err != nil {
		d.dir = stamp{}
		return
	}
	now := stampOf(info)
	now = stamp{device: now.device, inode: now.inode}
	if now == d.dir {
		return
	}
	if d.dir != (stamp{}) {
		_ = watcher.Remove(d.Path) // the directory that had this name before is perhaps gone
	}
	if err := watcher.Add(d.Path); err != nil {
		d.Logger.Warn("cannot watch manifests directory; it is read from time to time", "path", d.Path, "every", d.Rescan, "error", err)
		return
	}
	d.dir = now
}

// wait returns after d.Rescan, or when the directory has been quiet after an event, or when ctx ends.
func (d *Directory) wait(ctx context.Context, watcher *fsnotify.Watcher, atMost time.Duration) {
	rescan := time.NewTimer(atMost)
	defer rescan.Stop()
	var quiet, enough <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-rescan.C:
			return
		case <-quiet:
			return
		case <-enough:
			return
		case err := <-watcher.Errors:
			d.Logger.Warn("watching the manifests directory failed; it is read again", "path", d.Path, "error", err)
			return
		case <-watcher.Events:
			quiet = time.After(d.Settle)
			if enough == nil {
				enough = time.After(max(settleAtMost, d.Settle))
			}
		}
	}
}

// scan reads what has changed. It reports whether some file was being written at that moment.
func (d *Directory) scan(ctx context.Context) (changing bool) {
	paths, err := manifestFiles(d.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.reportDirectory(nil)
	case err != nil:
		d.reportDirectory(Errors{{Source: d.Path, Text: cause(err).Error()}})
		return false // unreadable is not empty
	default:
		d.reportDirectory(nil)
	}
	present := make(map[string]bool, len(paths))
	for _, path := range paths {
		if ctx.Err() != nil {
			return false
		}
		present[path] = true
		if d.file(ctx, path) {
			changing = true
		}
	}
	for path := range d.files {
		if !present[path] {
			d.report(path, nil)
			delete(d.files, path)
		}
	}
	return changing
}

// file looks at one file.
func (d *Directory) file(ctx context.Context, path string) (changing bool) {
	was, err := statManifest(path)
	state, seen := d.files[path]
	if seen && state.stamp == was && !state.again {
		return false
	}
	state.stamp, state.again = was, false
	d.files[path] = state
	if err == nil {
		err = d.take(ctx, path, was)
	}
	if errors.Is(err, errChanging) {
		d.again(path)
		return true
	}
	d.report(path, toErrors(path, err))
	return false
}

// take reads, decodes and applies one file.
func (d *Directory) take(ctx context.Context, path string, was stamp) error {
	data, err := readManifest(path, was)
	if err != nil {
		if !errors.Is(err, errChanging) {
			d.again(path) // permissions may change without the file
		}
		return err
	}
	if age := time.Since(was.modified()); age >= 0 && age < d.Settle {
		return errChanging // perhaps only its first half is written
	}
	hash := sha256.Sum256(data)
	applied, known := d.Consumer.Applied(path)
	if known && applied == hash {
		return nil
	}
	file, err := Decode(path, data)
	if err != nil {
		return err
	}
	if len(file.Objects)+len(file.Skipped) == 0 && !known {
		return nil // nothing to remember: a file that is created empty and then filled is still new
	}
	if err := d.Consumer.Apply(ctx, FileChange{Path: path, Hash: hash, File: file, Known: known}); err != nil {
		d.again(path)
		errs := toErrors(path, err)
		for i := range errs {
			errs[i].Source = path
		}
		return errs
	}
	return nil
}

func (d *Directory) again(path string) {
	state := d.files[path]
	state.again = true
	d.files[path] = state
}

// report tells the consumer when there is something new to tell.
func (d *Directory) report(path string, errs Errors) {
	state := d.files[path]
	text := errs.Error()
	if text == state.errs {
		return
	}
	state.errs = text
	d.files[path] = state
	d.Consumer.Report(path, errs)
}

func (d *Directory) reportDirectory(errs Errors) {
	if text := errs.Error(); text != d.dirErrs {
		d.dirErrs = text
		d.Consumer.Report(d.Path, errs)
	}
}
