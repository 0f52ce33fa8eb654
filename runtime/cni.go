package runtime

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
)

const (
	// cniVersion is understood by plugins from 1.0 (2021) on.
	cniVersion = "1.0.0"
	// portsSuffix tells the second list from the first: libcni remembers by name.
	portsSuffix = "-ports"

	pluginPortmap   = "portmap"
	portMappingsArg = "portMappings"
)

// cniLists is a pod network in two parts: attach gives the pod its interface and address, ports publishes its ports on the host,
// which can wait until another pod has let go of them. ports is nil when attach does that, too.
type cniLists struct {
	attach, ports *libcni.NetworkConfigList
	builtin       bool
}

// BridgeName is the built-in network's bridge: "picket0" for the agent that an installation runs. Any other on the same machine,
// told by its containerd namespace and run directory, gets a bridge and a network of its own: "picket-" and 8 hexadecimal digits,
// the 15 characters that an interface's name may have. The bridge stays when the last pod goes.
func (c Config) BridgeName() string {
	if c.Namespace == "picket" && filepath.Clean(c.RunDir) == "/run/picket" {
		return "picket0"
	}
	sum := sha256.Sum256([]byte(c.Namespace + "\x00" + filepath.Clean(c.RunDir)))
	return "picket-" + hex.EncodeToString(sum[:4])
}

func (r *Runtime) cniDir() string  { return filepath.Join(r.cfg.DataDir, "cni") }
func (r *Runtime) cniLock() string { return filepath.Join(r.cniDir(), "lock") }

// cniLists reads the network's configuration, or makes the built-in one.
func (r *Runtime) cniLists() (cniLists, error) {
	if r.cfg.CNIConf != "" {
		return confLists(r.cfg.CNIConf)
	}
	var ranges [][]map[string]string // a pod gets an address of each
	var routes []map[string]string
	for _, cidr := range strings.Split(r.cfg.PodCIDR, ",") {
		_, subnet, err := net.ParseCIDR(cidr)
		if err != nil {
			return cniLists{}, fmt.Errorf("runtime.podCIDR: %w", err)
		}
		everywhere := "0.0.0.0/0"
		if subnet.IP.To4() == nil {
			everywhere = "::/0"
		}
		ranges = append(ranges, []map[string]string{{"subnet": subnet.String()}})
		routes = append(routes, map[string]string{"dst": everywhere})
	}
	bridge := map[string]any{
		"type": "bridge", "bridge": r.cfg.BridgeName(), "isGateway": true, "ipMasq": true, "hairpinMode": true,
		"ipam": map[string]any{"type": "host-local", "dataDir": r.cniDir(), "ranges": ranges, "routes": routes},
	}
	lists, err := cniLists{builtin: true}, error(nil)
	if lists.attach, err = newList(r.cfg.BridgeName(), cniVersion, bridge); err != nil {
		return cniLists{}, err
	}
	lists.ports, err = newList(r.cfg.BridgeName()+portsSuffix, cniVersion, defaultPortmap())
	return lists, err
}

func defaultPortmap() map[string]any {
	return map[string]any{"type": pluginPortmap, "capabilities": map[string]bool{portMappingsArg: true}}
}

func newList(name, version string, plugins ...any) (*libcni.NetworkConfigList, error) {
	encoded, err := json.Marshal(map[string]any{"cniVersion": version, "name": name, "plugins": plugins})
	if err != nil {
		return nil, fmt.Errorf("cannot encode a network configuration: %w", err)
	}
	return libcni.NetworkConfFromBytes(encoded)
}

// confLists reads a configuration file, or the first one in a directory, as a kubelet's runtime does. portmap is taken out of it
// to be run later; where nothing in it publishes ports, it is added.
func confLists(path string) (cniLists, error) {
	list, err := readConf(path)
	if err != nil {
		return cniLists{}, fmt.Errorf("cannot read the network configuration runtime.cniConf: %w", err)
	}
	var attach, ports []any
	published := false
	for _, p := range list.Plugins {
		if p.Network.Type == pluginPortmap {
			ports = append(ports, json.RawMessage(p.Bytes))
			continue
		}
		attach = append(attach, json.RawMessage(p.Bytes))
		published = published || p.Network.Capabilities[portMappingsArg]
	}
	if len(attach) == 0 {
		return cniLists{}, fmt.Errorf("network configuration %s has no plugin that makes an interface", path)
	}
	if len(ports) == 0 && !published {
		ports = []any{defaultPortmap()}
	}
	var lists cniLists
	if lists.attach, err = newList(list.Name, list.CNIVersion, attach...); err != nil {
		return cniLists{}, err
	}
	if len(ports) > 0 {
		lists.ports, err = newList(list.Name+portsSuffix, list.CNIVersion, ports...)
	}
	return lists, err
}

func readConf(path string) (*libcni.NetworkConfigList, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		files, err := libcni.ConfFiles(path, []string{".conflist", ".conf", ".json"})
		if err != nil {
			return nil, err
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("directory %s has no *.conflist, *.conf or *.json", path)
		}
		path = slices.Min(files)
	}
	if filepath.Ext(path) == ".conflist" {
		return libcni.NetworkConfFromFile(path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	plugin, err := libcni.NetworkPluginConfFromBytes(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return newList(plugin.Network.Name, plugin.Network.CNIVersion, json.RawMessage(plugin.Bytes))
}

// after gives a list the result of the one before it, which libcni passes on only within a list.
func after(list *libcni.NetworkConfigList, before types.Result) (*libcni.NetworkConfigList, error) {
	var plugins []any
	for _, p := range list.Plugins {
		with, err := libcni.InjectConf(p, map[string]any{"prevResult": before})
		if err != nil {
			return nil, fmt.Errorf("cannot pass on a network result: %w", err)
		}
		plugins = append(plugins, json.RawMessage(with.Bytes))
	}
	return newList(list.Name, list.CNIVersion, plugins...)
}

// checkPlugins looks for a list's plugins, so that what is missing is told in words that help.
func (r *Runtime) checkPlugins(list *libcni.NetworkConfigList) error {
	for _, p := range list.Plugins {
		for _, plugin := range []string{p.Network.Type, p.Network.IPAM.Type} {
			if plugin == "" {
				continue
			}
			if _, err := invoke.FindInPath(plugin, r.cfg.CNIBin); err != nil {
				return fmt.Errorf("CNI plugin %s is not in runtime.cniBin (%s): install the package containernetworking-plugins, or name the directory where it is",
					plugin, strings.Join(r.cfg.CNIBin, ", "))
			}
		}
	}
	return nil
}

// cniError puts the plugins' commonest complaints into words that name what to change.
func (r *Runtime) cniError(err error) error {
	switch text := err.Error(); {
	case strings.Contains(text, "no IP addresses available"):
		return fmt.Errorf("all addresses of the pod network are taken (runtime.podCIDR %s): %w", r.cfg.PodCIDR, err)
	case strings.Contains(text, "failed to locate iptables"), strings.Contains(text, `"iptables": executable file not found`):
		return fmt.Errorf("iptables is not in picketd's PATH: %w", err)
	}
	var failed *types.Error
	if errors.As(err, &failed) && failed.Details != "" {
		return fmt.Errorf("%w (%s)", err, failed.Details)
	}
	return err
}
