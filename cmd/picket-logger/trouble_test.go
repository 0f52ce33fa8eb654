package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var noticePattern = regexp.MustCompile(`^picket-logger: (\d+) lines were dropped: (.+)$`)

// droppedIn adds up what the notices say and returns the other records.
func droppedIn(t *testing.T, records []record) (dropped int, why string, others []record) {
	t.Helper()
	for _, r := range records {
		if m := noticePattern.FindStringSubmatch(r.text); m != nil {
			n, _ := strconv.Atoi(m[1])
			dropped, why = dropped+n, m[2]
		} else {
			others = append(others, r)
		}
	}
	return dropped, why, others
}

func TestFullDiskDropsAndTells(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("picket-logger-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("cannot mount a tmpfs:", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	path, spare := filepath.Join(dir, "log", "0.log"), filepath.Join(dir, "spare")
	if err := os.WriteFile(spare, make([]byte, 500_000), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "path", path)
	const n = 40_000 // 2 MB
	feed(t, p.stdout, numbered("line", 0, n), 1)
	feed(t, p.stdout, numbered("line", n, 2*n), 1) // would block for ever if nobody read
	if err := os.Remove(spare); err != nil {
		t.Fatal(err)
	}
	eventually(t, "every line is there or counted", func() bool {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		dropped, _, others := droppedIn(t, parseRecords(t, string(data[:bytes.LastIndexByte(data, '\n')+1])))
		return dropped+len(others) == 2*n
	})
	feed(t, p.stdout, numbered("line", 2*n, 2*n+10), 1)
	p.finish()
	dropped, _, others := droppedIn(t, readRecords(t, path))
	if got := text(others, "stdout"); !strings.HasSuffix(got, string(numbered("line", 2*n, 2*n+10))) {
		t.Errorf("after the disk has room again: %.300q", got)
	}
	if dropped+len(others) != 2*n+10 || dropped < n {
		t.Errorf("%d lines are said to be dropped, %d are there", dropped, len(others))
	}
}

// brokenLog is a log whose directory cannot be made, for a file is in its place until repair.
func brokenLog(t *testing.T, maxSize int64) (log *logFile, repair func()) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return newLogFile(filepath.Join(dir, "0.log"), maxSize, 5), func() {
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEveryLineIsWrittenOrCounted(t *testing.T) {
	log, repair := brokenLog(t, 10<<20)
	long := strings.Repeat("x", 3*maxLine) + "\n"
	cut(strings.NewReader("a\nb\n"+long+"c\nhalf"), log, streamStdout)
	repair()
	cut(strings.NewReader("d\n"), log, streamStdout)
	log.close()
	dropped, why, others := droppedIn(t, readRecords(t, log.path))
	if dropped != 5 || why != "not a directory" {
		t.Errorf("%d lines dropped: %s", dropped, why)
	}
	if got := text(others, "stdout"); got != "d\n" {
		t.Errorf("logged %.100q", got)
	}
}

func TestDroppedLinesAreToldOfInSilence(t *testing.T) {
	log, repair := brokenLog(t, 10<<20)
	synctest.Test(t, func(t *testing.T) {
		cut(strings.NewReader("a\n"), log, streamStdout)
		time.Sleep(10 * retryAfter)
		repair()
		time.Sleep(retryAfter + time.Millisecond)
		dropped, _, _ := droppedIn(t, readRecords(t, log.path))
		if dropped != 1 {
			t.Errorf("%d lines dropped", dropped)
		}
	})
}

func TestLineThatLostItsRestIsEnded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	log := newLogFile(path, 10<<20, 5)
	log.now()
	log.add(streamStdout, partial, []byte("begin"))
	log.flush()
	log.add(streamStdout, partial, []byte("middle"))
	log.drop(syscall.EIO)
	log.out, log.lines = log.out[:0], 0
	log.add(streamStdout, full, []byte("next"))
	log.flush()
	log.close()
	dropped, _, others := droppedIn(t, readRecords(t, path))
	if got := text(others, "stdout"); got != "begin\nnext\n" || dropped != 1 {
		t.Errorf("stdout is %q, %d lines are dropped", got, dropped)
	}
}

func TestRemovedDirectoryIsMadeAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pod", "app", "0.log")
	p := start(t, "path", path)
	feed(t, p.stdout, []byte("one\n"), 1)
	eventually(t, "one is written", func() bool {
		info, err := os.Stat(path)
		return err == nil && info.Size() > 0
	})
	if err := os.RemoveAll(filepath.Dir(filepath.Dir(path))); err != nil {
		t.Fatal(err)
	}
	feed(t, p.stdout, []byte("two\n"), 1)
	p.finish()
	if got := text(readRecords(t, path), "stdout"); got != "two\n" {
		t.Errorf("logged %q", got)
	}
}

