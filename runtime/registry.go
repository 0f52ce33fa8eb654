package runtime

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/containerd/v2/core/transfer"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"
)

const (
	// askPatience is how long a registry may be silent when all that is at stake is whether a newer image exists.
	askPatience = 2 * time.Second
	// pullPatience is how long it may be silent while an image is fetched. There is no limit for the whole.
	pullPatience = time.Minute
	// layersAtOnce bounds the parallel downloads of one pull.
	layersAtOnce = 3
)

// registry asks for one image with one login: the hosts that hosts.toml names in order, then the image's own. Close it.
type registry struct {
	resolver remotes.Resolver
	image    imageName
	login    Credential
	all      []Credential

	patience atomic.Int64 // time.Duration
	// lastFailed: the last request found no registry, or one that is not able to answer. The last is the image's own registry's,
	// after all mirrors have failed.
	lastFailed atomic.Bool

	mu    sync.Mutex
	hosts map[string]bool // those that are asked, and may see the login
	idle  []interface{ CloseIdleConnections() }
}

// openRegistry connects to nothing yet. all are the other logins at hand: one that names a mirror is used there.
func (r *Runtime) openRegistry(ctx context.Context, image imageName, login Credential, all []Credential) *registry {
	g := &registry{image: image, login: login, all: all, hosts: map[string]bool{}}
	g.wait(pullPatience)
	options := config.HostOptions{Credentials: g.credentials, UpdateClient: g.watch}
	if r.cfg.HostsDir != "" {
		options.HostDir = config.HostDirFromRoot(r.cfg.HostsDir)
	}
	configured := config.ConfigureHosts(ctx, options)
	g.resolver = docker.NewResolver(docker.ResolverOptions{Hosts: func(name string) ([]docker.RegistryHost, error) {
		hosts, err := configured(name)
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, h := range hosts {
			g.hosts[h.Host] = true
		}
		return hosts, err
	}})
	if o, ok := g.resolver.(remotes.ResolverWithOptions); ok {
		o.SetOptions(transfer.WithDownloadLimiter(semaphore.NewWeighted(layersAtOnce)))
	}
	return g
}

// wait sets how long the registry may be silent from now on.
func (g *registry) wait(d time.Duration) { g.patience.Store(int64(d)) }

// resolve asks what the image's name means now.
func (g *registry) resolve(ctx context.Context) (ocispec.Descriptor, error) {
	_, desc, err := g.resolver.Resolve(ctx, g.image.record)
	return desc, err
}

// close gives up idle connections: every registry has its own.
func (g *registry) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.idle {
		c.CloseIdleConnections()
	}
}

// credentials is the login for a host. As with a kubelet, mirrors get the login for the registry that they stand in for, unless
// they have one of their own. Hosts that a registry redirects to, or sends us to for a token, are none of ours: they get nothing.
func (g *registry) credentials(host string) (user, secret string, err error) {
	for _, c := range g.all {
		if host != g.image.registry && registryMatches(c.Registry, host) {
			user, secret = c.login()
			return user, secret, nil
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hosts[host] {
		user, secret = g.login.login()
	}
	return user, secret, nil
}

// watch makes a client lose its patience with a registry that is silent.
func (g *registry) watch(c *http.Client) error {
	if _, done := c.Transport.(*patientTransport); done { // a copy of a client that came by here
		return nil
	}
	if idle, ok := c.Transport.(interface{ CloseIdleConnections() }); ok {
		g.mu.Lock()
		g.idle = append(g.idle, idle)
		g.mu.Unlock()
	}
	c.Transport = &patientTransport{registry: g, base: c.Transport}
	return nil
}

// patientTransport ends a request on which nothing comes, but never one on which something does.
type patientTransport struct {
	registry *registry
	base     http.RoundTripper
}

func (t *patientTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(request.Context())
	s := &silence{limit: time.Duration(t.registry.patience.Load()), cancel: cancel}
	stop := s.watch()
	response, err := t.base.RoundTrip(request.WithContext(ctx))
	stop()
	if err != nil {
		cancel()
		err = s.cause(err)
		t.registry.lastFailed.Store(unreachable(err))
		return nil, err
	}
	t.registry.lastFailed.Store(unable(response.StatusCode))
	response.Body = &patientBody{response.Body, s}
	return response, nil
}

// patientBody watches over reads, not over what the reader does between them: a slow disk is no silent registry.
type patientBody struct {
	io.ReadCloser
	silence *silence
}

func (b *patientBody) Read(p []byte) (int, error) {
	stop := b.silence.watch()
	n, err := b.ReadCloser.Read(p)
	stop()
	if err != nil {
		err = b.silence.cause(err)
	}
	return n, err
}

func (b *patientBody) Close() error {
	defer b.silence.cancel()
	return b.ReadCloser.Close()
}

// silence cancels a request when its limit is reached.
type silence struct {
	limit   time.Duration
	cancel  context.CancelFunc
	reached atomic.Bool
}

// watch starts counting; what it returns stops it.
func (s *silence) watch() (stop func() bool) {
	return time.AfterFunc(s.limit, func() {
		s.reached.Store(true)
		s.cancel()
	}).Stop
}

// cause is silence itself when it is why the request failed.
func (s *silence) cause(err error) error {
	if err != io.EOF && s.reached.Load() { // a reader's EOF is nothing else
		return &silentError{s.limit}
	}
	return err
}

// silentError is not a net.Error with Timeout, which the resolver would try again and again.
type silentError struct{ after time.Duration }

func (e *silentError) Error() string { return fmt.Sprintf("no answer within %s", e.after) }
