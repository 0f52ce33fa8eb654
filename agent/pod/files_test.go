package pod

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

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
	full := true
	f.pod.Spec.SetHostnameAsFQDN = &full // of the kernel's name only
	check("full name", managedHosts+loopbackHosts+"10.88.0.2\th.sub.default.svc.cluster.local\th\n"+alias)
	override := "other.example.org"
	f.pod.Spec.HostnameOverride = &override
	check("override", managedHosts+loopbackHosts+"10.88.0.2\tother.example.org\n"+alias)
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

// The kernel's name: short, or full when that is asked for; hostnameOverride before all, and the host's on the host's network.
func TestHostname(t *testing.T) {
	f, full := testFacts(), true
	pod := f.pod
	check := func(what, want string) {
		t.Helper()
		expect(t, what, f.hostname(), want)
		expect(t, what+" in the pod's namespace", podConfig(pod, f.host).Hostname, want)
		if err := f.checkHostname(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	pod.Name = strings.Repeat("a", 62) + "-bcde"
	check("long name", strings.Repeat("a", 62))
	pod.Name = "web-abcde"
	pod.Spec.SetHostnameAsFQDN = &full
	check("without a domain", "web-abcde")
	pod.Spec.Subdomain = "sub"
	check("full name", "web-abcde.sub.default.svc.cluster.local")
	pod.Spec.Hostname = strings.Repeat("h", 40)
	if err := f.checkHostname(); err == nil || !strings.Contains(err.Error(), "is too long (64 characters is the max, 70 characters requested)") {
		t.Errorf("too long: %v", err)
	}
	override := "other.example.org"
	pod.Spec.HostnameOverride = &override
	check("override", override)
	pod.Spec.HostnameOverride, pod.Spec.HostNetwork = nil, true
	check("host network", "host-01.lan")
}

// What does not fit into resolv.conf is left out, and told.
func TestResolvConfHasLimits(t *testing.T) {
	f := testFacts()
	f.pod.Spec.DNSPolicy = corev1.DNSNone
	f.pod.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"1.0.0.1", "1.0.0.2", "1.0.0.3"}, Searches: []string{"a", "b"}}
	if got := f.omissions(hostFiles{}); len(got) != 0 {
		t.Errorf("all fits: %v", got)
	}
	f.pod.Spec.DNSConfig.Nameservers = append(f.pod.Spec.DNSConfig.Nameservers, "1.0.0.4")
	for i := range 20 {
		f.pod.Spec.DNSConfig.Searches = append(f.pod.Spec.DNSConfig.Searches, strings.Repeat("x", 120)+string(rune('a'+i)))
	}
	got, err := f.resolvConf(hostFiles{})
	search, rest, _ := strings.Cut(got, "\n")
	if err != nil || len(strings.TrimPrefix(search, "search ")) > 2048 || len(search) < 1900 || rest != "nameserver 1.0.0.1\nnameserver 1.0.0.2\nnameserver 1.0.0.3\n" {
		t.Errorf("%d bytes of %q, then %q; %v", len(search), search, rest, err)
	}
	said := f.omissions(hostFiles{})
	if len(said) != 2 || said[0].reason != "DNSConfigForming" || !strings.HasPrefix(said[0].message, "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: a b ") ||
		said[1].message != "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 1.0.0.1 1.0.0.2 1.0.0.3" {
		t.Errorf("%+v", said)
	}
}

// A name that the kernel does not take keeps the pod from being made, and what is left out of resolv.conf is an event.
func TestHostnameTooLong(t *testing.T) {
	pod, full := testPod("web"), true
	pod.Spec.Hostname, pod.Spec.Subdomain, pod.Spec.SetHostnameAsFQDN = strings.Repeat("h", 40), "sub", &full
	inBubble(t, pod, func(b *bench) {
		b.start(nil)
		synctest.Wait()
		expect(t, "event", b.reported("FailedCreatePodSandBox"), 1)
	})
	pod = testPod("web")
	pod.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"1.0.0.1", "1.0.0.2", "1.0.0.3", "1.0.0.4"}}
	inBubble(t, pod, func(b *bench) {
		b.start(nil)
		synctest.Wait()
		expect(t, "event", b.reported("DNSConfigForming"), 1)
		expect(t, "state", b.state("web"), "Running")
	})
}
