package pod

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// payloadFile is one file of a configMap, secret, downwardAPI or projected volume.
type payloadFile struct {
	data []byte
	mode os.FileMode
	// uid owns the file, when it is not root.
	uid *int64
}

// payload is such a volume's content by path, relative to the volume.
type payload map[string]payloadFile

// The kubelet's layout: what a user sees are links into ..data, which is a link to the directory of the current content.
//
//	key -> ..data/key
//	..data -> ..2026_01_02_15_04_05.123456
//
// Renaming a new ..data over the old one changes all files at once.
const (
	dataLink    = "..data"
	newDataLink = "..data_tmp"
	stampLayout = "..2006_01_02_15_04_05."
)

// writePayload brings dir to the content want and says whether that changed anything. own is applied to the new content
// before anybody can see it.
func writePayload(dir string, want payload, own func(dir string) error) (changed bool, err error) {
	old, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("cannot read the volume's current content: %w", err)
	}
	if old != "" && sameContent(filepath.Join(dir, old), want) {
		return false, linkNames(dir, want)
	}
	fresh, err := os.MkdirTemp(dir, time.Now().UTC().Format(stampLayout))
	if err != nil {
		return false, fmt.Errorf("cannot make the volume's new content: %w", err)
	}
	err = writeFiles(fresh, want)
	if err == nil {
		err = own(fresh)
	}
	if err == nil {
		err = swapData(dir, filepath.Base(fresh))
	}
	if err != nil {
		return false, errors.Join(err, os.RemoveAll(fresh))
	}
	if err := linkNames(dir, want); err != nil {
		return true, err
	}
	return true, removeStale(dir, filepath.Base(fresh), want)
}

// sameContent says whether dir holds want and nothing else. Whatever cannot be read differs.
func sameContent(dir string, want payload) bool {
	seen := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		file, ok := want[name]
		if !ok {
			return errDiffers
		}
		data, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(data, file.data) {
			return errDiffers
		}
		seen++
		return nil
	})
	return err == nil && seen == len(want)
}

var errDiffers = errors.New("content differs")

func writeFiles(dir string, want payload) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("cannot open the volume's content to readers: %w", err)
	}
	for name, file := range want {
		if !filepath.IsLocal(name) {
			return fmt.Errorf("file %q would be outside of its volume", name)
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("cannot make directory for %q: %w", name, err)
		}
		if err := os.WriteFile(path, file.data, file.mode); err != nil {
			return fmt.Errorf("cannot write %q: %w", name, err)
		}
		// WriteFile obeys the umask.
		if err := os.Chmod(path, file.mode); err != nil {
			return fmt.Errorf("cannot set the mode of %q: %w", name, err)
		}
		if file.uid == nil {
			continue
		}
		if err := os.Lchown(path, int(*file.uid), -1); err != nil {
			return fmt.Errorf("cannot set the owner of %q: %w", name, err)
		}
	}
	return nil
}

func swapData(dir, fresh string) error {
	link := filepath.Join(dir, newDataLink)
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove an unfinished update: %w", err)
	}
	if err := os.Symlink(fresh, link); err != nil {
		return fmt.Errorf("cannot link the volume's new content: %w", err)
	}
	if err := os.Rename(link, filepath.Join(dir, dataLink)); err != nil {
		return fmt.Errorf("cannot swap the volume's content: %w", err)
	}
	return nil
}

// linkNames makes the links a user sees, one for each first path component.
func linkNames(dir string, want payload) error {
	for name := range want {
		top := topOf(name)
		link := filepath.Join(dir, top)
		if _, err := os.Lstat(link); err == nil {
			continue
		}
		if err := os.Symlink(filepath.Join(dataLink, top), link); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("cannot link %q: %w", name, err)
		}
	}
	return nil
}

func topOf(name string) string {
	top, _, _ := strings.Cut(name, string(filepath.Separator))
	return top
}

// removeStale removes links to what is no longer there, and every content but the current.
func removeStale(dir, current string, want payload) error {
	keep := map[string]bool{dataLink: true, current: true}
	for name := range want {
		keep[topOf(name)] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("cannot list the volume: %w", err)
	}
	for _, e := range entries {
		if keep[e.Name()] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("cannot remove the volume's old content: %w", err)
		}
	}
	return nil
}
