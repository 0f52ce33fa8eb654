package pod

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

// portOf is the port of a server's URL.
func portOf(t *testing.T, address string) int {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// askHere asks a probe of a pod on this machine.
func askHere(t *testing.T, handler corev1.ProbeHandler, timeout int32, ports ...corev1.ContainerPort) (answer, error) {
	t.Helper()
	return ask(t.Context(), nil, probing{
		ip: "127.0.0.1", container: &corev1.Container{Name: "web", Ports: ports},
		probe: &corev1.Probe{ProbeHandler: handler, TimeoutSeconds: timeout},
	})
}

func checkAnswer(t *testing.T, got answer, err error, want answer) {
	t.Helper()
	if err != nil {
		t.Errorf("error: %v", err)
	}
	if got.failed != want.failed || got.warned != want.warned || !strings.Contains(got.output, want.output) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// statuses answers with the status that is its path; other paths are redirects.
func statuses(w http.ResponseWriter, r *http.Request) {
	switch code, err := strconv.Atoi(strings.Trim(r.URL.Path, "/")); {
	case err == nil:
		w.WriteHeader(code)
	case r.URL.Path == "/here":
		http.Redirect(w, r, "/204", http.StatusFound)
	case r.URL.Path == "/here-to-500":
		http.Redirect(w, r, "/500", http.StatusMovedPermanently)
	case r.URL.Path == "/there":
		http.Redirect(w, r, "http://0.0.0.0/", http.StatusFound)
	case r.URL.Path == "/round":
		http.Redirect(w, r, "/round", http.StatusFound)
	}
}

func TestHTTPProbe(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(statuses))
	defer server.Close()
	for path, want := range map[string]answer{
		"/200":         {},
		"/204":         {},
		"204":          {},
		"/304":         {warned: true, output: "Probe terminated redirects, Response body: "},
		"/400":         {failed: true, output: "HTTP probe failed with statuscode: 400"},
		"/500":         {failed: true, output: "HTTP probe failed with statuscode: 500"},
		"/here":        {},
		"/here-to-500": {failed: true, output: "HTTP probe failed with statuscode: 500"},
		"/there":       {warned: true, output: `Probe terminated redirects, Response body: <a href="http://0.0.0.0/">Found</a>.`},
		"/round":       {failed: true, output: "stopped after 10 redirects"},
	} {
		t.Run(path, func(t *testing.T) {
			got, err := askHere(t, corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt(portOf(t, server.URL))}}, 5)
			checkAnswer(t, got, err, want)
		})
	}
}

// The scheme may be HTTPS, whatever the certificate says.
func TestHTTPSProbe(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(statuses))
	defer server.Close()
	plain := httptest.NewServer(http.HandlerFunc(statuses))
	defer plain.Close()
	get := func(url string) corev1.ProbeHandler {
		return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/200", Port: intstr.FromInt(portOf(t, url)), Scheme: corev1.URISchemeHTTPS}}
	}
	got, err := askHere(t, get(server.URL), 5)
	checkAnswer(t, got, err, answer{})
	got, err = askHere(t, get(plain.URL), 5)
	checkAnswer(t, got, err, answer{failed: true, output: "server gave HTTP response to HTTPS client"})
}

func TestHTTPRequest(t *testing.T) {
	var heard *http.Request
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { heard = r }))
	defer server.Close()
	port := portOf(t, server.URL)
	host := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	type headers []corev1.HTTPHeader
	for name, test := range map[string]struct {
		headers headers
		path    string
		want    map[string]string
	}{
		"as it is": {nil, "/a?b=c", map[string]string{
			"Host": host, "User-Agent": "kube-probe/picket", "Accept": "*/*", "Connection": "close", "URI": "/a?b=c", "Accept-Encoding": "-",
		}},
		"no path":   {nil, "", map[string]string{"URI": "/"}},
		"no URL":    {nil, "/%zz", map[string]string{"URI": "/%25zz"}},
		"own":       {headers{{Name: "host", Value: "web.example"}, {Name: "x-a", Value: "1"}}, "/", map[string]string{"Host": "web.example", "X-A": "1"}},
		"twice":     {headers{{Name: "X-A", Value: "1"}, {Name: "x-a", Value: "2"}}, "/", map[string]string{"X-A": "1,2"}},
		"agent":     {headers{{Name: "user-agent", Value: "me"}}, "/", map[string]string{"User-Agent": "me"}},
		"accept":    {headers{{Name: "accept", Value: "text/plain"}}, "/", map[string]string{"Accept": "text/plain"}},
		"no accept": {headers{{Name: "Accept", Value: ""}}, "/", map[string]string{"Accept": "-"}},
	} {
		t.Run(name, func(t *testing.T) {
			get := &corev1.HTTPGetAction{Path: test.path, Port: intstr.FromInt(port), HTTPHeaders: test.headers}
			got, err := askHere(t, corev1.ProbeHandler{HTTPGet: get}, 5)
			checkAnswer(t, got, err, answer{})
			for name, want := range test.want {
				value := strings.Join(heard.Header.Values(name), ",")
				switch name {
				case "Host":
					value = heard.Host
				case "URI":
					value = heard.RequestURI
				}
				if len(heard.Header.Values(name)) == 0 && value == "" {
					value = "-"
				}
				expect(t, name, value, want)
			}
		})
	}
}

