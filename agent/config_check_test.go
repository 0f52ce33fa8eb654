package agent

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

func nothing(string) bool { return false }

func only(paths ...string) func(string) bool {
	return func(path string) bool { return slices.Contains(paths, path) }
}

// filledIn is a good configuration with one change.
func filledIn(change func(*Config)) Config {
	c := DefaultConfig()
	c.FillIn("Host-01", nothing)
	change(&c)
	return c
}

func TestDefaultsAreGood(t *testing.T) {
	c := filledIn(func(*Config) {})
	if problems := append(c.Check(), c.CheckFiles(nothing)...); len(problems) > 0 {
		t.Errorf("the defaults have problems: %v", problems)
	}
	if c.Node.Name != "host-01" {
		t.Errorf("the node is called %q, want the hostname in lower case", c.Node.Name)
	}
}

func TestFillIn(t *testing.T) {
	for _, c := range []struct {
		name          string
		set           func(*Config)
		files         []string
		bind, listen  string
		socket, logs  string
		images        string
		wantOfKubelet bool
	}{
		{
			name: "a fleet of one", bind: "127.0.0.1:9745", listen: "127.0.0.1:9746",
			socket: "/run/picket/picket.sock", logs: "/var/log/pods", images: "/var/lib/picket/images",
		},
		{
			name: "a certificate", files: []string{"/etc/picket/pki/host.crt"}, bind: "0.0.0.0:9745", listen: "0.0.0.0:9746",
			socket: "/run/picket/picket.sock", logs: "/var/log/pods", images: "/var/lib/picket/images",
		},
		{
			name: "joining", set: func(c *Config) { c.Cluster.Join = []string{"a:1"} }, bind: "0.0.0.0:9745", listen: "0.0.0.0:9746",
			socket: "/run/picket/picket.sock", logs: "/var/log/pods", images: "/var/lib/picket/images",
		},
		{
			name: "other directories", set: func(c *Config) { c.DataDir, c.RunDir, c.API.PKI = "/d", "/r", "/p" }, files: []string{"/p/host.crt"},
			bind: "0.0.0.0:9745", listen: "0.0.0.0:9746", socket: "/r/picket.sock", logs: "/var/log/pods", images: "/d/images",
		},
		{
			name: "a kubelet", files: []string{kubeletState}, bind: "127.0.0.1:9745", listen: "127.0.0.1:9746",
			socket: "/run/picket/picket.sock", logs: "/var/log/picket/pods", images: "/var/lib/picket/images", wantOfKubelet: true,
		},
		{
			name: "what is set stays", set: func(c *Config) {
				c.API.Listen, c.API.Socket, c.Runtime.PodLogs, c.Runtime.ImagesDir, c.Cluster.Bind = "[::1]:1", "/s", "/l", "/i", "[::1]:2"
			}, files: []string{kubeletState, "/etc/picket/pki/host.crt"}, bind: "[::1]:2", listen: "[::1]:1", socket: "/s", logs: "/l", images: "/i",
		},
	} {
		cfg := DefaultConfig()
		if c.set != nil {
			c.set(&cfg)
		}
		warnings := cfg.FillIn("h", only(c.files...))
		got := []string{cfg.Cluster.Bind, cfg.API.Listen, cfg.API.Socket, cfg.Runtime.PodLogs, cfg.Runtime.ImagesDir}
		if want := []string{c.bind, c.listen, c.socket, c.logs, c.images}; !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", c.name, got, want)
		}
		if (len(warnings) > 0) != c.wantOfKubelet {
			t.Errorf("%s: warnings %q", c.name, warnings)
		}
	}
}

