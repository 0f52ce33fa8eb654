package pod

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/runtime"
)

// allCapabilities is the word for every capability in add and drop.
const allCapabilities = "ALL"

// defaultCapabilities are what a container has when it asks for nothing.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP",
	"CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// security merges the container's security context over the pod's. seccompDir is where profiles of the host are.
func security(pod *corev1.Pod, c *corev1.Container, seccompDir string) (runtime.Security, error) {
	p, k := pod.Spec.SecurityContext, c.SecurityContext
	if p == nil {
		p = &corev1.PodSecurityContext{}
	}
	if k == nil {
		k = &corev1.SecurityContext{}
	}
	s := runtime.Security{
		Privileged:         isTrue(k.Privileged),
		NoNewPrivileges:    k.AllowPrivilegeEscalation != nil && !*k.AllowPrivilegeEscalation,
		ReadOnlyRootfs:     isTrue(k.ReadOnlyRootFilesystem),
		RunAsUser:          either(k.RunAsUser, p.RunAsUser),
		RunAsGroup:         either(k.RunAsGroup, p.RunAsGroup),
		RunAsNonRoot:       isTrue(either(k.RunAsNonRoot, p.RunAsNonRoot)),
		SupplementalGroups: slices.Clone(p.SupplementalGroups),
		OnlyTheseGroups:    p.SupplementalGroupsPolicy != nil && *p.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict,
		UnmaskedProc:       k.ProcMount != nil && *k.ProcMount == corev1.UnmaskedProcMount,
		SELinux:            seLinux(either(k.SELinuxOptions, p.SELinuxOptions)),
		AppArmorProfile:    appArmor(either(k.AppArmorProfile, p.AppArmorProfile)),
	}
	if p.FSGroup != nil {
		s.SupplementalGroups = append(s.SupplementalGroups, *p.FSGroup)
	}
	if k.Capabilities != nil {
		s.AddCapabilities = normalCapabilities(k.Capabilities.Add)
		s.DropCapabilities = normalCapabilities(k.Capabilities.Drop)
	}
	profile, err := seccompProfile(either(k.SeccompProfile, p.SeccompProfile), s, seccompDir)
	s.Seccomp = profile
	return s, err
}

// either is the container's word, else the pod's.
func either[T any](container, pod *T) *T {
	if container != nil {
		return container
	}
	return pod
}

// normalCapabilities spells capabilities the kernel's way: net_admin, NET_ADMIN and CAP_NET_ADMIN are one.
func normalCapabilities(list []corev1.Capability) []string {
	var normal []string
	for _, c := range list {
		name := strings.ToUpper(string(c))
		if name != allCapabilities && !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		if name == "CAP_"+allCapabilities {
			name = allCapabilities
		}
		normal = append(normal, name)
	}
	return normal
}

// effectiveCapabilities applies add and drop to the default set. ALL added is listed by those that the seccomp profile knows.
func effectiveCapabilities(s runtime.Security) []string {
	have := slices.Clone(defaultCapabilities)
	if slices.Contains(s.DropCapabilities, allCapabilities) {
		have = nil
	}
	if slices.Contains(s.AddCapabilities, allCapabilities) {
		have = append(have, "CAP_BPF", "CAP_DAC_READ_SEARCH", "CAP_PERFMON", "CAP_SYSLOG", "CAP_SYS_ADMIN", "CAP_SYS_BOOT",
			"CAP_SYS_CHROOT", "CAP_SYS_MODULE", "CAP_SYS_NICE", "CAP_SYS_PACCT", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO", "CAP_SYS_TIME",
			"CAP_SYS_TTY_CONFIG")
	}
	have = append(have, s.AddCapabilities...)
	return slices.DeleteFunc(have, func(c string) bool { return slices.Contains(s.DropCapabilities, c) })
}

func seLinux(o *corev1.SELinuxOptions) *runtime.SELinux {
	if o == nil {
		return nil
	}
	return &runtime.SELinux{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

// appArmor is "" for the runtime's default.
func appArmor(p *corev1.AppArmorProfile) string {
	switch {
	case p == nil:
		return ""
	case p.Type == corev1.AppArmorProfileTypeUnconfined:
		return "unconfined"
	case p.Type == corev1.AppArmorProfileTypeLocalhost && p.LocalhostProfile != nil:
		return *p.LocalhostProfile
	}
	return ""
}
