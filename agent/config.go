package agent

import (
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"time"
)

// Config is the agent's whole configuration, in the shape of /etc/picket/picketd.yaml (the yaml tags are its keys, the help tags
// say what they mean on the command line). DefaultConfig and FillIn give the defaults, Check and CheckFiles say what is wrong.
type Config struct {
	Node      NodeConfig    `yaml:"node"`
	Cluster   ClusterConfig `yaml:"cluster"`
	API       APIConfig     `yaml:"api"`
	Metrics   MetricsConfig `yaml:"metrics"`
	Runtime   RuntimeConfig `yaml:"runtime"`
	Manifests string        `yaml:"manifests" help:"directory of manifests to apply: *.yaml, *.yml, *.json"`
	DataDir   string        `yaml:"dataDir" help:"directory of the agent's state; it holds every Secret of the fleet and is for root alone"`
	RunDir    string        `yaml:"runDir" help:"directory for what ends with a reboot: sockets, the pods' namespaces"`
	Log       LogConfig     `yaml:"log"`

	// File is where this configuration was read from, named in messages; "" when there is none.
	File string `yaml:"-"`
	// Version is the build's version, shown by kubectl get nodes and in metrics.
	Version string `yaml:"-"`
	// Logger takes the agent's log; never nil.
	Logger *slog.Logger `yaml:"-"`
}

// NodeConfig is what this host says of itself.
type NodeConfig struct {
	Name   string            `yaml:"name" help:"name of this host in the fleet (default the hostname in lower case)"`
	Labels map[string]string `yaml:"labels" help:"labels of this host, as key=value"`
	Taints []string          `yaml:"taints" help:"taints of this host, as key=value:Effect or key:Effect"`
}

// ClusterConfig is for gossip between hosts.
type ClusterConfig struct {
	Name       string        `yaml:"name" help:"name of the fleet; the state in dataDir belongs to it"`
	Bind       string        `yaml:"bind" help:"IP:port for gossip, tcp and udp (default 0.0.0.0:9745, or 127.0.0.1:9745 with neither cluster.join nor a host.crt)"`
	Advertise  string        `yaml:"advertise" help:"IP:port under which other hosts reach this one's gossip (default the source address towards the first of cluster.join)"`
	Join       []string      `yaml:"join" help:"hosts to join, as host:port, dns+name:port or file:/path of a list"`
	Profile    string        `yaml:"profile" help:"network between the hosts: lan, wan, or local when all are one machine"`
	GossipKeys string        `yaml:"gossipKeys" help:"file with the keys that encrypt gossip; empty: gossip is not encrypted"`
	ReapAfter  time.Duration `yaml:"reapAfter" help:"how long a host is out of reach before it counts as no member, until it returns"`
}

// APIConfig is where the Kubernetes-shaped API listens and which certificates it uses.
type APIConfig struct {
	Listen    string `yaml:"listen" help:"IP:port of the API (default 0.0.0.0:9746, or 127.0.0.1:9746 with neither cluster.join nor a host.crt)"`
	Advertise string `yaml:"advertise" help:"host:port under which other hosts and users reach the API (default the address towards the first of cluster.join)"`
	Socket    string `yaml:"socket" help:"unix socket of the API; who may open it is admin (default picket.sock in runDir)"`
	PKI       string `yaml:"pki" help:"directory of this host's certificates"`
}

// MetricsConfig is where /metrics, /healthz and /readyz are served.
type MetricsConfig struct {
	Listen string `yaml:"listen" help:"IP:port of /metrics, /healthz and /readyz"`
}