func TestCheck(t *testing.T) {
	joined := func(change func(*Config)) func(*Config) {
		return func(c *Config) {
			c.Cluster.Join = []string{"10.0.0.1:9745"}
			c.Cluster.Bind, c.API.Listen = "0.0.0.0:9745", "0.0.0.0:9746"
			change(c)
		}
	}
	for _, c := range []struct {
		name string
		set  func(*Config)
		want []string // key, and a part of the text
	}{
		{"no name", func(c *Config) { c.Node.Name = "" }, []string{"node.name: give it a name"}},
		{"a name with an underscore", func(c *Config) { c.Node.Name = "host_1" }, []string{"node.name: RFC 1123"}},
		{"a long name", func(c *Config) { c.Node.Name = strings.Repeat("a", 64) }, []string{"node.name: no more than 63"}},
		{"labels", func(c *Config) {
			c.Node.Labels = map[string]string{"ok": "1.10", "example.com/Case": "x", "b c": "", "a": "no blanks", "kubernetes.io/os": "linux"}
		}, []string{"node.labels[a]: no blanks", "node.labels[b c]: alphanumeric", "node.labels[kubernetes.io/os]: by the host itself"}},
		{"taints", func(c *Config) {
			c.Node.Taints = []string{"a=b:NoSchedule", "nonsense", "a:Nothing", "a=c:NoSchedule", "x y:NoExecute", "node.kubernetes.io/unschedulable:NoSchedule", "a:NoExecute"}
		}, []string{
			"node.taints[1]: key=value:Effect", "node.taints[2]: effect must be", "node.taints[3]: node.taints[0]: keep one",
			"node.taints[4]: alphanumeric", "node.taints[5]: picket cordon",
		}},
		{"a fleet's name", func(c *Config) { c.Cluster.Name = "Prod" }, []string{"cluster.name: lower case"}},
		{"gossip without a port", func(c *Config) { c.Cluster.Bind = "0.0.0.0" }, []string{"cluster.bind: such as 0.0.0.0:9745"}},
		{"gossip advertised by name", func(c *Config) { c.Cluster.Advertise = "host-01:9745" }, []string{"cluster.advertise: IP:port"}},
		{"advertised everywhere", func(c *Config) { c.API.Advertise = "[::]:9746" }, []string{"api.advertise: every address"}},
		{"advertised by name", func(c *Config) { c.API.Advertise = "Host-01.lan:9746" }, nil},
		{"advertised nowhere", func(c *Config) { c.API.Advertise = "host:0" }, []string{"api.advertise: host:port"}},
		{"seeds", joined(func(c *Config) {
			c.Cluster.Join = []string{"10.0.0.1:9745", "dns+picket.lan:9745", "[2001:db8::1]:9745", "host-2:9745", "10.0.0.2", "dns+x", "http://a:1", "a:99999", ":9745"}
		}), []string{
			"cluster.join[4]: 10.0.0.1:9745", "cluster.join[5]: dns+picket.lan:9745", "cluster.join[6]: host:port",
			"cluster.join[7]: host:port", "cluster.join[8]: host:port",
		}},
		{"a profile", func(c *Config) { c.Cluster.Profile = "LAN" }, []string{"cluster.profile: lan, wan, local"}},
		{"no time", func(c *Config) { c.Cluster.ReapAfter = 0 }, []string{"cluster.reapAfter: 72h"}},
		{"listening on a name", func(c *Config) { c.API.Listen = "host-01:9746" }, []string{"api.listen: IP:port"}},
		{"listening on any address", func(c *Config) { c.API.Listen, c.Metrics.Listen = ":9746", "localhost:0" }, nil},
		{"one port for two", func(c *Config) { c.Metrics.Listen = "0.0.0.0:9746" }, []string{"metrics.listen: beside api.listen"}},
		{"one port on two addresses", func(c *Config) { c.Metrics.Listen, c.API.Listen = "127.0.0.2:9746", "127.0.0.1:9746" }, nil},
		{"any port for both", func(c *Config) { c.Metrics.Listen, c.API.Listen = "127.0.0.1:0", "127.0.0.1:0" }, nil},
		{"a containerd URL", func(c *Config) { c.Runtime.Address = "unix:///run/c.sock" }, []string{"runtime.address: write /run/c.sock"}},
		{"a namespace", func(c *Config) { c.Runtime.Namespace = "a b" }, []string{"runtime.namespace: letters and digits"}},
		{"Kubernetes' namespace", func(c *Config) { c.Runtime.Namespace = "k8s.io" }, []string{"runtime.namespace: Kubernetes"}},
		{"CNI", func(c *Config) { c.Runtime.CNIBin = nil }, []string{"runtime.cniBin: /opt/cni/bin"}},
		{"CNI, relative", func(c *Config) { c.Runtime.CNIBin = []string{"/a", "b"} }, []string{"runtime.cniBin[1]: absolute"}},
		{"no network", func(c *Config) { c.Runtime.PodCIDR = "10.88.0.0" }, []string{"runtime.podCIDR: 10.88.0.0/16"}},
		{"an address for a network", func(c *Config) { c.Runtime.PodCIDR = "10.88.0.1/16" }, []string{"runtime.podCIDR: write 10.88.0.0/16"}},
		{"two networks of a kind", func(c *Config) { c.Runtime.PodCIDR = "10.88.0.0/16,10.89.0.0/16" }, []string{"runtime.podCIDR: second network of its kind"}},
		{"networks of both kinds", func(c *Config) { c.Runtime.PodCIDR = "10.88.0.0/16,fd00:88::/64" }, nil},
		{"a small network", func(c *Config) { c.Runtime.PodCIDR = "10.88.0.0/30" }, []string{"runtime.podCIDR: too small"}},
		{"relative paths", func(c *Config) { c.Manifests, c.API.PKI, c.Cluster.GossipKeys = "m", "./pki", "~/k" }, []string{"api.pki: absolute", "manifests: absolute", "cluster.gossipKeys: absolute"}},
		{"unprintable", func(c *Config) { c.Manifests = "/a\nb" }, []string{"manifests: control characters"}},
		{"a long socket", func(c *Config) { c.API.Socket = "/" + strings.Repeat("a", 107) }, []string{"api.socket: no more than 107"}},
		{"the system's directories", func(c *Config) { c.DataDir, c.RunDir = "/var/lib/", "/" }, []string{"dataDir: of the system", "runDir: of the system"}},
		{"one directory for two", func(c *Config) { c.DataDir = "/run/picket/" }, []string{"runDir: dataDir too"}},
		{"log", func(c *Config) { c.Log = LogConfig{Level: "INFO", Format: "logfmt"} }, []string{"log.level: debug, info", "log.format: text, json"}},
		{"joining from loopback", joined(func(c *Config) { c.API.Listen, c.Cluster.Advertise = "localhost:9746", "127.0.0.1:9745" }), []string{
			"cluster.advertise: cannot reach", "api.listen: cannot reach",
		}},
		{"joining on one machine", joined(func(c *Config) { c.API.Listen, c.Cluster.Profile = "127.0.0.1:9746", "local" }), nil},
		{"joining", joined(func(*Config) {}), nil},
	} {
		compare(t, c.name, filledIn(c.set).Check(), c.want)
	}
}

