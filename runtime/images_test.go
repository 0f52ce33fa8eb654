package runtime_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

// imageHost is a runtime without images, in a containerd namespace of its own, whose docker.io is a registry of the test.
type imageHost struct {
	*runtime.Runtime
	t          testing.TB
	containerd *runtimetest.Containerd
	config     runtime.Config
	registry   *runtimetest.Registry
}

var imageHosts atomic.Int32

func newImageHost(t testing.TB) *imageHost { return newImageHostOn(t, sharedContainerd(t)) }

func newImageHostOn(t testing.TB, c *runtimetest.Containerd) *imageHost {
	t.Helper()
	dir := t.TempDir()
	h := &imageHost{t: t, containerd: c, registry: runtimetest.StartRegistry(t), config: runtime.Config{
		Address: c.Address, Namespace: fmt.Sprintf("images-%d", imageHosts.Add(1)), RunDir: dir + "/run", DataDir: dir + "/data",
		ImagesDir: dir + "/images", HostsDir: dir + "/certs.d", Log: slog.New(slog.NewTextHandler(logTo{t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}}
	if err := os.MkdirAll(h.config.ImagesDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := h.registry.WriteHosts(h.config.HostsDir, "docker.io"); err != nil {
		t.Fatal(err)
	}
	h.open()
	return h
}

func (h *imageHost) open() {
	h.t.Helper()
	r, err := runtime.New(h.config)
	if err != nil {
		h.t.Fatal(err)
	}
	h.Runtime = r
	h.t.Cleanup(func() { _ = r.Close() })
}

// push stores an image that differs from others by its version, and returns its digest. Nothing counts as asked after it.
func (h *imageHost) push(name, version string) string {
	h.t.Helper()
	image := h.image(version, "")
	if err := h.registry.Push(name, image); err != nil {
		h.t.Fatal(err)
	}
	h.registry.Requests()
	return digestOf(h.t, image)
}

// image is a small one, of which no other host's containerd namespace has got a part: containerd shares content between them.
func (h *imageHost) image(version, more string) v1.Image {
	h.t.Helper()
	var content bytes.Buffer
	w := tar.NewWriter(&content)
	text := h.config.Namespace + " " + version + more
	err := errors.Join(
		w.WriteHeader(&tar.Header{Name: "version", Mode: 0o644, Size: int64(len(text))}), func() error { _, err := w.Write([]byte(text)); return err }(), w.Close())
	if err != nil {
		h.t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content.Bytes())), nil })
	if err != nil {
		h.t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		h.t.Fatal(err)
	}
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		OS: "linux", Architecture: goruntime.GOARCH, RootFS: v1.RootFS{Type: "layers", DiffIDs: diffIDs(h.t, image)}, Config: v1.Config{Cmd: []string{version}},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return image
}

func diffIDs(t testing.TB, image v1.Image) []v1.Hash {
	t.Helper()
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return config.RootFS.DiffIDs
}

func digestOf(t testing.TB, image v1.Image) string {
	t.Helper()
	d, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func (h *imageHost) ensure(ref string, policy runtime.PullPolicy, logins ...runtime.Credential) (runtime.Image, error) {
	return h.EnsureImage(h.t.Context(), runtime.ImageRequest{Ref: ref, Policy: policy, Credentials: logins})
}

func (h *imageHost) mustEnsure(ref string, policy runtime.PullPolicy, logins ...runtime.Credential) runtime.Image {
	h.t.Helper()
	image, err := h.ensure(ref, policy, logins...)
	if err != nil {
		h.t.Fatal(err)
	}
	return image
}

func (h *imageHost) client() *client.Client {
	h.t.Helper()
	c, err := h.containerd.Client(h.config.Namespace)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	return c
}

// absent says that an image is not there as far as anybody can tell.
func (h *imageHost) absent(ref string) {
	h.t.Helper()
	if _, err := h.ensure(ref, runtime.PullNever); !errors.Is(err, runtime.ErrImageNeverPull) {
		h.t.Errorf("%s: %v, want it to be absent", ref, err)
	}
}

// front is a registry's front door, at which a test can meddle.
type front struct {
	*httptest.Server
	mu     sync.Mutex
	meddle func(http.ResponseWriter, *http.Request) (handled bool)
}

// newFront makes docker.io of the host go through a front door.
func (h *imageHost) newFront() *front {
	h.t.Helper()
	f := &front{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		f.mu.Lock()
		meddle := f.meddle
		f.mu.Unlock()
		if meddle == nil || !meddle(w, request) {
			h.registry.ServeHTTP(w, request)
		}
	}))
	h.t.Cleanup(f.Close)
	h.writeHosts("docker.io", f.URL)
	return f
}

