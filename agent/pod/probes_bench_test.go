package pod

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	grpchealth "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// probedProcess makes the test binary the process that is probed, so that what it costs is not counted.
const probedProcess = "PICKET_TEST_PROBED"

func TestMain(m *testing.M) {
	if os.Getenv(probedProcess) != "" {
		serveProbes()
	}
	os.Exit(m.Run())
}

// serveProbes answers HTTP, TCP and gRPC probes until its input ends. It tells its ports in a line each.
func serveProbes() {
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		fmt.Println(l.Addr().(*net.TCPAddr).Port)
		return l
	}
	go http.Serve(listen(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }))
	server := grpc.NewServer()
	grpchealth.RegisterHealthServer(server, health.NewServer())
	go server.Serve(listen())
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// startProbed returns the ports of a process that is to be probed: HTTP (and TCP), gRPC.
func startProbed(b *testing.B) (httpPort, grpcPort int) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), probedProcess+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	if _, err := fmt.Fscan(bufio.NewReader(stdout), &httpPort, &grpcPort); err != nil {
		b.Fatal(err)
	}
	return httpPort, grpcPort
}

// BenchmarkProbes runs 200 probes a second and tells how much of a processor they cost this process: the median of as many seconds as
// there are turns, since beside other work a second may cost twice as much as the next.
func BenchmarkProbes(b *testing.B) {
	httpPort, grpcPort := startProbed(b)
	handlers := map[string]corev1.ProbeHandler{
		"http": {HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt(httpPort)}},
		"tcp":  {TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(httpPort)}},
		"grpc": {GRPC: &corev1.GRPCAction{Port: int32(grpcPort)}},
	}
	for _, kinds := range []string{"http", "tcp", "grpc", "http tcp grpc"} {
		b.Run(kinds, func(b *testing.B) {
			const rate = 200
			var list []probing
			for i := range rate {
				kinds := strings.Fields(kinds)
				list = append(list, probing{
					id: fmt.Sprint(i), kind: livenessProbe, ip: "127.0.0.1", passing: true, container: &corev1.Container{},
					startedAt: time.Now().Add(time.Duration(i) * time.Second / rate),
					probe:     &corev1.Probe{ProbeHandler: handlers[kinds[i%len(kinds)]], PeriodSeconds: 1, TimeoutSeconds: 10},
				})
			}
			cost := costOf(b, list)
			b.ReportMetric(100*cost.Seconds(), "%core")
			b.ReportMetric(float64(cost.Microseconds())/rate, "µs/probe")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// costOf is what probes cost this process in a second.
func costOf(b *testing.B, list []probing) time.Duration {
	b.Helper()
	p := newProber(&Config{Checks: NewChecks()}, func(f probed) {
		if f.failed || f.errored {
			b.Errorf("%+v", f)
		}
	})
	p.want(list)
	time.Sleep(time.Second) // all have begun
	var costs []time.Duration
	for range b.N {
		before := processTime(b)
		time.Sleep(time.Second)
		costs = append(costs, processTime(b)-before)
	}
	<-p.stop()
	slices.Sort(costs)
	return costs[len(costs)/2]
}

// processTime is what this process has had of the processors.
func processTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
