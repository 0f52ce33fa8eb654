package agent

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/containerd/containerd/v2/pkg/identifiers"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Problem is one thing wrong with a configuration.
type Problem struct {
	Key  string // "node.taints[0]", "api.listen"
	Text string // what is wrong, and what would be right
}

func (p Problem) String() string { return p.Key + ": " + p.Text }

// Check lists everything wrong with a configuration that FillIn has completed. It looks at nothing else; see CheckFiles.
func (c Config) Check() []Problem {
	var f findings
	f.node(c.Node)
	f.cluster(c.Cluster)
	f.listen("api.listen", c.API.Listen, "127.0.0.1:9746")
	f.advertised("api.advertise", c.API.Advertise, dnsName)
	f.listen("metrics.listen", c.Metrics.Listen, "0.0.0.0:9747")
	f.runtime(c.Runtime)
	f.paths(c)
	f.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	f.oneOf("log.format", c.Log.Format, "text", "json")
	f.apart(c)
	f.reachable(c)
	return f
}

// CheckFiles lists what this configuration needs on the host and what is not there. exists tells whether there is such a file.
func (c Config) CheckFiles(exists func(path string) bool) []Problem {
	var f findings
	if len(c.Cluster.Join) > 0 && !exists(c.hostCert()) {
		f.add("api.pki", "cluster.join is set, but this host has no certificate %s: make one with picket pki and copy it there, or remove cluster.join", c.hostCert())
	}
	if keys := c.Cluster.GossipKeys; c.inFleet(exists) && keys != "" && !exists(keys) {
		why := "cluster.join is set"
		if len(c.Cluster.Join) == 0 {
			why = "this host has a certificate of a fleet in api.pki"
		}
		f.add("cluster.gossipKeys", why+`, but there is no %s: copy the fleet's gossip keys there, or set cluster.gossipKeys to "" to leave gossip unencrypted`, keys)
	}
	for key, path := range map[string]string{"runtime.loggerPath": c.Runtime.LoggerPath, "runtime.cniConf": c.Runtime.CNIConf} {
		if path != "" && !exists(path) {
			f.add(key, "there is no %s", path)
		}
	}
	slices.SortStableFunc(f, func(a, b Problem) int { return strings.Compare(a.Key, b.Key) })
	return f
}

// findings collects problems.
type findings []Problem

func (f *findings) add(key, format string, args ...any) {
	*f = append(*f, Problem{Key: key, Text: fmt.Sprintf(format, args...)})
}

// all adds what one of Kubernetes' validations says.
func (f *findings) all(key, value string, texts []string) {
	for _, text := range texts {
		f.add(key, "%q: %s", value, text)
	}
}

func (f *findings) oneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		f.add(key, "%q is not one of %s", value, strings.Join(allowed, ", "))
	}
}

