package runtime

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"path"
	"strings"
)

// matching returns the credentials that are good for an image, in the order in which they are tried: as with the kubelet, all
// whose registry matches the image's name. None is one try without a login.
func matching(all []Credential, image imageName) []Credential {
	var found []Credential
	for _, c := range all {
		if registryMatches(c.Registry, image.repository) {
			found = append(found, c)
		}
	}
	if len(found) == 0 {
		return []Credential{{}}
	}
	return found
}

// registryMatches says whether a docker config's registry ("quay.io", "*.example.com:5000", "quay.io/team",
// "https://index.docker.io/v1/") covers a repository ("quay.io/team/app"). As in Kubernetes' documentation a star stands for
// (part of) one label of the host, ports must be equal, and a path covers what is below it.
func registryMatches(registry, repository string) bool {
	wantHost, wantPath, _ := strings.Cut(bareRegistry(registry), "/")
	host, below, _ := strings.Cut(repository, "/")
	if wantPath != "" && below != wantPath && !strings.HasPrefix(below, wantPath+"/") {
		return false
	}
	return hostMatches(wantHost, host)
}

// bareRegistry strips what docker login writes around a registry: https://index.docker.io/v1/ is docker.io.
func bareRegistry(registry string) string {
	registry = strings.TrimPrefix(strings.TrimPrefix(registry, "https://"), "http://")
	registry = strings.TrimRight(registry, "/")
	for _, version := range []string{"/v1", "/v2"} {
		registry = strings.TrimSuffix(registry, version)
	}
	host, below, found := strings.Cut(registry, "/")
	switch host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		host = "docker.io"
	}
	if found {
		return host + "/" + below
	}
	return host
}

func hostMatches(pattern, host string) bool {
	patternHost, patternPort := splitPort(pattern)
	hostName, port := splitPort(host)
	labels, want := strings.Split(hostName, "."), strings.Split(patternHost, ".")
	if patternPort != port || len(labels) != len(want) {
		return false
	}
	for i := range want {
		if ok, err := path.Match(want[i], labels[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

func splitPort(host string) (name, port string) {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		return host, ""
	}
	return name, port
}

// login is the form in which containerd wants a credential: an identity token is a secret without a user.
func (c Credential) login() (user, secret string) {
	if c.IdentityToken != "" {
		return "", c.IdentityToken
	}
	return c.Username, c.Password
}

// fingerprint tells sets of credentials apart without keeping them.
func fingerprint(list []Credential) string {
	encoded, _ := json.Marshal(list) // strings only
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:])
}
