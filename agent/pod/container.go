package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/runtime"
)

// Labels on every container, by which a restarted agent finds, adopts and judges it.
const (
	LabelPodUID       = "picket.io/pod-uid"
	LabelPodName      = "picket.io/pod-name"
	LabelPodNamespace = "picket.io/pod-namespace"
	LabelContainer    = "picket.io/container"
	LabelAttempt      = "picket.io/attempt"
	LabelDaemonSet    = "picket.io/daemonset"
	LabelRevision     = "picket.io/revision"
)

// create makes everything a container needs on the host, then the container.
func (w *Worker) create(ctx context.Context, a action) error {
	f := w.facts(a.ips)
	if err := f.writeFiles(w.dir, etc); err != nil {
		return err
	}
	c, err := f.containerConfig(a)
	if err != nil {
		return err
	}
	if c.Mounts, err = w.mounts(f, a, c.Env); err != nil {
		return err
	}
	if w.cfg.PodLogs != "" {
		c.LogPath = w.logPath(a.name, a.attempt)
		if err := os.MkdirAll(filepath.Dir(c.LogPath), 0o755); err != nil {
			return fmt.Errorf("cannot make the container's log directory: %w", err)
		}
	}
	if err := w.cfg.Runtime.CreateContainer(ctx, c); err != nil {
		return err
	}
	w.linkLog(a)
	return nil
}

// remove removes an attempt's container and what create made for it. Its log is kept for one attempt more (logs --previous).
func (w *Worker) remove(ctx context.Context, a action) error {
	if err := w.cfg.Runtime.RemoveContainer(ctx, a.id); err != nil && !errors.Is(err, runtime.ErrNotFound) {
		return err
	}
	w.removeLogs(a)
	if err := os.Remove(w.messagePath(a.name, a.attempt)); err != nil && !errors.Is(err, os.ErrNotExist) {
		w.log.Warn("termination message stays behind", "error", err)
	}
	return removeTree(w.volumes(nil).subPaths(a.name, a.attempt))
}

// cleanUp removes the pod's volumes, files and logs.
func (w *Worker) cleanUp() error {
	w.files.Lock()
	w.removed = true
	w.files.Unlock()
	if err := removeTree(w.dir); err != nil {
		return err
	}
	return w.cfg.removeAllLogs(w.podLogDir())
}

// podConfig is what the pod's containers share.
func podConfig(pod *corev1.Pod, host Host) runtime.PodConfig {
	p := runtime.PodConfig{
		UID: string(pod.UID), Namespace: pod.Namespace, Name: pod.Name,
		HostNetwork: pod.Spec.HostNetwork, HostPID: pod.Spec.HostPID, HostIPC: pod.Spec.HostIPC,
		ShareProcessNamespace: isTrue(pod.Spec.ShareProcessNamespace),
		Hostname:              facts{pod: pod, host: host}.hostname(),
		CgroupParent:          "/picket/pod" + string(pod.UID),
		Resources:             podResources(pod),
	}
	if sc := pod.Spec.SecurityContext; sc != nil && len(sc.Sysctls) > 0 {
		p.Sysctls = map[string]string{}
		for _, s := range sc.Sysctls {
			p.Sysctls[s.Name] = s.Value
		}
	}
	if pod.Spec.HostNetwork {
		return p // what listens, listens on the host
	}
	sidecars := slices.DeleteFunc(slices.Clone(pod.Spec.InitContainers), func(c corev1.Container) bool { return initRole(&c) != roleSidecar })
	for _, c := range slices.Concat(sidecars, pod.Spec.Containers) {
		for _, port := range c.Ports {
			if port.HostPort > 0 {
				p.Ports = append(p.Ports, runtime.PortMapping{
					HostIP: port.HostIP, HostPort: port.HostPort, ContainerPort: port.ContainerPort,
					Protocol: protocol(port.Protocol),
				})
			}
		}
	}
	return p
}

func protocol(p corev1.Protocol) string {
	if p == "" {
		p = corev1.ProtocolTCP
	}
	return strings.ToLower(string(p))
}

// containerConfig translates a container; mounts and log come with what is made on the host.
func (f facts) containerConfig(a action) (runtime.ContainerConfig, error) {
	spec := a.container
	env, err := f.environment(spec)
	if err != nil {
		return runtime.ContainerConfig{}, err
	}
	sec, err := security(f.pod, spec, f.seccompDir)
	if err != nil {
		return runtime.ContainerConfig{}, err
	}
	c := runtime.ContainerConfig{
		ID: a.id, Pod: podConfig(f.pod, f.host), Name: spec.Name, Attempt: a.attempt, Labels: f.labels(a), Image: a.ref.Ref,
		Command: expandAll(spec.Command, env), Args: expandAll(spec.Args, env), WorkingDir: spec.WorkingDir,
		TTY: spec.TTY, Stdin: spec.Stdin,
		Resources: resources(f.pod, spec, f.host.Allocatable), Security: sec,
	}
	// HOSTNAME and TERM come first: the template may set them otherwise.
	c.Env = append(c.Env, "HOSTNAME="+f.hostname())
	if spec.TTY {
		c.Env = append(c.Env, "TERM=xterm")
	}
	c.Env = append(c.Env, env.list()...)
	return c, nil
}

