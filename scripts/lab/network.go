package lab

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/picketd/picket/runtime/runtimetest"
)

// Addresses in the wire's network, 10.213.x.0/24.
const (
	lastByteWire  = 1   // of the bridge, where the registry is
	lastByteHosts = 11  // of the first host
	lastByteHome  = 254 // of the namespace that the lab was made in
)

// plugWithin is how long the kernel may take to find out that a cable is plugged in.
const plugWithin = 20 * time.Second

func (l *Lab) netDir() string            { return filepath.Join(l.Dir, "net") }
func (l *Lab) wire() string              { return filepath.Join(l.netDir(), "wire") }
func (l *Lab) wireAddress() netip.Addr   { return l.address(lastByteWire) }
func (l *Lab) address(n byte) netip.Addr { return withLastByte(l.Network, n) }

func withLastByte(network netip.Prefix, n byte) netip.Addr {
	a := network.Addr().As4()
	a[3] = n
	return netip.AddrFrom4(a)
}

// lay makes the network namespaces, and in that of the wire the bridge and the link to the namespace we are in.
func (l *Lab) lay() error {
	if err := mountNamespaces(l.netDir()); err != nil {
		return err
	}
	if err := makeNamespace(l.wire()); err != nil {
		return err
	}
	if err := l.linkHome(); err != nil {
		return err
	}
	err := ip(l.wire(),
		"link set lo up",
		"link add wire type bridge stp_state 0 forward_delay 0",
		fmt.Sprintf("addr add %s/24 dev wire", l.wireAddress()),
		"link set wire up",
		"link set home master wire up")
	if err == nil {
		err = l.carries("home")
	}
	if err != nil {
		return fmt.Errorf("cannot make the wire: %w", err)
	}
	for _, h := range l.Hosts {
		h.Address = l.address(byte(lastByteHosts + h.index))
		if err := makeNamespace(h.Namespace); err != nil {
			return err
		}
	}
	return nil
}

// linkHome takes the first network that is free, seen from a number that is the directory's. The link's name belongs to the
// network, so that two labs that are made at the same moment do not take the same.
func (l *Lab) linkHome() error {
	sum := fnv.New32a()
	sum.Write([]byte(l.Dir))
	for i := range 256 {
		third := byte(int(sum.Sum32()) + i)
		l.Network = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 213, third, 0}), 24)
		if used, err := inUse(l.Network); err != nil {
			return err
		} else if used {
			continue
		}
		name := fmt.Sprintf("picket-lab-%d", third)
		if err := ip("", fmt.Sprintf("link add %s address %s type veth peer name home netns %s", name, homeMAC(l.Dir), l.wire())); err != nil {
			if _, there := net.InterfaceByName(name); there == nil {
				continue // another lab was faster
			}
			return fmt.Errorf("cannot link the lab to this machine: %w", err)
		}
		return ip("", fmt.Sprintf("addr add %s/24 dev %s", l.address(lastByteHome), name), fmt.Sprintf("link set %s up", name))
	}
	return errors.New("all of 10.213.0.0/16 is in use")
}

// inUse tells whether this machine has a route into a network, other than the default one.
func inUse(network netip.Prefix) (bool, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false, fmt.Errorf("cannot list this machine's addresses: %w", err)
	}
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Overlaps(network) {
			return true, nil
		}
	}
	out, err := exec.Command(tool("ip"), "-4", "route", "show", "to", "root", network.String()).Output()
	return len(bytes.TrimSpace(out)) > 0, err
}

// homeMAC is the address by which a lab's link is known for its own.
func homeMAC(dir string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(dir))
	return net.HardwareAddr(append([]byte{0x02}, sum[:5]...)) // 02: administered locally
}

// unlinkHome removes the link of the lab in dir from the namespace we are in, if it is there.
func unlinkHome(dir string) error {
	all, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("cannot list interfaces: %w", err)
	}
	var errs []error
	for _, i := range all {
		if strings.HasPrefix(i.Name, "picket-lab-") && bytes.Equal(i.HardwareAddr, homeMAC(dir)) {
			errs = append(errs, ip("", "link delete "+i.Name))
		}
	}
	return errors.Join(errs...)
}

// plug connects a host to the wire, with the same hardware address every time: the others remember it.
func (h *Host) plug() error {
	address := h.Address.As4()
	mac := net.HardwareAddr(append([]byte{0x02, 0}, address[:]...))
	err := ip(h.lab.wire(),
		fmt.Sprintf("link add %s type veth peer name eth0 address %s netns %s", h.Name, mac, h.Namespace),
		fmt.Sprintf("link set %s master wire up", h.Name))
	if err != nil {
		return fmt.Errorf("cannot plug in: %w", err)
	}
	if err := ip(h.Namespace, "link set lo up", fmt.Sprintf("addr add %s/24 dev eth0", h.Address), "link set eth0 up"); err != nil {
		return err
	}
	return h.lab.carries(h.Name)
}

// carries waits until the bridge passes on what comes from a link: the kernel thinks about it for a while after the link is up.
func (l *Lab) carries(link string) error {
	for deadline := time.Now().Add(plugWithin); ; time.Sleep(2 * time.Millisecond) {
		cmd := exec.Command(tool("ip"), "-details", "link", "show", "dev", link)
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := run(l.wire(), cmd); err != nil || bytes.Contains(out.Bytes(), []byte("state forwarding")) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the wire does not take up what comes from %s:\n%s", link, out.Bytes())
		}
	}
}

// renew gives a host that is not plugged in a network namespace as it is after a boot. What others do to its packets stays.
// Processes of others that are in the old one keep it.
func (h *Host) renew() error {
	h.filtering.Lock()
	defer h.filtering.Unlock()
	rules, err := h.rules()
	if err != nil {
		return err
	}
	if err := removeNamespace(h.Namespace); err != nil {
		return err
	}
	if err := makeNamespace(h.Namespace); err != nil {
		return err
	}
	return errors.Join(h.setRules(rules), h.applyLag())
}

// ip runs commands of iproute2's in a network namespace.
func ip(network string, commands ...string) error {
	cmd := exec.Command(tool("ip"), "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	return run(network, cmd)
}

// run runs a command to its end in a network namespace; what it says is in the error.
func run(network string, cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := runtimetest.InNetwork(network, cmd.Run); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd.Args[0], err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// tool finds a program that a user's $PATH may not have.
func tool(name string) string {
	for _, path := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	return name // and the error says so
}

// mountNamespaces makes the directory that network namespaces are mounted in. It is a file system of its own that cannot be bound
// elsewhere: a container with hostPath / would hold the namespaces of every host.
func mountNamespaces(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("picket-lab", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755,size=1m"); err != nil {
		return fmt.Errorf("cannot mount %s: %w", dir, err)
	}
	if err := unix.Mount("", dir, "", unix.MS_UNBINDABLE, ""); err != nil {
		return fmt.Errorf("cannot make %s unbindable: %w", dir, err)
	}
	return nil
}

// makeNamespace makes a network namespace and mounts it at path.
func makeNamespace(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o400)
	if err != nil {
		return err
	}
	f.Close()
	err = runtimetest.InNetwork("", func() error { // on a thread that ends
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
	if err != nil {
		return fmt.Errorf("cannot make a network namespace: %w", err)
	}
	return nil
}

func removeNamespace(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("cannot unmount %s: %w", path, err)
	}
	return os.Remove(path)
}
