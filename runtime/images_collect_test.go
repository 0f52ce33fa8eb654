package runtime_test

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

// newSmallHost is an image host whose containerd has a small disk of its own.
func newSmallHost(t *testing.T, size string) (h *imageHost, dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "pkt-small-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	if err := unix.Mount("small", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	c, err := runtimetest.Start(t.Context(), filepath.Join(dir, "c"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return newImageHostOn(t, c), dir
}

// noise is content that does not become smaller when it is packed.
func noise(t *testing.T, size int) string {
	t.Helper()
	data := make([]byte, size)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// pull makes an image of about twice as many bytes on the disk, and pulls it.
func (h *imageHost) pull(name string, size int) {
	h.t.Helper()
	if err := h.registry.Push("library/"+name, h.image(name, noise(h.t.(*testing.T), size))); err != nil {
		h.t.Fatal(err)
	}
	h.mustEnsure(name, runtime.PullIfNotPresent)
}

// collect is what CollectImages does in ten minutes.
func (h *imageHost) collect(pinned ...string) runtime.ImageCollection {
	h.t.Helper()
	c, err := h.CollectImagesAt(h.t.Context(), pinned, time.Now().Add(10*time.Minute))
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// Above the high mark the images that nothing uses go, the one that was used longest ago first, until the disk is below the low mark,
// and what they took is free. Those of containers, of pins and of archives stay.
func TestImagesAreCollected(t *testing.T) {
	h, dir := newSmallHost(t, "32m")
	h.save("imported.tar", "docker.io/library/imported:1", h.image("imported", noise(t, 1<<20)))
	if err := h.ImportImages(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"container:1", "pinned:1", "first:1", "second:1", "third:1"} {
		h.pull(name, 1<<20)
	}
	stopped := h.mustEnsure("container:1", runtime.PullIfNotPresent)
	spec, err := typeurl.MarshalAny(&specs.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.client().ContainerService().Create(t.Context(), containers.Container{
		ID: "stopped", Spec: spec, Image: stopped.Ref, Labels: map[string]string{"containerd.io/gc.ref.content.image": stopped.Digest},
		Runtime: containers.RuntimeInfo{Name: "io.containerd.runc.v2"},
	}); err != nil {
		t.Fatal(err)
	}
	h.mustEnsure("first:1", runtime.PullIfNotPresent) // a pod wants it: it is the last to go
	if c := h.collect(); c.Wanted != 0 || c.Removed != nil {
		t.Fatalf("there is room, and %+v", c)
	}

	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	fill := int64(fs.Bavail)*fs.Bsize - int64(fs.Blocks)*fs.Bsize*12/100 // 88 % are used; the low mark is a third image away
	file := filepath.Join(dir, "fill")
	if err := os.WriteFile(file, make([]byte, fill), 0o600); err != nil {
		t.Fatal(err)
	}
	// Less than two minutes after they were pulled none of them goes.
	if c, err := h.CollectImages(t.Context(), nil); err != nil || c.Wanted == 0 || c.Removed != nil || !c.Short() {
		t.Fatalf("%+v, %v", c, err)
	}
	c := h.collect("pinned:1")
	if want := []string{"docker.io/library/second:1", "docker.io/library/third:1"}; !slices.Equal(c.Removed, want) || c.Short() || c.Freed < 3<<20 {
		t.Errorf("%+v", c)
	}
	for name, there := range map[string]bool{"container:1": true, "pinned:1": true, "imported:1": true, "first:1": true, "second:1": false, "third:1": false} {
		if !there {
			h.absent(name)
			continue
		}
		h.mustEnsure(name, runtime.PullNever)
	}
	if count, _ := h.ImageUsage(); count != 4 {
		t.Errorf("%d images are counted", count)
	}

	// Without anything left to remove it says so.
	if err := os.WriteFile(file, make([]byte, fill+4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if c := h.collect("pinned:1", "first:1"); !c.Short() || c.Removed != nil || c.UsedPercent < 85 {
		t.Errorf("%+v", c)
	}
	// A container's end, an archive that was taken away: nothing keeps them any more.
	if err := h.client().ContainerService().Delete(t.Context(), "stopped"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(h.config.ImagesDir, "imported.tar")); err != nil {
		t.Fatal(err)
	}
	if err := h.ImportImages(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, make([]byte, fill+12<<20), 0o600); err != nil && !strings.Contains(err.Error(), "no space") {
		t.Fatal(err)
	}
	if c := h.collect(); len(c.Removed) != 4 {
		t.Errorf("%+v", c)
	}
}

// A pull that has no room rings, and is made room for, also far below the mark.
func TestRoomForAPull(t *testing.T) {
	h, _ := newSmallHost(t, "32m")
	for i := range 4 {
		h.pull(fmt.Sprintf("old:%d", i), 2<<20)
	}
	if err := h.registry.Push("library/new:1", h.image("new", noise(t, 5<<20))); err != nil {
		t.Fatal(err)
	}
	if _, err := h.ensure("new:1", runtime.PullIfNotPresent); err == nil || !strings.Contains(err.Error(), "needs about") {
		t.Fatal(err)
	}
	select {
	case <-h.ImageRoomWanted():
	default:
		t.Error("nobody hears of it")
	}
	if c := h.collect(); c.UsedPercent >= 85 || len(c.Removed) == 0 || len(c.Removed) == 4 {
		t.Errorf("%+v", c)
	}
	h.mustEnsure("new:1", runtime.PullIfNotPresent)
	if c := h.collect(); c.Wanted != 0 {
		t.Errorf("%+v: what was asked for once is made once", c)
	}
}

// However many pods want images, three are fetched at a time.
func TestPullsAtOnce(t *testing.T) {
	h := newImageHost(t)
	const all, most = 6, 3
	of := map[string]string{} // images by the blobs that are theirs alone
	for i := range all {
		name := fmt.Sprintf("app:%d", i)
		image := h.image(name, "")
		if err := h.registry.Push("library/"+name, image); err != nil {
			t.Fatal(err)
		}
		config, err := image.ConfigName()
		if err != nil {
			t.Fatal(err)
		}
		of[config.String()] = name
	}
	f := h.newFront()
	asked, fetched := make(chan string, 100), make(chan string, 100)
	gates := map[string]chan bool{}
	for _, name := range of {
		gates[name] = make(chan bool)
	}
	f.set(func(_ http.ResponseWriter, request *http.Request) bool {
		last := path.Base(request.URL.Path)
		if name, ok := of[last]; ok {
			fetched <- name
			<-gates[name]
		} else if !strings.HasPrefix(last, "sha256:") && request.URL.Path != "/v2/" {
			asked <- last // what the name means
		}
		return false
	})
	var done sync.WaitGroup
	for _, name := range of {
		done.Go(func() {
			if _, err := h.ensure(name, runtime.PullIfNotPresent); err != nil {
				t.Error(err)
			}
		})
	}
	for names := map[string]bool{}; len(names) < all; {
		names[<-asked] = true
	}
	var under []string
	for range most {
		under = append(under, <-fetched)
	}
	select {
	case name := <-fetched:
		t.Errorf("%s is fetched besides %q", name, under)
		under = append(under, name)
	case <-time.After(200 * time.Millisecond): // on a slow machine nothing is seen that is wrong
	}
	for n := len(under); n < all; n++ { // one that is done makes way for another
		close(gates[under[0]])
		under = append(under[1:], <-fetched)
	}
	for _, name := range under {
		close(gates[name])
	}
	done.Wait()
}
