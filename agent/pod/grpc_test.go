package pod

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
)

// serveGRPC serves on 127.0.0.1 until the test ends.
func serveGRPC(t *testing.T, server *grpc.Server) (port int32) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return int32(listener.Addr().(*net.TCPAddr).Port)
}

func TestGRPCProbe(t *testing.T) {
	states := health.NewServer()
	states.SetServingStatus("up", healthv1.HealthCheckResponse_SERVING)
	states.SetServingStatus("down", healthv1.HealthCheckResponse_NOT_SERVING)
	states.SetServingStatus("odd", 17)
	server := grpc.NewServer()
	healthv1.RegisterHealthServer(server, states)
	port := serveGRPC(t, server)
	name := func(s string) *string { return &s }
	for what, test := range map[string]struct {
		service *string
		want    answer
	}{
		"the server":         {nil, answer{}},
		"no name":            {name(""), answer{}},
		"serving":            {name("up"), answer{}},
		"not serving":        {name("down"), answer{failed: true, output: `service unhealthy (responded with "NOT_SERVING")`}},
		"a state of its own": {name("odd"), answer{failed: true, output: `service unhealthy (responded with "17")`}},
		"unknown":            {name("nobody's"), answer{failed: true, output: "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"}},
	} {
		t.Run(what, func(t *testing.T) {
			got, err := askHere(t, corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: port, Service: test.service}}, 5)
			checkAnswer(t, got, err, test.want)
		})
	}
}

// serveHTTP2 serves HTTP/2 without TLS until the test ends.
func serveHTTP2(t *testing.T, handler http.Handler) (port int32) {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return int32(portOf(t, server.URL))
}

func TestGRPCProbeOfOthers(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	h2 := serveHTTP2(t, http.NotFoundHandler())
	error13 := serveHTTP2(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Grpc-Status", "13")
		w.Header().Set("Grpc-Message", "100%25 l%C3%A4ngst aus")
	}))
	empty := serveHTTP2(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Grpc-Status", "0") }))
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for what, test := range map[string]struct {
		port int32
		want string
	}{
		"gRPC without health": {serveGRPC(t, grpc.NewServer()), "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown service grpc.health.v1.Health"},
		"HTTP/1":              {int32(portOf(t, plain.URL)), "error: health rpc probe failed: "},
		"HTTP/2":              {h2, "error: health rpc probe failed: HTTP status 404"},
		"an error":            {error13, "error: health rpc probe failed: rpc error: code = Internal desc = 100% längst aus"},
		"no message":          {empty, "error: health rpc probe failed: no message that can be read"},
		"silent":              {int32(silent.Addr().(*net.TCPAddr).Port), "timeout: health rpc did not complete within 1s"},
		"nobody":              {int32(closed.Addr().(*net.TCPAddr).Port), "connect: connection refused"},
	} {
		t.Run(what, func(t *testing.T) {
			got, err := askHere(t, corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: test.port}}, 1)
			checkAnswer(t, got, err, answer{failed: true, output: test.want})
		})
	}
}
