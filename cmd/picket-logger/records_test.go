package main

import (
	"compress/gzip"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
)

var recordPattern = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) [FP] `)

// record is one line of a log.
type record struct {
	at     string
	stream string
	tag    string
	text   string
}

// readRecords reads one file, compressed or not, and expects nothing but whole records in it.
func readRecords(t testing.TB, path string) []record {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, compressed) {
		if r, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return parseRecords(t, string(data))
}

func parseRecords(t testing.TB, data string) []record {
	t.Helper()
	var records []record
	for line := range strings.Lines(data) {
		if !recordPattern.MatchString(line) || !strings.HasSuffix(line, "\n") {
			t.Fatalf("not a record: %.100q", line)
		}
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		records = append(records, record{fields[0], fields[1], fields[2], fields[3]})
	}
	return records
}

// readAll reads the rotated files and the current one, in order.
func readAll(t testing.TB, path string) []record {
	t.Helper()
	var all []record
	for _, f := range (&logFile{path: path}).rotatedFiles() {
		all = append(all, readRecords(t, f.path)...)
	}
	return append(all, readRecords(t, path)...)
}

// text joins one stream's records as a reader does.
func text(records []record, stream string) string {
	var b strings.Builder
	for _, r := range records {
		if r.stream != stream {
			continue
		}
		b.WriteString(r.text)
		if r.tag == "F" {
			b.WriteByte('\n')
		}
	}
	return b.String()
}