// compare holds problems against "key: part of the text".
func compare(t *testing.T, name string, problems []Problem, want []string) {
	t.Helper()
	if len(problems) != len(want) {
		t.Errorf("%s: %d problems, want %d:\n%v", name, len(problems), len(want), problems)
		return
	}
	for i, p := range problems {
		if key, part, _ := strings.Cut(want[i], ": "); p.Key != key || !strings.Contains(p.Text, part) {
			t.Errorf("%s: %s, want %s", name, p, want[i])
		}
	}
}

func TestCheckFiles(t *testing.T) {
	join := func(c *Config) { c.Cluster.Join = []string{"10.0.0.1:9745"} }
	const cert, keys = "/etc/picket/pki/host.crt", "/etc/picket/pki/gossip.keys"
	for _, c := range []struct {
		name  string
		set   func(*Config)
		files []string
		want  []string
	}{
		{"alone", func(*Config) {}, nil, nil},
		{"joining with nothing", join, nil, []string{"api.pki: no certificate " + cert, "cluster.gossipKeys: no " + keys}},
		{"joining without keys", join, []string{cert}, []string{`cluster.gossipKeys: set cluster.gossipKeys to ""`}},
		{"joining unencrypted", func(c *Config) { join(c); c.Cluster.GossipKeys = "" }, []string{cert}, nil},
		{"joining", join, []string{cert, keys}, nil},
		{"given files", func(c *Config) { c.Runtime.CNIConf, c.Runtime.LoggerPath = "/c", "/l" }, []string{"/c"}, []string{"runtime.loggerPath: no /l"}},
	} {
		compare(t, c.name, filledIn(c.set).CheckFiles(only(c.files...)), c.want)
	}
}

// Every leaf of Config has a key and a text for --help, so that nothing is configurable in secret.
func TestConfigTags(t *testing.T) {
	var walk func(reflect.Type, string)
	walk = func(s reflect.Type, prefix string) {
		for i := range s.NumField() {
			f := s.Field(i)
			name := f.Tag.Get("yaml")
			switch {
			case name == "":
				t.Errorf("%s%s has no yaml tag", prefix, f.Name)
			case name == "-":
			case f.Type.Kind() == reflect.Struct:
				walk(f.Type, prefix+name+".")
			case f.Tag.Get("help") == "":
				t.Errorf("%s%s has no help tag", prefix, name)
			}
		}
	}
	walk(reflect.TypeFor[Config](), "")
}
