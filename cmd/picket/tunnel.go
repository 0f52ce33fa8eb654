package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// socketHost stands for the socket in URLs.
const socketHost = "localhost"

// tunnel is an HTTP proxy on the loopback interface that leads to one unix socket and nowhere else. client-go cannot dial a unix
// socket for exec, attach and port-forward, but it honours a proxy for everything. A random password keeps the other users of this
// host out: the socket's mode says who may use it, and the proxy's port has none.
type tunnel struct {
	socket string

	start    sync.Once
	url      *url.URL
	password string
	err      error
}

// proxy is a rest.Config's Proxy: it starts the proxy with the first request, and reports an agent that cannot be reached in words.
func (t *tunnel) proxy(r *http.Request) (*url.URL, error) {
	if err := t.check(r.Context()); err != nil {
		return nil, err
	}
	t.start.Do(t.listen)
	return t.url, t.err
}

// check tells what is wrong when the socket does not answer.
func (t *tunnel) check(ctx context.Context) error {
	conn, err := t.dial(ctx)
	if err != nil {
		return diagnosis{proc: "/proc"}.explain(t.socket, err)
	}
	return conn.Close()
}

func (t *tunnel) dial(ctx context.Context) (net.Conn, error) {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	return dialer.DialContext(ctx, "unix", t.socket)
}

// listen starts the proxy; it ends with the process.
func (t *tunnel) listen() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.err = err
		return
	}
	t.password = rand.Text()
	t.url = &url.URL{Scheme: "http", User: url.UserPassword("picket", t.password), Host: listener.Addr().String()}
	server := &http.Server{
		Handler: t.authenticated(t.handler()), ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: log.New(io.Discard, "", 0), // a client that hangs up is this very command, ending
	}
	go func() { _ = server.Serve(listener) }()
}

func (t *tunnel) authenticated(next http.Handler) http.Handler {
	want := []byte("Basic " + base64.StdEncoding.EncodeToString([]byte(t.url.User.String())))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Proxy-Authorization")), want) != 1 {
			w.Header().Set("Proxy-Authenticate", "Basic")
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// handler forwards plain requests, and lets CONNECT, which exec and its kin use, talk to the socket directly.
func (t *tunnel) handler() http.Handler {
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", socketHost },
		Transport: &http.Transport{
			DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return t.dial(ctx) },
			DisableCompression: true, // what the client asked for goes through as it is
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect {
			t.connect(w, r)
			return
		}
		forward.ServeHTTP(w, r)
	})
}

// connect joins the client's connection with a new one to the socket.
func (t *tunnel) connect(w http.ResponseWriter, r *http.Request) {
	agent, err := t.dial(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer agent.Close()
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer client.Close()
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	up := make(chan struct{})
	go func() {
		defer close(up)
		pass(agent, buffered)
	}()
	pass(client, agent)
	<-up
}

// pass copies one direction to its end and passes the end on: an exec's input may end long before its output.
func pass(dst net.Conn, src io.Reader) {
	if _, err := io.Copy(dst, src); err != nil {
		_ = dst.Close()
		return
	}
	if half, ok := dst.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
