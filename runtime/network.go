package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	cni "github.com/containernetworking/cni/pkg/types/100"
)

const (
	// podInterface is what a pod's interface is called.
	podInterface = "eth0"
	// cniTimeout bounds what plugins do for one pod.
	cniTimeout = time.Minute
)

// network is the pods' network as far as it is not in files: libcni remembers what every pod got in <DataDir>/cni/cache, the
// host-local plugin which addresses are taken in <DataDir>/cni/<network>.
type network struct {
	cni      *libcni.CNIConfig
	exec     *cniExec
	pods     podLocks
	mounting sync.Mutex
	// publishing is held while ports are looked at and taken.
	publishing sync.Mutex

	tidying sync.Mutex
	tidy    bool // leases of pods that were lost in a reboot have been given back
}

func newNetwork(cfg Config) network {
	run := &cniExec{}
	return network{exec: run, cni: libcni.NewCNIConfigWithCacheDir(cfg.CNIBin, filepath.Join(cfg.DataDir, "cni", "cache"), run)}
}

// SetUpPod makes the pod's namespaces and its cgroup, with shareProcessNamespace also the process that keeps that one, and attaches it to the network, or finds all that as an earlier call left it. After a
// reboot it is made anew; the address may be another one then.
func (r *Runtime) SetUpPod(ctx context.Context, p PodConfig) (PodStatus, error) {
	if err := checkUID(p.UID); err != nil {
		return PodStatus{}, err
	}
	defer r.network.pods.lock(p.UID)()
	if !p.HostNetwork {
		if err := r.network.exec.take(ctx, r.cniLock()); err != nil {
			return PodStatus{}, err
		}
		r.giveBackLost(ctx, p.UID)
		if err := r.startAfresh(ctx, p.UID); err != nil {
			return PodStatus{}, err
		}
	}
	if err := r.makeNamespaces(p); err != nil {
		return PodStatus{}, err
	}
	if err := r.limitPod(ctx, p); err != nil {
		return PodStatus{}, err
	}
	if p.hasReaper() {
		if err := r.keepReaper(ctx, p); err != nil {
			return PodStatus{}, err
		}
	}
	if p.HostNetwork {
		return PodStatus{UID: p.UID}, nil
	}
	result, err := r.attach(ctx, p)
	if err == nil {
		err = r.publishPorts(ctx, p, result)
	}
	if err != nil {
		return PodStatus{}, fmt.Errorf("cannot set up the pod's network: %w", r.cniError(err))
	}
	return PodStatus{UID: p.UID, IPs: addressesIn(result)}, nil
}

// UnpublishPorts makes the host ports free that were published for the pod. The rest of its network stays until TearDownPod.
func (r *Runtime) UnpublishPorts(ctx context.Context, p PodConfig) error {
	if err := checkUID(p.UID); err != nil {
		return err
	}
	defer r.network.pods.lock(p.UID)()
	if err := r.network.exec.take(ctx, r.cniLock()); err != nil {
		return err
	}
	path, _, _, _ := r.namespacePaths(p.UID)
	if isNamespace(path) != nil {
		path = "" // plugins take that for one that is gone
	}
	if err := r.unpublishPorts(ctx, p.UID, path); err != nil {
		return fmt.Errorf("cannot unpublish the pod's ports: %w", r.cniError(err))
	}
	return nil
}

// TearDownPod removes the pod's published ports, network, namespaces and cgroup; of a pod that is not set up, what is left. Its
// containers must be gone. UID and, unless it is the default, CgroupParent are all that it needs to know.
func (r *Runtime) TearDownPod(ctx context.Context, p PodConfig) error {
	if err := checkUID(p.UID); err != nil {
		return err
	}
	defer r.network.pods.lock(p.UID)()
	if p.hasReaper() || slices.Contains(r.known.reapers(), p.UID) {
		if err := r.removeReaper(ctx, p.UID); err != nil {
			return err
		}
	}
	if err := r.endShim(ctx, p.UID); err != nil {
		return err
	}
	if err := r.detach(ctx, p.UID); err != nil {
		return fmt.Errorf("cannot remove the pod's network: %w", r.cniError(err))
	}
	if err := r.removeNamespaces(p.UID); err != nil {
		return err
	}
	if p.CgroupParent == "" {
		p.CgroupParent = "/picket/pod" + p.UID
	}
	return r.removePodCgroup(ctx, p.cgroupParent())
}

// attach gives the pod its interface. One that has it is left alone.
func (r *Runtime) attach(ctx context.Context, p PodConfig) (types.Result, error) {
	if result, err := r.attached(p.UID); result != nil || err != nil {
		return result, err
	}
	lists, err := r.cniLists()
	if err != nil {
		return nil, err
	}
	return r.add(ctx, lists.attach, r.runtimeConf(p))
}

// attached is what the pod got when it was attached, nil when it is not.
func (r *Runtime) attached(podUID string) (types.Result, error) {
	a, err := r.attachment(podUID, false)
	if a == nil || err != nil {
		return nil, err
	}
	return r.resultOf(a)
}

func (r *Runtime) resultOf(a *libcni.NetworkAttachment) (types.Result, error) {
	list, err := libcni.NetworkConfFromBytes(a.Config)
	if err != nil {
		return nil, fmt.Errorf("cannot read what is remembered of network %s: %w", a.Network, err)
	}
	return r.network.cni.GetNetworkListCachedResult(list, &libcni.RuntimeConf{ContainerID: a.ContainerID, IfName: a.IfName})
}

