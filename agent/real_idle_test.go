package agent

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// BenchmarkIdle prints what an agent with ten pods costs while nothing happens for a minute, and what one picket-logger holds.
func BenchmarkIdle(b *testing.B) {
	h := newRealHost(b)
	agent := h.launch()
	client := h.clientset()
	const pods = 10
	for i := range pods {
		ds := busyDaemon(fmt.Sprintf("idle-%d", i), "busybox:1", "")
		ds.Spec.Template.Spec.Containers[0].Command = []string{"sleep", "1000000"}
		if _, err := client.AppsV1().DaemonSets("default").Create(context.Background(), ds, metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	h.settled(client)
	pid := agent.cmd.Process.Pid
	before := cpuTime(b, pid)
	time.Sleep(time.Minute) // the idle minute itself
	used := cpuTime(b, pid) - before
	for b.Loop() { // a minute is measured once, whatever -benchtime says
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(statusKB(b, pid, "VmRSS")/1024, "RSS-MB")
	b.ReportMetric(statusKB(b, pid, "RssAnon")/1024, "anon-MB")
	b.ReportMetric(100*used.Seconds()/60, "cpu-%")
	var loggers, most float64
	for _, id := range processesOf(b, "picket-logger", h.dir) {
		loggers++
		most = max(most, privateKB(b, id)/1024)
	}
	b.ReportMetric(loggers, "loggers")
	b.ReportMetric(most, "logger-private-MB")
}

// cpuTime is what a process has used, in user and kernel mode.
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	text := readFile(b, fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	var ticks int64
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100) // USER_HZ
}

// statusKB is one line of /proc/<pid>/status.
func statusKB(b *testing.B, pid int, key string) float64 {
	b.Helper()
	for line := range strings.Lines(readFile(b, fmt.Sprintf("/proc/%d/status", pid))) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == key+":" {
			n, _ := strconv.ParseFloat(f[1], 64)
			return n
		}
	}
	b.Fatalf("no %s of process %d", key, pid)
	return 0
}

// privateKB is the memory that a process shares with nobody.
func privateKB(b *testing.B, pid int) (sum float64) {
	b.Helper()
	for line := range strings.Lines(readFile(b, fmt.Sprintf("/proc/%d/smaps_rollup", pid))) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[0], "Private_") {
			n, _ := strconv.ParseFloat(f[1], 64)
			sum += n
		}
	}
	return sum
}

// processesOf are the running processes of a program that name part in their arguments.
func processesOf(b testing.TB, program, part string) (pids []int) {
	b.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		b.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		args, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && bytes.Contains(args, []byte(program)) && bytes.Contains(args, []byte(part)) {
			pids = append(pids, pid)
		}
	}
	return pids
}
