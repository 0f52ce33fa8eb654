package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
)

// serveSocket serves a handler on a unix socket.
func serveSocket(t *testing.T, handler http.Handler) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: handler}}
	server.Start()
	t.Cleanup(server.Close)
	return socket
}

func proxyURL(t *testing.T, socket string) *url.URL {
	t.Helper()
	tun := &tunnel{socket: socket}
	u, err := tun.proxy(httptest.NewRequest(http.MethodGet, "http://localhost/", nil))
	if err != nil {
		t.Fatal(err)
	}
	if host := u.Hostname(); host != "127.0.0.1" {
		t.Fatalf("the proxy listens on %s", host)
	}
	return u
}

func TestTunnelWantsItsPassword(t *testing.T) {
	socket := serveSocket(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != "" {
			t.Error("the proxy's password reached the agent")
		}
		_, _ = io.WriteString(w, "secret")
	}))
	good := proxyURL(t, socket)
	wrong := *good
	wrong.User = url.UserPassword("picket", "guess")
	none := *good
	none.User = nil
	for _, c := range []struct {
		name  string
		proxy *url.URL
		code  int
	}{{"right", good, 200}, {"wrong", &wrong, 407}, {"none", &none, 407}} {
		client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(c.proxy), DisableKeepAlives: true}}
		answer, err := client.Get("http://localhost/api")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if answer.StatusCode != c.code || (c.code != 200) == (string(body) == "secret") {
			t.Errorf("%s password: %d %q, want %d", c.name, answer.StatusCode, body, c.code)
		}
		// The same through CONNECT, as for exec.
		client.Transport.(*http.Transport).TLSClientConfig = nil
		if _, err := client.Get("https://localhost/"); c.code == 407 && (err == nil || !strings.Contains(err.Error(), "Proxy Authentication Required")) {
			t.Errorf("%s password: CONNECT: %v", c.name, err)
		}
	}
}

// TestTunnelHalfClose holds that what the agent says after the end of the client's input still arrives.
func TestTunnelHalfClose(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			input, _ := io.ReadAll(conn) // to the end of the client's input
			_, _ = io.WriteString(conn, "got "+string(input))
			_ = conn.Close()
		}
	}()
	u := proxyURL(t, socket)
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: "localhost:80"}, Host: "localhost:80", Header: http.Header{}}
	password, _ := u.User.Password()
	basic := &http.Request{Header: http.Header{}}
	basic.SetBasicAuth(u.User.Username(), password)
	request.Header.Set("Proxy-Authorization", basic.Header.Get("Authorization"))
	if err := request.Write(conn); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "input"); err != nil { // at once: it may sit in the proxy's buffer
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasSuffix(string(answer), "\r\n\r\ngot input") {
		t.Errorf("%q, %v", answer, err)
	}
}