func expandAll(list []string, env *environment) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		out = append(out, expand(s, env.lookup))
	}
	return out
}

func (f facts) labels(a action) map[string]string {
	l := map[string]string{
		LabelPodUID: string(f.pod.UID), LabelPodName: f.pod.Name, LabelPodNamespace: f.pod.Namespace,
		LabelContainer: a.name, LabelAttempt: strconv.Itoa(a.attempt),
	}
	for _, owner := range f.pod.OwnerReferences {
		if owner.Kind == "DaemonSet" {
			l[LabelDaemonSet] = owner.Name
		}
	}
	if revision := f.pod.Labels[appsv1.ControllerRevisionHashLabelKey]; revision != "" {
		l[LabelRevision] = revision
	}
	return l
}

// mounts are the container's volumes, then the files every container has, parents before what is mounted inside them.
func (w *Worker) mounts(f facts, a action, env []string) ([]runtime.Mount, error) {
	v := volumes{facts: f, dir: w.dir}
	var mounts []runtime.Mount
	for i := range a.container.VolumeMounts {
		m, err := v.volumeMount(a, i, env)
		if err != nil {
			return nil, fmt.Errorf("volumeMounts[%d]: %w", i, err)
		}
		mounts = append(mounts, m)
	}
	message, err := w.makeMessageFile(a)
	if err != nil {
		return nil, err
	}
	sc := a.container.SecurityContext
	readOnly := sc != nil && isTrue(sc.ReadOnlyRootFilesystem)
	for _, file := range []runtime.Mount{
		{Source: filepath.Join(w.dir, "etc-hosts"), Destination: "/etc/hosts"}, // writable, as a kubelet's is
		{Source: filepath.Join(w.dir, "resolv.conf"), Destination: "/etc/resolv.conf", ReadOnly: readOnly},
		{Source: filepath.Join(w.dir, "hostname"), Destination: "/etc/hostname", ReadOnly: readOnly},
		{Source: message, Destination: a.container.TerminationMessagePath},
	} {
		own := slices.ContainsFunc(mounts, func(m runtime.Mount) bool { return filepath.Clean(m.Destination) == file.Destination })
		if file.Source != "" && !own {
			mounts = append(mounts, file)
		}
	}
	slices.SortStableFunc(mounts, func(a, b runtime.Mount) int { return depth(a.Destination) - depth(b.Destination) })
	return mounts, nil
}

func depth(path string) int { return strings.Count(filepath.Clean(path), "/") }

// volumeMount translates one volumeMount.
func (v volumes) volumeMount(a action, index int, env []string) (runtime.Mount, error) {
	vm := a.container.VolumeMounts[index]
	volume := v.byName(vm.Name)
	if volume == nil {
		return runtime.Mount{}, configError("volume %q is not in the pod", vm.Name)
	}
	m := runtime.Mount{
		Source: v.path(volume), Destination: vm.MountPath, ReadOnly: vm.ReadOnly,
		RecursiveReadOnly: vm.RecursiveReadOnly != nil && *vm.RecursiveReadOnly != corev1.RecursiveReadOnlyDisabled,
		Propagation:       propagation(vm.MountPropagation), Options: vm.BindMountOptions,
	}
	if !filepath.IsAbs(m.Destination) {
		m.Destination = filepath.Join("/", m.Destination)
	}
	sub, err := subPath(vm, env)
	if err != nil || sub == "" {
		return m, err
	}
	m.Source, err = v.mountSubPath(m.Source, sub, a.name, a.attempt, index)
	return m, err
}

// subPath is the volumeMount's subPath; subPathExpr must resolve completely.
func subPath(vm corev1.VolumeMount, env []string) (string, error) {
	if vm.SubPathExpr == "" {
		return vm.SubPath, nil
	}
	missing := ""
	sub := expand(vm.SubPathExpr, func(name string) (string, bool) {
		for _, e := range slices.Backward(env) {
			if k, value, _ := strings.Cut(e, "="); k == name {
				return value, true
			}
		}
		missing = name
		return "", true
	})
	if missing != "" {
		return "", configError("subPathExpr %q: %s is not set in the container's env", vm.SubPathExpr, missing)
	}
	return sub, nil
}

func propagation(p *corev1.MountPropagationMode) string {
	if p != nil {
		switch *p {
		case corev1.MountPropagationHostToContainer:
			return "rslave"
		case corev1.MountPropagationBidirectional:
			return "rshared"
		}
	}
	return "private"
}
