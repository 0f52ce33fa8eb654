package pod

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
)

// prepareHostPath checks or creates what a hostPath volume names, by its type.
func prepareHostPath(s *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if s.Type != nil {
		kind = *s.Type
	}
	info, err := os.Stat(s.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("hostPath %s: %w", s.Path, err)
	}
	if err != nil {
		return createHostPath(s.Path, kind)
	}
	if wrong := wrongHostPath(info.Mode(), kind); wrong != "" {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", s.Path, wrong)
	}
	return nil
}

// createHostPath makes what may be made. A path of no type is made a directory, as container runtimes do for a bind mount.
func createHostPath(path string, kind corev1.HostPathType) error {
	switch kind {
	case corev1.HostPathUnset, corev1.HostPathDirectoryOrCreate:
		if err := os.MkdirAll(path, 0o755); err != nil {
			return fmt.Errorf("cannot create hostPath directory: %w", err)
		}
		return nil
	case corev1.HostPathFileOrCreate:
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("cannot create the directory of a hostPath file: %w", err)
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return fmt.Errorf("cannot create hostPath file: %w", err)
		}
		return f.Close()
	}
	return fmt.Errorf("hostPath type check failed: %s does not exist", path)
}

// wrongHostPath names what a path should have been, "" when it is right.
func wrongHostPath(mode fs.FileMode, kind corev1.HostPathType) string {
	switch kind {
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		if !mode.IsDir() {
			return "directory"
		}
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		if !mode.IsRegular() {
			return "file"
		}
	case corev1.HostPathSocket:
		if mode&fs.ModeSocket == 0 {
			return "socket file"
		}
	case corev1.HostPathCharDev:
		if mode&fs.ModeCharDevice == 0 {
			return "character device"
		}
	case corev1.HostPathBlockDev:
		if mode&fs.ModeDevice == 0 || mode&fs.ModeCharDevice != 0 {
			return "block device"
		}
	}
	return ""
}
