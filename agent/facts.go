package agent

import (
	"bufio"
	"bytes"
	"net"
	"os"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// hostFacts are what a Node's status says of the machine; they do not change while the agent runs.
type hostFacts struct {
	os, arch, kernel, osImage  string
	machineID, bootID, sysUUID string
	capacity                   corev1.ResourceList
}

// podCapacity is the kubelet's default; a DaemonSet is not held back by it.
const podCapacity = 110

// readHostFacts asks the kernel and /etc. What cannot be read stays empty: nothing depends on it but what users see.
func readHostFacts(dataDir string) hostFacts {
	f := hostFacts{os: goruntime.GOOS, arch: goruntime.GOARCH}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		f.kernel = unix.ByteSliceToString(uts.Release[:])
	}
	f.osImage = osReleaseName("/etc/os-release")
	f.machineID = firstLine("/etc/machine-id")
	f.bootID = firstLine("/proc/sys/kernel/random/boot_id")
	f.sysUUID = firstLine("/sys/class/dmi/id/product_uuid")
	f.capacity = corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewQuantity(int64(goruntime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(memoryTotal("/proc/meminfo"), resource.BinarySI),
		corev1.ResourcePods:   *resource.NewQuantity(podCapacity, resource.DecimalSI),
	}
	var fs unix.Statfs_t
	if unix.Statfs(dataDir, &fs) == nil {
		size := int64(fs.Blocks) * fs.Bsize
		f.capacity[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(size, resource.BinarySI)
	}
	return f
}

// info is what is known without containerd; version is picketd's.
func (f hostFacts) info(version string) corev1.NodeSystemInfo {
	return corev1.NodeSystemInfo{
		MachineID: f.machineID, SystemUUID: f.sysUUID, BootID: f.bootID, KernelVersion: f.kernel, OSImage: f.osImage,
		KubeletVersion: version, OperatingSystem: f.os, Architecture: f.arch,
	}
}

// hostname is the kernel's: what pods with hostNetwork see.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}

func firstLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line)
}

func osReleaseName(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return ""
}

// memoryTotal is in bytes.
func memoryTotal(path string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	s := bufio.NewScanner(bytes.NewReader(b))
	for s.Scan() {
		fields := strings.Fields(s.Text())
		if len(fields) >= 2 && fields[0] == "MemTotal:" {
			kb, _ := strconv.ParseInt(fields[1], 10, 64)
			return kb << 10
		}
	}
	return 0
}

// hostAddresses are the addresses under which this host is reached: the advertised one, else the one the kernel would use to reach
// the first host of join, else the outside, else the first global one, else loopback.
func hostAddresses(advertise string, join []string) []string {
	if host, _, err := net.SplitHostPort(advertise); err == nil && host != "" {
		return []string{host}
	}
	for _, seed := range append(slices.Clone(join), "192.0.2.1:9") {
		if address := sourceTowards(strings.TrimPrefix(seed, "dns+")); address != "" {
			return []string{address}
		}
	}
	addresses, _ := net.InterfaceAddrs()
	for _, a := range addresses {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() {
			return []string{ip.IP.String()}
		}
	}
	return []string{"127.0.0.1"}
}

// sourceTowards is the address from which this host would send there; "" when there is no way. Connecting a UDP socket sends
// nothing; it only asks the routing table, and the resolver where a name is given.
func sourceTowards(hostPort string) string {
	c, err := net.DialTimeout("udp", hostPort, lookUpWithin)
	if err != nil {
		return ""
	}
	defer c.Close()
	if a, ok := c.LocalAddr().(*net.UDPAddr); ok && !a.IP.IsUnspecified() {
		return a.IP.String()
	}
	return ""
}

// lookUpWithin bounds what a resolver may take while the agent starts.
const lookUpWithin = 2 * time.Second
