package agent

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/picketd/picket/agent/manifest"
	"github.com/picketd/picket/runtime/runtimetest"
)

// What a container was given, continued: variables, volumes and ports.

// reference finds $(NAME) and $$.
var variableReference = regexp.MustCompile(`\$\$|\$\([^)]*\)`)

// expandVariables leaves alone what is not known.
func expandVariables(text string, env map[string]string) string {
	return variableReference.ReplaceAllStringFunc(text, func(ref string) string {
		if ref == "$$" {
			return "$"
		}
		if value, ok := env[ref[2:len(ref)-1]]; ok {
			return value
		}
		return ref
	})
}

// environment are the variables that the manifest gives the container.
func (g *given) environment() map[string]string {
	env := map[string]string{}
	for _, from := range g.container.EnvFrom {
		var data map[string]string
		if from.ConfigMapRef != nil {
			data = g.data(manifest.KindConfigMap, from.ConfigMapRef.Name)
		}
		if from.SecretRef != nil {
			data = g.data(manifest.KindSecret, from.SecretRef.Name)
		}
		for key, value := range data {
			env[from.Prefix+key] = value
		}
	}
	for _, v := range g.container.Env {
		if v.ValueFrom == nil {
			env[v.Name] = expandVariables(v.Value, env)
		} else if value, ok := g.valueFrom(v.ValueFrom); ok {
			env[v.Name] = value
		}
	}
	return env
}

func (g *given) valueFrom(from *corev1.EnvVarSource) (value string, ok bool) {
	switch {
	case from.ConfigMapKeyRef != nil:
		value, ok = g.data(manifest.KindConfigMap, from.ConfigMapKeyRef.Name)[from.ConfigMapKeyRef.Key]
	case from.SecretKeyRef != nil:
		value, ok = g.data(manifest.KindSecret, from.SecretKeyRef.Name)[from.SecretKeyRef.Key]
	case from.ResourceFieldRef != nil:
		value, ok = g.resource(from.ResourceFieldRef), true
	default:
		value, ok = g.field(from.FieldRef.FieldPath), true
	}
	return value, ok
}

// data is what a ConfigMap or Secret holds; nothing when it is not there.
func (g *given) data(kind, name string) map[string]string {
	data := map[string]string{}
	for _, obj := range g.objects {
		if ref := manifest.RefOf(obj); ref.Kind != kind || ref.Name != name || ref.Namespace != g.pod.Namespace {
			continue
		}
		switch o := obj.(type) {
		case *corev1.ConfigMap:
			maps.Copy(data, o.Data)
		case *corev1.Secret:
			for key, value := range o.Data {
				data[key] = string(value)
			}
			maps.Copy(data, o.StringData)
		}
	}
	return data
}

// mapField is metadata.labels['KEY'] or metadata.annotations['KEY'].
var mapField = regexp.MustCompile(`^metadata\.(labels|annotations)\['(.*)'\]$`)

func (g *given) field(path string) string {
	if m := mapField.FindStringSubmatch(path); m != nil {
		return map[string]map[string]string{"labels": g.pod.Labels, "annotations": g.pod.Annotations}[m[1]][m[2]]
	}
	podIP := g.pod.Status.PodIP
	if g.spec.HostNetwork {
		podIP = runtimetest.MachineAddress
	}
	value, known := map[string]string{
		"metadata.name": g.pod.Name, "metadata.namespace": g.pod.Namespace, "metadata.uid": string(g.pod.UID),
		"spec.nodeName": g.node.Name, "spec.serviceAccountName": g.serviceAccount(),
		"status.hostIP": runtimetest.MachineAddress, "status.podIP": podIP, "status.podIPs": podIP,
	}[path]
	g.must("field "+path+" is not known here", known)
	return value
}

func (g *given) serviceAccount() string {
	if g.spec.ServiceAccountName != "" {
		return g.spec.ServiceAccountName
	}
	return g.spec.DeprecatedServiceAccount
}

