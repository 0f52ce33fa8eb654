package runtime_test

import (
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/picketd/picket/runtime"
)

// pushIndex stores an index of images and returns its digest.
func (h *imageHost) pushIndex(tag string, images ...v1.Image) string {
	h.t.Helper()
	index := v1.ImageIndex(empty.Index)
	for _, image := range images {
		config, err := image.ConfigFile()
		if err != nil {
			h.t.Fatal(err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: config.Platform()}})
	}
	ref, err := name.ParseReference(h.registry.Host+"/library/"+tag, name.Insecure)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, index); err != nil {
		h.t.Fatal(err)
	}
	digest, err := index.Digest()
	if err != nil {
		h.t.Fatal(err)
	}
	return digest.String()
}

// foreign is an image for a platform that no test runs on.
func (h *imageHost) foreign(version string) v1.Image {
	h.t.Helper()
	image := h.image(version, "")
	config, err := image.ConfigFile()
	if err != nil {
		h.t.Fatal(err)
	}
	config = config.DeepCopy()
	config.Architecture = "s390x"
	if image, err = mutate.ConfigFile(image, config); err != nil {
		h.t.Fatal(err)
	}
	return image
}

// Of an image for many platforms this host's is taken, and no other is fetched; its digest is the index's, as Kubernetes shows it.
func TestPlatforms(t *testing.T) {
	h := newImageHost(t)
	foreign, ours := h.foreign("foreign"), h.image("ours", "")
	digest := h.pushIndex("many:1", foreign, ours)
	h.registry.Requests()
	if got := h.mustEnsure("many:1", runtime.PullIfNotPresent); got.Digest != digest || !got.Pulled {
		t.Errorf("%+v, want %s", got, digest)
	}
	if n := h.registry.Requests(); n.Blobs != 2 { // configuration and layer
		t.Errorf("%d blobs were fetched", n.Blobs)
	}
	if got := h.mustEnsure("many@"+digest, runtime.PullNever); got.Digest != digest {
		t.Errorf("%+v", got)
	}
	h.pushIndex("other:1", foreign)
	if got, err := h.ensure("other:1", runtime.PullIfNotPresent); err == nil || !strings.Contains(err.Error(), "docker.io/library/other:1") || !strings.Contains(err.Error(), "platform") {
		t.Errorf("%+v, %v", got, err)
	}
}

// A digest is asked for by itself, whatever the tag has become; one that the registry has not got is named.
func TestPullByDigest(t *testing.T) {
	h := newImageHost(t)
	first := h.push("library/app:1", "1")
	second := h.push("library/app:1", "2")
	if got := h.mustEnsure("app:1@"+first, runtime.PullAlways); got.Digest != first || !got.Pulled || got.Ref != "docker.io/library/app@"+first {
		t.Errorf("%+v", got)
	}
	if got := h.mustEnsure("app:1", runtime.PullAlways); got.Digest != second {
		t.Errorf("%+v", got)
	}
	unknown := "sha256:" + strings.Repeat("0", 64)
	if got, err := h.ensure("app@"+unknown, runtime.PullIfNotPresent); err == nil || !strings.Contains(err.Error(), unknown) || !strings.Contains(err.Error(), "not found") {
		t.Errorf("%+v, %v", got, err)
	}
}
