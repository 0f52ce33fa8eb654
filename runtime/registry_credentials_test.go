package runtime

import (
	"testing"
)

func TestRegistryMatches(t *testing.T) {
	for _, c := range []struct {
		registry, repository string
		want                 bool
	}{
		{"docker.io", "docker.io/library/busybox", true},
		{"index.docker.io", "docker.io/library/busybox", true},
		{"https://index.docker.io/v1/", "docker.io/library/busybox", true},
		{"https://registry-1.docker.io", "docker.io/library/busybox", true},
		{"https://quay.io/v2/", "quay.io/team/app", true},
		{"quay.io", "docker.io/library/busybox", false},
		{"quay.io/team", "quay.io/team/app", true},
		{"quay.io/team/app", "quay.io/team/app", true},
		{"quay.io/team", "quay.io/teams/app", false},
		{"quay.io/team/other", "quay.io/team/app", false},
		{"docker.io/team", "docker.io/library/busybox", false},
		{"registry.lan:5000", "registry.lan:5000/app", true},
		{"registry.lan", "registry.lan:5000/app", false},
		{"registry.lan:5001", "registry.lan:5000/app", false},
		{"*.example.com", "eu.example.com/app", true},
		{"*.example.com", "example.com/app", false},
		{"*.example.com", "a.b.example.com/app", false},
		{"eu-*.example.com:5000", "eu-1.example.com:5000/app", true},
		{"*.com", "evil.example.com/app", false},
		{"[", "[/app", false},
		{"", "docker.io/library/busybox", false},
		{"127.0.0.1:5000", "127.0.0.1:5000/app", true},
	} {
		if got := registryMatches(c.registry, c.repository); got != c.want {
			t.Errorf("%q for %s: %t", c.registry, c.repository, got)
		}
	}
}

// The order of the Secrets is kept; without one that matches there is one try without a login.
func TestMatchingCredentials(t *testing.T) {
	image, err := parseImageName("quay.io/team/app")
	if err != nil {
		t.Fatal(err)
	}
	team, all, other := Credential{Registry: "quay.io/team", Username: "team"}, Credential{Registry: "quay.io", Username: "all"}, Credential{Registry: "docker.io", Username: "other"}
	if got := matching([]Credential{other, team, all}, image); len(got) != 2 || got[0] != team || got[1] != all {
		t.Errorf("%v", got)
	}
	if got := matching([]Credential{other}, image); len(got) != 1 || got[0] != (Credential{}) {
		t.Errorf("%v", got)
	}
	if fingerprint([]Credential{team, all}) == fingerprint([]Credential{all, team}) || fingerprint(nil) == fingerprint([]Credential{team}) {
		t.Error("different logins look alike")
	}
}

// A login is shown to the hosts that stand for its registry, and to no other.
func TestCredentialsGoToTheRegistryOnly(t *testing.T) {
	image, err := parseImageName("quay.io/team/app")
	if err != nil {
		t.Fatal(err)
	}
	mirror := Credential{Registry: "mirror.lan:5000", Username: "mirror", Password: "m"}
	mine := Credential{Registry: "quay.io", Username: "me", Password: "p"}
	g := &registry{image: image, login: mine, all: []Credential{mine, mirror}, hosts: map[string]bool{"quay.io": true, "proxy.lan": true, "mirror.lan:5000": true}}
	for host, want := range map[string]string{"quay.io": "me", "proxy.lan": "me", "mirror.lan:5000": "mirror", "cdn.example.com": ""} {
		if user, _, err := g.credentials(host); user != want || err != nil {
			t.Errorf("%s: %q, %v", host, user, err)
		}
	}
	g.login = Credential{Registry: "quay.io", Username: "ignored", IdentityToken: "token"}
	if user, secret, _ := g.credentials("quay.io"); user != "" || secret != "token" {
		t.Errorf("identity token: %q, %q", user, secret)
	}
}
