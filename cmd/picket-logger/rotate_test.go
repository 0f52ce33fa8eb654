package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// numbered are the lines "<word> <from>" to "<word> <to-1>".
func numbered(word string, from, to int) []byte {
	var b bytes.Buffer
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "%s %d\n", word, i)
	}
	return b.Bytes()
}

func TestRotationLosesNothing(t *testing.T) {
	const n, maxSize = 20_000, 20_000
	path := filepath.Join(t.TempDir(), "deep", "down", "0.log")
	p := start(t, "path", path, "max-size", strconv.Itoa(maxSize), "max-files", "1000")
	done := make(chan struct{})
	go func() { defer close(done); feed(t, p.stderr, numbered("err", 0, n), 1) }()
	feed(t, p.stdout, numbered("out", 0, n), 1)
	<-done
	p.finish()
	records := readAll(t, path)
	for stream, word := range map[string]string{"stdout": "out", "stderr": "err"} {
		if got := text(records, stream); got != string(numbered(word, 0, n)) {
			t.Errorf("%s is not what was written: %d bytes", stream, len(got))
		}
	}
	if !slices.IsSortedFunc(records, func(a, b record) int { return strings.Compare(a.at, b.at) }) {
		t.Error("records are not in the order of their times")
	}
	for _, f := range (&logFile{path: path}).rotatedFiles() {
		if !f.compressed() {
			info, err := os.Stat(f.path)
			if err != nil || info.Size() > maxSize || info.Size() < maxSize*9/10 {
				t.Errorf("%s: %d bytes, %v", f.path, info.Size(), err)
			}
		}
	}
}

func TestOldFilesAreCompressedAndRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	other := filepath.Join(filepath.Dir(path), "10.log.20200101-000000")
	leftover := path + ".20200101-000000" + unfinished
	for _, f := range []string{other, leftover, path + ".20200101-000000"} {
		if err := os.WriteFile(f, []byte("2020-01-01T00:00:00.000000000Z stdout F old\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, "path", path, "max-size", "2000", "max-files", "4")
	feed(t, p.stdout, numbered("line", 0, 400), 1)
	var files []rotated
	eventually(t, "three rotated files, two of them compressed", func() bool {
		files = (&logFile{path: path}).rotatedFiles()
		return len(files) == 3 && files[0].compressed() && files[1].compressed() && !files[2].compressed()
	})
	if _, err := os.Stat(other); err != nil {
		t.Error("another log's file:", err)
	}
	if _, err := os.Stat(leftover); err == nil {
		t.Error("what a killed logger has left is still there")
	}
	shape := regexp.MustCompile(`^0\.log\.\d{8}-\d{6}(\.gz)?$`)
	for _, f := range files {
		if !shape.MatchString(filepath.Base(f.path)) {
			t.Errorf("name %s", f.path)
		}
		records := readRecords(t, f.path)
		if len(records) == 0 {
			t.Errorf("%s is empty", f.path)
		}
	}
	p.finish()
	if want := string(numbered("line", 0, 400)); !strings.HasSuffix(want, text(readAll(t, path), "stdout")) {
		t.Error("what is left is not the end of what was written")
	}
}

func TestLongLineIsNotSpreadOverFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	log := newLogFile(path, 140_000, 1000)
	line := strings.Repeat("x", 3*maxLine) + "\n" // three of them are a little longer than a file should be
	cut(strings.NewReader(strings.Repeat(line, 30)), log, streamStdout)
	log.close()
	for _, f := range log.rotatedFiles() {
		records := readRecords(t, f.path)
		if last := records[len(records)-1]; last.tag != "F" {
			t.Errorf("%s ends within a line", f.path)
		}
	}
	if got := text(readAll(t, path), "stdout"); got != strings.Repeat(line, 30) {
		t.Error("lines are lost")
	}
}

func TestEndlessLineIsRotatedToo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	log := newLogFile(path, 100_000, 1000)
	cut(strings.NewReader(strings.Repeat("x", 1_000_000)), log, streamStdout)
	log.close()
	if n := len(log.rotatedFiles()); n < 8 {
		t.Errorf("%d rotated files", n)
	}
	if got := text(readAll(t, path), "stdout"); len(got) != 1_000_000 {
		t.Errorf("%d bytes are left", len(got))
	}
}

func TestCompressedFileKeepsItsTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log.20200101-000000")
	const content = "2020-01-01T00:00:00.000000000Z stdout F old\n"
	at := time.Date(2020, 1, 1, 0, 0, 0, 123456789, time.UTC)
	if err := errors.Join(os.WriteFile(path, []byte(content), 0o600), os.Chtimes(path, at, at)); err != nil {
		t.Fatal(err)
	}
	if err := compress(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+unfinished, path+compressed); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path + compressed)
	if err != nil || !info.ModTime().Equal(at) || info.Mode() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if got := text(readRecords(t, path+compressed), "stdout"); got != "old\n" {
		t.Errorf("it holds %q", got)
	}
}

func TestPrunedFileDoesNotComeBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	log := newLogFile(path, 1000, 5)
	old := path + ".20200101-000000"
	if err := os.WriteFile(old+unfinished, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := log.packer.replace(old); err == nil {
		t.Error("compressed although it is gone")
	}
	if files := log.rotatedFiles(); len(files) != 0 {
		t.Errorf("left are %v", files)
	}
}

func TestNextName(t *testing.T) {
	now := time.Date(2026, 1, 2, 15, 4, 59, 0, time.FixedZone("", 3600))
	for _, c := range []struct{ newest, want string }{
		{"", "20260102-140459"},
		{"20260102-140458", "20260102-140459"},
		{"20260102-140459", "20260102-140500"},
		{"20301231-235959", "20310101-000000"},
	} {
		var old []rotated
		if c.newest != "" {
			old = []rotated{{when: "20200101-000000"}, {when: c.newest}}
		}
		if got := nextName(old, now); got != c.want {
			t.Errorf("after %q: %s, want %s", c.newest, got, c.want)
		}
	}
}

func TestPruneCountsBothFormsOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	for _, name := range []string{"1", "1.gz", "2", "2.gz", "3"} {
		if err := os.WriteFile(path+".2026010"+name[:1]+"-000000"+name[1:], nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log := newLogFile(path, 1000, 3)
	log.prune(log.rotatedFiles())
	var left []string
	for _, f := range log.rotatedFiles() {
		left = append(left, strings.TrimPrefix(f.path, path+"."))
	}
	slices.Sort(left)
	if want := []string{"20260102-000000", "20260102-000000.gz", "20260103-000000"}; !slices.Equal(left, want) {
		t.Errorf("left are %v, want %v", left, want)
	}
}
