package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	// maxSource bounds a manifest file, maxDocument one document of it: Kubernetes' API server takes no more than 3 MiB either.
	maxSource   = 8 << 20
	maxDocument = 3 << 20
)

// document is one document of a source.
type document struct {
	source string
	number int // 1-based, counting only documents with content
	line   int // of its first line with content
	start  int // line number of text's first line
	text   []byte
	isJSON bool
	root   *tree // see lines
}

// split cuts a source into its documents. YAML documents are cut at lines that are a marker in YAML's own sense ("---" or "..."
// in the first column, then a blank or the end of the line), which nothing inside a document can look like. Documents without
// content (blank, comments) are dropped.
func split(source string, data []byte) ([]*document, error) {
	if len(data) > maxSource {
		return nil, tooLarge("the file", len(data), maxSource)
	}
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return nil, errors.New("is UTF-16; save it as UTF-8")
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if !utf8.Valid(data) {
		return nil, errors.New("is not UTF-8 text")
	}
	var docs []*document
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); bytes.HasPrefix(trimmed, []byte("{")) {
		found, err := splitJSON(data)
		if err != nil && strings.HasSuffix(source, ".json") {
			return nil, err
		}
		if err == nil {
			docs = found
		}
	}
	if docs == nil {
		docs = splitYAML(data)
	}
	for i, d := range docs {
		d.source, d.number = source, i+1
	}
	return docs, nil
}

func tooLarge(what string, size, limit int) error {
	return fmt.Errorf("%s has %.1f MiB; at most %d MiB are read", what, float64(size)/(1<<20), limit>>20)
}

// splitJSON reads a stream of JSON values.
func splitJSON(data []byte) ([]*document, error) {
	var docs []*document
	dec := json.NewDecoder(bytes.NewReader(data))
	for {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err == io.EOF {
			return docs, nil
		} else if err != nil {
			offset := dec.InputOffset()
			var syntax *json.SyntaxError
			if errors.As(err, &syntax) {
				offset = syntax.Offset
			}
			return nil, fmt.Errorf("line %d: %w", lineAt(data, offset), err)
		}
		line := lineAt(data, dec.InputOffset()-int64(len(raw)))
		docs = append(docs, &document{line: line, start: line, text: raw, isJSON: true})
	}
}

func lineAt(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:min(int(offset), len(data))], []byte("\n"))
}

func splitYAML(data []byte) []*document {
	var docs []*document
	from, fromLine, line := 0, 1, 0
	finish := func(end int) {
		if at, ok := contentLine(data[from:end]); ok {
			docs = append(docs, &document{line: fromLine + at, start: fromLine, text: data[from:end]})
		}
	}
	for pos := 0; pos < len(data); {
		line++
		next := len(data)
		if i := bytes.IndexByte(data[pos:], '\n'); i >= 0 {
			next = pos + i + 1
		}
		switch text := data[pos:next]; {
		case isMarker(text, "---"):
			if !onlyDirectives(data[from:pos]) {
				finish(pos)
				from, fromLine = pos, line
			}
		case isMarker(text, "..."):
			finish(pos)
			from, fromLine = next, line+1
		}
		pos = next
	}
	finish(len(data))
	return docs
}

func isMarker(line []byte, marker string) bool {
	rest, ok := bytes.CutPrefix(line, []byte(marker))
	return ok && (len(rest) == 0 || strings.IndexByte(" \t\r\n", rest[0]) >= 0)
}

// contentLine finds the first line (from 0) that is more than blank, comment or a bare "---".
func contentLine(text []byte) (int, bool) {
	line := 0
	for l := range bytes.Lines(text) {
		l = bytes.TrimSpace(l)
		if rest, ok := bytes.CutPrefix(l, []byte("---")); ok {
			l = bytes.TrimSpace(rest)
		}
		if len(l) > 0 && l[0] != '#' {
			return line, true
		}
		line++
	}
	return 0, false
}

// onlyDirectives reports whether text holds a %YAML or %TAG line and nothing else of meaning: the marker after it belongs to the
// same document.
func onlyDirectives(text []byte) bool {
	found := false
	for l := range bytes.Lines(text) {
		trimmed := bytes.TrimSpace(l)
		switch {
		case len(trimmed) == 0 || trimmed[0] == '#':
		case l[0] == '%':
			found = true
		default:
			return false
		}
	}
	return found
}
