package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/agent/manifest"
	"github.com/picketd/picket/runtime"
)

// stuckAfter is how long the loop may not turn before the agent is called dead: it waits for no network, only for its disk.
const stuckAfter = time.Minute

// Agent is one host's agent, from New to the end of Run.
type Agent struct {
	cfg     Config
	log     *slog.Logger
	fleet   *fleet
	loop    *loop
	runtime containers
	files   *files
	metrics *metrics

	trust     *trust
	server    *api.Server
	listeners []net.Listener
	http      *http.Server // metrics and health
	httpOn    net.Listener

	leaving sync.Once
	left    chan struct{} // closed when this host has left the fleet

	cleanUps cleanUps
}

// New makes the agent and everything that must be there before it runs: directories, the state file, certificates, listeners.
// Nothing is started or stopped. After an error everything that was opened is closed again.
func New(cfg Config) (*Agent, error) {
	return newAgent(cfg, func(c runtime.Config) (containers, error) { return runtime.New(c) })
}

// newAgent takes the runtime from the caller: tests run an agent on one that keeps its containers in memory.
func newAgent(cfg Config, newRuntime func(runtime.Config) (containers, error)) (_ *Agent, err error) {
	a := &Agent{cfg: cfg, log: cfg.Logger.With("node", cfg.Node.Name), left: make(chan struct{})}
	defer func() {
		if err != nil {
			a.cleanUps.run(a.log)
		}
	}()
	if err := a.makeDirectories(); err != nil {
		return nil, err
	}
	if a.trust, err = newTrust(cfg, a.log, hostAddresses(cfg.API.Advertise, cfg.Cluster.Join)); err != nil {
		return nil, err
	}
	db, setAside, err := openBound(filepath.Join(cfg.DataDir, "state.db"), cfg.Cluster.Name, a.trust.identity(), a.log)
	if err != nil {
		return nil, err
	}
	a.cleanUps.add("state file", db.Close)
	if a.fleet, err = openFleet(cfg, a.log, db, a.trust.identity, time.Now); err != nil {
		return nil, err
	}
	if a.runtime, err = newRuntime(cfg.runtimeConfig(a.log)); err != nil {
		return nil, err
	}
	a.cleanUps.add("containerd client", a.runtime.Close)
	if a.loop, err = newLoop(cfg, a.log, db, a.runtime, a.fleet); err != nil {
		return nil, err
	}
	a.trust.tellTo(a.loop.trouble)
	if setAside != "" {
		a.loop.trouble("StateSetAside", errors.New(setAside))
	}
	a.files = newFiles(a.loop)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.metrics = newMetrics(registry, cfg.Version, a.snapshot)
	a.loop.planned = a.metrics.planned
	if err := a.listen(); err != nil {
		return nil, err
	}
	if err := a.meet(); err != nil {
		return nil, err
	}
	a.http = newHealthServer(health{Metrics: registry, Live: a.liveChecks(), Ready: a.readyChecks()}, a.log)
	return a, nil
}

// makeDirectories makes what the agent owns. The data directory holds Secrets.
func (a *Agent) makeDirectories() error {
	for _, dir := range []struct {
		key, path string
		mode      os.FileMode
	}{{"dataDir", a.cfg.DataDir, 0o700}, {"dataDir", a.cfg.podsDir(), 0o700}, {"runDir", a.cfg.RunDir, 0o755}} {
		if err := os.MkdirAll(dir.path, dir.mode); err != nil {
			return fmt.Errorf("cannot make %s: %w", dir.key, err)
		}
	}
	if err := os.MkdirAll(a.cfg.Manifests, 0o755); err != nil {
		a.log.Warn("there is no manifests directory, and it cannot be made", "error", err)
	}
	if err := os.Chmod(a.cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("cannot make dataDir private: %w", err)
	}
	return nil
}

