package main

import (
	"bytes"
	"io"
)

// maxLine is where containerd's CRI plugin and the kubelet cut a line, in bytes of text.
const maxLine = 16 << 10

// readSize holds the beginning of a line, at most maxLine+1 bytes, and what one read adds.
const readSize = 48 << 10

type stream int

const (
	streamStdout stream = iota
	streamStderr
)

// The tags of CRI format.
const (
	full    byte = 'F'
	partial byte = 'P'
)

// cut copies r's lines to the log until r ends or takes no more reads.
func cut(r io.Reader, log *logFile, s stream) {
	buf := make([]byte, readSize)
	held := 0 // bytes of a line whose end has not come
	for {
		n, err := r.Read(buf[held:])
		rest := buf[:held+n]
		log.Lock()
		log.now()
		rest = cutLines(rest, log, s)
		if err != nil {
			if len(rest) > 0 {
				log.add(s, partial, rest)
				log.lines++
			}
			log.flush()
			log.Unlock()
			return
		}
		log.flush()
		log.Unlock()
		held = copy(buf, rest)
	}
}

// cutLines logs what is complete in data and returns the rest.
func cutLines(data []byte, log *logFile, s stream) []byte {
	for {
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			break
		}
		line := data[:end]
		data = data[end+1:]
		if len(line) > 0 && line[len(line)-1] == '\r' {
			line = line[:len(line)-1]
		}
		log.add(s, full, cutLong(line, log, s))
	}
	if len(data) == maxLine+1 && data[maxLine] == '\r' {
		return data // it may belong to the newline
	}
	return cutLong(data, log, s)
}

// cutLong logs the beginning of what is longer than a line may be and returns the rest.
func cutLong(line []byte, log *logFile, s stream) []byte {
	for len(line) > maxLine {
		log.add(s, partial, line[:maxLine])
		line = line[maxLine:]
	}
	return line
}