// RuntimeConfig is how to reach containerd and where its files are.
type RuntimeConfig struct {
	Address       string   `yaml:"address" help:"containerd's socket"`
	Namespace     string   `yaml:"namespace" help:"containerd namespace of picket's containers"`
	ImagesDir     string   `yaml:"imagesDir" help:"directory of image archives to import (default images in dataDir)"`
	HostsDir      string   `yaml:"hostsDir" help:"directory of registries' hosts.toml files"`
	CNIBin        []string `yaml:"cniBin" help:"directories of CNI plugins"`
	CNIConf       string   `yaml:"cniConf" help:"CNI configuration of the pods' network (default a built-in bridge on runtime.podCIDR)"`
	PodCIDR       string   `yaml:"podCIDR" help:"addresses of the built-in bridge's pods; for both kinds of IP two with a comma between them"`
	PodLogs       string   `yaml:"podLogs" help:"directory of the containers' logs (default /var/log/pods, or /var/log/picket/pods beside a kubelet)"`
	ContainerLogs string   `yaml:"containerLogs" help:"directory of links to the containers' logs"`
	LoggerPath    string   `yaml:"loggerPath" help:"picket-logger (default the one beside picketd, then the one in $PATH)"`
}

// LogConfig is the agent's own log.
type LogConfig struct {
	Level  string `yaml:"level" help:"debug, info, warn or error"`
	Format string `yaml:"format" help:"text or json"`
}

// DefaultConfig holds every default that depends on nothing. What is empty here is either empty by default or up to FillIn.
func DefaultConfig() Config {
	return Config{
		Cluster: ClusterConfig{Name: "picket", Profile: "lan", GossipKeys: "/etc/picket/pki/gossip.keys", ReapAfter: 72 * time.Hour},
		API:     APIConfig{PKI: "/etc/picket/pki"},
		Metrics: MetricsConfig{Listen: "0.0.0.0:9747"},
		Runtime: RuntimeConfig{
			Address: "/run/containerd/containerd.sock", Namespace: "picket", HostsDir: "/etc/containerd/certs.d",
			CNIBin: []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"}, PodCIDR: "10.88.0.0/16", ContainerLogs: "/var/log/containers",
		},
		Manifests: "/etc/picket/manifests.d",
		DataDir:   "/var/lib/picket",
		RunDir:    "/run/picket",
		Log:       LogConfig{Level: "info", Format: "text"},
	}
}

// kubeletState is a file that every kubelet keeps and nobody else makes.
const kubeletState = "/var/lib/kubelet/cpu_manager_state"

// FillIn gives the keys that are empty the defaults that depend on other keys and on the host: its hostname, and which files
// exist there. The warnings are about defaults that a user would not expect.
func (c *Config) FillIn(hostname string, exists func(path string) bool) (warnings []string) {
	fill := func(key *string, value string) {
		if *key == "" {
			*key = value
		}
	}
	fill(&c.Node.Name, strings.ToLower(hostname))
	fill(&c.API.Socket, filepath.Join(c.RunDir, "picket.sock"))
	fill(&c.Runtime.ImagesDir, filepath.Join(c.DataDir, "images"))
	// A fleet of one keeps to itself. (cluster.join without a certificate is refused by CheckFiles.)
	gossip, api := "127.0.0.1:9745", "127.0.0.1:9746"
	if c.inFleet(exists) {
		gossip, api = "0.0.0.0:9745", "0.0.0.0:9746"
	}
	fill(&c.Cluster.Bind, gossip)
	fill(&c.API.Listen, api)
	if c.Runtime.PodLogs == "" && exists(kubeletState) {
		c.Runtime.PodLogs = "/var/log/picket/pods"
		warnings = append(warnings, fmt.Sprintf("a kubelet runs on this host and deletes what it does not know in /var/log/pods: runtime.podLogs is %s", c.Runtime.PodLogs))
	}
	fill(&c.Runtime.PodLogs, "/var/log/pods")
	return warnings
}

// inFleet says whether this host is set up to meet others.
func (c *Config) inFleet(exists func(path string) bool) bool {
	return len(c.Cluster.Join) > 0 || exists(c.hostCert())
}

// hostCert is the certificate by which the fleet knows this host.
func (c *Config) hostCert() string { return filepath.Join(c.API.PKI, "host.crt") }

// loopback tells an address that other hosts cannot reach.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}
