package pod

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/runtime"
)

// seccompProfile is nil for Unconfined, which is also what privileged containers get. Localhost profiles are files below dir, as the
// kubelet's are below /var/lib/kubelet/seccomp.
func seccompProfile(p *corev1.SeccompProfile, s runtime.Security, dir string) (*specs.LinuxSeccomp, error) {
	if p == nil || s.Privileged {
		return nil, nil
	}
	switch p.Type {
	case corev1.SeccompProfileTypeUnconfined:
		return nil, nil
	case corev1.SeccompProfileTypeRuntimeDefault:
		// The default profile allows what the capabilities are for.
		return seccomp.DefaultProfile(&specs.Spec{Process: &specs.Process{
			Capabilities: &specs.LinuxCapabilities{Bounding: effectiveCapabilities(s)},
		}}), nil
	case corev1.SeccompProfileTypeLocalhost:
		if p.LocalhostProfile == nil {
			return nil, configError("securityContext.seccompProfile: localhostProfile is missing")
		}
		return localSeccomp(dir, *p.LocalhostProfile)
	}
	return nil, configError("securityContext.seccompProfile: unknown type %q", p.Type)
}

// localSeccomp reads a profile as containerd does: OCI's format, which is also Docker's but for the conditions includes, excludes and
// archMap. These are passed over.
func localSeccomp(dir, name string) (*specs.LinuxSeccomp, error) {
	if !filepath.IsLocal(name) {
		return nil, configError("seccomp profile %q: it must be below %s", name, dir)
	}
	path := filepath.Join(dir, name)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, configError("cannot load seccomp profile: %w", err) // names the file
	}
	profile := &specs.LinuxSeccomp{}
	if err := json.Unmarshal(data, profile); err != nil {
		return nil, configError("seccomp profile %s: %w", path, err)
	}
	if err := checkSeccomp(profile); err != nil {
		return nil, configError("seccomp profile %s: %w", path, err)
	}
	return profile, nil
}

var seccompActions = []specs.LinuxSeccompAction{
	specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActErrno, specs.ActTrace, specs.ActAllow, specs.ActLog,
}

var seccompOperators = []specs.LinuxSeccompOperator{
	specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
}

// checkSeccomp finds what runc would refuse, in words that say where it is. (SCMP_ACT_NOTIFY needs somebody to notify.)
func checkSeccomp(p *specs.LinuxSeccomp) error {
	if p.DefaultAction == "" {
		return errors.New("it has no defaultAction")
	}
	if !slices.Contains(seccompActions, p.DefaultAction) {
		return fmt.Errorf("defaultAction %s is not supported", p.DefaultAction)
	}
	for _, arch := range p.Architectures {
		if !strings.HasPrefix(string(arch), "SCMP_ARCH_") {
			return fmt.Errorf("architecture %s is not supported", arch)
		}
	}
	for _, call := range p.Syscalls {
		if !slices.Contains(seccompActions, call.Action) {
			return fmt.Errorf("action %q of %v is not supported", call.Action, call.Names)
		}
		for _, arg := range call.Args {
			if !slices.Contains(seccompOperators, arg.Op) {
				return fmt.Errorf("operator %q of %v is not supported", arg.Op, call.Names)
			}
		}
	}
	return nil
}
