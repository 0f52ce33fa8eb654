package runtime_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

func (h *imageHost) archive(file string) string { return filepath.Join(h.config.ImagesDir, file) }

func (h *imageHost) save(file, name string, image v1.Image) {
	h.t.Helper()
	if err := runtimetest.WriteArchive(h.archive(file), name, image); err != nil {
		h.t.Fatal(err)
	}
}

func (h *imageHost) write(file string, content []byte) {
	h.t.Helper()
	if err := os.WriteFile(h.archive(file), content, 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// saveLayout writes an OCI layout, whose image is annotated with a name.
func (h *imageHost) saveLayout(file, annotation, name string, image v1.Image) {
	h.t.Helper()
	dir := h.t.TempDir()
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Annotations: map[string]string{annotation: name}}})
	if _, err := layout.Write(dir, index); err != nil {
		h.t.Fatal(err)
	}
	f, err := os.Create(h.archive(file))
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	if err := errors.Join(w.AddFS(os.DirFS(dir)), w.Close()); err != nil {
		h.t.Fatal(err)
	}
}

// imported is when images got their present meaning.
func (h *imageHost) imported() map[string]time.Time {
	h.t.Helper()
	images, err := h.client().ImageService().List(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	at := map[string]time.Time{}
	for _, i := range images {
		at[i.Name] = i.UpdatedAt
	}
	return at
}

func (h *imageHost) mustImport() {
	h.t.Helper()
	if err := h.ImportImages(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

// What is in imagesDir counts as pulled, whatever the policy, without a word to a registry; each archive is read once, also by
// agents to come.
func TestImportedImages(t *testing.T) {
	h := newImageHost(t)
	_ = h.registry.Refuse()
	docker, gz, oci, full := h.image("docker", ""), h.image("gz", ""), h.image("oci", ""), h.image("full", "")
	h.save("a.tar", "docker.io/library/app:1", docker)
	h.save("b.tar", "quay.io/team/gz:1", gz)
	h.compress("b.tar", "b ö.tar.gz")
	h.saveLayout("c.tar", "org.opencontainers.image.ref.name", "app:oci", oci)
	h.saveLayout("d.tar", "io.containerd.image.name", "docker.io/library/full:latest", full)
	h.write("README.md", []byte("not an archive"))
	h.write(".e.tar", []byte("on its way here"))
	h.mustImport()
	for ref, image := range map[string]v1.Image{"app:1": docker, "quay.io/team/gz:1": gz, "app:oci": oci, "full": full} {
		got := h.mustEnsure(ref, runtime.PullAlways)
		if got.Warning != "" || got.Pulled {
			t.Errorf("%s: %+v", ref, got)
		}
		img, err := h.client().GetImage(t.Context(), strings.Split(got.Ref, "@")[0])
		if err != nil {
			t.Fatal(err)
		}
		spec, err := img.Spec(t.Context())
		config, _ := image.ConfigFile()
		if err != nil || !slices.Equal(spec.Config.Cmd, config.Config.Cmd) {
			t.Errorf("%s: %v, %v", ref, spec.Config.Cmd, err)
		}
	}
	if count, bytes := h.ImageUsage(); count != 4 || bytes == 0 {
		t.Errorf("usage: %d images, %d bytes", count, bytes)
	}
	first := h.imported()
	h.mustImport()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h.open()
	h.mustImport()
	if again := h.imported(); !mapsEqual(again, first) {
		t.Errorf("imported again: %v, %v", first, again)
	}
	// A new content under the same file name is taken in, too.
	h.save("a.tar", "docker.io/library/app:1", h.image("newer", ""))
	h.mustImport()
	if again := h.imported(); again["docker.io/library/app:1"].Equal(first["docker.io/library/app:1"]) || again["docker.io/library/app:oci"] != first["docker.io/library/app:oci"] {
		t.Errorf("after a change: %v, %v", first, again)
	}
}

func mapsEqual(a, b map[string]time.Time) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

func (h *imageHost) compress(from, to string) {
	h.t.Helper()
	content, err := os.ReadFile(h.archive(from))
	if err != nil {
		h.t.Fatal(err)
	}
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(content); err != nil {
		h.t.Fatal(err)
	}
	if err := errors.Join(w.Close(), os.Remove(h.archive(from))); err != nil {
		h.t.Fatal(err)
	}
	h.write(to, out.Bytes())
}

// EnsureImage finds by itself what has just been put into imagesDir. When the archive is taken away the image stays, but the
// registry is asked for it again.
func TestImportedWhenWanted(t *testing.T) {
	h := newImageHost(t)
	h.absent("app:1")
	h.save("app.tar", "docker.io/library/app:1", h.image("1", ""))
	h.mustEnsure("app:1", runtime.PullNever)
	h.mustEnsure("app:1", runtime.PullAlways)
	if n := h.registry.Requests().Total(); n != 0 {
		t.Errorf("%d requests", n)
	}
	if err := os.Remove(h.archive("app.tar")); err != nil {
		t.Fatal(err)
	}
	h.mustImport()
	h.mustEnsure("app:1", runtime.PullIfNotPresent)
	digest := h.push("library/app:1", "2")
	if got := h.mustEnsure("app:1", runtime.PullAlways); got.Digest != digest || !got.Pulled {
		t.Errorf("%+v", got)
	}
}

// An archive that is broken, or meant to do harm, is named in an error, keeps no other from being imported and takes nothing away.
func TestBrokenArchives(t *testing.T) {
	h := newImageHost(t)
	h.save("good.tar", "docker.io/library/app:1", h.image("1", ""))
	h.mustImport()
	digest := h.mustEnsure("app:1", runtime.PullNever).Digest

	h.save("cut.tar", "docker.io/library/cut:1", h.image("2", strings.Repeat("x", 5000)))
	content, err := os.ReadFile(h.archive("cut.tar"))
	if err != nil {
		t.Fatal(err)
	}
	h.write("cut.tar", content[:len(content)/2])
	h.save("layerless.tar", "docker.io/library/app:1", h.image("3", ""))
	h.edit("layerless.tar", func(name string, data []byte) []byte {
		if strings.HasSuffix(name, ".tar.gz") {
			return []byte("this is no layer")
		}
		return data
	})
	h.saveLayout("tagged.tar", "org.opencontainers.image.ref.name", "latest", h.image("4", ""))
	h.saveLayout("impossible.tar", "io.containerd.image.name", "../../Etc/passwd", h.image("5", ""))
	h.write("garbage.tar.gz", bytes.Repeat([]byte("garbage "), 1000))
	h.write("empty.tar", nil)
	h.write("odd \xff.tar", []byte("x"))
	if err := syscall.Mkfifo(h.archive("pipe.tar"), 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := h.image("6", "")
	config, err := foreign.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.Architecture = "s390x"
	if foreign, err = mutate.ConfigFile(foreign, config); err != nil {
		t.Fatal(err)
	}
	h.save("foreign.tar", "docker.io/library/foreign:1", foreign)
	h.save("zz.tar", "docker.io/library/last:1", h.image("7", ""))

	err = h.ImportImages(t.Context())
	if err == nil {
		t.Fatal("nothing is wrong with it")
	}
	for _, file := range []string{"cut.tar", "layerless.tar", "tagged.tar", "impossible.tar", "garbage.tar.gz", "empty.tar", "odd \xff.tar", "foreign.tar"} {
		if !strings.Contains(err.Error(), h.archive(file)+":") {
			t.Errorf("%s is not named in %v", file, err)
		}
	}
	for _, file := range []string{"good.tar", "zz.tar", "pipe.tar"} {
		if strings.Contains(err.Error(), file) {
			t.Errorf("%s is named in %v", file, err)
		}
	}
	h.mustEnsure("last:1", runtime.PullNever)
	if got := h.mustEnsure("app:1", runtime.PullNever); got.Digest != digest {
		t.Errorf("%+v, want %s", got, digest)
	}
	for _, ref := range []string{"cut:1", "foreign:1"} {
		h.absent(ref)
	}
	// It is told again, without being read again; once it is whole, it is imported.
	h.write("cut.tar", content)
	again := h.ImportImages(t.Context())
	if again == nil || strings.Contains(again.Error(), "cut.tar") || !strings.Contains(again.Error(), "tagged.tar") {
		t.Errorf("%v", again)
	}
	h.mustEnsure("cut:1", runtime.PullNever)
}

// edit rewrites an archive's files.
func (h *imageHost) edit(file string, change func(name string, data []byte) []byte) {
	h.t.Helper()
	content, err := os.ReadFile(h.archive(file))
	if err != nil {
		h.t.Fatal(err)
	}
	var out bytes.Buffer
	w, r := tar.NewWriter(&out), tar.NewReader(bytes.NewReader(content))
	for {
		header, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			h.t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			h.t.Fatal(err)
		}
		data = change(header.Name, data)
		header.Size = int64(len(data))
		if err := w.WriteHeader(header); err != nil {
			h.t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			h.t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		h.t.Fatal(err)
	}
	h.write(file, out.Bytes())
}