func (f *front) set(meddle func(http.ResponseWriter, *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.meddle = meddle
}

// writeHosts sends pulls from a registry to servers, in that order.
func (h *imageHost) writeHosts(name string, servers ...string) {
	h.t.Helper()
	dir := filepath.Join(h.config.HostsDir, name)
	content := fmt.Sprintf("server = %q\n", servers[len(servers)-1])
	for _, s := range servers[:len(servers)-1] {
		content += fmt.Sprintf("[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", s)
	}
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(content), 0o644)); err != nil {
		h.t.Fatal(err)
	}
}

func isBlob(request *http.Request) bool { return strings.Contains(request.URL.Path, "/blobs/") }

// An image comes through hosts.toml, once, under the names that Kubernetes shows; an agent that starts anew knows it.
func TestImageIsPulledOnce(t *testing.T) {
	h := newImageHost(t)
	digest := h.push("library/busybox:latest", "1")
	for i, want := range []bool{true, false, false} {
		got := h.mustEnsure("busybox", runtime.PullIfNotPresent)
		if got != (runtime.Image{
			Ref: "docker.io/library/busybox:latest@" + digest, Digest: digest, ID: "docker.io/library/busybox@" + digest, Pulled: want,
		}) {
			t.Fatalf("%+v", got)
		}
		if n := h.registry.Requests(); (n.Total() == 0) == want {
			t.Errorf("%+v", n)
		}
		if i == 1 {
			if err := h.Close(); err != nil {
				t.Fatal(err)
			}
			h.open()
		}
	}
	img, err := h.client().GetImage(t.Context(), "docker.io/library/busybox:latest")
	if err != nil {
		t.Fatal(err)
	}
	if unpacked, err := img.IsUnpacked(t.Context(), ""); !unpacked || err != nil {
		t.Errorf("unpacked: %t, %v", unpacked, err)
	}
	// By digest it is the same image, whatever the tag beside it says.
	for _, ref := range []string{"busybox@" + digest, "busybox:other@" + digest} {
		if got := h.mustEnsure(ref, runtime.PullNever); got.Digest != digest || got.Ref != "docker.io/library/busybox@"+digest {
			t.Errorf("%s: %+v", ref, got)
		}
	}
	if count, bytes := h.ImageUsage(); count != 0 && bytes == 0 {
		t.Errorf("usage: %d images, %d bytes", count, bytes)
	}
}

