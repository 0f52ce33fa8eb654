package agent

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/pkg/cap"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubectl/pkg/util/qos"

	"github.com/picketd/picket/agent/manifest"
	"github.com/picketd/picket/runtime/runtimetest"
)

// given holds what a container was given against what its manifest says. It is read from outside, from the kernel's files about the
// container's process; what is expected is worked out here from Kubernetes' documentation, not with package pod.
type given struct {
	pid       int
	pod       *corev1.Pod // from the API: name, uid, addresses
	node      *corev1.Node
	spec      *corev1.PodSpec // from the manifest
	container *corev1.Container
	objects   []manifest.Object // ConfigMaps and Secrets

	checks int
	faults []string
}

// look checks everything but what the container answers on its ports.
func (g *given) look() {
	g.runs()
	g.process()
	g.user()
	g.capabilities()
	g.cgroup()
	g.namespaces()
	g.names()
	g.mounts()
}

// expect is one check.
func (g *given) expect(what string, got, want any) {
	g.checks++
	if got := fmt.Sprint(got); got != fmt.Sprint(want) {
		g.faults = append(g.faults, fmt.Sprintf("%s is %s, want %v", what, got, want))
	}
}

func (g *given) must(what string, ok bool) {
	g.checks++
	if !ok {
		g.faults = append(g.faults, what)
	}
}

// proc reads one of the kernel's files about the process.
func (g *given) proc(name string) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", g.pid, name))
	if err != nil {
		g.faults = append(g.faults, err.Error())
	}
	return string(data)
}

// inside is where a path of the container is found from outside.
func (g *given) inside(path string) string {
	return fmt.Sprintf("/proc/%d/root%s", g.pid, filepath.Join("/", path))
}

