package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"

	"github.com/picketd/picket/runtime/runtimetest"
)

// Inside runs f on a thread in the host's network namespace: what f listens on or dials, without goroutines of its own, is the
// host's.
func (h *Host) Inside(f func() error) error { return runtimetest.InNetwork(h.Namespace, f) }

// Dial connects from the host to an IP address and port, of another host or its own.
func (h *Host) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, err // a name would be asked for elsewhere, on another thread
	}
	err = h.Inside(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Metrics are what the host answers at /metrics.
func (h *Host) Metrics(ctx context.Context) (string, error) {
	text, err := fetch(ctx, h.Dial, "http://"+h.at(portMetrics)+"/metrics")
	return string(text), err
}

// get asks the API through its socket.
func (h *Host) get(ctx context.Context, path string) ([]byte, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", h.Socket)
	}
	return fetch(ctx, dial, "http://"+h.Name+path)
}

// fetch wants to hear OK, and returns the rest of the answer.
func fetch(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error), url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, response.Status)
	}
	return text, err
}
