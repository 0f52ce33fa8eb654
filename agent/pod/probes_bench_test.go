package pod

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
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

// BenchmarkProbes runs 200 probes a second, a third each of HTTP, TCP and gRPC, for a second each turn, and tells how much of a
// processor they cost this process.
func BenchmarkProbes(b *testing.B) {
	httpPort, grpcPort := startProbed(b)
	service := ""
	handlers := map[string]corev1.ProbeHandler{
		"http": {HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt(httpPort)}},
		"tcp":  {TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(httpPort)}},
		"grpc": {GRPC: &corev1.GRPCAction{Port: int32(grpcPort), Service: &service}},
	}
	for _, kinds := range []string{"http", "tcp", "grpc", "http tcp grpc"} {
		b.Run(kinds, func(b *testing.B) {
			const rate = 200
			p := newProber(&Config{Checks: NewChecks()}, func(f probed) {
				if f.failed || f.errored {
					b.Errorf("%+v", f)
				}
			})
			var list []probing
			kinds := strings.Fields(kinds)
			began := time.Now()
			for i := range rate {
				list = append(list, probing{
					id: fmt.Sprint(i), kind: livenessProbe, ip: "127.0.0.1", passing: true, container: &corev1.Container{},
					startedAt: began.Add(time.Duration(i) * time.Second / rate),
					probe:     &corev1.Probe{ProbeHandler: handlers[kinds[i%len(kinds)]], PeriodSeconds: 1, TimeoutSeconds: 1},
				})
			}
			p.want(list)
			time.Sleep(time.Second)
			b.ResetTimer()
			before := processTime(b)
			time.Sleep(time.Duration(b.N) * time.Second)
			took := processTime(b) - before
			<-p.stop()
			b.ReportMetric(100*took.Seconds()/float64(b.N), "%core")
			b.ReportMetric(float64(took.Microseconds())/float64(b.N*rate), "µs/probe")
			b.ReportMetric(0, "ns/op")
		})
	}
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
