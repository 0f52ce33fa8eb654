package agent

import (
	"log/slog"
	"time"
)

// Config is the agent's whole configuration, in the shape of /etc/picket/picketd.yaml (the tags are its keys).
type Config struct {
	Node      NodeConfig    `yaml:"node"`
	Cluster   ClusterConfig `yaml:"cluster"`
	API       APIConfig     `yaml:"api"`
	Metrics   MetricsConfig `yaml:"metrics"`
	Runtime   RuntimeConfig `yaml:"runtime"`
	Manifests string        `yaml:"manifests"` // directory
	DataDir   string        `yaml:"dataDir"`
	RunDir    string        `yaml:"runDir"`
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
	Name   string            `yaml:"name"` // default: hostname, lower case
	Labels map[string]string `yaml:"labels"`
	Taints []string          `yaml:"taints"` // "key=value:Effect" or "key:Effect", as kubectl taint writes them
}

// ClusterConfig is for gossip between hosts.
type ClusterConfig struct {
	Name       string        `yaml:"name"`
	Bind       string        `yaml:"bind"`
	Advertise  string        `yaml:"advertise"`
	Join       []string      `yaml:"join"`
	Profile    string        `yaml:"profile"` // lan, wan or local
	GossipKeys string        `yaml:"gossipKeys"`
	ReapAfter  time.Duration `yaml:"reapAfter"`
}

// APIConfig is where the Kubernetes-shaped API listens and which certificates it uses.
type APIConfig struct {
	Listen    string `yaml:"listen"`
	Advertise string `yaml:"advertise"`
	Socket    string `yaml:"socket"`
	PKI       string `yaml:"pki"`
}

// MetricsConfig is where /metrics, /healthz and /readyz are served.
type MetricsConfig struct {
	Listen string `yaml:"listen"`
}

// RuntimeConfig is how to reach containerd and where its files are.
type RuntimeConfig struct {
	Address       string   `yaml:"address"`
	Namespace     string   `yaml:"namespace"`
	ImagesDir     string   `yaml:"imagesDir"`
	HostsDir      string   `yaml:"hostsDir"`
	CNIBin        []string `yaml:"cniBin"`
	CNIConf       string   `yaml:"cniConf"`
	PodCIDR       string   `yaml:"podCIDR"`
	PodLogs       string   `yaml:"podLogs"`
	ContainerLogs string   `yaml:"containerLogs"`
	LoggerPath    string   `yaml:"loggerPath"` // default: picket-logger beside picketd, then $PATH
}

// LogConfig is the agent's own log.
type LogConfig struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // text or json
}