// resource is a limit of the container, or what the node has, in the divisor's unit.
func (g *given) resource(ref *corev1.ResourceFieldSelector) string {
	list, name, _ := strings.Cut(ref.Resource, ".")
	r := g.container.Resources
	value, ok := map[string]corev1.ResourceList{"limits": r.Limits, "requests": r.Requests}[list][corev1.ResourceName(name)]
	if !ok && list == "limits" {
		value = g.node.Status.Allocatable[corev1.ResourceName(name)]
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	return strconv.FormatInt((value.MilliValue()+divisor.MilliValue()-1)/divisor.MilliValue(), 10)
}

// mountPoint is a line of mountinfo.
type mountPoint struct {
	path, options, peers string
}

func (g *given) mountPoints() (list []mountPoint) {
	for lines := bufio.NewScanner(strings.NewReader(g.proc("mountinfo"))); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		separator := slices.Index(fields, "-")
		list = append(list, mountPoint{fields[4], fields[5], strings.Join(fields[6:separator], " ")})
	}
	return list
}

// mounts checks every volume, and that there is nothing else but what every container has.
func (g *given) mounts() {
	points := g.mountPoints()
	known := []string{"/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
	for _, m := range g.container.VolumeMounts {
		path := filepath.Join("/", m.MountPath)
		known = append(known, path)
		i := slices.IndexFunc(points, func(p mountPoint) bool { return p.path == path })
		g.must("nothing is mounted at "+path, i >= 0)
		if i < 0 {
			continue
		}
		for j, p := range points { // the last one counts
			if p.path == path {
				i = j
			}
		}
		g.expect(path+" is read-only", slices.Contains(strings.Split(points[i].options, ","), "ro"), m.ReadOnly)
		mode, peers := firstOf(m.MountPropagation), points[i].peers
		g.expect(path+" follows the host's mounts", strings.Contains(peers, "master:"), mode == corev1.MountPropagationHostToContainer)
		g.expect(path+" shares mounts with the host", strings.Contains(peers, "shared:"), mode == corev1.MountPropagationBidirectional)
		g.volume(&m)
	}
	for _, p := range points {
		below := slices.ContainsFunc(known, func(k string) bool { return p.path == k || strings.HasPrefix(p.path, strings.TrimSuffix(k, "/")+"/") })
		g.must("nobody asked for a mount at "+p.path, p.path == "/" || below)
		if p.path == "/" {
			g.expect("root is read-only", slices.Contains(strings.Split(p.options, ","), "ro"), isSet(g.context().ReadOnlyRootFilesystem))
		}
	}
	own := func(path string) bool {
		return slices.ContainsFunc(points, func(p mountPoint) bool { return p.path == path })
	}
	if !slices.Contains(known[6:], "/proc") {
		g.expect(secretOfKernel()+" is hidden", own(secretOfKernel()), !g.privileged())
		g.expect("/proc/sys is read-only", own("/proc/sys"), !g.privileged())
	}
	_, err := os.Stat(g.inside("/var/run/secrets/kubernetes.io/serviceaccount"))
	g.must("there is a service account's token, of no API", err != nil)
}

// secretOfKernel is a file that no container but a privileged one may see, and that this kernel has.
func secretOfKernel() string {
	for _, path := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return "/proc/kcore"
}

// volume checks what is found in a volume.
func (g *given) volume(m *corev1.VolumeMount) {
	i := slices.IndexFunc(g.spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
	v := &g.spec.Volumes[i]
	switch {
	case v.HostPath != nil:
		sub := expandVariables(m.SubPathExpr, g.environment()) + m.SubPath
		g.expect(m.MountPath+" is file", inode(g.inside(m.MountPath)), inode(filepath.Join(v.HostPath.Path, sub)))
	case v.ConfigMap != nil, v.Secret != nil, v.Projected != nil, v.DownwardAPI != nil:
		g.content(m, v)
	default:
		info, err := os.Stat(g.inside(m.MountPath))
		g.must("cannot look at emptyDir", err == nil)
		if err == nil && m.SubPath == "" {
			g.expect(m.MountPath+" has mode", info.Mode().Perm(), fs.FileMode(0o777))
		}
		memory := v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumMemory
		g.expect(m.MountPath+" is in memory", isTmpfs(g.inside(m.MountPath)), memory || isTmpfs("/m"))
	}
}

// inode is a file's device and number: the same for a file and what is mounted from it.
func inode(path string) string {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return err.Error()
	}
	return fmt.Sprint(st.Dev, ":", st.Ino)
}

func isTmpfs(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.TMPFS_MAGIC
}

// content checks files made of objects, and their modes.
func (g *given) content(m *corev1.VolumeMount, v *corev1.Volume) {
	want, modes := g.files(v)
	if m.SubPath != "" {
		data, err := os.ReadFile(g.inside(m.MountPath))
		g.must("cannot read "+m.MountPath, err == nil)
		g.expect("content of "+m.MountPath, string(data), want[m.SubPath])
		return
	}
	root := g.inside(m.MountPath)
	got := map[string]bool{}
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if name, _ := filepath.Rel(root, path); err == nil && !strings.HasPrefix(name, "..") && !d.IsDir() {
			got[name] = true
		}
		return nil
	})
	for name, content := range want {
		path := filepath.Join(root, name)
		data, err := os.ReadFile(path)
		g.must(fmt.Sprintf("%s: cannot read %s: %v", m.MountPath, name, err), err == nil)
		g.expect("content of "+name, string(data), content)
		if info, err := os.Stat(path); err == nil {
			mode := modes[name]
			if g.podContext().FSGroup != nil {
				mode |= 0o440
			}
			g.expect("mode of "+name, info.Mode().Perm(), mode)
		}
		top, _, _ := strings.Cut(name, "/")
		delete(got, top)
	}
	g.expect("further files in "+m.MountPath, got, map[string]bool{})
	if v.Secret != nil {
		g.must(m.MountPath+" is on the disk", isTmpfs(root))
	}
}