// status is a line of /proc/PID/status.
func (g *given) status(key string) string {
	for line := range strings.Lines(g.proc("status")) {
		if k, value, _ := strings.Cut(line, ":"); k == key {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	return ""
}

func zeroSeparated(text string) []string {
	return strings.Split(strings.TrimSuffix(text, "\x00"), "\x00")
}

// process checks command line, environment and working directory.
func (g *given) process() {
	env := g.environment()
	command := g.container.Command
	if len(command) == 0 {
		command = []string{runtimetest.StandInPath}
	}
	want := []string{}
	for _, arg := range slices.Concat(command, g.container.Args) {
		want = append(want, expandVariables(arg, env))
	}
	g.expect("command line", strings.Join(zeroSeparated(g.proc("cmdline")), "|"), strings.Join(want, "|"))
	g.checkEnvironment(env)
	cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", g.pid))
	g.expect("working directory", cwd, filepath.Join("/", g.container.WorkingDir))
}

func (g *given) checkEnvironment(env map[string]string) {
	got := map[string]string{}
	for _, e := range zeroSeparated(g.proc("environ")) {
		name, value, _ := strings.Cut(e, "=")
		got[name] = value
	}
	for name, value := range env {
		have, ok := got[name]
		g.must("variable "+name+" is not set", ok)
		g.expect("variable "+name, have, value)
		delete(got, name)
	}
	const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" // the image's
	for name, value := range map[string]string{"HOSTNAME": g.hostname(), "PATH": path, "HOME": "/"} {
		if _, own := env[name]; !own {
			g.expect("variable "+name, got[name], value)
			delete(got, name)
		}
	}
	g.expect("further variables", got, map[string]string{})
}

func (g *given) podContext() *corev1.PodSecurityContext {
	if g.spec.SecurityContext != nil {
		return g.spec.SecurityContext
	}
	return &corev1.PodSecurityContext{}
}

func (g *given) context() *corev1.SecurityContext {
	if g.container.SecurityContext != nil {
		return g.container.SecurityContext
	}
	return &corev1.SecurityContext{}
}

func (g *given) privileged() bool { return isSet(g.context().Privileged) }

func isSet(b *bool) bool { return b != nil && *b }

// firstOf is the first that is set, else zero.
func firstOf[T any](pointers ...*T) (value T) {
	for _, p := range pointers {
		if p != nil {
			return *p
		}
	}
	return value
}

// user checks ids, no_new_privs, seccomp and the order of out-of-memory kills.
func (g *given) user() {
	uid, gid := firstOf(g.context().RunAsUser, g.podContext().RunAsUser), firstOf(g.context().RunAsGroup, g.podContext().RunAsGroup)
	g.expect("uid", g.status("Uid"), strings.TrimSpace(strings.Repeat(fmt.Sprint(uid)+" ", 4)))
	g.expect("gid", g.status("Gid"), strings.TrimSpace(strings.Repeat(fmt.Sprint(gid)+" ", 4)))
	groups := append(slices.Clone(g.podContext().SupplementalGroups), gid)
	if g.podContext().FSGroup != nil {
		groups = append(groups, *g.podContext().FSGroup)
	}
	slices.Sort(groups)
	g.expect("groups", g.status("Groups"), strings.Trim(fmt.Sprint(slices.Compact(groups)), "[]"))
	escalation := g.context().AllowPrivilegeEscalation
	g.expect("no_new_privs", g.status("NoNewPrivs"), oneIf(escalation != nil && !*escalation))
	seccomp, profile := "0", g.context().SeccompProfile
	if profile == nil {
		profile = g.podContext().SeccompProfile
	}
	if profile != nil && profile.Type == corev1.SeccompProfileTypeRuntimeDefault && !g.privileged() {
		seccomp = "2"
	}
	g.expect("seccomp mode", g.status("Seccomp"), seccomp)
	g.expect("oom_score_adj", strings.TrimSpace(g.proc("oom_score_adj")), g.oomScore())
}

func oneIf(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// oomScore is the kubelet's, or the lowest that this machine may give.
func (g *given) oomScore() (score int) {
	class := qos.ComputePodQOS(g.pod)
	switch {
	case class == corev1.PodQOSGuaranteed || g.spec.PriorityClassName == "system-node-critical":
		score = -997
	case class == corev1.PodQOSBestEffort:
		score = 1000
	default:
		request, ok := g.container.Resources.Requests[corev1.ResourceMemory]
		if !ok {
			request = g.container.Resources.Limits[corev1.ResourceMemory]
		}
		capacity := g.node.Status.Capacity[corev1.ResourceMemory]
		score = min(max(int(1000-1000*request.Value()/capacity.Value()), 3), 999)
	}
	if own, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil && !ownCapabilities()["CAP_SYS_RESOURCE"] {
		lowest, _ := strconv.Atoi(strings.TrimSpace(string(own)))
		score = max(score, lowest)
	}
	return score
}

func ownCapabilities() map[string]bool {
	own := map[string]bool{}
	have, _ := cap.Current()
	for _, c := range have {
		own[c] = true
	}
	return own
}

// usualCapabilities are what a container has that says nothing.
var usualCapabilities = strings.Fields(`CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE
	SYS_CHROOT KILL AUDIT_WRITE`)

// capabilities checks what root may do in the container; nobody else may do anything. No container has what this machine lacks.
func (g *given) capabilities() {
	want := map[string]bool{}
	for _, c := range usualCapabilities {
		want["CAP_"+c] = true
	}
	spell := func(c corev1.Capability) string {
		return "CAP_" + strings.TrimPrefix(strings.ToUpper(string(c)), "CAP_")
	}
	if c := g.context().Capabilities; c != nil {
		if slices.ContainsFunc(c.Drop, func(c corev1.Capability) bool { return spell(c) == "CAP_ALL" }) {
			clear(want)
		}
		for _, name := range c.Add {
			want[spell(name)] = true
		}
		for _, name := range c.Drop {
			delete(want, spell(name))
		}
	}
	own := ownCapabilities()
	if g.privileged() || want["CAP_ALL"] {
		want = own
	}
	var bits uint64
	for i, name := range cap.Known() {
		if want[name] && own[name] {
			bits |= 1 << i
		}
	}
	mask := fmt.Sprintf("%016x", bits)
	g.expect("bounding capabilities", g.status("CapBnd"), mask)
	if uid := firstOf(g.context().RunAsUser, g.podContext().RunAsUser); uid != 0 {
		mask = fmt.Sprintf("%016x", 0)
	}
	g.expect("effective capabilities", g.status("CapEff"), mask)
	g.expect("permitted capabilities", g.status("CapPrm"), mask)
}

// cgroup checks limits and, on cgroup v1, the share of the CPU and the devices.
func (g *given) cgroup() {
	limits, requests := g.container.Resources.Limits, g.container.Resources.Requests
	memory, quota := "none", "none"
	if m := limits.Memory().Value(); m > 0 {
		memory = fmt.Sprint(m / int64(os.Getpagesize()) * int64(os.Getpagesize()))
	}
	if milli := limits.Cpu().MilliValue(); milli > 0 {
		quota = fmt.Sprint(max(1000, milli*100))
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		g.expect("memory limit", strings.Replace(g.cgroupFile("", "memory.max"), "max", "none", 1), memory)
		g.expect("CPU quota", strings.Fields(strings.Replace(g.cgroupFile("", "cpu.max"), "max", "none", 1))[0], quota)
		return
	}
	got := g.cgroupFile("memory", "memory.limit_in_bytes")
	if n, err := strconv.ParseInt(got, 10, 64); err == nil && n > math.MaxInt64-(1<<20) {
		got = "none"
	}
	g.expect("memory limit", got, memory)
	g.expect("CPU quota", strings.Replace(g.cgroupFile("cpu", "cpu.cfs_quota_us"), "-1", "none", 1), quota)
	cpu, ok := requests[corev1.ResourceCPU]
	if !ok {
		cpu = limits[corev1.ResourceCPU]
	}
	g.expect("CPU shares", g.cgroupFile("cpu", "cpu.shares"), max(2, cpu.MilliValue()*1024/1000))
	g.expect("all devices allowed", strings.HasPrefix(g.cgroupFile("devices", "devices.list"), "a *:* rwm"), g.privileged())
}

// cgroupFile reads a file of the process's cgroup; controller is empty for version 2.
func (g *given) cgroupFile(controller, file string) string {
	for line := range strings.Lines(g.proc("cgroup")) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if slices.Contains(strings.Split(part[1], ","), controller) {
			data, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", controller, part[2], file))
			if err != nil {
				return err.Error()
			}
			return strings.TrimSpace(string(data))
		}
	}
	return "in no cgroup"
}

// namespaces checks which are the host's.
func (g *given) namespaces() {
	for name, host := range map[string]bool{
		"net": g.spec.HostNetwork, "uts": g.spec.HostNetwork, "ipc": g.spec.HostIPC, "pid": g.spec.HostPID, "mnt": false,
	} {
		own, _ := os.Readlink("/proc/self/ns/" + name)
		got, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", g.pid, name))
		g.must(fmt.Sprintf("namespace %s: the host's %v", name, own == got), got != "" && (own == got) == host)
	}
}

func (g *given) hostname() string {
	switch {
	case g.spec.HostNetwork:
		return runtimetest.MachineName
	case g.spec.Hostname != "":
		return g.spec.Hostname
	}
	return strings.TrimRight(g.pod.Name[:min(63, len(g.pod.Name))], "-.")
}

// names checks host name, /etc/hosts and /etc/resolv.conf.
func (g *given) names() {
	g.expect("host name", g.uname(), g.hostname())
	g.expect("/etc/hostname", strings.TrimSpace(g.proc("root/etc/hostname")), g.hostname())
	hosts := g.proc("root/etc/hosts")
	if g.spec.HostNetwork {
		host, _ := os.ReadFile("/etc/hosts")
		g.must("/etc/hosts lacks the host's", strings.Contains(hosts, string(host)))
	} else {
		g.must("/etc/hosts lacks the pod", strings.Contains(hosts, g.pod.Status.PodIP+"\t"+g.hostname()+"\n"))
	}
	for _, alias := range g.spec.HostAliases {
		g.must("/etc/hosts lacks an alias", strings.Contains(hosts, alias.IP+"\t"+strings.Join(alias.Hostnames, "\t")+"\n"))
	}
	if host, _ := os.ReadFile("/etc/resolv.conf"); g.spec.DNSConfig == nil && g.spec.DNSPolicy != corev1.DNSNone {
		g.expect("name servers", nameservers(g.proc("root/etc/resolv.conf")), nameservers(string(host)))
	}
}

func nameservers(text string) (list []string) {
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "nameserver" {
			list = append(list, fields[1])
		}
	}
	return list
}

// uname is the host name in the process's UTS namespace.
func (g *given) uname() string {
	out, err := exec.Command("nsenter", "--target", strconv.Itoa(g.pid), "--uts", "uname", "-n").CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// runs waits for the stand-in's line in the container's log, where what looks in /var/log/containers finds it: then the process is the
// stand-in, and takes signals.
func (g *given) runs() {
	link := fmt.Sprintf("/var/log/containers/%s_%s_%s-%s.log", g.pod.Name, g.pod.Namespace, g.container.Name, strings.Repeat("[0-9a-f]", 64))
	text, target := "", ""
	const line = " stdout F standin for "
	for end := time.Now().Add(30 * time.Second); !strings.Contains(text, line) && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if found, _ := filepath.Glob(link); len(found) == 1 {
			data, _ := os.ReadFile(found[0])
			text = string(data)
			target, _ = filepath.EvalSymlinks(found[0])
		}
	}
	g.must("the log lacks the container's line", strings.Contains(text, line))
	g.expect("log", target, fmt.Sprintf("/var/log/pods/%s_%s_%s/%s/0.log", g.pod.Namespace, g.pod.Name, g.pod.UID, g.container.Name))
}
