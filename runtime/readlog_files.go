package runtime

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// logAttempts bounds how often a log's files are opened anew because they were rotated meanwhile.
const logAttempts = 1000

var errLogRotates = errors.New("it is rotated faster than its files can be opened")

// rotatedLog names a file of a log that picket-logger or a kubelet has rotated; when is empty for the one that is being written.
type rotatedLog struct {
	when string // "20060102-150405": they sort by it
	path string
}

func (l rotatedLog) compressed() bool { return strings.HasSuffix(l.path, ".gz") }

// rotatedLogs are the rotated files later than after, oldest first. Of one that is there in both forms the compressed one, which
// is complete, is taken.
func rotatedLogs(path, after string) ([]rotatedLog, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot list the log's files: %w", err)
	}
	found := map[string]rotatedLog{}
	for _, e := range entries {
		when, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+".")
		if !ok {
			continue
		}
		l := rotatedLog{strings.TrimSuffix(when, ".gz"), filepath.Join(filepath.Dir(path), e.Name())}
		if _, err := time.Parse("20060102-150405", l.when); err != nil || l.when <= after {
			continue
		}
		if _, ok := found[l.when]; !ok || l.compressed() {
			found[l.when] = l
		}
	}
	logs := make([]rotatedLog, 0, len(found))
	for _, l := range found {
		logs = append(logs, l)
	}
	slices.SortFunc(logs, func(a, b rotatedLog) int { return strings.Compare(a.when, b.when) })
	return logs, nil
}

// logFile is an open file of a log. It stays readable when it is renamed, compressed or deleted.
type logFile struct {
	*os.File
	when   string // "" while it is not known to be rotated
	gz     *gzip.Reader
	offset int64 // of the next byte, uncompressed
}

// openLogFile opens a file that nothing but a log may be: a pipe in its place would be waited for for ever.
func openLogFile(l rotatedLog) (*logFile, error) {
	f, err := os.OpenFile(l.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the log: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot open the log %s: %w", l.path, err)
	}
	file := &logFile{File: f, when: l.when}
	if l.compressed() {
		file.gz = new(gzip.Reader) // its header is read with the content, for it may be damaged
	}
	return file, nil
}

// Read reads on; the end of a file may move.
func (f *logFile) Read(p []byte) (n int, err error) {
	if f.gz != nil {
		if f.offset == 0 {
			if err := f.rewind(); err != nil {
				return 0, err
			}
		}
		n, err = f.gz.Read(p)
	} else if n, err = f.ReadAt(p, f.offset); n == 0 && errors.Is(err, io.EOF) {
		f.followTruncation()
	}
	f.offset += int64(n)
	return n, err
}

// rewind starts the decompression from the beginning.
func (f *logFile) rewind() error {
	f.offset = 0
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return f.gz.Reset(f.File)
}

// followTruncation goes back with an end that went back: somebody emptied the file, or the logger took back what it could only
// write in part.
func (f *logFile) followTruncation() {
	if info, err := f.Stat(); err == nil {
		f.offset = min(f.offset, info.Size())
	}
}

// unread gives the last n bytes back. A compressed file is complete and is not asked again.
func (f *logFile) unread(n int) {
	if f.gz == nil {
		f.offset -= int64(n)
	}
}

// seek goes to an offset in the uncompressed content of a file that was not read yet.
func (f *logFile) seek(offset int64) error {
	if f.gz == nil {
		f.offset = offset
		return nil
	}
	if _, err := io.CopyN(io.Discard, f, offset); err != nil {
		return fmt.Errorf("cannot read %s: %w", f.Name(), err)
	}
	return nil
}

// endsBefore is whether the last line is older than since. The time of the last writing is as exact as the kernel's tick.
func (f *logFile) endsBefore(since time.Time) bool {
	info, err := f.Stat()
	return err == nil && info.ModTime().Add(time.Second).Before(since)
}

// named is whether the file is, still, the one called path.
func (f *logFile) named(path string) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	theirs, err := os.Stat(path)
	return err == nil && os.SameFile(mine, theirs)
}

// became is whether the file was rotated to l. The compressed form is another file, with the same time.
func (f *logFile) became(l rotatedLog) bool {
	if f.named(l.path) {
		return true
	}
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	theirs, err := os.Stat(strings.TrimSuffix(l.path, ".gz") + ".gz") // l may have been compressed since it was listed
	return err == nil && mine.ModTime().Equal(theirs.ModTime())
}

// open opens all files as they are at one moment. With Follow there may be none yet.
func (r *logReader) open() error {
	for range logAttempts {
		whole, err := r.openOnce()
		if whole || err != nil {
			return err
		}
		r.close()
	}
	return fmt.Errorf("cannot read %s: %w", r.path, errLogRotates)
}

// openOnce reports false when the log was rotated meanwhile.
func (r *logReader) openOnce() (whole bool, err error) {
	current, err := openLogFile(rotatedLog{path: r.path})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if current != nil {
		defer func() { r.files = append(r.files, current) }()
	}
	rotated, err := rotatedLogs(r.path, "")
	if err != nil {
		return false, err
	}
	if current == nil && len(rotated) == 0 && !r.mayCome() {
		return false, fmt.Errorf("log %s: %w", r.path, ErrNotFound)
	}
	r.done = ""
	for _, l := range rotated {
		f, err := openLogFile(l)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil // compressed or deleted
		}
		if err != nil {
			return false, err
		}
		r.files, r.done = append(r.files, f), l.when
	}
	return current == nil || current.named(r.path), nil
}

// mayCome is whether a log that does not exist is waited for.
func (r *logReader) mayCome() bool { return r.o.Follow && (r.o.Running == nil || r.o.Running()) }