// listen opens the API's and the metrics' listeners: whoever starts the agent hears at once that a port is taken.
func (a *Agent) listen() error {
	for _, l := range []struct {
		key  string
		open func() (net.Listener, error)
		to   func(net.Listener)
	}{
		{"api.socket", func() (net.Listener, error) { return api.ListenSocket(a.cfg.API.Socket) }, func(l net.Listener) { a.listeners = append(a.listeners, l) }},
		{"api.listen", listenTCP(a.cfg.API.Listen), func(l net.Listener) { a.listeners = append(a.listeners, l) }},
		{"metrics.listen", listenTCP(a.cfg.Metrics.Listen), func(l net.Listener) { a.httpOn = l }},
	} {
		listener, err := l.open()
		if err != nil {
			return fmt.Errorf("%s: %w", l.key, err)
		}
		a.cleanUps.add(l.key, func() error { return closeListener(listener) })
		l.to(listener)
	}
	return nil
}

// meet takes this host into the fleet: from now on others may call, gossip tells them where.
func (a *Agent) meet() (err error) {
	a.cleanUps.add("cluster", a.fleet.close)
	if err := a.fleet.join(advertisedAPI(a.cfg, a.listeners[1].Addr(), addressOf(a.loop.node))); err != nil {
		return err
	}
	a.server, err = api.New(api.Options{
		Cache: a.loop.cache, Backend: &backend{loop: a.loop, runtime: a.runtime, podLogs: a.cfg.Runtime.PodLogs}, TLSConfig: a.trust.tlsConfig(),
		NodeName: a.cfg.Node.Name, Version: a.cfg.Version, Logger: a.cfg.Logger,
		Fleet: doors{fleet: a.fleet, Agent: a}, PeerHandler: a.fleet.replication, Door: a.fleet.door,
		Healthz: firstFailure(a.liveChecks()), Readyz: firstFailure(a.readyChecks()),
	})
	return err
}

// doors is what the API asks of the fleet (api.Fleet).
type doors struct {
	*fleet
	*Agent
}

func listenTCP(address string) func() (net.Listener, error) {
	return func() (net.Listener, error) { return net.Listen("tcp", address) }
}

// closeListener closes one that its server may have closed before.
func closeListener(l net.Listener) error {
	if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Run works until ctx ends; containers go on running. ready is called once the API answers. The error is ErrLeft when the host was
// taken out of the fleet by Leave.
func (a *Agent) Run(ctx context.Context, ready func()) error {
	defer a.cleanUps.run(a.log)
	group, ctx := errgroup.WithContext(ctx)
	directory := manifest.NewDirectory(manifest.DirectoryConfig{Path: a.cfg.Manifests, Consumer: a.files, Logger: a.log})
	group.Go(func() error { a.loop.run(ctx); return nil })
	group.Go(func() error {
		// What the fleet has moved on from must not come back from a file that is new here.
		if !a.fleet.synced(ctx) {
			a.log.Warn("no other host has answered yet; this one goes on with what it knows")
		}
		directory.Run(ctx)
		return nil
	})
	group.Go(func() error { a.endForeign(ctx); return nil })
	group.Go(func() error {
		a.fleet.watchKeys(ctx, func(err error) { a.loop.trouble("InvalidGossipKeys", err) })
		return nil
	})
	group.Go(func() error {
		select {
		case <-a.left:
			return ErrLeft
		case <-ctx.Done():
			return nil
		}
	})
	group.Go(func() error { a.importImages(ctx); return nil })
	group.Go(func() error { a.watchPressure(ctx); return nil })
	group.Go(func() error { a.collectImages(ctx); return nil })
	group.Go(func() error { a.watchStorage(ctx); return nil })
	group.Go(func() error { a.trust.keepFresh(ctx); return nil })
	group.Go(func() error { return a.server.Serve(ctx, a.listeners...) })
	group.Go(func() error { return a.serveMetrics(ctx) })
	a.log.Info("picketd runs", "version", a.cfg.Version, "api", a.cfg.API.Listen, "socket", a.cfg.API.Socket, "metrics", a.cfg.Metrics.Listen, "manifests", a.cfg.Manifests)
	ready()
	err := group.Wait()
	if errors.Is(err, ErrLeft) {
		a.log.Info("picketd ends: this host has left the fleet")
		return err
	}
	if a.loop.word.goingDown {
		a.log.Info("picketd ends: the host is shutting down")
		return err
	}
	a.log.Info("picketd ends; its containers run on")
	return err
}

func (a *Agent) serveMetrics(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if a.http.Shutdown(grace) != nil {
			_ = a.http.Close()
		}
	})
	defer stop()
	if err := a.http.Serve(a.httpOn); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("cannot serve metrics: %w", err)
	}
	return nil
}

