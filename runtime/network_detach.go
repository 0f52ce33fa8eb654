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
	"strings"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sys/unix"
)

// detach undoes all that was done for a pod's network: by the configuration it was done with, which libcni remembers, and where
// it remembers nothing because we ended in the middle, by today's.
func (r *Runtime) detach(ctx context.Context, podUID string) error {
	path, _, _, _ := r.namespacePaths(podUID)
	attachments, err := r.network.cni.GetCachedAttachments(podUID)
	if err != nil || len(attachments) == 0 && !exists(path) {
		return err
	}
	if err := r.network.exec.take(ctx, r.cniLock()); err != nil {
		return err
	}
	// Only now is it known what an agent before this one has done.
	if attachments, err = r.network.cni.GetCachedAttachments(podUID); err != nil {
		return err
	}
	if isNamespace(path) != nil {
		path = "" // plugins take that for one that is gone
	}
	if err := r.unpublishPorts(ctx, podUID, path); err != nil {
		return err
	}
	for _, a := range attachments {
		if strings.HasSuffix(a.Network, portsSuffix) {
			continue
		}
		addresses := r.addressesOf(a)
		if err := r.delAttachment(ctx, a, path); err != nil {
			return err
		}
		if path == "" && bridgeExists(a) {
			r.delRulesOf(ctx, a, addresses)
		}
	}
	if len(attachments) > 0 {
		return nil
	}
	lists, err := r.cniLists()
	if err != nil { // by a configuration like this it was not attached
		r.log.Warn("cannot look for what is left of a pod's network", "pod", podUID, "error", err)
		return nil
	}
	return r.del(ctx, lists.attach, &libcni.RuntimeConf{ContainerID: podUID, NetNS: path, IfName: podInterface})
}

// unpublishPorts makes the host's ports free.
func (r *Runtime) unpublishPorts(ctx context.Context, podUID, path string) error {
	a, err := r.attachment(podUID, true)
	if err != nil {
		return err
	}
	if a != nil {
		err = r.delAttachment(ctx, a, path)
	} else {
		err = r.unpublishNoted(ctx, podUID, path)
	}
	if err != nil {
		return err
	}
	return removeFile(r.portsNote(podUID))
}

// unpublishNoted undoes a publishing that libcni does not remember: we ended in the middle of it.
func (r *Runtime) unpublishNoted(ctx context.Context, podUID, path string) error {
	ports, err := r.notedPorts(podUID)
	if err != nil {
		r.log.Warn("published ports may stay behind", "pod", podUID, "error", err)
	}
	if len(ports) == 0 {
		return nil
	}
	lists, err := r.cniLists()
	if err != nil || lists.ports == nil {
		return err
	}
	return r.del(ctx, lists.ports, &libcni.RuntimeConf{
		ContainerID: podUID, NetNS: path, IfName: podInterface, CapabilityArgs: map[string]any{portMappingsArg: ports},
	})
}

func (r *Runtime) delAttachment(ctx context.Context, a *libcni.NetworkAttachment, path string) error {
	list, err := libcni.NetworkConfFromBytes(a.Config)
	if err != nil {
		return fmt.Errorf("cannot read what is remembered of network %s: %w", a.Network, err)
	}
	return r.del(ctx, list, &libcni.RuntimeConf{
		ContainerID: a.ContainerID, NetNS: path, IfName: a.IfName, Args: a.CniArgs, CapabilityArgs: a.CapabilityArgs,
	})
}

// delRulesOf removes a lost pod's masquerading rules. The plugin makes one chain for addresses of both kinds, and cannot delete it
// before the last of their rules is gone: what fails on the way to that is no failure.
func (r *Runtime) delRulesOf(ctx context.Context, a *libcni.NetworkAttachment, addresses []string) {
	var err error
	for _, address := range addresses {
		err = r.delAsIfThere(ctx, a, address)
	}
	if err != nil {
		r.log.Warn("masquerading rules of a lost pod network stay", "pod", a.ContainerID, "error", err)
	}
}

