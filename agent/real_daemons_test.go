package agent

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/picketd/picket/agent/api/apitest"
	"github.com/picketd/picket/runtime/runtimetest"
)

// Four daemons that do their work, seen from outside: programs from Debian, in images under the names that the manifests ask for, and
// their projects' manifests from the corpus. The little that is changed in a manifest is in the test, as replacements of text.

// daemonHost is a host in a throw-away machine that has no CNI plugin yet.
type daemonHost struct {
	*realHost
	kubectl *apitest.Kubectl
}

func TestRealDaemons(t *testing.T) {
	if !inMachine(t) {
		return
	}
	if _, err := os.Stat(corpusDir); err != nil {
		t.Skipf("the corpus of real manifests is not here: %v", err)
	}
	packages, err := runtimetest.DebianDir()
	if err != nil {
		t.Fatal(err)
	}
	h := &daemonHost{realHost: newRealHost(t)}
	h.cfg.Runtime.PodLogs, h.cfg.Runtime.ContainerLogs = "/var/log/pods", "/var/log/containers"
	h.cfg.Runtime.CNIBin = []string{"/opt/cni/bin"}
	if err := shared.registry.WriteHosts(h.cfg.Runtime.HostsDir, "_default"); err != nil {
		t.Fatal(err)
	}
	h.push("registry.k8s.io/networking/kindnet:v1.0.1", cniInstaller(t))
	h.push("quay.io/prometheus/node-exporter:v1.9.1", nodeExporter(t, packages))
	h.push("alpine:20240606", runtimetest.Image{})
	h.push("fluent/fluentd-kubernetes-daemonset:v1-debian-syslog", logShipper(t, packages))
	h.start()
	h.kubectl = h.realHost.kubectl()
	t.Run("sysctl tuner", func(t *testing.T) { h.in(t).tunesSysctls() })
	t.Run("CNI plugin installer", func(t *testing.T) { h.in(t).installsPlugins() })
	t.Run("node_exporter", func(t *testing.T) { h.in(t).exportsMetrics() })
	t.Run("log shipper", func(t *testing.T) { h.in(t).shipsLogs() })
}

func (h *daemonHost) in(t *testing.T) *daemonHost {
	return &daemonHost{h.realHost.in(t), h.realHost.in(t).kubectl()}
}

