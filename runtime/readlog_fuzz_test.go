package runtime_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/picketd/picket/runtime"
)

// twin does what ReadLog does, on everything at once.
func twin(log string, o runtime.LogOptions) string {
	var texts []string // what every selected record adds
	var ends []bool    // whether it ends a line, of the complete ones
	for record := range strings.SplitAfterSeq(log, "\n") {
		fields := strings.SplitN(strings.TrimSuffix(record, "\n"), " ", 4)
		if len(fields) < 4 || len(fields[0])+len(fields[1])+len(fields[2])+3 > 64 {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, fields[0])
		if err != nil || fields[1] != "stdout" && fields[1] != "stderr" || o.Stream != "" && o.Stream != fields[1] {
			continue
		}
		text := fields[3]
		if tag, _, _ := strings.Cut(fields[2], ":"); strings.HasSuffix(record, "\n") {
			ends = append(ends, tag != "P")
			if tag != "P" {
				text += "\n"
			}
		}
		if at.Before(o.Since) {
			text = ""
		}
		texts = append(texts, text)
	}
	switch {
	case o.TailLines == 0:
		texts = nil
	case o.TailLines > 0:
		texts = texts[tailOf(ends, o.TailLines):]
	}
	text := strings.Join(texts, "")
	if o.LimitBytes > 0 && int64(len(text)) > o.LimitBytes {
		text = text[:o.LimitBytes]
	}
	return text
}

// tailOf is the first record of the last n lines.
func tailOf(ends []bool, n int64) int {
	seen := int64(0)
	for i := len(ends) - 1; i >= 0; i-- {
		if ends[i] || i == len(ends)-1 {
			if seen == n {
				return i + 1
			}
			seen++
		}
	}
	return 0
}

func FuzzReadLog(f *testing.F) {
	long := "00 stdout F " + strings.Repeat("long ", 30_000)
	f.Add(records("00 stdout F a", "01 stderr P b", "02 stderr F c"), uint16(10), uint16(60), uint16(90), int8(1), uint8(0), uint8(0), uint8(1))
	f.Add(records("00 stdout F a", "01 stderr P b", "02 stderr F c"), uint16(60), uint16(100), uint16(100), int8(1), uint8(0), uint8(0), uint8(0))
	f.Add(records("00 stdout F a")+"x\n"+records("09 stdout P b")+"2026-01-02T15:04:08Z stdout F half",
		uint16(0), uint16(0), uint16(20), int8(-1), uint8(1), uint8(5), uint8(3))
	f.Add(records(long, "01 stdout F b"), uint16(60_000), uint16(60_001), uint16(0), int8(2), uint8(2), uint8(0), uint8(200))
	f.Fuzz(func(t *testing.T, log string, cut1, cut2, cut3 uint16, tail int8, stream, since, limit uint8) {
		o := runtime.LogOptions{
			TailLines: int64(max(tail, -1)), Stream: []string{"", "stdout", "stderr"}[stream%3], LimitBytes: int64(limit),
		}
		if since%60 != 0 {
			o.Since = at(int(since % 60))
		}
		// A rotation comes at the end of a record.
		first := ends(log, int(cut1))
		second := max(first, ends(log, int(cut2)))
		third := max(second, ends(log, int(cut3)))
		path := filepath.Join(t.TempDir(), "0.log")
		write := func(suffix string, data []byte) {
			if err := os.WriteFile(path+suffix, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(".20260102-150401.gz", compress(t, []byte(log[:first])))
		write(".20260102-150402.gz", compress(t, []byte(log[first:second])))
		write(".20260102-150403", []byte(log[second:third]))
		write("", []byte(log[third:]))
		var got bytes.Buffer
		if err := runtime.ReadLog(t.Context(), path, o, &got); err != nil {
			t.Fatal(err)
		}
		if want := twin(log, o); got.String() != want {
			t.Fatalf("%+v: got %.200q, want %.200q", o, got.String(), want)
		}
	})
}

// ends is the end of the record at or after offset i, but for the last one.
func ends(log string, i int) int {
	i = min(i, len(log))
	if n := strings.IndexByte(log[i:], '\n'); n >= 0 {
		return i + n + 1
	}
	return strings.LastIndexByte(log, '\n') + 1
}

// bigLog is a log of n lines of 100 bytes in one file.
func bigLog(b *testing.B, n int) (path string, size int64) {
	b.Helper()
	var data bytes.Buffer
	for i := range n {
		fmt.Fprintf(&data, "2026-01-02T15:04:05.%09dZ stdout F line %07d of a log like any other, a hundred bytes\n", i, i)
	}
	path = filepath.Join(b.TempDir(), "0.log")
	if err := os.WriteFile(path, data.Bytes(), 0o600); err != nil {
		b.Fatal(err)
	}
	return path, int64(data.Len())
}

func BenchmarkReadLog(b *testing.B) {
	path, size := bigLog(b, 100_000)
	for name, o := range map[string]runtime.LogOptions{
		"all":   everything,
		"times": {TailLines: -1, Timestamps: true},
		"tail":  {TailLines: 10},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			if name != "tail" {
				b.SetBytes(size)
			}
			for b.Loop() {
				if err := runtime.ReadLog(b.Context(), path, o, &counting{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
