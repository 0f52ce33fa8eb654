package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"path/filepath"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/agent/manifest"
)

// files takes what is found in the manifests directory (manifest.Directory) into the loop, and remembers what is wrong there.
type files struct {
	loop *loop

	mu     sync.Mutex
	errors map[string]int // path -> number of errors
}

func newFiles(l *loop) *files { return &files{loop: l, errors: map[string]int{}} }

// Applied is what the directory asks for: the content last applied here.
func (f *files) Applied(path string) (hash [sha256.Size]byte, known bool) {
	text, known := f.loop.state.applied(path)
	if !known {
		return hash, false
	}
	if n, err := hex.Decode(hash[:], []byte(text)); err != nil || n != len(hash) {
		return [sha256.Size]byte{}, true // of an unknown content: applied again
	}
	return hash, true
}

// Apply writes the file's objects, all or none. The loop never waits for the memory of it: a file that was applied but not
// remembered is applied again and changes nothing.
func (f *files) Apply(ctx context.Context, c manifest.FileChange) error {
	err := f.loop.do(ctx, func() error { return f.loop.writeFile(c.Path, c.Known, c.File.Objects) })
	if err != nil {
		return err
	}
	for _, s := range c.File.Skipped {
		f.loop.log.Info("manifest has an object of a kind that picket does not serve; it is left out", "file", c.Path, "object", s.String())
		f.loop.events.record(f.loop.node.reference(), corev1.EventTypeNormal, "ManifestSkipped",
			fmt.Sprintf("%s: %s is of a kind that picket does not serve", filepath.Base(c.Path), s))
	}
	for _, w := range c.File.Warnings {
		f.loop.log.Warn("manifest asks for something that is not honoured", "file", c.Path, "object", w.Ref.String(), "field", w.Field, "what", w.Text)
	}
	f.note(c.Path, 0)
	return f.loop.state.setApplied(c.Path, hex.EncodeToString(c.Hash[:]))
}

// Report keeps what is wrong with a file, or with the directory itself.
func (f *files) Report(path string, errs manifest.Errors) {
	f.note(path, len(errs))
	if len(errs) == 0 {
		f.loop.log.Info("manifest is fine again", "file", path)
		return
	}
	for _, e := range errs {
		f.loop.trouble("InvalidManifest", e)
	}
}

func (f *files) note(path string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errors[path] = n
}

// counts is the number of errors of every file, for metrics.
func (f *files) counts() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.errors)
}