func (h *daemonHost) push(name string, image runtimetest.Image) {
	h.t.Helper()
	content, err := image.Build()
	if err == nil {
		err = shared.registry.Push(name, content)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// apply applies the DaemonSet, and the ConfigMaps, of a file of the corpus, with replacements of what its user has to fill in.
func (h *daemonHost) apply(file string, replace ...string) {
	h.t.Helper()
	text := readFile(h.t, filepath.Join(corpusDir, file))
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			h.t.Fatalf("%s lacks %q", file, replace[i])
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	for document := range strings.SplitSeq(text, "\n---\n") {
		if regexp.MustCompile(`(?m)^kind: (DaemonSet|ConfigMap)$`).MatchString(document) {
			h.kubectl.Run(document, "apply", "-f", "-")
		}
	}
}

// tunesSysctls: the manifest sets a sysctl of the whole kernel, which is not ours to change; instead it sets one of the machine's
// network namespace, which its hostNetwork leads to. It goes on setting it.
func (h *daemonHost) tunesSysctls() {
	const sysctl = "/proc/sys/net/ipv4/tcp_keepalive_time"
	value := func() string { return strings.TrimSpace(readFile(h.t, sysctl)) }
	if value() == "600" {
		h.t.Fatal("it is 600 already")
	}
	h.apply("kubernetes__test-infra__config__prow__cluster__build__tune-sysctls_daemonset.yaml",
		"fs.inotify.max_user_watches=524288", "net.ipv4.tcp_keepalive_time=600", "sleep 10", "sleep 1")
	h.eventually("the sysctl is set", func() bool { return value() == "600" })
	if err := os.WriteFile(sysctl, []byte("7200"), 0o644); err != nil {
		h.t.Fatal(err)
	}
	h.eventually("it is set again", func() bool { return value() == "600" })
	if out := h.kubectl.Run("", "logs", "-n", "kube-system", "ds/tune-sysctls"); !strings.HasPrefix(out, "net.ipv4.tcp_keepalive_time = 600\n") {
		h.t.Errorf("its log: %q", out)
	}
}

// plugins are what the built-in network needs.
var plugins = []string{"bridge", "host-local", "loopback", "portmap"}

// cniInstaller has Debian's plugins where kindnet's image has its own.
func cniInstaller(t *testing.T) runtimetest.Image {
	program, err := runtimetest.StandInProgram()
	if err != nil {
		t.Fatal(err)
	}
	image := runtimetest.Image{Files: map[string]runtimetest.File{
		"/bin/kindnetd": {Content: program, Mode: 0o755}, "/standin.json": {Content: []byte("{}")},
	}}
	for _, name := range plugins {
		image.Files["/opt/cni/bin/"+name] = runtimetest.File{Content: debianPlugin(t, name), Mode: 0o644}
	}
	return image
}

func debianPlugin(t *testing.T, name string) []byte {
	for _, dir := range []string{"/usr/lib/cni", "/usr/libexec/cni"} {
		if content, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			return content
		}
	}
	t.Fatalf("cannot find CNI plugin %s (scripts/install-deps.sh installs it)", name)
	return nil
}

// installsPlugins: the host has no CNI plugin, and a pod waits for its network; when they are installed it gets one, by itself. Of the
// manifest, kindnet's as kOps renders it, the names of the plugins are changed: there are four, not one.
func (h *daemonHost) installsPlugins() {
	if err := os.RemoveAll("/opt/cni/bin"); err != nil {
		h.t.Fatal(err)
	}
	waiting := busyYAML("waiting", "sleep 1000000")
	h.kubectl.Run(waiting, "apply", "-f", "-")
	h.eventually("the pod says that it lacks a plugin", func() bool {
		return strings.Contains(h.kubectl.Run("", "get", "events", "-o", "jsonpath={.items[*].message}"), "/opt/cni/bin")
	})
	h.apply("kubernetes__kops__tests__integration__update_cluster__privatekindnet__data__aws_s3_object_privatekindnet.example.com-addons-networking.kindnet-k8s-1.32_content.yaml",
		"cat /opt/cni/bin/cni-kindnet > /cni/cni-kindnet ; chmod +x /cni/cni-kindnet",
		"for p in "+strings.Join(plugins, " ")+"; do cat /opt/cni/bin/$p > /cni/$p; chmod +x /cni/$p; done")
	h.kubectl.Run("", "rollout", "status", "-n", "kube-system", "ds/kindnet", "--timeout=60s")
	for _, name := range plugins {
		content, err := os.ReadFile(filepath.Join("/opt/cni/bin", name))
		if t, ok := h.t.(*testing.T); err != nil || ok && !bytes.Equal(content, debianPlugin(t, name)) {
			h.t.Errorf("%s: %v, %d bytes", name, err, len(content))
		}
	}
	h.kubectl.Run("", "rollout", "status", "ds/waiting", "--timeout=60s")
	ip := h.kubectl.Run("", "get", "pods", "-l", "app=waiting", "-o", "jsonpath={.items[0].status.podIP}")
	if !strings.HasPrefix(ip, strings.TrimSuffix(h.cfg.Runtime.PodCIDR, "0/24")) {
		h.t.Errorf("the pod's address is %q", ip)
	}
}

// busyYAML is a DaemonSet of busybox in the default namespace.
func busyYAML(name, script string) string {
	return fmt.Sprintf(`{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: %[1]s}, spec: {selector: {matchLabels: {app: %[1]s}},
  template: {metadata: {labels: {app: %[1]s}}, spec: {terminationGracePeriodSeconds: 0,
    containers: [{name: c, image: "busybox:1", command: [sh, -c, %[2]q]}]}}}}`, name, script)
}

func nodeExporter(t *testing.T, packages string) runtimetest.Image {
	files, err := runtimetest.Programs(packages, "/usr/bin/prometheus-node-exporter")
	if err != nil {
		t.Fatal(err)
	}
	return runtimetest.Image{Config: v1.Config{Entrypoint: []string{"/usr/bin/prometheus-node-exporter"}}, Base: files}
}

// exportsMetrics: the manifest of Prometheus' own Helm chart, unchanged. What is asked at the host's address is about the host, also a
// file system that is mounted when the daemon already runs, and its network.
func (h *daemonHost) exportsMetrics() {
	h.apply("open-telemetry__opentelemetry-helm-charts__charts__opentelemetry-kube-stack__examples__prometheus-otel__rendered__prometheus-node-exporter__daemonset.yaml")
	h.kubectl.Run("", "rollout", "status", "ds/example-prometheus-node-exporter", "--timeout=60s")
	const late = "/mnt/late" // the daemon is nobody, and must be able to go there
	if err := os.MkdirAll(late, 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := unix.Mount("late", late, "tmpfs", 0, "size=12345k"); err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(late, 0) }()
	answer, err := http.Get("http://" + runtimetest.MachineAddress + ":9100/metrics")
	if err != nil {
		h.t.Fatal(err)
	}
	defer answer.Body.Close()
	metrics := map[string]string{}
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if i := strings.LastIndexByte(lines.Text(), ' '); i > 0 {
			metrics[lines.Text()[:i]] = lines.Text()[i+1:]
		}
	}
	want := map[string]string{
		"node_memory_MemTotal_bytes":     fmt.Sprint(memoryTotal("/proc/meminfo")),
		`node_network_up{device="eth0"}`: "1",
		`node_filesystem_size_bytes{device="late",fstype="tmpfs",mountpoint="` + late + `"}`: fmt.Sprint(12345/4*4*1024 + 4096),
	}
	for name, value := range want {
		got, err := strconv.ParseFloat(metrics[name], 64)
		if wanted, _ := strconv.ParseFloat(value, 64); err != nil || got != wanted {
			h.t.Errorf("%s is %q, want %s", name, metrics[name], value)
		}
	}
	if !slices.ContainsFunc(slices.Collect(maps.Keys(metrics)), func(name string) bool {
		return strings.HasPrefix(name, "node_uname_info{") && strings.Contains(name, `nodename="`+runtimetest.MachineName+`"`)
	}) {
		h.t.Error("it does not know the host's name")
	}
}

