package runtime_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/picketd/picket/runtime"
)

// look is longer than a follower looks away.
const look = time.Second

// appendLog appends to a file of a log.
func appendLog(t testing.TB, path, content string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
}

// follower is a ReadLog under way, in virtual time.
type follower struct {
	t     *testing.T
	path  string
	runs  atomic.Bool
	end   context.CancelFunc
	mu    sync.Mutex
	got   bytes.Buffer
	ended chan error
}

func (f *follower) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.got.Write(p)
}

// expect expects what came since it was asked last, a look later.
func (f *follower) expect(want string) {
	f.t.Helper()
	time.Sleep(look)
	f.mu.Lock()
	defer f.mu.Unlock()
	if got := f.got.String(); got != want {
		f.t.Fatalf("got %q, want %q", got, want)
	}
	f.got.Reset()
}

// expectEnd expects it to have ended, a look later.
func (f *follower) expectEnd() {
	f.t.Helper()
	time.Sleep(look)
	select {
	case err := <-f.ended:
		if err != nil {
			f.t.Fatal(err)
		}
	default:
		f.t.Fatal("goes on")
	}
}

// follow runs test in virtual time with a follower of a log that holds content; "" is none yet.
func follow(t *testing.T, o runtime.LogOptions, content string, test func(f *follower)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "0.log")
	if content != "" {
		appendLog(t, path, content)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		f := &follower{t: t, path: path, end: cancel, ended: make(chan error, 1)}
		f.runs.Store(true)
		o.Follow, o.Running = true, f.runs.Load
		go func() { f.ended <- runtime.ReadLog(ctx, path, o, f) }()
		test(f)
	})
}

func TestFollowUntilTheContainerEnds(t *testing.T) {
	follow(t, everything, records("00 stdout F a"), func(f *follower) {
		f.expect("a\n")
		appendLog(t, f.path, records("01 stdout F b", "02 stderr P c"))
		f.expect("b\nc")
		appendLog(t, f.path, records("03 stderr F d"))
		f.expect("d\n")
		f.runs.Store(false)
		appendLog(t, f.path, records("04 stderr F e"))
		f.expect("e\n")
		f.expectEnd()
	})
}

func TestFollowReadsWhatTheLoggerWritesAfterTheEnd(t *testing.T) {
	follow(t, everything, records("00 stdout F a"), func(f *follower) {
		f.expect("a\n")
		time.Sleep(50 * time.Millisecond) // between two looks
		f.runs.Store(false)
		for range 5 {
			time.Sleep(200 * time.Millisecond)
			appendLog(t, f.path, records("01 stdout F b"))
		}
		f.expect("b\nb\nb\nb\nb\n")
		f.expectEnd()
	})
}

func TestFollowUntilTheClientLeaves(t *testing.T) {
	follow(t, everything, records("00 stdout F a"), func(f *follower) {
		f.expect("a\n")
		f.end()
		f.expectEnd()
	})
}

func TestFollowUntilTheLimit(t *testing.T) {
	follow(t, runtime.LogOptions{TailLines: -1, LimitBytes: 3}, records("00 stdout F a"), func(f *follower) {
		f.expect("a\n")
		appendLog(t, f.path, records("01 stdout F bcd"))
		f.expect("b")
		f.expectEnd()
	})
}

func TestFollowWaitsForTheLog(t *testing.T) {
	follow(t, everything, "", func(f *follower) {
		f.expect("")
		if err := os.Remove(filepath.Dir(f.path)); err != nil {
			t.Fatal(err)
		}
		f.expect("")
		if err := os.Mkdir(filepath.Dir(f.path), 0o700); err != nil {
			t.Fatal(err)
		}
		appendLog(t, f.path, records("00 stdout F a"))
		f.expect("a\n")
	})
}

func TestFollowFromTheEnd(t *testing.T) {
	torn := strings.TrimSuffix(records("02 stdout F c"), "c\n")
	for tail, want := range map[int64]string{0: "", 1: "b\n"} {
		follow(t, runtime.LogOptions{TailLines: tail}, records("00 stdout F a", "01 stdout F b")+torn, func(f *follower) {
			f.expect(want)
			appendLog(t, f.path, "c\n")
			f.expect("c\n")
		})
	}
}

func TestFollowShowsHalfARecordAtTheEndOnly(t *testing.T) {
	line := records("00 stdout F abc")
	follow(t, everything, line[:len(line)-3], func(f *follower) {
		f.expect("")
		f.runs.Store(false)
		f.expect("a")
		f.expectEnd()
	})
}

