package runtime

import (
	"errors"
	"strings"
	"testing"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestImageNames(t *testing.T) {
	for _, c := range []struct{ ref, record, registry string }{
		{"busybox", "docker.io/library/busybox:latest", "docker.io"},
		{"busybox:1.36", "docker.io/library/busybox:1.36", "docker.io"},
		{"index.docker.io/library/busybox", "docker.io/library/busybox:latest", "docker.io"},
		{"team/app", "docker.io/team/app:latest", "docker.io"},
		{"quay.io/team/app:v1", "quay.io/team/app:v1", "quay.io"},
		{"localhost/app", "localhost/app:latest", "localhost"},
		{"registry.lan:5000/a/b/c", "registry.lan:5000/a/b/c:latest", "registry.lan:5000"},
		{"busybox@" + someDigest, "docker.io/library/busybox@" + someDigest, "docker.io"},
		{"busybox:1.36@" + someDigest, "docker.io/library/busybox@" + someDigest, "docker.io"},
	} {
		n, err := parseImageName(c.ref)
		if err != nil {
			t.Errorf("%s: %v", c.ref, err)
			continue
		}
		if n.record != c.record || n.registry != c.registry {
			t.Errorf("%s: %+v", c.ref, n)
		}
		fixed := n.at(someDigest)
		again, err := parseImageName(fixed)
		if err != nil || string(again.digest) != someDigest || again.repository != n.repository {
			t.Errorf("%s: %s is read as %+v, %v", c.ref, fixed, again, err)
		}
	}
	for _, ref := range []string{"", "Busybox", "busy box", "busybox:", "busybox@sha256:12", "http://quay.io/a", "a/../b", "busybox@md5:d41d8cd98f00b204e9800998ecf8427e", strings.Repeat("a", 300)} {
		if _, err := parseImageName(ref); !errors.Is(err, ErrInvalidImageName) {
			t.Errorf("%q: %v", ref, err)
		}
	}
}