// rsyslogConf is the image's: ship what appears in /var/log/containers to where the manifest's variables say.
const rsyslogConf = "global(workDirectory=\"/var\")\n" +
	"module(load=\"imfile\")\n" +
	"input(type=\"imfile\" file=\"/var/log/containers/*.log\" tag=\"k8s\" addMetadata=\"on\")\n" +
	"template(name=\"line\" type=\"string\" string=\"%$!metadata!filename% %msg%\\n\")\n" +
	"action(type=\"omfwd\" target=`echo $SYSLOG_HOST` port=`echo $SYSLOG_PORT` protocol=`echo $SYSLOG_PROTOCOL`\n" +
	"  template=\"line\" action.resumeRetryCount=\"-1\")\n"

func logShipper(t *testing.T, packages string) runtimetest.Image {
	patterns := []string{"/usr/sbin/rsyslogd"}
	for _, module := range []string{"imfile", "lmnet", "lmnetstrms", "lmnsd_ptcp", "lmtcpclt", "lmregexp", "lmzlibw"} {
		patterns = append(patterns, "/usr/lib/*/rsyslog/"+module+".so")
	}
	files, err := runtimetest.Programs(packages, patterns...)
	if err != nil {
		t.Fatal(err)
	}
	return runtimetest.Image{
		Config: v1.Config{Entrypoint: []string{"/usr/sbin/rsyslogd", "-n", "-i", "NONE", "-f", "/etc/rsyslog.conf"}}, Base: files,
		Files: map[string]runtimetest.File{"/etc/rsyslog.conf": {Content: []byte(rsyslogConf)}},
	}
}

// received is what came in on a TCP port, by line.
type received struct {
	mu    sync.Mutex
	lines []string
}

func (r *received) serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				r.mu.Lock()
				r.lines = append(r.lines, lines.Text())
				r.mu.Unlock()
			}
		}()
	}
}

// count is how often each number of "STREAM NUMBER" lines of a pod's log came in.
func (r *received) count(podName string) map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := map[string]int{}
	for _, line := range r.lines {
		file, rest, _ := strings.Cut(line, " ")
		if fields := strings.Fields(rest); strings.HasPrefix(filepath.Base(file), podName+"_") && len(fields) > 3 {
			counts[strings.Join(fields[len(fields)-3:], " ")]++
		}
	}
	return counts
}

// shipsLogs: the manifest is fluentd's own for syslog, with the address filled in, TCP for UDP so that nothing may be lost, and rsyslog in
// the image. It ships every line of what ran before it and of what starts later, once.
func (h *daemonHost) shipsLogs() {
	listener, err := net.Listen("tcp", runtimetest.MachineAddress+":0")
	if err != nil {
		h.t.Fatal(err)
	}
	defer listener.Close()
	in := &received{}
	go in.serve(listener)
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	const lines = 300
	script := fmt.Sprintf("i=1; while [ $i -le %d ]; do echo number $i; i=$((i+1)); done; sleep 1000000", lines)
	h.kubectl.Run(busyYAML("early", script), "apply", "-f", "-")
	h.kubectl.Run("", "rollout", "status", "ds/early", "--timeout=60s")
	h.apply("fluent__fluentd-kubernetes-daemonset__fluentd-daemonset-syslog.yaml",
		`value: "sysloghost"`, `value: "`+runtimetest.MachineAddress+`"`, `value: "514"`, `value: "`+port+`"`, `value: "udp"`, `value: "tcp"`)
	h.kubectl.Run("", "rollout", "status", "-n", "kube-system", "ds/fluentd", "--timeout=60s")
	h.kubectl.Run(busyYAML("late", script), "apply", "-f", "-")
	h.kubectl.Run("", "rollout", "status", "ds/late", "--timeout=60s")
	for _, name := range []string{"early", "late"} {
		podName := h.kubectl.Run("", "get", "pods", "-l", "app="+name, "-o", "jsonpath={.items[0].metadata.name}")
		h.eventually(name+"'s lines are shipped", func() bool { return len(in.count(podName)) == lines })
		for i := range lines {
			if n := in.count(podName)[fmt.Sprintf("F number %d", i+1)]; n != 1 {
				h.t.Errorf("%s: line %d came in %d times", name, i+1, n)
			}
		}
	}
}
