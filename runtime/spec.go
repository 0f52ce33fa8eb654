package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// annotationGroup puts all containers of a pod into one shim. It is read from the spec, not from the container's labels.
const annotationGroup = "io.containerd.runc.v2.group"

// spec translates a container for runc, starting from containerd's default. It asks containerd nothing.
func (r *Runtime) spec(ctx context.Context, key string, c ContainerConfig, img *unpackedImage) (*oci.Spec, error) {
	s, err := oci.GenerateSpec(r.ctx(ctx), nil, &containers.Container{ID: key}, oci.WithoutRunMount)
	if err != nil {
		return nil, fmt.Errorf("cannot make the default spec: %w", err)
	}
	s.Annotations = map[string]string{annotationGroup: c.Pod.UID}
	if err := r.specProcess(ctx, s, c, img); err != nil {
		return nil, err
	}
	if err := r.specSecurity(ctx, s, c.Security); err != nil {
		return nil, err
	}
	if err := r.specNamespaces(s, c); err != nil {
		return nil, err
	}
	if err := r.specMounts(s, c); err != nil {
		return nil, err
	}
	s.Linux.CgroupsPath = r.cgroups.path(c.Pod.cgroupParent(), key)
	r.cgroups.apply(s.Linux, c.Resources)
	return s, nil
}

// specProcess sets what is run, where, with which environment and as whom.
func (r *Runtime) specProcess(ctx context.Context, s *oci.Spec, c ContainerConfig, img *unpackedImage) error {
	p := s.Process
	p.Args = commandLine(c, img)
	if len(p.Args) == 0 {
		return fmt.Errorf("no command specified: neither the container nor image %s has one", img.ref)
	}
	p.Cwd = "/"
	if img.config.WorkingDir != "" {
		p.Cwd = img.config.WorkingDir
	}
	if c.WorkingDir != "" {
		p.Cwd = c.WorkingDir
	}
	p.Terminal = c.TTY
	p.Rlimits = nil // containerd's own
	score := r.clampOOMScore(c.Resources.OOMScoreAdj)
	p.OOMScoreAdj = &score
	var err error
	if p.User, err = effectiveUser(c.Security, img); err != nil {
		return err
	}
	return oci.ApplyOpts(ctx, nil, nil, s, oci.WithDefaultPathEnv, oci.WithEnv(img.config.Env), oci.WithEnv(c.Env))
}

// commandLine follows Kubernetes: a command replaces the image's entrypoint and cmd, args alone only its cmd.
func commandLine(c ContainerConfig, img *unpackedImage) []string {
	switch {
	case len(c.Command) > 0:
		return slices.Concat(c.Command, c.Args)
	case len(c.Args) > 0:
		return slices.Concat(img.config.Entrypoint, c.Args)
	}
	return slices.Concat(img.config.Entrypoint, img.config.Cmd)
}