func TestFileThatCannotBeRenamedGrows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	log := newLogFile(path, 1000, 5)
	// A directory in the way: of this second and, should it end, of the next ones.
	for i := range 60 {
		at := time.Now().Add(time.Duration(i) * time.Second).UTC().Format(rotatedLayout)
		if err := os.MkdirAll(filepath.Join(path+"."+at, "full"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	want := string(numbered("line", 0, 200))
	cut(strings.NewReader(want), log, streamStdout)
	log.close()
	if got := text(readAllFiles(t, path), "stdout"); got != want {
		t.Errorf("logged %d bytes, want %d", len(got), len(want))
	}
}

func TestTornLineIsMended(t *testing.T) {
	const whole = "2026-01-02T15:04:05.000000000Z stdout F whole\n"
	for torn, want := range map[string]string{
		"2026-01-02T15:04:05.000000000Z stdout F who": "who\n",
		"2026-01-02T15:04:05.000000000Z stdout F w":   "w\n",
		"2026-01-02T15:04:05.000000000Z stdout F ":    "\n",
		"2026-01-02T15:04:05.000000000Z stdout F":     "",
		"2":           "",
		"":            "",
		whole:         "whole\n",
		whole + "202": "whole\n",
		whole + "2026-01-02T15:04:05.000000000Z stdout F":  "whole\n",
		whole + "2026-01-02T15:04:05.000000000Z stdout F ": "whole\n\n",
	} {
		path := filepath.Join(t.TempDir(), "0.log")
		if err := os.WriteFile(path, []byte(torn), 0o600); err != nil {
			t.Fatal(err)
		}
		log := newLogFile(path, 10<<20, 5)
		cut(strings.NewReader("new\n"), log, streamStdout)
		log.close()
		if got := text(readRecords(t, path), "stdout"); got != want+"new\n" {
			t.Errorf("after %q: log is %q", torn, got)
		}
	}
}

func TestKilledWhileWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	for i := range 10 {
		p := start(t, "path", path, "lock", path+".lock", "max-size", "200000", "max-files", "1000")
		go func() {
			for n := 0; ; n += 100 {
				if _, err := p.stdout.Write(numbered(fmt.Sprintf("run %d line", i), n, n+100)); err != nil {
					return // killed
				}
			}
		}()
		eventually(t, "it writes", func() bool {
			data, _ := os.ReadFile(path)
			return bytes.Contains(data, fmt.Appendf(nil, " run %d line ", i))
		})
		p.signal(syscall.SIGKILL)
		<-p.ended
		p.closePipes()
	}
	start(t, "path", path, "max-size", "200000", "max-files", "1000").finish()
	run, line := 0, 0
	for _, r := range readAllFiles(t, path) {
		switch expected := fmt.Sprintf("run %d line %d", run, line); {
		case r.text == expected:
			line++
		case r.text == fmt.Sprintf("run %d line 0", run+1):
			run, line = run+1, 1
		case !strings.HasPrefix(expected, r.text): // the last one of a run may be torn
			t.Fatalf("%q where %q should be", r.text, expected)
		}
	}
	if run != 9 {
		t.Errorf("%d runs have logged", run+1)
	}
}

// readAllFiles is readAll for logs that may lack their current file or have directories beside them.
func readAllFiles(t *testing.T, path string) []record {
	t.Helper()
	var all []record
	for _, f := range append((&logFile{path: path}).rotatedFiles(), rotated{path: path}) {
		if info, err := os.Stat(f.path); err == nil && info.Mode().IsRegular() {
			all = append(all, readRecords(t, f.path)...)
		}
	}
	return all
}
