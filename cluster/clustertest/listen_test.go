package clustertest

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/picketd/picket/cluster/pki"
)

// identity is a host's certificate and the authority that others check it with.
func identity(t *testing.T, authority *pki.Authority, node string) *pki.Identity {
	t.Helper()
	pair, err := authority.IssueHost(pki.Host{Node: node}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := (pki.HostKit{CA: authority.TrustedPEM(), Pair: pair}).Write(dir, true); err != nil {
		t.Fatal(err)
	}
	id, err := pki.ReadIdentity(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// https is a server on host b and a client on host a, with certificates of one fleet.
type https struct {
	*Network
	a, b   *Host
	client *http.Client
	slow   chan struct{} // what /slow waits for before it answers
}

func withHTTPS(t *testing.T, f func(t *testing.T, h *https)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		authority, err := pki.NewAuthority("fleet", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		n := NewNetwork(1)
		n.SetFaults(Faults{Delay: time.Millisecond, Jitter: time.Millisecond})
		h := &https{Network: n, a: n.Host("a"), b: n.Host("b"), slow: make(chan struct{})}
		mine, its := identity(t, authority, "a"), identity(t, authority, "b")
		listener, err := h.b.Listen(9746)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: h.handler(), TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{its.Certificate}, ClientCAs: its.Authorities, ClientAuth: tls.RequireAndVerifyClientCert,
		}}
		ended := make(chan error, 1)
		go func() { ended <- server.ServeTLS(listener, "", "") }()
		transport := &http.Transport{DialContext: h.a.Dial, TLSClientConfig: &tls.Config{
			Certificates: []tls.Certificate{mine.Certificate}, RootCAs: mine.Authorities, ServerName: "b",
		}}
		h.client = &http.Client{Transport: transport, Timeout: 5 * time.Second}
		f(t, h)
		transport.CloseIdleConnections()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		time.Sleep(time.Second) // net/http lingers before it closes
	})
}

func (h *https) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-h.slow:
			_, _ = w.Write([]byte("late"))
		case <-r.Context().Done():
		}
	})
	return mux
}

func (h *https) get(path, body string) (string, error) {
	res, err := h.client.Post("https://"+h.b.Addr().String()+":9746"+path, "text/plain", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return string(answer), err
}

func TestHTTPSBetweenHosts(t *testing.T) {
	withHTTPS(t, func(t *testing.T, h *https) {
		large := strings.Repeat("0123456789abcdef", 3*windowSize/16)
		for _, body := range []string{"one", "two"} {
			if got, err := h.get("/echo", body); err != nil || got != body {
				t.Errorf("%q came back of %q: %v", got, body, err)
			}
		}
		if len(h.a.ports) != 1 {
			t.Errorf("%d connections for two requests one after the other", len(h.a.ports))
		}
		if got, err := h.get("/echo", large); err != nil || got != large {
			t.Errorf("%d bytes came back of %d: %v", len(got), len(large), err)
		}
	})
}

func TestACutInTheMiddleOfARequest(t *testing.T) {
	withHTTPS(t, func(t *testing.T, h *https) {
		if _, err := h.get("/echo", "warm"); err != nil {
			t.Fatal(err)
		}
		answered := make(chan error, 1)
		begun := time.Now()
		go func() {
			_, err := h.get("/slow", "")
			answered <- err
		}()
		time.Sleep(time.Second)
		h.Partition([]string{"a"}, []string{"b"})
		close(h.slow) // it answers into the cut
		var timeout net.Error
		if err := <-answered; !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(begun) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		if _, err := h.get("/echo", "x"); err == nil {
			t.Error("the link is cut")
		}
		h.Heal()
		if got, err := h.get("/echo", "again"); err != nil || got != "again" {
			t.Errorf("after the heal: %q, %v", got, err)
		}
	})
}

func TestAServerHearsThatItsClientWentAway(t *testing.T) {
	withHTTPS(t, func(t *testing.T, h *https) {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+h.b.Addr().String()+":9746/slow", nil)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, cancel)
		if res, err := h.client.Do(r); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, %v", res, err)
		}
		time.Sleep(time.Second) // the handler returns, or the bubble ends with a goroutine in it
	})
}

func TestPortsAreGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(1)
		a, b := n.Host("a"), n.Host("b")
		for range 3 {
			l, err := b.Listen(9746)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Listen(9746); err == nil {
				t.Error("the port was given out twice")
			}
			c, err := a.Dial(t.Context(), "tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(c.Close(), l.Close(), l.Close()); err != nil {
				t.Error(err)
			}
			if _, err := l.Accept(); err == nil { // what waits may still be accepted
				_, err = l.Accept()
				if !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
			}
			if _, err := a.Dial(t.Context(), "tcp", l.Addr().String()); err == nil {
				t.Error("nobody listens")
			}
		}
		if len(a.ports)+len(b.ports) != 0 {
			t.Errorf("%d and %d ports are still taken", len(a.ports), len(b.ports))
		}
		n.Cut("a", "b")
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		begun := time.Now()
		if _, err := a.Dial(ctx, "tcp", "10.0.0.2:9746"); !errors.Is(err, context.Canceled) || time.Since(begun) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}
