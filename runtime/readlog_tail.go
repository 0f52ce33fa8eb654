package runtime

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// tailStart is where the last n lines of a stream, or of both, begin: the file's index, and the offset in its content. A line is
// a full record and the partial ones before it; partial ones at the very end are a line too. Half a record at the end is not
// counted: it is what comes next. After an error the file first and those after it can be read.
func tailStart(files []*logFile, n int64, stream string) (first int, offset int64, err error) {
	t := &tail{want: n, stream: stream}
	for i := len(files) - 1; i >= 0; i-- {
		find := t.findBackward
		if files[i].gz != nil {
			find = t.findForward
		}
		offset, found, err := find(files[i])
		if err != nil {
			return i + 1, 0, fmt.Errorf("cannot read %s: %w", files[i].Name(), err)
		}
		if found {
			return i, offset, nil
		}
	}
	return 0, 0, nil
}

// tail counts the lines of a log from its end; it is given the newest file first.
type tail struct {
	want   int64
	stream string
	seen   int64
	some   bool // records of the stream were seen
}

// lineEnds is whether a record of the stream ends a line: it is full, or the very last.
func (t *tail) lineEnds(h recordHead) bool { return h.full || !t.some }

// findBackward reads a file from its end.
func (t *tail) findBackward(f *logFile) (offset int64, found bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, false, err
	}
	err = eachRecordBackward(f.File, info.Size(), func(head []byte, end int64) bool {
		h, _, ok := parseRecord(head)
		if !ok || !h.selects(t.stream) {
			return true
		}
		if t.lineEnds(h) {
			if t.seen == t.want {
				offset, found = end, true
				return false
			}
			t.seen++
		}
		t.some = true
		return true
	})
	return offset, found, err
}

// findForward reads a compressed file, which has no end to begin with, twice.
func (t *tail) findForward(f *logFile) (offset int64, found bool, err error) {
	lines, last := int64(0), recordHead{full: true}
	if err := t.eachForward(f, func(h recordHead, _ int64) bool {
		if last = h; h.full {
			lines++
		}
		return true
	}); err != nil {
		return 0, false, err
	}
	if !last.full && !t.some {
		lines++
	}
	t.some = t.some || lines > 0
	skip := t.seen + lines - t.want
	if skip <= 0 {
		t.seen += lines
		return 0, false, nil
	}
	err = t.eachForward(f, func(h recordHead, end int64) bool {
		if offset = end; h.full {
			skip--
		}
		return skip > 0
	})
	return offset, true, errors.Join(err, f.rewind())
}

// eachForward calls each with the stream's records and their ends until it returns false.
func (t *tail) eachForward(f *logFile, each func(h recordHead, end int64) bool) error {
	if err := f.rewind(); err != nil {
		return err
	}
	return eachRecord(f.gz, func(head []byte, end int64) bool {
		h, _, ok := parseRecord(head)
		return !ok || !h.selects(t.stream) || each(h, end)
	})
}

// eachRecord calls each with the head of every complete record and its end.
func eachRecord(r io.Reader, each func(head []byte, end int64) bool) error {
	lines := bufio.NewReaderSize(r, logBuffer)
	var head [maxHead]byte
	for end, n := int64(0), 0; ; {
		line, err := lines.ReadSlice('\n')
		end += int64(len(line))
		n += copy(head[n:], line)
		switch {
		case err == nil:
			if !each(head[:n], end) {
				return nil
			}
			n = 0
		case errors.Is(err, io.EOF):
			return nil
		case !errors.Is(err, bufio.ErrBufferFull): // else the record goes on
			return err
		}
	}
}

// eachRecordBackward is eachRecord from the last record to the first.
func eachRecordBackward(f io.ReaderAt, size int64, each func(head []byte, end int64) bool) error {
	buf := make([]byte, logBuffer+maxHead) // a head may begin at a block's end
	recordEnd := int64(-1)                 // none is complete until a newline was found
	for end := size; end > 0; {
		from := max(0, end-logBuffer)
		block := buf[:min(end-from+maxHead, size-from)]
		if _, err := f.ReadAt(block, from); errors.Is(err, io.EOF) {
			return nil // it was emptied meanwhile
		} else if err != nil {
			return err
		}
		for i := int(end - from); i >= 0; {
			i = bytes.LastIndexByte(block[:i], '\n')
			if i < 0 && from > 0 {
				break // the record begins in the block before
			}
			start := from + int64(i) + 1
			if recordEnd >= 0 && !each(block[i+1:][:min(recordEnd-start, maxHead)], recordEnd) {
				return nil
			}
			recordEnd = start
		}
		end = from
	}
	return nil
}
