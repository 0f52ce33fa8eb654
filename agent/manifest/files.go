package manifest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// maxFiles bounds a manifests directory.
const maxFiles = 10000

// manifestFiles lists the directory's manifests in the order of their names: *.yaml, *.yml and *.json, without hidden and editors'
// temporary files. Subdirectories are not followed.
func manifestFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, entry := range entries {
		if isManifestName(entry.Name()) {
			paths = append(paths, filepath.Join(dir, entry.Name()))
		}
	}
	if len(paths) > maxFiles {
		return nil, fmt.Errorf("has %d manifests; at most %d are read", len(paths), maxFiles)
	}
	return paths, nil
}

func isManifestName(name string) bool {
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "#") {
		return false
	}
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// stamp changes whenever a file's content may have changed.
type stamp struct {
	device, inode uint64
	size          int64
	mtime, ctime  syscall.Timespec
}

func stampOf(info fs.FileInfo) stamp {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return stamp{size: info.Size()}
	}
	return stamp{device: uint64(s.Dev), inode: s.Ino, size: s.Size, mtime: s.Mtim, ctime: s.Ctim}
}

func (s stamp) modified() time.Time { return time.Unix(s.mtime.Unix()) }

// statManifest follows links, and takes nothing but regular files: whoever opens a FIFO or a device may wait for ever.
func statManifest(path string) (stamp, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if target, linkErr := os.Readlink(path); linkErr == nil {
			return stamp{}, fmt.Errorf("is a link to %s, which does not exist", printable(target))
		}
	}
	if err != nil {
		return stamp{}, cause(err)
	}
	if err := regular(info); err != nil {
		return stampOf(info), err
	}
	return stampOf(info), nil
}

func regular(info fs.FileInfo) error {
	switch {
	case info.IsDir():
		return errors.New("is a directory; subdirectories are not followed")
	case !info.Mode().IsRegular():
		return fmt.Errorf("is not a regular file but %s", info.Mode().Type())
	case info.Size() > maxSource:
		return tooLarge("the file", int(info.Size()), maxSource)
	}
	return nil
}

// errChanging: somebody is writing the file at this moment.
var errChanging = errors.New("was changed while it was read")

// readManifest reads a file that statManifest has seen. O_NONBLOCK is for the file that has become a FIFO since.
func readManifest(path string, want stamp) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, cause(err)
	}
	defer func() { _ = f.Close() }() // only read: nothing can be lost
	if info, err := f.Stat(); err != nil || stampOf(info) != want {
		return nil, errChanging
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSource+1))
	if err != nil {
		return nil, cause(err)
	}
	if info, err := f.Stat(); err != nil || stampOf(info) != want {
		return nil, errChanging
	}
	return data, nil
}

// cause is the error without the path, which the message names anyway.
func cause(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return fmt.Errorf("cannot be read: %w", pathErr.Err)
	}
	return err
}

// CheckedFile is what one file of a manifests directory holds.
type CheckedFile struct {
	Path   string
	File   File
	Errors Errors
}

// CheckDirectory reads all manifests of a directory as Directory does and applies nothing. It also finds objects that two files
// define. The error is about the directory itself.
func CheckDirectory(dir string) ([]CheckedFile, error) {
	paths, err := manifestFiles(dir)
	if err != nil {
		return nil, fmt.Errorf("manifests directory %s: %w", printable(dir), cause(err))
	}
	checked := make([]CheckedFile, len(paths))
	owner := map[Ref]string{}
	for i, path := range paths {
		c := &checked[i]
		c.Path = path
		c.File, c.Errors = checkFile(path)
		for _, obj := range c.File.Objects {
			ref := RefOf(obj)
			if first, ok := owner[ref]; ok && first != path {
				c.Errors = append(c.Errors, Error{Source: path, Ref: ref, Text: "is also in " + printable(filepath.Base(first)) + "; keep one"})
			} else {
				owner[ref] = path
			}
		}
	}
	return checked, nil
}

func checkFile(path string) (File, Errors) {
	was, err := statManifest(path)
	if err != nil {
		return File{}, Errors{{Source: path, Text: err.Error()}}
	}
	data, err := readManifest(path, was)
	if err != nil {
		return File{}, Errors{{Source: path, Text: err.Error()}}
	}
	file, err := Decode(path, data)
	return file, toErrors(path, err)
}

// toErrors takes any error about a file.
func toErrors(source string, err error) Errors {
	var errs Errors
	if err == nil || errors.As(err, &errs) {
		return errs
	}
	return Errors{{Source: source, Text: err.Error()}}
}