// attachment is what libcni remembers of a pod: of its interface, or of its published ports. nil is nothing.
func (r *Runtime) attachment(podUID string, ports bool) (*libcni.NetworkAttachment, error) {
	list, err := r.network.cni.GetCachedAttachments(podUID)
	if err != nil {
		return nil, err
	}
	for _, a := range list {
		if strings.HasSuffix(a.Network, portsSuffix) == ports {
			return a, nil
		}
	}
	return nil, nil
}

// publishPorts makes the host's ports lead to the pod: to be called when no other pod holds them any more. What was published
// stays as it is.
func (r *Runtime) publishPorts(ctx context.Context, p PodConfig, attached types.Result) error {
	if len(p.Ports) == 0 {
		return nil
	}
	if a, err := r.attachment(p.UID, true); a != nil || err != nil {
		return err
	}
	lists, err := r.cniLists()
	if err != nil || lists.ports == nil {
		return err
	}
	list, err := after(lists.ports, attached)
	if err != nil {
		return err
	}
	if err := r.takePorts(p); err != nil {
		return err
	}
	_, err = r.add(ctx, list, r.runtimeConf(p))
	return err
}

// takePorts notes that the pod's ports may be published from now on: libcni remembers only what succeeded, and we may end in
// between. What another pod has published is refused: the kernel would send everything to that one, and nobody would be told.
func (r *Runtime) takePorts(p PodConfig) error {
	r.network.publishing.Lock()
	defer r.network.publishing.Unlock()
	uids, err := r.PodUIDs(context.Background())
	if err != nil {
		return err
	}
	for _, uid := range uids {
		theirs, err := r.notedPorts(uid)
		if err != nil || uid == p.UID {
			continue // unreadable notes are reported when they are used
		}
		if port, taken := firstCommon(portMappings(p.Ports), theirs); taken {
			return fmt.Errorf("host port %d/%s is taken by another pod of this host (uid %s)", port.HostPort, port.Protocol, uid)
		}
	}
	note, err := json.Marshal(portMappings(p.Ports))
	if err != nil {
		return fmt.Errorf("cannot encode ports: %w", err)
	}
	if err := os.WriteFile(r.portsNote(p.UID), note, 0o600); err != nil {
		return fmt.Errorf("cannot note which ports are published: %w", err)
	}
	return nil
}

// firstCommon finds a port of ours that is one of theirs, too.
func firstCommon(ours, theirs []portMapping) (portMapping, bool) {
	for _, o := range ours {
		for _, t := range theirs {
			sameAddress := o.HostIP == t.HostIP || o.HostIP == "" || t.HostIP == ""
			if o.HostPort == t.HostPort && o.Protocol == t.Protocol && sameAddress {
				return o, true
			}
		}
	}
	return portMapping{}, false
}

// notedPorts are those that a pod may have published; none when there is no note.
func (r *Runtime) notedPorts(podUID string) (ports []portMapping, err error) {
	data, err := os.ReadFile(r.portsNote(podUID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &ports)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read which ports a pod may have published: %w", err)
	}
	return ports, nil
}

// portsNote is a file that says which ports may be published, as long as any may.
func (r *Runtime) portsNote(podUID string) string {
	return filepath.Join(r.podsDir(), podUID, "ports")
}

// add runs a list's plugins. What they did before one of them failed is undone.
func (r *Runtime) add(ctx context.Context, list *libcni.NetworkConfigList, conf *libcni.RuntimeConf) (types.Result, error) {
	if err := r.checkPlugins(list); err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, cniTimeout)
	defer cancel()
	result, err := r.network.cni.AddNetworkList(bounded, list, conf)
	if err == nil {
		return result, nil
	}
	if undoErr := r.del(ctx, list, conf); undoErr != nil {
		r.log.Warn("cannot undo what is left of a pod's network", "pod", conf.ContainerID, "error", undoErr)
	}
	return nil, err
}

// del undoes a list. It is not cut short when the caller is: half of it is worse than none.
func (r *Runtime) del(ctx context.Context, list *libcni.NetworkConfigList, conf *libcni.RuntimeConf) error {
	if err := r.checkPlugins(list); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cniTimeout)
	defer cancel()
	return r.network.cni.DelNetworkList(ctx, list, conf)
}

// runtimeConf is what plugins are told about a pod, with the names that those made for Kubernetes know.
func (r *Runtime) runtimeConf(p PodConfig) *libcni.RuntimeConf {
	netns, _, _, _ := r.namespacePaths(p.UID)
	conf := &libcni.RuntimeConf{ContainerID: p.UID, NetNS: netns, IfName: podInterface, Args: [][2]string{
		{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", p.Namespace}, {"K8S_POD_NAME", p.Name}, {"K8S_POD_INFRA_CONTAINER_ID", p.UID}, {"K8S_POD_UID", p.UID},
	}}
	if len(p.Ports) > 0 {
		conf.CapabilityArgs = map[string]any{portMappingsArg: portMappings(p.Ports)}
	}
	return conf
}

// portMapping is a port in portmap's terms.
type portMapping struct {
	HostPort      int32  `json:"hostPort"`
	ContainerPort int32  `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

func portMappings(ports []PortMapping) []portMapping {
	var list []portMapping
	for _, p := range ports {
		if ip := net.ParseIP(p.HostIP); ip != nil && ip.IsUnspecified() {
			p.HostIP = "" // all of the host's
		}
		list = append(list, portMapping{p.HostPort, p.ContainerPort, p.Protocol, p.HostIP})
	}
	return list
}

// addressesIn returns the pod's addresses, without their networks' lengths.
func addressesIn(result types.Result) []string {
	converted, err := cni.NewResultFromResult(result)
	if err != nil {
		return nil
	}
	var list []string
	for _, ip := range converted.IPs {
		list = append(list, ip.Address.IP.String())
	}
	return list
}
