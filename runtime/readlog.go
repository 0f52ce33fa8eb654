package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"
)

// logPoll is how often a followed log is looked at. A watch on the directory would save a stat now and then, and would need an
// answer to a directory that goes and to a host that is out of watches.
const logPoll = 100 * time.Millisecond

// logStill is how many times in a row a log must be still before it ends after its container: the logger may be behind.
const logStill = 3

// logBuffer is what is read at once, in bytes.
const logBuffer = 64 << 10

// errLogLimit ends reading: LimitBytes are written.
var errLogLimit = errors.New("limit reached")

// ReadLog copies a container's log to w: path and, before it, the files it was rotated to, as picket-logger writes them. w gets
// many lines at a time. What is no record of CRI format is left out.
//
// With Follow it goes on until the container has ended, by Running, or ctx ends, which is no error; rotations are followed, and
// a log that does not exist yet is waited for. Otherwise it ends at the end, and returns ErrNotFound when there is no log. Lines
// are lost only to a follower that is so slow that what it has not read is deleted.
func ReadLog(ctx context.Context, path string, o LogOptions, w io.Writer) error {
	r := &logReader{ctx: ctx, path: path, o: o, buf: make([]byte, logBuffer), printer: logPrinter{w: w, o: o, left: o.LimitBytes}}
	defer r.close()
	err := r.read()
	switch {
	case errors.Is(err, errLogLimit), o.Follow && ctx.Err() != nil:
		return nil
	case err == nil:
		return r.damage
	}
	return err
}

// logReader is one call of ReadLog.
type logReader struct {
	ctx     context.Context
	path    string
	o       LogOptions
	buf     []byte
	printer logPrinter

	// files are open and not done, oldest first. Only the last can be the one that is being written.
	files []*logFile
	// done is the newest rotated file before the last of files; "" is none.
	done string
	// damage is why a rotated file could not be read. It does not keep the newer ones from being read.
	damage error
}

func (r *logReader) close() {
	for _, f := range r.files {
		f.Close()
	}
	r.files = nil
}

func (r *logReader) read() error {
	if err := r.open(); err != nil {
		return err
	}
	if r.o.TailLines == 0 && !r.o.Follow {
		return nil
	}
	if err := r.skip(); err != nil {
		return err
	}
	for len(r.files) > 1 || len(r.files) == 1 && !r.o.Follow {
		if err := r.readFile(r.files[0]); err != nil {
			return err
		}
		r.replace(r.files[1:]...)
	}
	if !r.o.Follow {
		return nil
	}
	return r.follow()
}

// replace closes the first file and puts others in the place of all.
func (r *logReader) replace(files ...*logFile) {
	if len(r.files) > 0 {
		r.files[0].Close()
	}
	r.files = files
}

// skip leaves out what is older than asked for.
func (r *logReader) skip() error {
	for len(r.files) > 1 && r.files[0].endsBefore(r.o.Since) {
		r.replace(r.files[1:]...)
	}
	if r.o.TailLines < 0 || len(r.files) == 0 {
		return nil
	}
	first, offset, err := tailStart(r.files, r.o.TailLines, r.o.Stream)
	if first == len(r.files) {
		return err
	}
	r.damage = err
	for range first {
		r.replace(r.files[1:]...)
	}
	return r.files[0].seek(offset)
}

// readFile prints a file to its end. Half a record at the end is printed too: it stays one.
func (r *logReader) readFile(f *logFile) error {
	rest, err := r.readOn(f)
	if err == nil {
		_, err = r.printer.print(rest, true)
	}
	if err == nil {
		err = r.printer.flush()
	}
	r.printer.inText, r.printer.skipping = false, false
	return err
}

// readOn prints the records that f has now. It returns the half one that follows them, and reads that anew the next time: the
// logger takes half a record back when the disk is full.
func (r *logReader) readOn(f *logFile) (rest []byte, err error) {
	held := 0
	for r.ctx.Err() == nil {
		n, failed := f.Read(r.buf[held:])
		if rest, err = r.printer.print(r.buf[:held+n], false); err != nil {
			return nil, err
		}
		if failed != nil {
			if !errors.Is(failed, io.EOF) && r.damage == nil {
				r.damage = fmt.Errorf("cannot read %s: %w", f.Name(), failed)
			}
			f.unread(len(rest))
			return rest, r.printer.flush()
		}
		held = copy(r.buf, rest)
	}
	return nil, r.ctx.Err()
}

// follow prints what is written, from one file to the next.
func (r *logReader) follow() error {
	for still := 0; ; {
		ended := r.o.Running != nil && !r.o.Running() // asked before it is read: all that was written by then is read
		moved, err := r.followOn()
		switch {
		case err != nil:
			return err
		case moved:
			still = 0
			continue
		case ended:
			still++
		}
		if still == logStill {
			return r.finish()
		}
		if err := r.wait(); err != nil {
			return err
		}
	}
}

// finish prints half a record that will not be completed.
func (r *logReader) finish() error {
	if len(r.files) == 0 {
		return nil
	}
	return r.readFile(r.files[0])
}

func (r *logReader) wait() error {
	timer := time.NewTimer(logPoll)
	defer timer.Stop()
	select {
	case <-r.ctx.Done():
		return r.ctx.Err()
	case <-timer.C:
		return nil
	}
}

// followOn prints what is new in the file at hand, or goes on to the next one. It reports whether there was anything.
func (r *logReader) followOn() (moved bool, err error) {
	var f *logFile
	if len(r.files) > 0 {
		f = r.files[0]
		from := f.offset
		if _, err := r.readOn(f); err != nil || f.offset != from || f.named(r.path) {
			return f.offset != from, err
		}
	}
	next, err := r.next(f)
	if err != nil || next == nil {
		return false, err
	}
	if f != nil {
		err = r.readFile(f) // what was written before it was renamed
	}
	r.replace(next)
	return true, err
}

// next opens the file that follows f, which is rotated or removed, or the first after done when f is nil. It returns nil when
// there is none yet.
func (r *logReader) next(f *logFile) (*logFile, error) {
	for range logAttempts {
		if f != nil && f.when != "" {
			r.done = f.when
		}
		rotated, err := rotatedLogs(r.path, r.done)
		if err != nil {
			return nil, err
		}
		if f != nil && f.when == "" && len(rotated) > 0 && f.became(rotated[0]) {
			f.when = rotated[0].when
			continue
		}
		if len(rotated) > 0 {
			next, err := openLogFile(rotated[0])
			if errors.Is(err, fs.ErrNotExist) {
				continue // compressed or deleted meanwhile
			}
			return next, err
		}
		next, err := openLogFile(rotatedLog{path: r.path})
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil || r.isNewest(next) {
			return next, err
		}
		next.Close()
	}
	return nil, fmt.Errorf("cannot follow %s: %w", r.path, errLogRotates)
}

// isNewest is whether no rotation has come between done and f.
func (r *logReader) isNewest(f *logFile) bool {
	if !f.named(r.path) {
		return false
	}
	later, err := rotatedLogs(r.path, r.done)
	return err == nil && len(later) == 0
}