func (f *findings) node(n NodeConfig) {
	if n.Name == "" {
		f.add("node.name", "this host has no hostname: give it a name here")
	} else {
		f.all("node.name", n.Name, validation.IsDNS1123Subdomain(n.Name))
		if len(n.Name) > validation.LabelValueMaxLength {
			f.add("node.name", "%q: must be no more than %d characters, since it is the value of label %s too", n.Name, validation.LabelValueMaxLength, corev1.LabelHostname)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(n.Labels)) {
		key := "node.labels[" + k + "]"
		f.all(key, k, validation.IsQualifiedName(k))
		f.all(key, n.Labels[k], validation.IsValidLabelValue(n.Labels[k]))
		if slices.Contains([]string{corev1.LabelHostname, corev1.LabelOSStable, corev1.LabelArchStable}, k) {
			f.add(key, "is set by the host itself: remove it")
		}
	}
	f.taints(n.Taints)
}

func (f *findings) taints(list []string) {
	var seen []corev1.Taint
	for i, text := range list {
		key := fmt.Sprintf("node.taints[%d]", i)
		t, err := parseTaint(text)
		if err != nil {
			f.add(key, "%v", err)
			continue
		}
		f.all(key, t.Key, validation.IsQualifiedName(t.Key))
		f.all(key, t.Value, validation.IsValidLabelValue(t.Value))
		if t.Key == corev1.TaintNodeUnschedulable {
			f.add(key, "%s is what picket cordon sets: use that", t.Key)
		}
		if j := slices.IndexFunc(seen, func(o corev1.Taint) bool { return o.MatchTaint(&t) }); j >= 0 {
			f.add(key, "key and effect are those of node.taints[%d]: keep one", j)
		}
		seen = append(seen, t)
	}
}

func (f *findings) cluster(c ClusterConfig) {
	f.all("cluster.name", c.Name, validation.IsDNS1123Label(c.Name))
	f.listen("cluster.bind", c.Bind, "0.0.0.0:9745")
	f.advertised("cluster.advertise", c.Advertise, nil)
	for i, seed := range c.Join {
		key := fmt.Sprintf("cluster.join[%d]", i)
		if path, ok := strings.CutPrefix(seed, "file:"); ok {
			f.path(key, path, "file:/etc/picket/hosts")
		} else if name, ok := strings.CutPrefix(seed, "dns+"); ok {
			f.peer(key, name, dnsName, "dns+name:port, such as dns+picket.lan:9745")
		} else {
			f.peer(key, seed, dnsName, "host:port, such as 10.0.0.1:9745")
		}
	}
	f.oneOf("cluster.profile", c.Profile, "lan", "wan", "local")
	if c.ReapAfter <= 0 {
		f.add("cluster.reapAfter", "%s is not a time to wait: write one such as 72h", c.ReapAfter)
	}
}

func (f *findings) runtime(r RuntimeConfig) {
	if err := identifiers.Validate(r.Namespace); err != nil {
		f.add("runtime.namespace", "%q is no name of a containerd namespace: %d letters and digits at most, with single . _ - between them", r.Namespace, 76)
	}
	if owner := map[string]string{"k8s.io": "Kubernetes", "moby": "Docker"}[r.Namespace]; owner != "" {
		f.add("runtime.namespace", "%s belongs to %s, which would take picket's containers for its own: use picket", r.Namespace, owner)
	}
	if len(r.CNIBin) == 0 {
		f.add("runtime.cniBin", "is empty: name the directories of the CNI plugins, such as /opt/cni/bin")
	}
	for i, dir := range r.CNIBin {
		f.path(fmt.Sprintf("runtime.cniBin[%d]", i), dir, "/opt/cni/bin")
	}
	f.podCIDR(r.PodCIDR)
}

// podCIDR is one network, or one of IPv4 and one of IPv6 with a comma between them.
func (f *findings) podCIDR(value string) {
	families := map[bool]bool{}
	for _, part := range strings.Split(value, ",") {
		cidr, err := netip.ParsePrefix(part)
		switch {
		case err != nil:
			f.add("runtime.podCIDR", "%q is not a network such as 10.88.0.0/16", part)
		case families[cidr.Addr().Is4()]:
			f.add("runtime.podCIDR", "%s is the second network of its kind: there may be one of IPv4 and one of IPv6", cidr)
		case cidr != cidr.Masked():
			f.add("runtime.podCIDR", "%s has bits set behind its prefix: write %s", cidr, cidr.Masked())
		case cidr.Addr().BitLen()-cidr.Bits() < 3:
			f.add("runtime.podCIDR", "%s is too small: besides the pods' addresses it holds the network's, the bridge's and the broadcast address", cidr)
		}
		families[cidr.Addr().Is4()] = true
	}
}

// paths: a relative one would depend on where the agent was started.
func (f *findings) paths(c Config) {
	f.path("api.socket", c.API.Socket, "/run/picket/picket.sock")
	if len(c.API.Socket) > maxSocketPath {
		f.add("api.socket", "%q is %d bytes long; the kernel takes no more than %d", c.API.Socket, len(c.API.Socket), maxSocketPath)
	}
	f.path("api.pki", c.API.PKI, "/etc/picket/pki")
	if path, ok := strings.CutPrefix(c.Runtime.Address, "unix://"); ok {
		f.add("runtime.address", "is a path: write %s", path)
	} else {
		f.path("runtime.address", c.Runtime.Address, "/run/containerd/containerd.sock")
	}
	f.path("runtime.imagesDir", c.Runtime.ImagesDir, "/var/lib/picket/images")
	f.path("runtime.hostsDir", c.Runtime.HostsDir, "/etc/containerd/certs.d")
	f.path("runtime.podLogs", c.Runtime.PodLogs, "/var/log/pods")
	f.path("runtime.containerLogs", c.Runtime.ContainerLogs, "/var/log/containers")
	f.path("manifests", c.Manifests, "/etc/picket/manifests.d")
	f.optionalPath("cluster.gossipKeys", c.Cluster.GossipKeys)
	f.optionalPath("runtime.cniConf", c.Runtime.CNIConf)
	f.optionalPath("runtime.loggerPath", c.Runtime.LoggerPath)
	f.ownDirectory("dataDir", c.DataDir, "/var/lib/picket")
	f.ownDirectory("runDir", c.RunDir, "/run/picket")
	if filepath.Clean(c.DataDir) == filepath.Clean(c.RunDir) {
		f.add("runDir", "is dataDir too; what is in the one ends with a reboot, what is in the other must not")
	}
}

// maxSocketPath is what fits into the kernel's sockaddr_un, in bytes.
const maxSocketPath = 107

func (f *findings) path(key, value, example string) {
	switch {
	case !filepath.IsAbs(value):
		f.add(key, "%q is not an absolute path, such as %s", value, example)
	case strings.ContainsFunc(value, unicode.IsControl):
		f.add(key, "%q has control characters in it", value)
	}
}

func (f *findings) optionalPath(key, value string) {
	if value != "" {
		f.path(key, value, "/etc/picket/...; leave it empty for none")
	}
}

// systemDirectories must not be made private or filled by the agent, however the mistake came about.
var systemDirectories = []string{
	"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt", "/proc", "/root", "/run", "/sbin", "/srv",
	"/sys", "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/local", "/var", "/var/cache", "/var/lib", "/var/log", "/var/run", "/var/tmp",
}

func (f *findings) ownDirectory(key, value, example string) {
	f.path(key, value, example)
	if slices.Contains(systemDirectories, filepath.Clean(value)) {
		f.add(key, "%s is a directory of the system: give picket one of its own, such as %s", value, example)
	}
}

// splitAddress takes host:port apart. Port 0 is for listening on any that is free.
func splitAddress(address string) (host string, port int, ok bool) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, false
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return host, int(n), err == nil
}

