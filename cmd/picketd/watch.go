package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// lookEvery is how often the file is looked at when nothing is heard: some file systems tell nothing, a directory may not exist
// yet, and of a chain of links only both ends are watched.
const lookEvery = 30 * time.Second

// watch sends whenever something happened near the file; who receives looks whether the content is another. It watches the
// directory, not the file, which editors, Ansible and Kubernetes replace; and the directory of what the file is a link to.
func watch(ctx context.Context, path string, log *slog.Logger) <-chan struct{} {
	changed := make(chan struct{}, 1)
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("cannot watch the configuration file; it is looked at from time to time", "file", path, "every", lookEvery, "error", err)
		watcher = &fsnotify.Watcher{} // nil channels: no event ever
	}
	go func() {
		if err == nil {
			defer func() { _ = watcher.Close() }()
		}
		ticker := time.NewTicker(lookEvery)
		defer ticker.Stop()
		for {
			if err == nil {
				watchDirectories(watcher, path)
			}
			select { // after the watch is set, so that no change falls in between
			case changed <- struct{}{}:
			default:
			}
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			case <-watcher.Events:
			case lost := <-watcher.Errors: // more than the kernel could tell: look
				log.Debug("changes near the configuration file were missed", "error", lost)
			}
		}
	}()
	return changed
}

// watchDirectories adds what is not watched yet. What cannot be watched now is tried again.
func watchDirectories(watcher *fsnotify.Watcher, path string) {
	_ = watcher.Add(filepath.Dir(path))
	if target, err := filepath.EvalSymlinks(path); err == nil && filepath.Dir(target) != filepath.Dir(path) {
		_ = watcher.Add(filepath.Dir(target))
	}
}
