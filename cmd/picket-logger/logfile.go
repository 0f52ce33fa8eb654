package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// outSize is what one write to the file holds; the longest record fits.
const outSize = 32 << 10

// retryAfter is when the count of dropped lines is tried again, should the container say no more.
const retryAfter = time.Second

// logFile is the current file and its rotated predecessors. Callers hold the lock, call now for what one read brought, add its
// records, and flush.
type logFile struct {
	sync.Mutex
	path     string
	maxSize  int64
	maxFiles int

	// file is nil while it cannot be opened; size is its length in bytes. It may exceed maxSize by spare, as it could not be renamed.
	file  *os.File
	size  int64
	spare int64
	// out holds whole records that are not written yet, lines how many lines end in it.
	out   []byte
	lines int
	clock stamp
	// cut says of each stream that its last record was partial: a line is open. cutWritten is the same of what is in the file.
	cut, cutWritten [2]bool

	// why is set while dropped lines are not told of yet: what made the first write fail.
	why     error
	dropped int
	// torn says that the file ends in half a record, which could not be cut off.
	torn bool

	packer packer
	stat   syscall.Stat_t
}

// newLogFile opens the file if it can: a container starts without it too.
func newLogFile(path string, maxSize int64, maxFiles int) *logFile {
	l := &logFile{path: path, maxSize: maxSize, maxFiles: maxFiles, out: make([]byte, 0, outSize)}
	l.packer.init(l)
	l.Lock()
	defer l.Unlock()
	_ = l.open() // flush tries again, and counts
	return l
}

// now stamps the records that follow.
func (l *logFile) now() { l.clock.set(time.Now()) }

// add queues one record. A rotation is due before the record that would make the file too long, between lines if possible.
func (l *logFile) add(s stream, tag byte, text []byte) {
	n := len(recordHead) + len(text) + 1
	if len(l.out)+n > cap(l.out) {
		l.flush()
	}
	used := l.size + int64(len(l.out))
	if over := used + int64(n) - l.maxSize - l.spare; used > 0 && over > 0 && (l.betweenLines() || over > l.maxSize/8) {
		l.flush()
		l.rotate()
	}
	l.out = l.clock.appendRecord(l.out, s, tag, text)
	l.cut[s] = tag == partial
	if tag == full {
		l.lines++
	}
}

func (l *logFile) betweenLines() bool { return !l.cut[streamStdout] && !l.cut[streamStderr] }

// flush writes what is queued, or drops and counts it.
func (l *logFile) flush() {
	if len(l.out) == 0 {
		return
	}
	err := l.usable()
	if err == nil {
		err = l.tellDropped()
	}
	if err == nil {
		err = l.write(l.out)
	}
	if err != nil {
		l.drop(err)
	} else {
		l.cutWritten = l.cut
	}
	l.out, l.lines = l.out[:0], 0
}

// usable opens the file unless it is open and still has its name.
func (l *logFile) usable() error {
	if l.file != nil && syscall.Fstat(int(l.file.Fd()), &l.stat) == nil && l.stat.Nlink > 0 {
		l.size = l.stat.Size // somebody may have emptied it
		return nil
	}
	return l.open()
}

// open opens the file for appending. A logger that was killed may have left half a record.
func (l *logFile) open() error {
	l.shut()
	if err := os.MkdirAll(filepath.Dir(l.path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.file, l.size = f, info.Size()
	l.mend()
	return nil
}

// mend ends the half record that a killed logger left, or cuts it off where its head is not complete.
func (l *logFile) mend() {
	tail := make([]byte, min(l.size, int64(len(recordHead))))
	if _, err := l.file.ReadAt(tail, l.size-int64(len(tail))); err != nil {
		return // unreadable: then it is as good as whole
	}
	extra := len(tail) - 1 - bytes.LastIndexByte(tail, '\n')
	if extra == len(recordHead) {
		l.torn = true
	} else if extra > 0 && l.file.Truncate(l.size-int64(extra)) == nil {
		l.size -= int64(extra)
	}
}

func (l *logFile) shut() {
	if l.file != nil {
		l.file.Close()
	}
	l.file, l.size, l.torn = nil, 0, false
}

// write appends data, all or nothing.
func (l *logFile) write(data []byte) error {
	if l.torn {
		n, err := l.file.Write([]byte{'\n'})
		l.size += int64(n)
		if err != nil {
			return err
		}
		l.torn = false
	}
	n, err := l.file.Write(data)
	if err != nil && n > 0 && l.file.Truncate(l.size) == nil {
		return err
	}
	l.size += int64(n)
	l.torn = err != nil && n > 0
	return err
}

// drop counts what is queued as lost.
func (l *logFile) drop(err error) {
	if l.why == nil {
		l.why = err
		if in := (*fs.PathError)(nil); errors.As(err, &in) {
			l.why = in.Err // whose log it is, the reader knows
		}
		time.AfterFunc(retryAfter, l.retry)
	}
	l.dropped += l.lines
	l.cut = l.cutWritten
}

// retry tells of dropped lines while the container is silent.
func (l *logFile) retry() {
	l.Lock()
	defer l.Unlock()
	if l.why == nil {
		return
	}
	l.now()
	if l.usable() != nil || l.tellDropped() != nil {
		time.AfterFunc(retryAfter, l.retry)
	}
}

// tellDropped writes how many lines were lost, after it has ended the lines that lost their end.
func (l *logFile) tellDropped() error {
	if l.why == nil {
		return nil
	}
	var text []byte
	for s, open := range l.cutWritten {
		if open {
			text = l.clock.appendRecord(text, stream(s), full, nil)
		}
	}
	lost := max(l.dropped, 1) // of a long line it may have been but the beginning
	notice := fmt.Sprintf("picket-logger: %d lines were dropped: %v", lost, l.why)
	text = l.clock.appendRecord(text, streamStderr, full, []byte(notice))
	if err := l.write(text); err != nil {
		return err
	}
	l.dropped, l.why, l.cutWritten = 0, nil, [2]bool{}
	return nil
}

// close ends the log; dropped lines get a last chance to be told of.
func (l *logFile) close() {
	l.packer.stop()
	l.Lock()
	defer l.Unlock()
	l.now()
	if l.why != nil && l.usable() == nil {
		_ = l.tellDropped() // nobody is left to be told
	}
	l.shut()
}
