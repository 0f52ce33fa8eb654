package runtimetest

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Registry is an image registry in this process, on loopback unless it was told otherwise. Through WriteHosts it is docker.io, or
// any other.
type Registry struct {
	Host string // 127.0.0.1:port

	network string // the network namespace it listens in, "" for ours
	images  http.Handler

	mu        sync.Mutex
	server    *http.Server
	user, key string
	status    int           // answered to everything unless 0
	hang      chan struct{} // closed when requests that hang may go
	counts    Requests
}

// Requests counts what a registry was asked, refused requests included. Nothing is counted by Push.
type Requests struct{ Manifests, Blobs, Other int }

// Total is all of them.
func (r Requests) Total() int { return r.Manifests + r.Blobs + r.Other }

// StartRegistry is NewRegistry for a test.
func StartRegistry(t testing.TB) *Registry {
	t.Helper()
	r, err := NewRegistry()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// NewRegistry starts an empty registry.
func NewRegistry() (*Registry, error) { return NewRegistryIn("", "127.0.0.1:0") }

// NewRegistryIn starts an empty registry at an address of the network namespace mounted at a path.
func NewRegistryIn(network, address string) (*Registry, error) {
	r := &Registry{network: network, images: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	return r, r.listen(address)
}

func (r *Registry) listen(address string) error {
	var l net.Listener
	err := InNetwork(r.network, func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot start registry: %w", err)
	}
	server := &http.Server{Handler: r}
	r.Host, r.server = l.Addr().String(), server
	go func() { _ = server.Serve(l) }() // ends with Close
	return nil
}

// Close ends the registry and every request.
func (r *Registry) Close() error {
	r.Heal()
	return r.server.Close()
}

// Push stores an image under a name; the registry's host in it may be any.
func (r *Registry) Push(imageName string, image v1.Image) error {
	ref, err := name.ParseReference(imageName)
	if err != nil {
		return fmt.Errorf("cannot parse image name: %w", err)
	}
	host, err := name.NewRegistry(r.Host, name.Insecure)
	if err != nil {
		return fmt.Errorf("cannot parse the registry's own address: %w", err)
	}
	tag := host.Repo(ref.Context().RepositoryStr()).Tag(ref.Identifier())
	if err := remote.Write(tag, image, remote.WithTransport(direct{r.images})); err != nil {
		return fmt.Errorf("cannot push %s: %w", imageName, err)
	}
	return nil
}

// direct hands requests to a handler without a network in between.
type direct struct{ handler http.Handler }

func (d direct) RoundTrip(request *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if request.Body == nil {
		request.Body = http.NoBody
	}
	d.handler.ServeHTTP(w, request)
	response := w.Result()
	response.Request = request
	return response, nil
}

// WriteHosts makes dir a directory of hosts.toml files that sends pulls from the named hosts ("docker.io") here, and nowhere
// else. "_default" means every host.
func (r *Registry) WriteHosts(dir string, hosts ...string) error {
	var errs []error
	for _, host := range hosts {
		file := filepath.Join(dir, host, "hosts.toml")
		errs = append(errs, os.MkdirAll(filepath.Dir(file), 0o755))
		// Naming it the server too leaves no other place to fall back to.
		content := fmt.Sprintf("server = %q\n\n[host.%[1]q]\n  capabilities = [\"pull\", \"resolve\"]\n", "http://"+r.Host)
		errs = append(errs, os.WriteFile(file, []byte(content), 0o644))
	}
	return errors.Join(errs...)
}

// RequireLogin lets only one user in (HTTP Basic); "" lets in everybody.
func (r *Registry) RequireLogin(user, password string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.user, r.key = user, password
}

// Fail answers every request with a status such as 401, 404 or 503, until Heal.
func (r *Registry) Fail(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

// Hang takes requests and does not answer them, until Heal.
func (r *Registry) Hang() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hang == nil {
		r.hang = make(chan struct{})
	}
}

// Refuse ends the server: connections are refused until Reopen.
func (r *Registry) Refuse() error { return r.server.Close() }

// Reopen listens again after Refuse, at the same address.
func (r *Registry) Reopen() error { return r.listen(r.Host) }

// Heal ends Fail and Hang.
func (r *Registry) Heal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = 0
	if r.hang != nil {
		close(r.hang)
		r.hang = nil
	}
}

// Requests is what was asked since the last call.
func (r *Registry) Requests() Requests {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := r.counts
	r.counts = Requests{}
	return counts
}

// ServeHTTP is for the server only.
func (r *Registry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	status, hang := r.admit(request)
	if hang != nil {
		select {
		case <-hang:
		case <-request.Context().Done():
			return
		}
	}
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="runtimetest"`)
	}
	if status != 0 {
		http.Error(w, http.StatusText(status), status)
		return
	}
	r.images.ServeHTTP(w, request)
}

// admit counts a request and decides how it fails; 0 is not at all.
func (r *Registry) admit(request *http.Request) (status int, hang chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case strings.Contains(request.URL.Path, "/manifests/"):
		r.counts.Manifests++
	case strings.Contains(request.URL.Path, "/blobs/"):
		r.counts.Blobs++
	default:
		r.counts.Other++
	}
	user, password, _ := request.BasicAuth()
	if r.status == 0 && r.user != "" && (user != r.user || password != r.key) {
		return http.StatusUnauthorized, r.hang
	}
	return r.status, r.hang
}