func TestFollowWhenRecordsAreTakenBack(t *testing.T) {
	follow(t, everything, records("00 stdout F a"), func(f *follower) {
		f.expect("a\n")
		size := int64(len(records("00 stdout F a")))
		appendLog(t, f.path, records("01 stdout F b")+"2026-01-02T15:04:02.000000001Z stdout F not wr")
		f.expect("b\n")
		if err := os.Truncate(f.path, size); err != nil { // the disk was full
			t.Fatal(err)
		}
		f.expect("")
		appendLog(t, f.path, records("03 stdout F d"))
		f.expect("d\n")
		if err := os.Truncate(f.path, 0); err != nil {
			t.Fatal(err)
		}
		f.expect("")
		appendLog(t, f.path, records("04 stdout F e"))
		f.expect("e\n")
	})
}

// rotateLog does what picket-logger does, but for the pruning.
func rotateLog(t testing.TB, path, when string) {
	t.Helper()
	if err := os.Rename(path, path+"."+when); err != nil {
		t.Fatal(err)
	}
}

// packLog compresses a rotated file.
func packLog(t testing.TB, path, when string) {
	t.Helper()
	path += "." + when
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.WriteFile(path+".tmp", compress(t, data), 0o600),
		os.Chtimes(path+".tmp", info.ModTime(), info.ModTime()),
		os.Rename(path+".tmp", path+".gz"),
		os.Remove(path),
	); err != nil {
		t.Fatal(err)
	}
}

func TestFollowThroughRotations(t *testing.T) {
	follow(t, everything, records("00 stdout F a"), func(f *follower) {
		f.expect("a\n")
		appendLog(t, f.path, records("01 stdout P b"))
		rotateLog(t, f.path, "20260102-150401")
		f.expect("b") // not there again yet
		appendLog(t, f.path, records("02 stdout F c"))
		f.expect("c\n")
		// Three rotations between two looks, the second and third are compressed.
		appendLog(t, f.path, records("03 stdout F d"))
		rotateLog(t, f.path, "20260102-150403")
		appendLog(t, f.path, records("04 stdout F e"))
		rotateLog(t, f.path, "20260102-150404")
		packLog(t, f.path, "20260102-150401")
		packLog(t, f.path, "20260102-150403")
		appendLog(t, f.path, records("05 stdout F f"))
		rotateLog(t, f.path, "20260102-150405")
		packLog(t, f.path, "20260102-150404")
		f.expect("d\ne\nf\n")
		appendLog(t, f.path, records("06 stdout F g"))
		f.expect("g\n")
		f.runs.Store(false)
		f.expectEnd()
	})
}

func TestFollowWhenFilesHaveOneTime(t *testing.T) {
	follow(t, everything, records("00 stdout F a"), func(f *follower) {
		f.expect("a\n")
		rotateLog(t, f.path, "20260102-150401")
		f.expect("") // there is none to go on with yet
		appendLog(t, f.path, records("02 stdout F b"))
		rotateLog(t, f.path, "20260102-150402")
		for _, when := range []string{".20260102-150401", ".20260102-150402"} {
			if err := os.Chtimes(f.path+when, at(1), at(1)); err != nil {
				t.Fatal(err)
			}
		}
		packLog(t, f.path, "20260102-150402")
		appendLog(t, f.path, records("03 stdout F c"))
		f.expect("b\nc\n")
	})
}

func TestFollowWhenItsFileIsPruned(t *testing.T) {
	follow(t, everything, records("00 stdout F a"), func(f *follower) {
		f.expect("a\n")
		appendLog(t, f.path, records("01 stdout F b"))
		rotateLog(t, f.path, "20260102-150401")
		if err := os.Remove(f.path + ".20260102-150401"); err != nil { // still open
			t.Fatal(err)
		}
		appendLog(t, f.path, records("02 stdout F c"))
		if err := os.Chtimes(f.path, at(2), at(2)); err != nil { // not the tick in which b was written
			t.Fatal(err)
		}
		rotateLog(t, f.path, "20260102-150402")
		packLog(t, f.path, "20260102-150402")
		appendLog(t, f.path, records("03 stdout F d"))
		f.expect("b\nc\nd\n")
	})
}

func TestFollowWhenTheLogIsMadeAgain(t *testing.T) {
	follow(t, everything, records("00 stdout F a"), func(f *follower) {
		f.expect("a\n")
		if err := os.RemoveAll(filepath.Dir(f.path)); err != nil {
			t.Fatal(err)
		}
		f.expect("")
		if err := os.Mkdir(filepath.Dir(f.path), 0o700); err != nil {
			t.Fatal(err)
		}
		appendLog(t, f.path, records("01 stdout F b"))
		f.expect("b\n")
	})
}