// listen checks an address to listen on: of this host, or of none in particular.
func (f *findings) listen(key, value, example string) {
	host, _, ok := splitAddress(value)
	if _, err := netip.ParseAddr(host); !ok || err != nil && host != "" && host != "localhost" {
		f.add(key, "%q is not IP:port, such as %s", value, example)
	}
}

// dnsName tells a name that a resolver may know.
func dnsName(host string) bool { return len(validation.IsDNS1123Subdomain(strings.ToLower(host))) == 0 }

// advertised checks an address that others are told, which may be empty. name says which names are taken besides IP addresses.
func (f *findings) advertised(key, value string, name func(host string) bool) {
	switch {
	case value == "":
	case name == nil:
		f.peer(key, value, func(string) bool { return false }, "IP:port, such as 10.0.0.1:9745")
	default:
		f.peer(key, value, name, "host:port, such as host-01.lan:9746")
	}
}

// peer checks an address that is dialled: there a host and a port are needed.
func (f *findings) peer(key, value string, name func(host string) bool, form string) {
	host, port, ok := splitAddress(value)
	ip, err := netip.ParseAddr(host)
	switch {
	case !ok || port == 0 || err != nil && !name(host):
		f.add(key, "%q is not %s", value, form)
	case ip.IsUnspecified():
		f.add(key, "%q is every address of a host, not one that others can reach: write %s", value, form)
	}
}

// apart finds addresses that cannot be listened on at the same time.
func (f *findings) apart(c Config) {
	keys := []struct{ key, address string }{{"cluster.bind", c.Cluster.Bind}, {"api.listen", c.API.Listen}, {"metrics.listen", c.Metrics.Listen}}
	for i, a := range keys {
		for _, b := range keys[:i] {
			if overlap(a.address, b.address) {
				f.add(a.key, "%s cannot be listened on beside %s %s: give one of them another port", a.address, b.key, b.address)
			}
		}
	}
}

func overlap(a, b string) bool {
	hostA, portA, okA := splitAddress(a)
	hostB, portB, okB := splitAddress(b)
	if !okA || !okB || portA != portB || portA == 0 {
		return false
	}
	return hostA == hostB || everyAddress(hostA) || everyAddress(hostB)
}

func everyAddress(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

// reachable refuses a host that joins others which cannot reach it. Agents on one machine, profile local, may meet on loopback.
func (f *findings) reachable(c Config) {
	if len(c.Cluster.Join) == 0 || c.Cluster.Profile == "local" {
		return
	}
	for _, a := range []struct{ key, address string }{
		{"cluster.bind", c.Cluster.Bind},
		{"cluster.advertise", c.Cluster.Advertise},
		{"api.listen", c.API.Listen},
		{"api.advertise", c.API.Advertise},
	} {
		if loopback(a.address) {
			f.add(a.key, "cluster.join is set, but other hosts cannot reach %s: remove %s or give an address of the network, or remove cluster.join", a.address, a.key)
		}
	}
}
