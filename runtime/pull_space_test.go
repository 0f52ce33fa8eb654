package runtime_test

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

// A pull, or an archive, that fills containerd's disk says so, counts as nothing, and gives the space back for the next one.
func TestDiskFull(t *testing.T) {
	dir, err := os.MkdirTemp("", "pkt-full-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	if err := unix.Mount("full", dir, "tmpfs", 0, "size=24m"); err != nil {
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
	h := newImageHostOn(t, c)
	noise := make([]byte, 16<<20) // it fits packed, but not unpacked beside that
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	large := h.image("large", string(noise))
	if err := h.registry.Push("library/large:1", large); err != nil {
		t.Fatal(err)
	}
	h.push("library/small:1", "small")
	for range 2 { // the second time there is as much space as the first
		_, err := h.ensure("large:1", runtime.PullIfNotPresent)
		if err == nil || !strings.Contains(err.Error(), "docker.io/library/large:1") || !strings.Contains(err.Error(), "needs about 48 MiB") {
			t.Fatal(err)
		}
		h.absent("large:1")
	}
	h.save("large.tar", "docker.io/library/large:1", large)
	if err := h.ImportImages(t.Context()); err == nil || !strings.Contains(err.Error(), "large.tar") || !strings.Contains(err.Error(), "disk is full") {
		t.Error(err)
	}
	h.absent("large:1")
	h.mustEnsure("small:1", runtime.PullIfNotPresent)
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < 20<<20 {
		t.Errorf("%d MiB are free: the rest was not given back", free>>20)
	}
}