// startLogger starts a real picket-logger and returns the ends of its pipes.
func startLogger(t testing.TB, args ...string) (stdout, stderr io.WriteCloser, wait func()) {
	t.Helper()
	cmd := exec.Command(logger(t), args...)
	var theirs, ours []*os.File
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		theirs, ours = append(theirs, r), append(ours, w)
	}
	theirs[2], ours[2] = ours[2], theirs[2] // it is the one that says it is ready
	cmd.ExtraFiles = theirs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range theirs {
		f.Close()
	}
	ended := sync.OnceFunc(func() { _ = cmd.Wait() })
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		ended()
		ours[0].Close()
		ours[1].Close()
	})
	if ready, err := io.ReadAll(ours[2]); err != nil || len(ready) != 1 {
		t.Fatalf("logger is not ready: %q %v", ready, err)
	}
	ours[2].Close()
	return ours[0], ours[1], ended
}

// slow is a client that does not read before it is told to.
type slow struct {
	bytes.Buffer
	begin <-chan struct{}
}

func (s *slow) Write(p []byte) (int, error) {
	<-s.begin
	return s.Buffer.Write(p)
}

// TestReadersSeeEveryLineOnce reads while picket-logger rotates and compresses over a hundred times.
func TestReadersSeeEveryLineOnce(t *testing.T) {
	const lines = 60_000
	path := filepath.Join(t.TempDir(), "app", "0.log")
	stdout, stderr, wait := startLogger(t, "path", path, "max-size", "20000", "max-files", "1000")
	var running atomic.Bool
	running.Store(true)
	written := make(chan struct{})
	now := make(chan struct{})
	close(now)
	clients := []*slow{{begin: now}, {begin: written}, {begin: now}, {begin: written}}
	var done sync.WaitGroup
	for i, c := range clients {
		o := runtime.LogOptions{TailLines: -1, Follow: true, Running: running.Load, Stream: []string{"stdout", "stderr"}[i%2]}
		done.Go(func() {
			if err := runtime.ReadLog(t.Context(), path, o, c); err != nil {
				t.Error(err)
			}
		})
	}
	var both sync.WaitGroup
	for _, w := range []io.WriteCloser{stdout, stderr} {
		both.Go(func() { writeNumbers(w, lines) })
	}
	reads := 0
	both.Go(func() {
		for ; reads == 0 || len(rotatedFiles(t, path)) < 80; reads++ {
			checkPrefix(t, path)
		}
	})
	both.Wait()
	wait()
	running.Store(false)
	close(written)
	done.Wait()
	for i, c := range clients {
		checkNumbers(t, fmt.Sprint("client ", i), c.String(), lines)
	}
	if n := len(rotatedFiles(t, path)); n < 100 {
		t.Errorf("%d rotations", n)
	}
	t.Logf("%d rotations, %d reads meanwhile", len(rotatedFiles(t, path)), reads)
}

func rotatedFiles(t testing.TB, path string) []string {
	t.Helper()
	files, err := filepath.Glob(path + ".*-*[0-9]")
	if err != nil {
		t.Fatal(err)
	}
	packed, _ := filepath.Glob(path + ".*.gz")
	return append(files, packed...)
}

func writeNumbers(w io.WriteCloser, n int) {
	defer w.Close()
	for i := 0; i < n; i += 10 {
		var b bytes.Buffer
		for j := i; j < i+10; j++ {
			fmt.Fprintln(&b, j)
		}
		if _, err := w.Write(b.Bytes()); err != nil {
			return
		}
	}
}

// checkPrefix reads what is there now: no number may be missing in between.
func checkPrefix(t *testing.T, path string) {
	var b bytes.Buffer
	if err := runtime.ReadLog(t.Context(), path, runtime.LogOptions{TailLines: -1, Stream: "stdout"}, &b); err != nil {
		t.Error(err)
		return
	}
	whole := b.String()[:strings.LastIndexByte(b.String(), '\n')+1]
	checkNumbers(t, "reader", whole, strings.Count(whole, "\n"))
}

func checkNumbers(t *testing.T, who, text string, n int) {
	t.Helper()
	i := 0
	for line := range strings.Lines(text) {
		if line != fmt.Sprintln(i) {
			t.Errorf("%s: %q where %d should be", who, line, i)
			return
		}
		i++
	}
	if i != n {
		t.Errorf("%s: %d lines, want %d", who, i, n)
	}
}
