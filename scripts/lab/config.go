package lab

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/picketd/picket/cluster/pki"
)

// The ports of every host, those that picketd has by default.
const (
	portGossip  = 9745
	portAPI     = 9746
	portMetrics = 9747
)

const (
	fleetName = "lab"
	// seeds is how many hosts all others are told of.
	seeds = 3
)

// at is one of the host's ports.
func (h *Host) at(port uint16) string { return netip.AddrPortFrom(h.Address, port).String() }

// furnish gives the host its certificates and its configuration.
func (h *Host) furnish() error {
	now := time.Now()
	certificate := pki.Host{Node: h.Name, Addresses: []string{h.Address.String()}, Door: h.lab.options.NoDoor == nil || !h.lab.options.NoDoor(h.index)}
	pair, err := h.lab.Authority.IssueHost(certificate, now)
	if err != nil {
		return err
	}
	ca := h.lab.Authority.TrustedPEM()
	if err := (pki.HostKit{CA: ca, Pair: pair, Gossip: h.lab.gossip}).Write(h.pkiDir(), false); err != nil {
		return err
	}
	kubeconfig := pki.Kubeconfig("https://"+h.at(portAPI), ca, h.lab.admin, fleetName, "admin")
	if err := pki.WriteSecret(h.Kubeconfig, kubeconfig, false); err != nil {
		return err
	}
	for _, dir := range []string{h.ManifestsDir(), h.ImagesDir(), h.runDir()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return h.configure()
}

func (h *Host) pkiDir() string { return filepath.Join(h.Dir, "pki") }

// ManifestsDir is where its agent reads manifests.
func (h *Host) ManifestsDir() string { return filepath.Join(h.Dir, "manifests.d") }

// ImagesDir is where its agent imports image archives from.
func (h *Host) ImagesDir() string { return filepath.Join(h.Dir, "images") }

// DataDir is its agent's state.
func (h *Host) DataDir() string { return filepath.Join(h.Dir, "data") }

// configure writes picketd.yaml: nothing of it leads out of the host's directory.
func (h *Host) configure() error {
	config := h.defaults()
	if h.lab.options.Config != nil {
		h.lab.options.Config(h.index, config)
	}
	sections := make(map[string]any)
	for key, value := range config {
		section, name, nested := strings.Cut(key, ".")
		if !nested {
			sections[section] = value
			continue
		}
		inner, ok := sections[section].(map[string]any)
		if !ok {
			inner = make(map[string]any)
			sections[section] = inner
		}
		inner[name] = value
	}
	text, err := yaml.Marshal(sections)
	if err != nil {
		return fmt.Errorf("cannot write the configuration: %w", err)
	}
	return os.WriteFile(h.ConfigFile(), text, 0o600)
}

func (h *Host) defaults() map[string]any {
	profile := h.lab.options.Profile
	if profile == "" {
		profile = "lan"
	}
	var join []string
	for _, other := range h.lab.Hosts[:min(seeds, len(h.lab.Hosts))] {
		join = append(join, other.at(portGossip))
	}
	labels := defaultLabels
	if h.lab.options.Labels != nil {
		labels = h.lab.options.Labels
	}
	return map[string]any{
		"node.name": h.Name, "node.labels": labels(h.index),
		"cluster.name": fleetName, "cluster.bind": h.at(portGossip), "cluster.join": join, "cluster.profile": profile,
		"cluster.gossipKeys": filepath.Join(h.pkiDir(), pki.FileGossipKeys),
		"api.listen":         h.at(portAPI), "api.socket": h.Socket, "api.pki": h.pkiDir(),
		"metrics.listen":        h.at(portMetrics),
		"runtime.address":       filepath.Join(h.containerdDir(), "c.sock"),
		"runtime.namespace":     h.containerdNamespace(),
		"runtime.imagesDir":     h.ImagesDir(),
		"runtime.hostsDir":      h.lab.imageHosts(),
		"runtime.podCIDR":       fmt.Sprintf("10.214.%d.0/24", h.index),
		"runtime.podLogs":       filepath.Join(h.Dir, "logs", "pods"),
		"runtime.containerLogs": filepath.Join(h.Dir, "logs", "containers"),
		"manifests":             h.ManifestsDir(),
		"dataDir":               h.DataDir(),
		"runDir":                h.runDir(),
	}
}

// containerdNamespace is one of the host's own: runc keeps its state outside of our directory, by this name.
func (h *Host) containerdNamespace() string {
	return fmt.Sprintf("picket-lab-%d-%d", h.Address.As4()[2], h.index+1)
}

func defaultLabels(i int) map[string]string {
	labels := map[string]string{"topology.kubernetes.io/zone": string(rune('a' + i%3))}
	if i%2 == 0 {
		labels["disktype"] = "ssd"
	}
	return labels
}