// specNamespaces has the container join the pod's namespaces; mount, and PID unless the pod shares it, are its own.
func (r *Runtime) specNamespaces(s *oci.Spec, c ContainerConfig) error {
	pod := c.Pod
	if err := checkSysctls(pod); err != nil {
		return err
	}
	s.Linux.Sysctl = pod.Sysctls
	net, ipc, uts, _ := r.namespacePaths(pod.UID)
	own := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	if !pod.HostPID && !pod.hasReaper() {
		own = append(own, specs.LinuxNamespace{Type: specs.PIDNamespace})
	}
	if r.cgroups.unified && !c.Security.Privileged {
		own = append(own, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	for _, join := range []struct {
		kind specs.LinuxNamespaceType
		path string
		not  bool // the host's, or the container's own
	}{
		{specs.NetworkNamespace, net, pod.HostNetwork},
		{specs.UTSNamespace, uts, pod.HostNetwork},
		{specs.IPCNamespace, ipc, pod.HostIPC},
		{specs.PIDNamespace, r.pidNamespacePath(pod.UID), !pod.hasReaper()},
	} {
		if join.not {
			continue
		}
		if err := isNamespace(join.path); err != nil {
			return fmt.Errorf("the pod's %s namespace is gone: %w: %w", join.kind, ErrNotFound, err)
		}
		own = append(own, specs.LinuxNamespace{Type: join.kind, Path: join.path})
	}
	s.Linux.Namespaces = own
	return nil
}

func isNamespace(path string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return fmt.Errorf("cannot look at %s: %w", path, err)
	}
	if fs.Type != unix.NSFS_MAGIC {
		return fmt.Errorf("%s is no namespace", path)
	}
	return nil
}

// checkSysctls refuses those that would change the host.
func checkSysctls(pod PodConfig) error {
	for name := range pod.Sysctls {
		name = strings.ReplaceAll(name, "/", ".")
		ipc := strings.HasPrefix(name, "kernel.shm") || strings.HasPrefix(name, "kernel.msg") || name == "kernel.sem" || strings.HasPrefix(name, "fs.mqueue.")
		if pod.HostNetwork && strings.HasPrefix(name, "net.") || pod.HostIPC && ipc {
			return fmt.Errorf("%w: sysctl %s is not allowed in the host's namespace", ErrConfig, name)
		}
	}
	return nil
}

// specMounts adds the container's mounts to the default ones, of which it takes the place at the same destination.
func (r *Runtime) specMounts(s *oci.Spec, c ContainerConfig) error {
	_, _, _, shm := r.namespacePaths(c.Pod.UID)
	if c.Pod.HostIPC {
		shm = "/dev/shm"
	}
	access := "ro"
	if c.Security.Privileged {
		access = "rw"
	}
	common := []specs.Mount{
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", access}},
		{Destination: "/dev/shm", Type: "bind", Source: shm, Options: []string{"rbind", "rw"}},
	}
	s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev/shm" })
	s.Mounts = append(s.Mounts, common...)
	taken := map[string]bool{}
	for _, m := range c.Mounts {
		taken[filepath.Clean(m.Destination)] = true
	}
	s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool {
		return taken[m.Destination] || taken["/dev"] && strings.HasPrefix(m.Destination, "/dev/")
	})
	for _, m := range c.Mounts {
		translated, err := specMount(s, m)
		if err != nil {
			return err
		}
		s.Mounts = append(s.Mounts, translated)
	}
	return nil
}

func specMount(s *oci.Spec, m Mount) (specs.Mount, error) {
	access := "rw"
	switch {
	case m.ReadOnly && m.RecursiveReadOnly:
		access = "rro"
	case m.ReadOnly:
		access = "ro"
	}
	if m.Source == "tmpfs" {
		options := append([]string{"nosuid", "nodev", access}, m.Options...)
		return specs.Mount{Destination: m.Destination, Type: "tmpfs", Source: "tmpfs", Options: options}, nil
	}
	if _, err := os.Stat(m.Source); errors.Is(err, fs.ErrNotExist) { // as every kubelet's runtime does
		if err := os.MkdirAll(m.Source, 0o755); err != nil {
			return specs.Mount{}, fmt.Errorf("cannot make the directory to mount at %s: %w", m.Destination, err)
		}
	}
	propagation, err := propagate(s, m)
	if err != nil {
		return specs.Mount{}, err
	}
	options := append([]string{"rbind", propagation, access}, m.Options...)
	return specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Source, Options: options}, nil
}

// propagate is the mount's propagation, of which the container's root must be a part.
func propagate(s *oci.Spec, m Mount) (string, error) {
	switch m.Propagation {
	case "", "private":
		return "rprivate", nil
	case "rslave":
		if s.Linux.RootfsPropagation == "" {
			s.Linux.RootfsPropagation = "rslave"
		}
		return "rslave", checkPropagation(m, "shared:", "master:")
	case "rshared":
		s.Linux.RootfsPropagation = "rshared"
		return "rshared", checkPropagation(m, "shared:")
	}
	return "", fmt.Errorf("%w: unknown mount propagation %q", ErrConfig, m.Propagation)
}

// checkPropagation says whether the host mounts the source so that it can propagate at all.
func checkPropagation(m Mount, kinds ...string) error {
	path, err := filepath.EvalSymlinks(m.Source)
	if err != nil {
		return fmt.Errorf("cannot resolve %s: %w", m.Source, err)
	}
	info, err := mount.Lookup(path)
	if err != nil {
		return fmt.Errorf("cannot look up the mount of %s: %w", m.Source, err)
	}
	for _, field := range strings.Fields(info.Optional) {
		for _, kind := range kinds {
			if strings.HasPrefix(field, kind) {
				return nil
			}
		}
	}
	return fmt.Errorf("%w: mount propagation %s: the host has %s on %s, which does not propagate", ErrConfig, m.Propagation, m.Source, info.Mountpoint)
}