// delAsIfThere removes what the bridge plugin leaves of a pod whose network namespace is gone: its masquerading rules, which it
// finds by the interface's address only. So the pod gets a namespace with that address once more, and that is detached.
func (r *Runtime) delAsIfThere(ctx context.Context, a *libcni.NetworkAttachment, address string) error {
	list, err := libcni.NetworkConfFromBytes(a.Config)
	if err != nil {
		return err
	}
	path, _, _, _ := r.namespacePaths(a.ContainerID)
	if err := r.mountPodsDir(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("cannot make the pod's directory: %w", err)
	}
	if err := onThreadOfItsOwn(func() error { return unshare([]namespace{{"net", unix.CLONE_NEWNET, path}}, "") }); err != nil {
		return err
	}
	conf := &libcni.RuntimeConf{ContainerID: a.ContainerID, NetNS: path, IfName: a.IfName, Args: append(a.CniArgs, [2]string{"IP", address})}
	_, err = r.add(ctx, list, conf)
	if err == nil {
		err = r.del(ctx, list, conf)
	}
	return errors.Join(err, unmount(path))
}

// bridgeExists says whether the attachment is to a bridge that is there: after a reboot it is not, and neither are its rules.
func bridgeExists(a *libcni.NetworkAttachment) bool {
	var conf struct {
		Plugins []struct{ Type, Bridge string }
	}
	if json.Unmarshal(a.Config, &conf) != nil || len(conf.Plugins) == 0 || conf.Plugins[0].Type != "bridge" {
		return false
	}
	_, err := net.InterfaceByName(conf.Plugins[0].Bridge)
	return err == nil
}

func (r *Runtime) addressesOf(a *libcni.NetworkAttachment) []string {
	result, err := r.resultOf(a)
	if result == nil || err != nil {
		return nil
	}
	return addressesIn(result)
}

// startAfresh clears away what a pod has of a network without being attached to it: from before a reboot, when its network
// namespace was still there, or of an agent that was killed while it attached the pod.
func (r *Runtime) startAfresh(ctx context.Context, podUID string) error {
	path, _, _, _ := r.namespacePaths(podUID)
	a, err := r.attachment(podUID, false)
	if err == nil && a != nil && isNamespace(path) == nil {
		return nil
	}
	if err == nil {
		err = r.detach(ctx, podUID)
	}
	if err != nil {
		return fmt.Errorf("cannot remove what is left of the pod's network: %w", r.cniError(err))
	}
	return nil
}

// giveBackLost gives back, once in an agent's life, the addresses and rules of pods whose network namespaces were lost in a
// reboot, and which may never be set up again. What fails is tried again with the next pod.
func (r *Runtime) giveBackLost(ctx context.Context, except string) {
	n := &r.network
	n.tidying.Lock()
	defer n.tidying.Unlock()
	if n.tidy {
		return
	}
	n.tidy = true
	for _, uid := range r.lostPods() {
		if uid == except {
			continue
		}
		if err := r.detach(ctx, uid); err != nil {
			r.log.Warn("cannot give back the network of a pod that is no more", "pod", uid, "error", err)
			n.tidy = false
		}
	}
	if err := r.giveBackLeases(ctx, except); err != nil {
		r.log.Warn("cannot give back addresses of pods that are no more", "error", err)
		n.tidy = false
	}
}

// lostPods are those of which libcni remembers something though their network namespace is gone.
func (r *Runtime) lostPods() []string {
	attachments, _ := r.network.cni.GetCachedAttachments("") // unreadable: detach says so
	seen := map[string]bool{}
	var lost []string
	for _, a := range attachments {
		path, _, _, _ := r.namespacePaths(a.ContainerID)
		if !seen[a.ContainerID] && isNamespace(path) != nil {
			seen[a.ContainerID] = true
			lost = append(lost, a.ContainerID)
		}
	}
	return lost
}

// giveBackLeases finds addresses that the host-local plugin gave to pods that nobody remembers.
func (r *Runtime) giveBackLeases(ctx context.Context, except string) error {
	lists, err := r.cniLists()
	if err != nil || !lists.builtin {
		return err
	}
	dir := filepath.Join(r.cniDir(), lists.attach.Name)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot list addresses: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if net.ParseIP(e.Name()) == nil {
			continue // its own notes
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot read who has an address: %w", err))
			continue
		}
		holder, _, _ := strings.Cut(strings.TrimSpace(string(data)), "\n")
		holder = strings.TrimSpace(holder)
		if path, _, _, _ := r.namespacePaths(holder); holder == except || checkUID(holder) != nil || isNamespace(path) == nil {
			continue
		}
		errs = append(errs, r.del(ctx, lists.attach, &libcni.RuntimeConf{ContainerID: holder, IfName: podInterface}))
	}
	return errors.Join(errs...)
}
