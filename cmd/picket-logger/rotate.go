package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The kubelet's names: 0.log.20060102-150405, with .gz when compressed and .tmp while that is under way.
const (
	rotatedLayout = "20060102-150405"
	compressed    = ".gz"
	unfinished    = ".tmp"
)

// rotated is one full file.
type rotated struct {
	when string // in rotatedLayout; they sort by it
	path string
}

func (r rotated) compressed() bool { return strings.HasSuffix(r.path, compressed) }

// rotate gives the full file its name, removes the oldest and begins a new one. When it cannot be renamed it grows on: better
// too long than lost.
func (l *logFile) rotate() {
	if l.file == nil || l.usable() != nil || l.size == 0 {
		return
	}
	old := l.rotatedFiles()
	if err := os.Rename(l.path, l.path+"."+nextName(old, time.Now())); err != nil {
		l.spare += l.maxSize / 8
		return
	}
	l.spare = 0
	l.shut()
	_ = l.open() // flush tries again, and counts
	l.prune(l.rotatedFiles())
	l.packer.wake()
}

// nextName is the time in UTC, or the second after the newest's.
func nextName(old []rotated, now time.Time) string {
	name := now.UTC().Format(rotatedLayout)
	if len(old) == 0 || old[len(old)-1].when < name {
		return name
	}
	newest, err := time.Parse(rotatedLayout, old[len(old)-1].when)
	if err != nil {
		return name // cannot be: rotatedFiles has parsed it
	}
	return newest.Add(time.Second).Format(rotatedLayout)
}

// rotatedFiles are those of this log, oldest first. A file that exists in both forms, as a logger was killed in between, is
// there twice.
func (l *logFile) rotatedFiles() []rotated {
	dir, prefix := filepath.Dir(l.path), filepath.Base(l.path)+"."
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var files []rotated
	for _, e := range entries {
		when, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok || !e.Type().IsRegular() {
			continue
		}
		when = strings.TrimSuffix(when, compressed)
		if _, err := time.Parse(rotatedLayout, when); err == nil {
			files = append(files, rotated{when, filepath.Join(dir, e.Name())})
		}
	}
	slices.SortStableFunc(files, func(a, b rotated) int { return strings.Compare(a.when, b.when) })
	return files
}

// prune removes the oldest, so that maxFiles remain with the current one.
func (l *logFile) prune(files []rotated) {
	kept := 1
	for i := len(files) - 1; i >= 0; i-- {
		if i == len(files)-1 || files[i].when != files[i+1].when {
			kept++
		}
		if kept > l.maxFiles {
			_ = os.Remove(files[i].path) // the next rotation tries again
			_ = os.Remove(files[i].path + unfinished)
		}
	}
}