// importImages brings the archives of imagesDir in whenever containerd comes back, and those that are put there later.
func (a *Agent) importImages(ctx context.Context) {
	const every = 30 * time.Second
	timer := time.NewTimer(every)
	defer timer.Stop()
	told := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.loop.imports:
		case <-timer.C:
		}
		timer.Reset(every)
		if !a.loop.containerdUp.Load() {
			continue
		}
		text := ""
		if err := a.runtime.ImportImages(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, runtime.ErrUnavailable) {
			text = err.Error()
		}
		if text != "" && text != told {
			a.loop.trouble("ImageImportFailed", errors.New(text))
		}
		told = text
	}
}

// Alive is nil while the agent's loop turns.
func (a *Agent) Alive() error {
	for _, c := range a.liveChecks() {
		if err := c.Check(context.Background()); err != nil {
			return err
		}
	}
	return nil
}

// Summary is one line for systemctl status.
func (a *Agent) Summary() string {
	s := a.snapshot()
	ready := 0
	for _, p := range s.Pods {
		if podReady(p) {
			ready++
		}
	}
	text := fmt.Sprintf("%d DaemonSets, %d of %d pods ready", len(s.DaemonSets), ready, len(s.Pods))
	if missing := a.fleet.membership.Stats().Missing; missing > 0 {
		text += fmt.Sprintf("; %d hosts of the fleet are not heard", missing)
	}
	if !s.ContainerdUp {
		text += "; containerd does not answer"
	}
	failing := 0
	for _, n := range s.ManifestErrors {
		if n > 0 {
			failing++
		}
	}
	if failing > 0 {
		text += fmt.Sprintf("; %d manifest files have errors", failing)
	}
	return text
}

func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// cleanUps undo what was opened, last first, also after a start that failed half-way.
type cleanUps []struct {
	name string
	run  func() error
}

func (c *cleanUps) add(name string, run func() error) {
	*c = append(*c, struct {
		name string
		run  func() error
	}{name, run})
}

func (c *cleanUps) run(log *slog.Logger) {
	for len(*c) > 0 {
		last := (*c)[len(*c)-1]
		*c = (*c)[:len(*c)-1]
		if err := last.run(); err != nil {
			log.Warn("cannot close", "what", last.name, "error", err)
		}
	}
}

// podsDir holds the pods' records and their workers' directories.
func (c Config) podsDir() string { return filepath.Join(c.DataDir, "pods") }

// seccompDir holds the host's seccomp profiles, put there by whoever looks after the host.
func (c Config) seccompDir() string { return filepath.Join(c.DataDir, "seccomp") }

func (c Config) runtimeConfig(log *slog.Logger) runtime.Config {
	r := c.Runtime
	return runtime.Config{
		Address: r.Address, Namespace: r.Namespace, ImagesDir: r.ImagesDir, HostsDir: r.HostsDir, CNIBin: r.CNIBin, CNIConf: r.CNIConf,
		PodCIDR: r.PodCIDR, LoggerPath: r.LoggerPath, RunDir: c.RunDir, DataDir: c.DataDir, Log: log,
	}
}

// containerdName is how a containerd version is shown.
func containerdName(version string) string { return "containerd://" + strings.TrimPrefix(version, "v") }