// files are a volume's files and their modes.
func (g *given) files(v *corev1.Volume) (content map[string]string, modes map[string]fs.FileMode) {
	content, modes = map[string]string{}, map[string]fs.FileMode{}
	add := func(data map[string]string, items []corev1.KeyToPath, mode *int32) {
		usual := fs.FileMode(0o644)
		if mode != nil {
			usual = fs.FileMode(*mode)
		}
		if len(items) == 0 {
			for key, value := range data {
				content[key], modes[key] = value, usual
			}
		}
		for _, item := range items {
			content[item.Path], modes[item.Path] = data[item.Key], usual
			if item.Mode != nil {
				modes[item.Path] = fs.FileMode(*item.Mode)
			}
		}
	}
	switch {
	case v.ConfigMap != nil:
		add(g.data(manifest.KindConfigMap, v.ConfigMap.Name), v.ConfigMap.Items, v.ConfigMap.DefaultMode)
	case v.Secret != nil:
		add(g.data(manifest.KindSecret, v.Secret.SecretName), v.Secret.Items, v.Secret.DefaultMode)
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if s.ConfigMap != nil {
				add(g.data(manifest.KindConfigMap, s.ConfigMap.Name), s.ConfigMap.Items, v.Projected.DefaultMode)
			}
			if s.Secret != nil {
				add(g.data(manifest.KindSecret, s.Secret.Name), s.Secret.Items, v.Projected.DefaultMode)
			}
		}
	}
	return content, modes
}

// answers asks the container at its ports: at the pod's address, and at the host's where the port is published.
func (g *given) answers() {
	address := g.pod.Status.PodIP
	if g.spec.HostNetwork {
		address = runtimetest.MachineAddress
	}
	for port, kind := range standInPorts(g.container) {
		g.ask(kind, address, port)
	}
	for _, p := range g.container.Ports {
		if p.HostPort > 0 {
			g.ask(standInPorts(g.container)[p.ContainerPort], runtimetest.MachineAddress, p.HostPort)
		}
	}
}

func (g *given) ask(kind, address string, port int32) {
	at := net.JoinHostPort(address, fmt.Sprint(port))
	var err error
	if kind == "udp" {
		err = askPacket(at)
	} else {
		err = askHTTP(kind + "://" + at + "/")
	}
	g.must(fmt.Sprintf("no answer at %s: %v", at, err), err == nil)
}

func askHTTP(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", answer.Status)
	}
	return nil
}

func askPacket(at string) error {
	conn, err := net.Dial("udp", at)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("?")); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}
