package runtime_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/picketd/picket/runtime"
)

// everything is a log from its beginning to its end.
var everything = runtime.LogOptions{TailLines: -1}

// at is a time in the tests' logs: the second of a minute.
func at(second int) time.Time { return time.Date(2026, 1, 2, 15, 4, second, 0, time.UTC) }

// records writes lines as picket-logger does, from "<second> <stream> <tag> <text>".
func records(lines ...string) string {
	var b strings.Builder
	for _, line := range lines {
		second, rest, _ := strings.Cut(line, " ")
		fmt.Fprintf(&b, "2026-01-02T15:04:%s.000000001Z %s\n", second, rest)
	}
	return b.String()
}

// writeLog writes files of a log beside each other, by what their names have after "0.log"; the modification time is that of the
// last record. It returns the path of the log.
func writeLog(t testing.TB, files map[string]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "0.log")
	for suffix, content := range files {
		data := []byte(content)
		if strings.HasSuffix(suffix, ".gz") {
			data = compress(t, data)
		}
		if err := os.WriteFile(path+suffix, data, 0o600); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(content, "\n"), "\n")
		stamp, _, _ := strings.Cut(lines[len(lines)-1], " ")
		if last, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
			if err := os.Chtimes(path+suffix, last, last); err != nil {
				t.Fatal(err)
			}
		}
	}
	return path
}

