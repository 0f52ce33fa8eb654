package runtime

import (
	"fmt"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// imageName is an image reference, taken apart and normalised as docker does it.
type imageName struct {
	// record is what containerd's image record is called: "docker.io/library/busybox:latest", or "...busybox@sha256:..." when the
	// reference has a digest; a tag beside a digest says nothing.
	record     string
	repository string // "docker.io/library/busybox"
	registry   string // "docker.io"
	// digest is empty when the reference is a tag: what it means can change.
	digest digest.Digest
}

// parseImageName reads a reference as it stands in a manifest, or as EnsureImage returned it. Its error is ErrInvalidImageName.
func parseImageName(ref string) (imageName, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return imageName{}, fmt.Errorf("%w %q: %w", ErrInvalidImageName, ref, err)
	}
	n := imageName{record: named.String(), repository: named.Name(), registry: reference.Domain(named)}
	if d, ok := named.(reference.Digested); ok {
		n.digest = d.Digest()
		if err := n.digest.Validate(); err != nil { // of an algorithm that is not known here
			return imageName{}, fmt.Errorf("%w %q: %w", ErrInvalidImageName, ref, err)
		}
	}
	return n, nil
}

// at is the reference that still means the same image when the tag has moved on: "docker.io/library/busybox:latest@sha256:...".
func (n imageName) at(d digest.Digest) string {
	if n.digest != "" {
		return n.record
	}
	return n.record + "@" + d.String()
}

// id is what Kubernetes shows as imageID.
func (n imageName) id(d digest.Digest) string { return n.repository + "@" + d.String() }