// A server that does not answer fails the probe; one that has answered and then stops in its text leaves it open, as with the kubelet.
func TestHTTPProbeTimesOut(t *testing.T) {
	done := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/begins" {
			_ = http.NewResponseController(w).Flush()
		}
		<-done
	}))
	defer server.Close()
	defer close(done)
	get := &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt(portOf(t, server.URL))}
	got, err := askHere(t, corev1.ProbeHandler{HTTPGet: get}, 1)
	checkAnswer(t, got, err, answer{failed: true, output: "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"})
	get.Path = "/begins"
	if got, err := askHere(t, corev1.ProbeHandler{HTTPGet: get}, 1); err == nil {
		t.Errorf("answer %+v", got)
	}
}

// No more than 10 KiB of an answer are read.
func TestHTTPProbeEndless(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusSeeOther)
		for {
			if _, err := io.WriteString(w, "more and "); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	get := &corev1.HTTPGetAction{Port: intstr.FromInt(portOf(t, server.URL))}
	got, err := askHere(t, corev1.ProbeHandler{HTTPGet: get}, 5)
	checkAnswer(t, got, err, answer{warned: true, output: "more and more"})
	if len(got.output) > maxOutput+100 {
		t.Errorf("%d bytes", len(got.output))
	}
}

// A cancelled check comes back at once.
func TestProbeOfNetworkCancelled(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	port := silent.Addr().(*net.TCPAddr).Port
	for name, handler := range map[string]corev1.ProbeHandler{
		"http": {HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt(port)}},
		"grpc": {GRPC: &corev1.GRPCAction{Port: int32(port)}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_, _ = ask(ctx, nil, probing{ip: "127.0.0.1", container: &corev1.Container{}, probe: &corev1.Probe{ProbeHandler: handler, TimeoutSeconds: 1000}})
			}()
			conn, err := silent.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			cancel()
			<-ended
		})
	}
}

func TestTCPProbe(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	socket := &corev1.TCPSocketAction{Port: intstr.FromInt(port)}
	got, err := askHere(t, corev1.ProbeHandler{TCPSocket: socket}, 5)
	checkAnswer(t, got, err, answer{})
	listener.Close()
	got, err = askHere(t, corev1.ProbeHandler{TCPSocket: socket}, 5)
	checkAnswer(t, got, err, answer{failed: true, output: fmt.Sprintf("dial tcp 127.0.0.1:%d: connect: connection refused", port)})
}

func TestAddressOf(t *testing.T) {
	c := &corev1.Container{Name: "web", Ports: []corev1.ContainerPort{{Name: "dns", ContainerPort: 53}, {Name: "http", ContainerPort: 8080, HostPort: 80}}}
	for name, test := range map[string]struct {
		host, ip  string
		port      intstr.IntOrString
		want, err string
	}{
		"number":              {"", "10.88.0.2", intstr.FromInt(9), "10.88.0.2:9", ""},
		"name":                {"", "10.88.0.2", intstr.FromString("http"), "10.88.0.2:8080", ""},
		"number as text":      {"", "10.88.0.2", intstr.FromString("9"), "10.88.0.2:9", ""},
		"host":                {"localhost", "10.88.0.2", intstr.FromInt(9), "localhost:9", ""},
		"IPv6":                {"", "fd00::2", intstr.FromInt(9), "[fd00::2]:9", ""},
		"no such name":        {"", "10.88.0.2", intstr.FromString("https"), "", `container web has no port "https"`},
		"no port at all":      {"", "10.88.0.2", intstr.FromInt(0), "", `container web has no port "0"`},
		"too large":           {"", "10.88.0.2", intstr.FromInt(65536), "", `container web has no port "65536"`},
		"a pod without an IP": {"", "", intstr.FromInt(9), "", "the pod has no IP"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := addressOf(test.host, test.ip, test.port, c)
			text := ""
			if err != nil {
				text = err.Error()
			}
			expect(t, "address", got, test.want)
			expect(t, "error", text, test.err)
		})
	}
}