func TestPullPolicies(t *testing.T) {
	h := newImageHost(t)
	h.absent("app:1")
	if n := h.registry.Requests().Total(); n != 0 {
		t.Errorf("Never asked %d times", n)
	}
	first := h.push("library/app:1", "1")
	h.mustEnsure("app:1", runtime.PullAlways)
	count, bytes := h.ImageUsage()
	if count != 1 || bytes == 0 {
		t.Errorf("usage: %d images, %d bytes", count, bytes)
	}
	h.registry.Requests()
	if got := h.mustEnsure("app:1", runtime.PullAlways); got.Pulled || got.Digest != first {
		t.Errorf("%+v", got)
	}
	if n := h.registry.Requests(); n.Manifests != 1 || n.Blobs != 0 {
		t.Errorf("an unchanged image under Always costs %+v", n)
	}
	second := h.push("library/app:1", "2")
	for _, policy := range []runtime.PullPolicy{runtime.PullNever, runtime.PullIfNotPresent} {
		if got := h.mustEnsure("app:1", policy); got.Digest != first {
			t.Errorf("%s: %+v", policy, got)
		}
	}
	if n := h.registry.Requests().Total(); n != 0 {
		t.Errorf("%d requests for what is present", n)
	}
	if got := h.mustEnsure("app:1", runtime.PullAlways); !got.Pulled || got.Digest != second {
		t.Errorf("%+v", got)
	}
	if got := h.mustEnsure("app:1", runtime.PullNever); got.Digest != second {
		t.Errorf("%+v", got)
	}
	_, err := h.ensure("App:1", runtime.PullAlways)
	want(t, err, runtime.ErrInvalidImageName)
}

// A registry that is away keeps nothing that is present from starting, but it does keep what is absent.
func TestRegistryAway(t *testing.T) {
	h := newImageHost(t)
	digest := h.push("library/app:1", "1")
	h.mustEnsure("app:1", runtime.PullAlways)
	for _, c := range []struct {
		name, says string
		away, back func()
	}{
		{"503", "503", func() { h.registry.Fail(http.StatusServiceUnavailable) }, h.registry.Heal},
		{"429", "429", func() { h.registry.Fail(http.StatusTooManyRequests) }, h.registry.Heal},
		{"silent", "no answer within 2s", h.registry.Hang, h.registry.Heal},
		{"refused", "connection refused", func() { _ = h.registry.Refuse() }, func() { _ = h.registry.Reopen() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.away()
			defer c.back()
			got, err := h.ensure("app:1", runtime.PullAlways)
			if err != nil || got.Digest != digest || got.Pulled || !strings.Contains(got.Warning, c.says) {
				t.Errorf("%+v, %v", got, err)
			}
			if c.name == "silent" {
				return // without an image the registry is given a minute
			}
			got, err = h.ensure("other:1", runtime.PullIfNotPresent)
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "docker.io/library/other:1") {
				t.Errorf("absent: %+v, %v", got, err)
			}
		})
	}
	h.registry.Requests()
	_ = h.registry.Refuse()
	if got := h.mustEnsure("app:1", runtime.PullIfNotPresent); got.Warning != "" {
		t.Errorf("%+v", got)
	}
}

// A registry that answers is believed, also when the image is present.
func TestRegistryRefuses(t *testing.T) {
	h := newImageHost(t)
	h.push("library/app:1", "1")
	h.mustEnsure("app:1", runtime.PullAlways)
	for status, says := range map[int]string{
		http.StatusUnauthorized: "wants a login", http.StatusForbidden: "403 Forbidden", http.StatusNotFound: "not found",
	} {
		h.registry.Fail(status)
		got, err := h.ensure("app:1", runtime.PullAlways)
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "docker.io/library/app:1") {
			t.Errorf("%d: %+v, %v", status, got, err)
		}
	}
}

// A mirror that has not got the image says nothing about the registry behind it.
func TestMirrorWithoutTheImage(t *testing.T) {
	h := newImageHost(t)
	h.push("library/app:1", "1")
	h.mustEnsure("app:1", runtime.PullAlways)
	empty := runtimetest.StartRegistry(t)
	h.writeHosts("docker.io", "http://"+empty.Host, "http://"+h.registry.Host)
	h.mustEnsure("app:1", runtime.PullAlways)
	if n := empty.Requests().Total(); n == 0 {
		t.Error("the mirror was not asked")
	}
	_ = h.registry.Refuse()
	if got := h.mustEnsure("app:1", runtime.PullAlways); got.Warning == "" {
		t.Errorf("%+v", got)
	}
	_ = h.registry.Reopen()
	_ = empty.Refuse()
	if got := h.mustEnsure("app:1", runtime.PullAlways); got.Warning != "" {
		t.Errorf("%+v", got)
	}
}

