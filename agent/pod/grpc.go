package pod

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
)

// A gRPC probe is one call of grpc.health.v1.Health/Check, made as what it is on the wire: an HTTP/2 request without TLS. The client
// of package grpc is made to be kept: to make one for a call costs twice as much as the call.

// grpcTransport speaks HTTP/2 from the first byte and keeps no connection.
var grpcTransport = newGRPCTransport()

func newGRPCTransport() *http.Transport {
	var h2 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	return &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true, DisableCompression: true, Protocols: &h2}
}

// grpcHeader is how long what comes before a message is: a byte, 1 if it is compressed, and its length in four.
const grpcHeader = 5

// askGRPC passes when the service says that it is serving.
func askGRPC(ctx context.Context, g *corev1.GRPCAction, ip string, timeout time.Duration) (answer, error) {
	if ip == "" {
		return answer{}, errNoIP
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	address := net.JoinHostPort(ip, strconv.Itoa(int(g.Port)))
	request, err := grpcRequest(ctx, address, g.Service)
	if err != nil {
		return answer{}, err
	}
	response, err := grpcTransport.RoundTrip(request)
	if err == nil {
		defer response.Body.Close()
		return grpcAnswer(response, timeout), nil
	}
	var dial *net.OpError
	switch connected := !errors.As(err, &dial) || dial.Op != "dial"; {
	case connected:
		return grpcFailure(err, timeout), nil
	case ctx.Err() != nil:
		return failing("timeout: failed to connect service %q within %v: %v", address, timeout, err), nil
	}
	return failing("error: failed to connect service at %q: %v", address, err), nil
}

func grpcRequest(ctx context.Context, address string, service *string) (*http.Request, error) {
	var check healthv1.HealthCheckRequest
	if service != nil {
		check.Service = *service
	}
	message, err := proto.Marshal(&check)
	if err != nil {
		return nil, err
	}
	size := len(message)
	body := append([]byte{0, byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size)}, message...)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+healthv1.Health_Check_FullMethodName, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("TE", "trailers")
	request.Header.Set("User-Agent", probeAgent)
	return request, nil
}

// grpcAnswer reads the message and, after it, the status. A call that fails at once has its status in the header.
func grpcAnswer(r *http.Response, timeout time.Duration) answer {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxOutput))
	if err != nil {
		return grpcFailure(err, timeout)
	}
	status := r.Trailer
	if r.Header.Get("Grpc-Status") != "" {
		status = r.Header
	}
	code, err := strconv.Atoi(status.Get("Grpc-Status"))
	if err != nil {
		return failing("error: health rpc probe failed: HTTP status %s without a gRPC status", r.Status)
	}
	text, err := url.PathUnescape(status.Get("Grpc-Message"))
	if err != nil {
		text = status.Get("Grpc-Message")
	}
	switch c := codes.Code(code); c {
	case codes.OK:
		return healthOf(body)
	case codes.Unimplemented:
		return failing("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): %s", text)
	default:
		return failing("error: health rpc probe failed: rpc error: code = %v desc = %s", c, text)
	}
}

// healthOf reads a HealthCheckResponse.
func healthOf(body []byte) answer {
	var health healthv1.HealthCheckResponse
	if len(body) < grpcHeader || body[0] != 0 {
		return failing("error: health rpc probe failed: no message that can be read")
	}
	if err := proto.Unmarshal(body[grpcHeader:], &health); err != nil {
		return failing("error: health rpc probe failed: %v", err)
	}
	if health.Status != healthv1.HealthCheckResponse_SERVING {
		return failing("service unhealthy (responded with %q)", health.Status)
	}
	return answer{}
}

func grpcFailure(err error, timeout time.Duration) answer {
	if errors.Is(err, context.DeadlineExceeded) {
		return failing("timeout: health rpc did not complete within %v", timeout)
	}
	return failing("error: health rpc probe failed: %v", err)
}
