package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// maxInFlight bounds requests that are answered at once, maxLongRunning those that last: watches, logs and execs.
	maxInFlight    = 200
	maxLongRunning = 1000
	// shutdownGrace is how long requests may take to end when the server stops.
	shutdownGrace = 5 * time.Second
)

// Options are what a server needs.
type Options struct {
	Cache   *Cache
	Backend Backend
	// TLSConfig serves all listeners but unix sockets. It must ask for client certificates and verify those it is given
	// (tls.VerifyClientCertIfGiven with the fleet's CA); nil serves unix sockets only.
	TLSConfig *tls.Config
	// NodeName is the host's; Version is picket's own.
	NodeName string
	Version  string
	// Fleet is the other hosts; nil is a host alone.
	Fleet Fleet
	// PeerHandler serves what other hosts' agents ask, below /picket/v1/. It is called only for those that Fleet.Peer accepts.
	PeerHandler http.Handler
	// Door tells whether this host may write what is the fleet's and forward its users' calls; nil: it may.
	Door func() bool
	// Healthz and Readyz tell what is wrong; nil is fine.
	Healthz func() error
	Readyz  func() error
	Logger  *slog.Logger
}

// Server serves the API of one host.
type Server struct {
	cache   *Cache
	backend Backend
	fleet   Fleet // nil: there are no other hosts
	peers   http.Handler
	door    func() bool
	node    string
	log     *slog.Logger
	http    *http.Server
	healthz func() error
	readyz  func() error
	version versionInfo
	// short and long are the slots of requests in flight.
	short, long chan struct{}
	// active counts requests, taken-over connections included, which http.Server forgets.
	active sync.WaitGroup
}

// New makes a server. Libraries' klog lines go to the logger of the first one in a process, as debug messages.
func New(o Options) (*Server, error) {
	if o.Cache == nil || o.Backend == nil {
		return nil, errors.New("cannot make the API server: it needs a Cache and a Backend")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Logger = o.Logger.With("node", o.NodeName)
	s := &Server{
		cache: o.Cache, backend: o.Backend, fleet: o.Fleet, peers: o.PeerHandler, door: o.Door, node: o.NodeName, log: o.Logger, healthz: o.Healthz, readyz: o.Readyz, version: newVersionInfo(o.Version),
		short: make(chan struct{}, maxInFlight), long: make(chan struct{}, maxLongRunning),
	}
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       3 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ConnContext:       markSocket,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	if o.TLSConfig != nil {
		if o.TLSConfig.ClientCAs == nil || o.TLSConfig.ClientAuth < tls.VerifyClientCertIfGiven {
			return nil, errors.New("cannot make the API server: its TLS configuration must verify client certificates")
		}
		s.http.TLSConfig = o.TLSConfig.Clone()
		s.http.TLSConfig.MinVersion = max(tls.VersionTLS13, o.TLSConfig.MinVersion)
		// Without this the listener that comes first decides: a unix socket would leave TLS ones with half an HTTP/2.
		s.http.TLSConfig.NextProtos = []string{"h2", "http/1.1"}
	}
	routeKlog(o.Logger)
	return s, nil
}

// Serve serves the listeners until ctx ends, then ends watches and lets other requests finish, for a moment. Who connects
// through a unix socket is admin; everybody else shows a certificate. It closes the listeners. A Server serves once.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	stopping, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	s.http.BaseContext = func(net.Listener) context.Context { return stopping }
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		group.Go(func() error { return s.serveListener(l) })
	}
	<-ctx.Done()
	stop()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := s.http.Shutdown(grace); err != nil {
		s.log.Warn("requests were cut off", "error", err)
		_ = s.http.Close()
	}
	s.active.Wait()
	return group.Wait()
}

func (s *Server) serveListener(l net.Listener) error {
	var err error
	switch {
	case l.Addr().Network() == "unix":
		err = s.http.Serve(l)
	case s.http.TLSConfig == nil:
		err = fmt.Errorf("there are no certificates to serve it with")
		_ = l.Close()
	default:
		err = s.http.ServeTLS(l, "", "")
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("cannot serve the API on %s: %w", l.Addr(), err)
}

// ListenSocket opens the unix socket at path: root, and the group picket where it exists, may connect, and are admin by that.
// A socket that an agent left behind is replaced; one that answers is not.
func ListenSocket(path string) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("cannot listen on %s: another agent answers there", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("cannot make the directory of the socket: %w", err)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("cannot replace the old socket: %w", err)
		}
	}
	// The socket must never be there with a wider mode: it is made under another name in a directory of its own.
	private, err := os.MkdirTemp(filepath.Dir(path), ".sock-")
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	defer func() { _ = os.RemoveAll(private) }()
	hidden := filepath.Join(private, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(hidden, 0o660)
	if group, lookup := user.LookupGroup("picket"); err == nil && lookup == nil {
		if gid, bad := strconv.Atoi(group.Gid); bad == nil {
			err = os.Chown(hidden, -1, gid)
		}
	}
	if err == nil {
		err = os.Rename(hidden, path)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, errors.Join(err, l.Close()))
	}
	return &socketListener{UnixListener: l, path: path}, nil
}

// socketListener removes its socket when it is closed.
type socketListener struct {
	*net.UnixListener
	path string
	once sync.Once
}

func (l *socketListener) Close() error {
	err := l.UnixListener.Close()
	l.once.Do(func() { err = errors.Join(err, os.Remove(l.path)) })
	return err
}
