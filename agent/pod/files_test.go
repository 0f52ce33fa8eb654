package pod

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func testHostFiles(t *testing.T, hosts, resolvConf, resolved string) hostFiles {
	t.Helper()
	dir := t.TempDir()
	h := hostFiles{dir + "/hosts", dir + "/resolv.conf", dir + "/resolved.conf"}
	for path, text := range map[string]string{h.hosts: hosts, h.resolvConf: resolvConf, h.resolved: resolved} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func TestHostsFile(t *testing.T) {
	from := testHostFiles(t, "127.0.0.1 localhost\n192.0.2.1 host-01\n", "", "")
	f := testFacts()
	f.pod.Spec.HostAliases = []corev1.HostAlias{{IP: "192.0.2.9", Hostnames: []string{"a", "b"}}}
	alias := "\n# Entries added by HostAliases.\n192.0.2.9\ta\tb\n"
	check := func(what, want string) {
		t.Helper()
		got, err := f.hostsFile(from)
		if err != nil || got != want {
			t.Errorf("%s:\n%s\nwant:\n%s\nerror: %v", what, got, want, err)
		}
	}
	check("own network", managedHosts+loopbackHosts+"10.88.0.2\tweb-abcde\nfd00::2\tweb-abcde\n"+alias)
	f.pod.Spec.Hostname, f.pod.Spec.Subdomain = "h", "sub"
	f.ips = f.ips[:1]
	check("subdomain", managedHosts+loopbackHosts+"10.88.0.2\th.sub.default.svc.cluster.local\th\n"+alias)
	f.pod.Spec.HostNetwork = true
	check("host network", managedHostsHost+"127.0.0.1 localhost\n192.0.2.1 host-01\n"+alias)
}

func TestResolvConf(t *testing.T) {
	two := "2"
	config := &corev1.PodDNSConfig{
		Nameservers: []string{"9.9.9.9", "192.0.2.53"}, Searches: []string{"corp"},
		Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &two}, {Name: "edns0"}},
	}
	host := "# comment\nnameserver 192.0.2.53\nsearch lan example.org\noptions ndots:1 rotate\n"
	for _, test := range []struct {
		name, host, resolved string
		policy               corev1.DNSPolicy
		config               *corev1.PodDNSConfig
		want                 string
	}{
		{"default", host, "", corev1.DNSDefault, nil, "search lan example.org\nnameserver 192.0.2.53\noptions ndots:1 rotate\n"},
		{"cluster first is the host's", host, "", corev1.DNSClusterFirst, nil, "search lan example.org\nnameserver 192.0.2.53\noptions ndots:1 rotate\n"},
		{"none", host, "", corev1.DNSNone, config, "search corp\nnameserver 9.9.9.9\nnameserver 192.0.2.53\noptions ndots:2 edns0\n"},
		{
			"added", host, "", corev1.DNSDefault, config,
			"search lan example.org corp\nnameserver 192.0.2.53\nnameserver 9.9.9.9\noptions rotate ndots:2 edns0\n",
		},
		{"stub", "nameserver 127.0.0.53\n", "nameserver 192.0.2.54\n", corev1.DNSDefault, nil, "nameserver 192.0.2.54\n"},
		{"most", strings.Repeat("nameserver 192.0.2.53\n", 5), "", corev1.DNSDefault, nil, strings.Repeat("nameserver 192.0.2.53\n", 3)},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := testFacts()
			f.pod.Spec.DNSPolicy, f.pod.Spec.DNSConfig = test.policy, test.config
			got, err := f.resolvConf(testHostFiles(t, "", test.host, test.resolved))
			if err != nil || got != test.want {
				t.Errorf("got:\n%s\nwant:\n%s\nerror: %v", got, test.want, err)
			}
		})
	}
	f := testFacts()
	if got, err := f.resolvConf(hostFiles{resolvConf: "/nowhere"}); err != nil || got != "" {
		t.Errorf("no resolv.conf on the host: %q, %v", got, err)
	}
}

func TestFilesAreChangedInPlace(t *testing.T) {
	dir := t.TempDir()
	from := testHostFiles(t, "", "nameserver 192.0.2.53\n", "")
	f := testFacts()
	if err := f.writeFiles(dir, from); err != nil {
		t.Fatal(err)
	}
	mounted, err := os.Open(filepath.Join(dir, "etc-hosts"))
	if err != nil {
		t.Fatal(err)
	}
	defer mounted.Close()
	f.ips = []string{"10.88.0.9"}
	if err := f.writeFiles(dir, from); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 4096)
	n, _ := mounted.Read(text)
	if !strings.Contains(string(text[:n]), "10.88.0.9\tweb-abcde\n") {
		t.Errorf("what a container has mounted reads:\n%s", text[:n])
	}
	expect(t, "hostname", content(t, dir+"/hostname"), "web-abcde\n")
	expect(t, "mode", modeOf(t, dir+"/resolv.conf"), 0o644)
}

func TestHostnameIsShortened(t *testing.T) {
	pod := testPod("web")
	pod.Name = strings.Repeat("a", 62) + "-bcde"
	expect(t, "hostname", podHostname(pod), strings.Repeat("a", 62))
}
