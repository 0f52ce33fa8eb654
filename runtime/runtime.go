package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	grpcstatus "google.golang.org/grpc/status"
)

// Config is how to reach containerd and where the runtime's own files are.
type Config struct {
	Address   string // containerd's socket
	Namespace string // containerd namespace of all our containers and images

	ImagesDir string // archives to import
	HostsDir  string // hosts.toml directories, one per registry

	CNIBin  []string
	CNIConf string // "": the built-in bridge on PodCIDR
	PodCIDR string // with a comma between two, pods have an address of each

	RunDir  string // what ends with a reboot: the pods' namespaces, exec's pipes
	DataDir string // what does not: CNI's cache and addresses
	// LoggerPath is the picket-logger that writes the containers' logs. LogMaxBytes (default 10 MiB) is the size at which it
	// rotates a log, LogMaxFiles (default 5) how many it keeps of each container.
	LoggerPath  string
	LogMaxBytes int64
	LogMaxFiles int

	// Pulse is how often a containerd that is silent is asked whether it lives, and how long it may take to answer (default 10 s).
	Pulse time.Duration

	Log *slog.Logger
}

// snapshotter is the one every containerd has.
const snapshotter = defaults.DefaultSnapshotter

// Runtime drives one containerd. It is safe for concurrent use.
type Runtime struct {
	cfg    Config
	log    *slog.Logger
	client *client.Client

	images   imageCache
	library  library
	network  network
	hub      *hub
	known    *known
	pods     podLocks
	cgroups  cgroups
	writers  logWriters
	oomFloor oomFloor

	stop context.CancelFunc
	done sync.WaitGroup
}

// New returns a runtime that connects to containerd when it answers, and again whenever it went away: nothing is asked here.
func New(cfg Config) (*Runtime, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.LogMaxBytes == 0 {
		cfg.LogMaxBytes = 10 << 20
	}
	if cfg.LogMaxFiles == 0 {
		cfg.LogMaxFiles = 5
	}
	if cfg.Pulse == 0 {
		cfg.Pulse = 10 * time.Second
	}
	c, err := client.New(cfg.Address, client.WithDefaultNamespace(cfg.Namespace), client.WithExtraDialOpts([]grpc.DialOption{
		grpc.WithConnectParams(reconnect),
	}))
	if err != nil {
		return nil, fmt.Errorf("cannot make a containerd client: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Runtime{cfg: cfg, log: cfg.Log, client: c, hub: newHub(), known: newKnown(), cgroups: detectCgroups(), stop: cancel, library: newLibrary(), network: newNetwork(cfg)}
	r.done.Go(func() { r.follow(ctx) })
	return r, nil
}

// reconnect is impatient: containerd is on this host.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
	MinConnectTimeout: 2 * time.Second,
}

// Close ends every subscription and the connection. Containers are not touched.
func (r *Runtime) Close() error {
	r.stop()
	r.writers.close()
	r.done.Wait()
	r.hub.close()
	r.network.exec.close()
	if err := r.client.Close(); err != nil {
		return fmt.Errorf("cannot close the connection to containerd: %w", err)
	}
	return nil
}

// Version is containerd's, such as "1.6.20~ds1".
func (r *Runtime) Version(ctx context.Context) (string, error) {
	v, err := r.client.Version(ctx)
	if err != nil {
		return "", fmt.Errorf("cannot ask containerd for its version: %w", r.native(err))
	}
	return v.Version, nil
}

// ctx is for functions of the containerd client that want the namespace in the context.
func (r *Runtime) ctx(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, r.cfg.Namespace)
}

// native gives an error of containerd's the sentinels that callers act on. Unavailable means containerd only while the
// connection to it is down: containerd also says it of a shim that died.
func (r *Runtime) native(err error) error {
	if err == nil || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNotFound) {
		return err
	}
	if _, raw := grpcstatus.FromError(err); raw { // of a service that is called without the client around it
		err = errgrpc.ToNative(err)
	}
	switch {
	case errdefs.IsNotFound(err):
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case errdefs.IsUnavailable(err) && (brokenOff(err) || r.connectionState() != connectivity.Ready):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// brokenOff says whether the connection broke in the midst of a call: its state may still be what it was before.
func brokenOff(err error) bool { return strings.Contains(err.Error(), "error reading from server") }

func (r *Runtime) connectionState() connectivity.State {
	if conn, ok := r.client.Conn().(*grpc.ClientConn); ok {
		return conn.GetState()
	}
	return connectivity.Shutdown
}