// IPv6 reaches the dialer as it has to be written.
func TestProbesOfIPv6(t *testing.T) {
	for name, handler := range map[string]corev1.ProbeHandler{
		"http": {HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt(1)}},
		"tcp":  {TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(1)}},
		"grpc": {GRPC: &corev1.GRPCAction{Port: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ask(t.Context(), nil, probing{ip: "::1", container: &corev1.Container{}, probe: &corev1.Probe{ProbeHandler: handler, TimeoutSeconds: 5}})
			checkAnswer(t, got, err, answer{failed: true, output: "dial tcp [::1]:1: connect:"})
		})
	}
}

func TestExecProbe(t *testing.T) {
	fake := runtimetest.NewFake()
	long := strings.Repeat("x", 2*maxOutput)
	for name, test := range map[string]struct {
		code      int
		out, errs string
		want      answer
	}{
		"passes":          {0, "fine", "", answer{}},
		"fails":           {1, "out ", "err", answer{failed: true, output: "out err"}},
		"fails silently":  {7, "", "", answer{failed: true}},
		"fails at length": {1, long, long, answer{failed: true, output: long[:maxOutput]}},
	} {
		t.Run(name, func(t *testing.T) {
			fake.SetExec(func(id string, e runtime.ExecConfig) (int, error) {
				expect(t, "command", id+" "+strings.Join(e.Command, " "), "web-0 check -v")
				for _, s := range []struct {
					to   io.Writer
					text string
				}{{e.Stdout, test.out}, {e.Stderr, test.errs}} {
					if n, err := io.WriteString(s.to, s.text); err != nil || n != len(s.text) {
						t.Errorf("the command could write %d bytes: %v", n, err)
					}
				}
				return test.code, nil
			})
			got, err := askCommand(t.Context(), fake, "web-0", []string{"check", "-v"}, time.Second)
			checkAnswer(t, got, err, test.want)
			if len(got.output) > maxOutput {
				t.Errorf("%d bytes are kept", len(got.output))
			}
		})
	}
}

func TestProbeWithoutHandler(t *testing.T) {
	if got, err := askHere(t, corev1.ProbeHandler{}, 1); err == nil {
		t.Errorf("answer %+v", got)
	}
}

// What a probe opens is closed when it has its answer, and nothing of it runs on.
func TestProbesLeaveNothing(t *testing.T) {
	plain, secure := httptest.NewServer(http.HandlerFunc(statuses)), httptest.NewTLSServer(http.HandlerFunc(statuses))
	defer plain.Close()
	defer secure.Close()
	server := grpc.NewServer()
	healthv1.RegisterHealthServer(server, health.NewServer())
	grpcPort := serveGRPC(t, server)
	before := goleak.IgnoreCurrent()
	get := func(url, path string, scheme corev1.URIScheme) corev1.ProbeHandler {
		return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt(portOf(t, url)), Scheme: scheme}}
	}
	for _, handler := range []corev1.ProbeHandler{
		get(plain.URL, "/200", "HTTP"), get(plain.URL, "/here", "HTTP"), get(plain.URL, "/there", "HTTP"), get(plain.URL, "/500", "HTTP"),
		get(secure.URL, "/200", "HTTPS"), get(plain.URL, "/200", "HTTPS"),
		{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(portOf(t, plain.URL))}},
		{GRPC: &corev1.GRPCAction{Port: grpcPort}},
		{GRPC: &corev1.GRPCAction{Port: int32(portOf(t, plain.URL))}},
	} {
		if _, err := askHere(t, handler, 5); err != nil {
			t.Error(err)
		}
	}
	goleak.VerifyNone(t, before) // that of the servers' side, too, which ends with the connection
}
