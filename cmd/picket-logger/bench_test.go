package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// lines are n lines of 100 bytes, unlike each other as real ones are.
func lines(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "level=info msg=\"request served\" id=%08x status=200 took=%04dus path=/api/v1/things/%-9d", i*2654435761, i*7919%10000, i)
		for b.Len()%100 != 99 {
			b.WriteByte('.')
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// floor is "cat >file" on the same pipe.
func floor(b *testing.B, data []byte, times int) time.Duration {
	out, err := os.Create(filepath.Join(b.TempDir(), "floor"))
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	r, w := pipe(b)
	cmd := exec.Command("cat")
	cmd.Stdin, cmd.Stdout = r, out
	began := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	r.Close()
	feed(b, w, data, times)
	w.Close()
	if err := cmd.Wait(); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}

func feed(t testing.TB, w io.Writer, data []byte, times int) {
	t.Helper()
	for range times {
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkThroughput logs 50 MB of lines of 100 bytes, rotations and compression included, and compares with cat.
func BenchmarkThroughput(b *testing.B) {
	const times, count = 50, 10_000
	data := lines(count)
	var ours, cat time.Duration
	for b.Loop() {
		began := time.Now()
		p := start(b, "path", filepath.Join(b.TempDir(), "0.log"))
		feed(b, p.stdout, data, times)
		p.finish()
		ours += time.Since(began)
		cat += floor(b, data, times)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(times*count*b.N)/ours.Seconds(), "lines/s")
	b.ReportMetric(float64(times*count*b.N)/cat.Seconds(), "cat-lines/s")
	b.ReportMetric(ours.Seconds()/cat.Seconds(), "x-cat")
}

// BenchmarkMemory is the private memory, in KiB, of a logger after 50 MB of output, and of one that has just begun.
func BenchmarkMemory(b *testing.B) {
	data := lines(10_000)
	var worst, fresh int
	for b.Loop() {
		path := filepath.Join(b.TempDir(), "0.log")
		p := start(b, "path", path, "lock", path+".lock")
		fresh = max(fresh, p.private())
		for range 50 {
			feed(b, p.stdout, data, 1)
			worst = max(worst, p.private())
		}
		eventually(b, "compressed", func() bool {
			packed, _ := filepath.Glob(path + ".*.gz")
			worst = max(worst, p.private())
			return len(packed) >= 3
		})
		p.finish()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(worst), "KiB-private")
	b.ReportMetric(float64(fresh), "KiB-private-fresh")
}

// BenchmarkStart is from the exec of the logger to its readiness, which is on a container's way to its start; /bin/true ends
// where the logger begins.
func BenchmarkStart(b *testing.B) {
	path := filepath.Join(b.TempDir(), "0.log")
	var ours, bare time.Duration
	for b.Loop() {
		began := time.Now()
		p := start(b, "path", path, "lock", path+".lock")
		ours += time.Since(began)
		p.finish()
		began = time.Now()
		if err := exec.Command("/bin/true").Run(); err != nil {
			b.Fatal(err)
		}
		bare += time.Since(began)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(ours.Microseconds())/float64(b.N), "µs-to-ready")
	b.ReportMetric(float64(bare.Microseconds())/float64(b.N), "µs-bin-true")
}
