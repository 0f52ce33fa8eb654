package runtime

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	contribapparmor "github.com/containerd/containerd/v2/contrib/apparmor"
	"github.com/containerd/containerd/v2/pkg/apparmor"
	"github.com/containerd/containerd/v2/pkg/cap"
	"github.com/containerd/containerd/v2/pkg/oci"
)

const (
	// allCapabilities is the word for every capability.
	allCapabilities = "ALL"
	// appArmorDefault is the profile of containers that ask for none; it is loaded when the first is made.
	appArmorDefault = "picket-default"
	unconfined      = "unconfined"
)

// specSecurity sets what the process may do. The default spec has the default capabilities, masked and read-only paths.
func (r *Runtime) specSecurity(ctx context.Context, s *oci.Spec, sec Security) error {
	s.Process.NoNewPrivileges = sec.NoNewPrivileges
	s.Root.Readonly = sec.ReadOnlyRootfs
	if sec.Privileged {
		return r.specPrivileged(ctx, s, sec)
	}
	capabilities, err := effectiveCapabilities(s.Process.Capabilities.Bounding, sec)
	if err != nil {
		return err
	}
	if err := oci.ApplyOpts(ctx, nil, nil, s, oci.WithCapabilities(capabilities)); err != nil {
		return fmt.Errorf("cannot set capabilities: %w", err)
	}
	if sec.UnmaskedProc {
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	}
	s.Linux.Seccomp = sec.Seccomp
	if sec.SELinux != nil && selinuxEnabled() {
		s.Process.SelinuxLabel, s.Linux.MountLabel = selinuxLabels(*sec.SELinux)
	}
	return r.specAppArmor(ctx, s, sec.AppArmorProfile)
}

// specPrivileged lets the process do everything, but for what an AppArmor profile that was asked for by name forbids.
func (r *Runtime) specPrivileged(ctx context.Context, s *oci.Spec, sec Security) error {
	if err := oci.ApplyOpts(ctx, nil, nil, s, oci.WithPrivileged, oci.WithHostDevices, oci.WithAllDevicesAllowed); err != nil {
		return fmt.Errorf("cannot set privileges: %w", err)
	}
	if sec.AppArmorProfile == "" {
		return nil
	}
	return r.specAppArmor(ctx, s, sec.AppArmorProfile)
}

// effectiveCapabilities applies add and drop, ALL before the others.
func effectiveCapabilities(defaults []string, sec Security) ([]string, error) {
	have := slices.Clone(defaults)
	if slices.Contains(sec.AddCapabilities, allCapabilities) {
		all, err := cap.Current() // more than the agent has nobody can give
		if err != nil {
			return nil, fmt.Errorf("cannot read this process's capabilities: %w", err)
		}
		have = all
	}
	if slices.Contains(sec.DropCapabilities, allCapabilities) {
		have = nil
	}
	for _, c := range sec.AddCapabilities {
		if c != allCapabilities && !slices.Contains(have, c) {
			have = append(have, c)
		}
	}
	have = slices.DeleteFunc(have, func(c string) bool { return slices.Contains(sec.DropCapabilities, c) })
	for _, c := range have {
		if !slices.Contains(cap.Known(), c) {
			return nil, fmt.Errorf("%w: unknown capability %s", ErrConfig, c)
		}
	}
	return have, nil
}

// specAppArmor confines the process where the kernel has AppArmor. A profile that was asked for by name and cannot be had is an
// error; the default one, where there is no AppArmor, is not.
func (r *Runtime) specAppArmor(ctx context.Context, s *oci.Spec, profile string) error {
	if profile == unconfined {
		return nil
	}
	if !apparmor.HostSupports() {
		if profile != "" {
			return fmt.Errorf("%w: AppArmor profile %s: this host has no AppArmor", ErrConfig, profile)
		}
		return nil
	}
	if profile != "" {
		return oci.ApplyOpts(ctx, nil, nil, s, contribapparmor.WithProfile(profile))
	}
	if err := oci.ApplyOpts(ctx, nil, nil, s, contribapparmor.WithDefaultProfile(appArmorDefault)); err != nil {
		return fmt.Errorf("cannot load the default AppArmor profile: %w", err)
	}
	return nil
}

func selinuxEnabled() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}

// selinuxLabels are the process's and its files'. Parts that were not given are those of every container.
func selinuxLabels(o SELinux) (process, files string) {
	process = strings.Join([]string{
		orDefault(o.User, "system_u"), orDefault(o.Role, "system_r"), orDefault(o.Type, "container_t"), orDefault(o.Level, "s0"),
	}, ":")
	files = strings.Join([]string{orDefault(o.User, "system_u"), "object_r", "container_file_t", orDefault(o.Level, "s0")}, ":")
	return process, files
}

func orDefault(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// mountLabel is the SELinux context that the container's file system is mounted with, "" for none.
func (r *Runtime) mountLabel(sec Security) string {
	if sec.Privileged || sec.SELinux == nil || !selinuxEnabled() {
		return ""
	}
	_, files := selinuxLabels(*sec.SELinux)
	return files
}