func TestLogins(t *testing.T) {
	h := newImageHost(t)
	h.push("team/app:1", "1")
	h.push("team/app:2", "2")
	h.registry.RequireLogin("me", "hunter2")
	right := runtime.Credential{Registry: "https://index.docker.io/v1/", Username: "me", Password: "hunter2"}
	wrong := runtime.Credential{Registry: "docker.io/team", Username: "me", Password: "swordfish"}
	for _, logins := range [][]runtime.Credential{nil, {wrong}, {{Registry: "quay.io", Username: "me", Password: "hunter2"}}} {
		_, err := h.ensure("team/app:1", runtime.PullIfNotPresent, logins...)
		if err == nil || !strings.Contains(err.Error(), "docker.io/team/app:1") {
			t.Errorf("%v: %v", logins, err)
		}
		if err != nil && strings.Contains(err.Error(), "swordfish") {
			t.Errorf("a password is given away: %v", err)
		}
	}
	if got := h.mustEnsure("team/app:1", runtime.PullIfNotPresent, wrong, right); !got.Pulled {
		t.Errorf("%+v", got)
	}
	if got := h.mustEnsure("team/app:2", runtime.PullAlways, right); !got.Pulled {
		t.Errorf("%+v", got)
	}
}

// An identity token is exchanged for one that the registry takes.
func TestIdentityToken(t *testing.T) {
	h := newImageHost(t)
	digest := h.push("team/app:1", "1")
	f := h.newFront()
	f.set(func(w http.ResponseWriter, request *http.Request) bool {
		switch {
		case request.URL.Path == "/token" && request.FormValue("refresh_token") == "identity":
			fmt.Fprint(w, `{"access_token": "access", "expires_in": 300}`)
		case request.URL.Path == "/token":
			w.WriteHeader(http.StatusUnauthorized)
		case request.Header.Get("Authorization") != "Bearer access":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+f.URL+`/token",service="registry",scope="repository:team/app:pull"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			return false
		}
		return true
	})
	if _, err := h.ensure("team/app:1", runtime.PullIfNotPresent, runtime.Credential{Registry: "docker.io", IdentityToken: "other"}); err == nil {
		t.Error("a wrong token was taken")
	}
	if got := h.mustEnsure("team/app:1", runtime.PullIfNotPresent, runtime.Credential{Registry: "docker.io", IdentityToken: "identity"}); got.Digest != digest {
		t.Errorf("%+v", got)
	}
}

// Pods that want the same image at the same time wait for one pull; those with other logins have their own.
func TestPullsAreShared(t *testing.T) {
	h := newImageHost(t)
	h.push("library/app:1", "1")
	f := h.newFront()
	arrived, gate := make(chan bool, 100), make(chan bool)
	f.set(func(_ http.ResponseWriter, request *http.Request) bool {
		if isBlob(request) {
			arrived <- true
			<-gate
		}
		return false
	})
	var done sync.WaitGroup
	ask := func(logins ...runtime.Credential) {
		done.Go(func() {
			if _, err := h.ensure("app:1", runtime.PullIfNotPresent, logins...); err != nil {
				t.Error(err)
			}
		})
	}
	for range 8 {
		ask()
	}
	<-arrived
	if n := h.registry.Requests().Manifests; n > 2 {
		t.Errorf("%d manifests were asked for by one pull", n)
	}
	ask(runtime.Credential{Registry: "docker.io", Username: "me", Password: "p"})
	for h.registry.Requests().Manifests == 0 {
		time.Sleep(time.Millisecond) // the other login asks for itself
	}
	close(gate)
	done.Wait()
}

// A pull that nobody waits for any more stops; nothing of it counts, and the next one is complete.
func TestCancelledPull(t *testing.T) {
	h := newImageHost(t)
	h.push("library/app:1", "1")
	f := h.newFront()
	arrived, gate, ended := make(chan bool, 100), make(chan bool), make(chan bool, 100)
	f.set(func(_ http.ResponseWriter, request *http.Request) bool {
		if !isBlob(request) {
			return false
		}
		arrived <- true
		select {
		case <-gate:
		case <-request.Context().Done():
			ended <- true
		}
		return false
	})
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() {
		_, err := h.EnsureImage(ctx, runtime.ImageRequest{Ref: "app:1", Policy: runtime.PullIfNotPresent})
		result <- err
	}()
	<-arrived
	cancel()
	want(t, <-result, context.Canceled)
	<-ended // the registry is no longer asked
	h.absent("app:1")
	close(gate)
	if got := h.mustEnsure("app:1", runtime.PullIfNotPresent); !got.Pulled {
		t.Errorf("%+v", got)
	}
}

// Content that is not what its digest says is refused, whether or not the image is present in another version.
func TestForgedContent(t *testing.T) {
	h := newImageHost(t)
	h.push("library/app:1", "1")
	h.mustEnsure("app:1", runtime.PullAlways)
	h.push("library/app:1", "2")
	f := h.newFront()
	f.set(func(w http.ResponseWriter, request *http.Request) bool {
		if !isBlob(request) || request.Method != http.MethodGet {
			return false
		}
		recorder := httptest.NewRecorder()
		h.registry.ServeHTTP(recorder, request)
		body := recorder.Body.Bytes()
		body[len(body)/2] ^= 1
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body)
		return true
	})
	got, err := h.ensure("app:1", runtime.PullAlways)
	if err == nil || !strings.Contains(err.Error(), "docker.io/library/app:1") || !strings.Contains(err.Error(), "digest") {
		t.Errorf("%+v, %v", got, err)
	}
}

// Asking a registry leaves no connections and no goroutines.
func TestRegistryIsLetGo(t *testing.T) {
	h := newImageHost(t)
	h.push("library/app:1", "1")
	h.mustEnsure("app:1", runtime.PullAlways)
	before := goruntime.NumGoroutine()
	for range 20 {
		h.mustEnsure("app:1", runtime.PullAlways)
	}
	after := 0
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if after = goruntime.NumGoroutine(); after < before+10 {
			return
		}
	}
	t.Errorf("%d goroutines became %d", before, after)
}

// What a start pays for an image that is present.
func BenchmarkEnsureImagePresent(b *testing.B) {
	h := newImageHost(b)
	h.push("library/app:1", "1")
	h.mustEnsure("app:1", runtime.PullIfNotPresent)
	for b.Loop() {
		h.mustEnsure("app:1", runtime.PullIfNotPresent)
	}
}

// Without containerd nothing is known of images, and a pull that it leaves in the middle is no fault of the registry's.
func TestImagesWithoutContainerd(t *testing.T) {
	c := runtimetest.StartContainerd(t)
	h := newImageHostOn(t, c)
	digest := h.push("library/app:1", "1")
	f := h.newFront()
	arrived, gate := make(chan bool, 100), make(chan bool)
	f.set(func(_ http.ResponseWriter, request *http.Request) bool {
		if isBlob(request) {
			arrived <- true
			<-gate
		}
		return false
	})
	result := make(chan error)
	go func() {
		_, err := h.ensure("app:1", runtime.PullIfNotPresent)
		result <- err
	}()
	<-arrived
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	close(gate)
	want(t, <-result, runtime.ErrUnavailable)
	_, err := h.ensure("app:1", runtime.PullIfNotPresent)
	want(t, err, runtime.ErrUnavailable)
	want(t, h.ImportImages(t.Context()), runtime.ErrUnavailable)
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		got, err := h.ensure("app:1", runtime.PullIfNotPresent)
		if errors.Is(err, runtime.ErrUnavailable) && time.Now().Before(deadline) {
			continue
		}
		if err != nil || got.Digest != digest {
			t.Errorf("%+v, %v", got, err)
		}
		return
	}
}
