package runtime

import (
	"bytes"
	"io"
	"time"
)

const (
	// longRecord is where a record is passed on before its end is there, in bytes. A logger's own are at most 16 KiB of text.
	longRecord = logBuffer / 2
	// maxHead bounds what stands before the text, in bytes: a time with a zone, a stream, tags.
	maxHead = 64
	// logTimes is how times are shown, in nine digits as kubectl logs does.
	logTimes = "2006-01-02T15:04:05.000000000Z07:00"
)

// logPrinter turns records of CRI format into a container's output.
type logPrinter struct {
	w    io.Writer
	o    LogOptions
	left int64 // bytes of LimitBytes, if that is set
	out  []byte
	time [maxHead]byte // room for one

	// midLine: what was printed last was no line's end.
	midLine bool
	// inText and skipping: the record before the next byte has not ended; its text is printed, or left out.
	inText, skipping bool
	// full says that the record that is being printed ends its line.
	full bool
}

// print prints the records in data and returns the one that is not complete, unless it is long; final says that nothing follows.
func (p *logPrinter) print(data []byte, final bool) (rest []byte, err error) {
	for len(data) > 0 {
		end := bytes.IndexByte(data, '\n')
		if end < 0 && !p.inText && !p.skipping && !final && len(data) < longRecord {
			return data, nil
		}
		piece := data
		if end >= 0 {
			piece = data[:end]
		}
		if err := p.printPiece(piece, end >= 0); err != nil {
			return nil, err
		}
		data = data[min(len(piece)+1, len(data)):]
	}
	return nil, nil
}

// printPiece prints a record, or the part of it that is there.
func (p *logPrinter) printPiece(piece []byte, ended bool) error {
	if !p.inText && !p.skipping {
		head, text, ok := parseRecord(piece)
		p.inText = ok && p.wants(head)
		p.skipping = !p.inText
		p.full = head.full
		if p.inText && p.o.Timestamps && !p.midLine {
			if err := p.emit(head.at.AppendFormat(p.time[:0], logTimes+" ")); err != nil {
				return err
			}
		}
		piece = text
	}
	if p.inText {
		p.midLine = true
		if err := p.emit(piece); err != nil {
			return err
		}
		if ended && p.full {
			p.midLine = false
			if err := p.emit([]byte{'\n'}); err != nil {
				return err
			}
		}
	}
	if ended {
		p.inText, p.skipping = false, false
	}
	return nil
}

func (p *logPrinter) wants(head recordHead) bool {
	return head.selects(p.o.Stream) && !head.at.Before(p.o.Since)
}

// emit queues text, cut to LimitBytes.
func (p *logPrinter) emit(text []byte) error {
	limited := p.o.LimitBytes > 0
	if limited && int64(len(text)) > p.left {
		text = text[:p.left]
	}
	p.left -= int64(len(text))
	p.out = append(p.out, text...)
	if limited && p.left == 0 {
		if err := p.flush(); err != nil {
			return err
		}
		return errLogLimit
	}
	if len(p.out) >= logBuffer/2 {
		return p.flush()
	}
	return nil
}

func (p *logPrinter) flush() error {
	if len(p.out) == 0 {
		return nil
	}
	_, err := p.w.Write(p.out)
	p.out = p.out[:0]
	return err
}

// recordHead is what stands before a record's text: "2006-01-02T15:04:05.000000000Z stdout F ".
type recordHead struct {
	at     time.Time
	stdout bool
	full   bool
}

func (h recordHead) selects(stream string) bool {
	return stream == "" || (stream == "stdout") == h.stdout
}

// parseRecord takes a record apart as the kubelet does.
func parseRecord(record []byte) (head recordHead, text []byte, ok bool) {
	bounded := record[:min(len(record), maxHead)]
	at, rest, _ := bytes.Cut(bounded, []byte{' '})
	stream, rest, _ := bytes.Cut(rest, []byte{' '})
	tags, rest, ok := bytes.Cut(rest, []byte{' '})
	if !ok || string(stream) != "stdout" && string(stream) != "stderr" {
		return head, nil, false
	}
	var err error
	if head.at, err = time.Parse(time.RFC3339Nano, string(at)); err != nil {
		return head, nil, false
	}
	head.stdout = string(stream) == "stdout"
	tag, _, _ := bytes.Cut(tags, []byte{':'}) // more tags may come to be
	head.full = string(tag) != "P"
	return head, record[len(bounded)-len(rest):], true
}