func compress(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(data)
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// read is what ReadLog writes.
func read(t testing.TB, path string, o runtime.LogOptions) string {
	t.Helper()
	var b bytes.Buffer
	if err := runtime.ReadLog(t.Context(), path, o, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReadLog(t *testing.T) {
	path := writeLog(t, map[string]string{
		".20260102-150401.gz":     records("00 stdout F a", "01 stderr F b"),
		".20260102-150402.gz":     records("02 stdout F c"),
		".20260102-150403":        records("03 stdout P d", "03 stderr F e", "03 stdout F f"),
		"":                        records("04 stdout F ", "05 stderr P g", "05 stderr P h", "06 stdout F i", "07 stderr P j"),
		".20260102-150404.gz.tmp": "", ".20260102-150404.tmp": "", ".bak": "x\n", ".20260102.gz": "x",
	})
	all := "a\nb\nc\nde\nf\n\nghi\nj"
	for name, c := range map[string]struct {
		o    runtime.LogOptions
		want string
	}{
		"all":               {everything, all},
		"stdout":            {runtime.LogOptions{TailLines: -1, Stream: "stdout"}, "a\nc\ndf\n\ni\n"},
		"stderr":            {runtime.LogOptions{TailLines: -1, Stream: "stderr"}, "b\ne\nghj"},
		"since":             {runtime.LogOptions{TailLines: -1, Since: at(3)}, all[6:]},
		"since, in a file":  {runtime.LogOptions{TailLines: -1, Since: at(1)}, all[2:]},
		"since, in the end": {runtime.LogOptions{TailLines: -1, Since: at(7)}, "j"},
		"since, too late":   {runtime.LogOptions{TailLines: -1, Since: at(30)}, ""},
		"limit":             {runtime.LogOptions{TailLines: -1, LimitBytes: 5}, all[:5]},
		"limit, too large":  {runtime.LogOptions{TailLines: -1, LimitBytes: 500}, all},
		"limit, exact":      {runtime.LogOptions{TailLines: -1, LimitBytes: int64(len(all))}, all},
		"tail 0":            {runtime.LogOptions{TailLines: 0}, ""},
		"tail 1":            {runtime.LogOptions{TailLines: 1}, "j"},
		"tail 2":            {runtime.LogOptions{TailLines: 2}, "ghi\nj"},
		"tail 3":            {runtime.LogOptions{TailLines: 3}, "\nghi\nj"},
		"tail 4":            {runtime.LogOptions{TailLines: 4}, "f\n\nghi\nj"},
		"tail 5":            {runtime.LogOptions{TailLines: 5}, "de\nf\n\nghi\nj"},
		"tail 6":            {runtime.LogOptions{TailLines: 6}, "c\nde\nf\n\nghi\nj"},
		"tail 7":            {runtime.LogOptions{TailLines: 7}, all[2:]},
		"tail 8":            {runtime.LogOptions{TailLines: 8}, all},
		"tail 1000":         {runtime.LogOptions{TailLines: 1000}, all},
		"tail of a stream":  {runtime.LogOptions{TailLines: 2, Stream: "stdout"}, "\ni\n"},
		"tail and limit":    {runtime.LogOptions{TailLines: 5, LimitBytes: 4}, "de\nf"},
		"tail and since":    {runtime.LogOptions{TailLines: 5, Since: at(4)}, "\nghi\nj"},
		"times": {
			runtime.LogOptions{TailLines: 2, Timestamps: true},
			"2026-01-02T15:04:05.000000001Z ghi\n2026-01-02T15:04:07.000000001Z j",
		},
		"times and limit": {runtime.LogOptions{TailLines: 2, Timestamps: true, LimitBytes: 33}, "2026-01-02T15:04:05.000000001Z gh"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := read(t, path, c.o); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestTimesAreShownInNineDigits(t *testing.T) {
	path := writeLog(t, map[string]string{"": "2026-01-02T15:04:05.5+02:00 stdout F a\n2026-01-02T15:04:05Z stdout F b\n"})
	want := "2026-01-02T15:04:05.500000000+02:00 a\n2026-01-02T15:04:05.000000000Z b\n"
	if got := read(t, path, runtime.LogOptions{TailLines: -1, Timestamps: true}); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWhatIsNoRecordIsLeftOut(t *testing.T) {
	good := records("00 stdout F good")
	for _, bad := range []string{
		"\n", "x\n", " \n", "2026-01-02T15:04:05Z\n", "2026-01-02T15:04:05Z stdout\n", "2026-01-02T15:04:05Z stdout F\n",
		"2026-01-02T15:04:05Z stdin F x\n", "yesterday stdout F x\n", strings.Repeat("x", 200_000) + "\n", "\x00\xff\n",
		strings.Repeat(" ", 100) + "\n",
	} {
		path := writeLog(t, map[string]string{"": good + bad + good + strings.TrimSuffix(bad, "\n")})
		if got := read(t, path, everything); got != "good\ngood\n" {
			t.Errorf("with %.50q: %.100q", bad, got)
		}
		if got := read(t, path, runtime.LogOptions{TailLines: 1}); got != "good\n" {
			t.Errorf("with %.50q: tail is %.100q", bad, got)
		}
	}
}

func TestTagsAfterTheFirstAreIgnored(t *testing.T) {
	path := writeLog(t, map[string]string{"": records("00 stdout P:new a", "00 stdout F:new:x b")})
	if got := read(t, path, everything); got != "ab\n" {
		t.Errorf("got %q", got)
	}
}

func TestHalfARecordIsShown(t *testing.T) {
	for _, o := range []runtime.LogOptions{everything, {TailLines: 1}} {
		path := writeLog(t, map[string]string{"": strings.TrimSuffix(records("00 stdout F whole", "01 stdout F half"), "\n")})
		if got := read(t, path, o); got != "whole\nhalf" {
			t.Errorf("%+v: got %q", o, got)
		}
	}
}

func TestHalfARecordEndsWithItsFile(t *testing.T) {
	for _, torn := range []string{"2026-01-02T15:04:00Z stdout F ha", "2026-01-02T15:04:00Z stdout P ha", "2026-01"} {
		path := writeLog(t, map[string]string{".20260102-150401": torn, "": records("01 stdout F b")})
		if got, want := read(t, path, everything), strings.TrimPrefix(torn[max(0, len(torn)-2):], "01")+"b\n"; got != want {
			t.Errorf("%q: got %q, want %q", torn, got, want)
		}
	}
}

func TestTailOfManyLines(t *testing.T) {
	var log, text strings.Builder
	var starts []int
	for i := range 3000 {
		starts = append(starts, text.Len())
		line := fmt.Sprintf("%d %s", i, strings.Repeat("x", i*i%211))
		log.WriteString(records("00 stdout F " + line))
		text.WriteString(line + "\n")
	}
	path := writeLog(t, map[string]string{"": log.String()})
	for n := 1; n < len(starts); n += 7 {
		want := text.String()[starts[len(starts)-n]:]
		if got := read(t, path, runtime.LogOptions{TailLines: int64(n)}); got != want {
			t.Fatalf("tail %d begins with %.20q, want %.20q", n, got, want)
		}
	}
}

func TestNoLog(t *testing.T) {
	dir := t.TempDir()
	gone := runtime.LogOptions{TailLines: -1, Follow: true, Running: func() bool { return false }}
	for _, path := range []string{filepath.Join(dir, "0.log"), filepath.Join(dir, "none", "0.log")} {
		for _, o := range []runtime.LogOptions{everything, {}, gone} {
			if err := runtime.ReadLog(t.Context(), path, o, &bytes.Buffer{}); !errors.Is(err, runtime.ErrNotFound) {
				t.Errorf("%+v: %v", o, err)
			}
		}
	}
}

func TestLogOfRotatedFilesOnly(t *testing.T) {
	path := writeLog(t, map[string]string{".20260102-150401.gz": records("00 stdout F a"), ".20260102-150402": records("01 stdout F b")})
	ended := runtime.LogOptions{TailLines: -1, Follow: true, Running: func() bool { return false }}
	for _, o := range []runtime.LogOptions{everything, ended} {
		if got := read(t, path, o); got != "a\nb\n" {
			t.Errorf("%+v: got %q", o, got)
		}
	}
}

func TestBothFormsAreOne(t *testing.T) {
	path := writeLog(t, map[string]string{
		".20260102-150401": records("00 stdout F a"), ".20260102-150401.gz": records("00 stdout F a"), "": records("01 stdout F b"),
	})
	if got := read(t, path, everything); got != "a\nb\n" {
		t.Errorf("got %q", got)
	}
}

func TestDamagedFileHidesNoOther(t *testing.T) {
	path := writeLog(t, map[string]string{
		".20260102-150401.gz": records("00 stdout F a"), ".20260102-150402.gz": "", "": records("02 stdout F b", "03 stdout F c"),
	})
	if err := os.WriteFile(path+".20260102-150402.gz", []byte("this is not gzip, by no means"), 0o600); err != nil {
		t.Fatal(err)
	}
	for tail, want := range map[int64]string{-1: "a\nb\nc\n", 1: "c\n", 3: "b\nc\n"} {
		var b bytes.Buffer
		err := runtime.ReadLog(t.Context(), path, runtime.LogOptions{TailLines: tail}, &b)
		if b.String() != want || (err == nil) != (tail == 1) || err != nil && !strings.Contains(err.Error(), "150402.gz") {
			t.Errorf("tail %d: %q %v", tail, b.String(), err)
		}
	}
}

func TestOnlyFilesAreRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, filepath.Dir(path)} {
		err := runtime.ReadLog(t.Context(), p, everything, &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%v", err)
		}
	}
}

func TestWriterFails(t *testing.T) {
	path := writeLog(t, map[string]string{"": records("00 stdout F a")})
	failed := errors.New("client is gone")
	if err := runtime.ReadLog(t.Context(), path, everything, failing{failed}); !errors.Is(err, failed) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := runtime.ReadLog(ctx, path, everything, &bytes.Buffer{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// counting counts and forgets.
type counting struct{ n int64 }

func (c *counting) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

func TestEndlessLineTakesNoMemory(t *testing.T) {
	const size = 1 << 26
	path := writeLog(t, map[string]string{"": strings.TrimSuffix(records("00 stdout F before", "01 stdout F "), "\n")})
	if err := os.Truncate(path, size); err != nil { // a hole of zeros
		t.Fatal(err)
	}
	for _, o := range []runtime.LogOptions{everything, {TailLines: 1, Stream: "stdout"}, {TailLines: -1, Stream: "stderr"}} {
		var c counting
		var before, after goruntime.MemStats
		goruntime.ReadMemStats(&before)
		if err := runtime.ReadLog(t.Context(), path, o, &c); err != nil {
			t.Fatal(err)
		}
		goruntime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%+v: %d bytes allocated", o, n)
		}
		if wanted := o.Stream != "stderr"; wanted != (c.n > size/2) {
			t.Errorf("%+v: %d bytes", o, c.n)
		}
	}
}
