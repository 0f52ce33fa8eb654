package pod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// mountSubPath bind-mounts volume/sub to a place of the attempt's own and returns it. Links inside the volume are followed
// as if the volume were the whole file system (openat2), so that no container can lead the host astray; what is mounted is
// the descriptor that was checked, not a path that may since point elsewhere.
func (v volumes) mountSubPath(volume, sub, container string, attempt, index int) (string, error) {
	if !filepath.IsLocal(sub) {
		return "", fmt.Errorf("subPath %q leads out of the volume", sub)
	}
	root, err := unix.Open(volume, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("cannot open volume for subPath: %w", err)
	}
	defer func() { _ = unix.Close(root) }()
	fd, err := openInRoot(root, sub)
	if errors.Is(err, unix.ENOENT) {
		if err := makeInVolume(volume, sub); err != nil {
			return "", err
		}
		fd, err = openInRoot(root, sub)
	}
	if err != nil {
		return "", fmt.Errorf("cannot open subPath %q: %w", sub, err)
	}
	defer func() { _ = unix.Close(fd) }()
	target := filepath.Join(v.subPaths(container, attempt), strconv.Itoa(index))
	if err := makeMountPoint(fd, target); err != nil {
		return "", err
	}
	return target, bindMount(fd, target)
}

// subPaths holds the subPath mounts of one attempt.
func (v volumes) subPaths(container string, attempt int) string {
	return filepath.Join(v.dir, "volume-subpaths", container, strconv.Itoa(attempt))
}

func openInRoot(root int, sub string) (int, error) {
	return unix.Openat2(root, sub, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// makeInVolume makes a directory that is missing, with the volume's own mode. os.Root refuses links that lead out.
func makeInVolume(volume, sub string) error {
	root, err := os.OpenRoot(volume)
	if err != nil {
		return fmt.Errorf("cannot open volume for subPath: %w", err)
	}
	defer func() { _ = root.Close() }()
	info, err := root.Stat(".")
	if err != nil {
		return fmt.Errorf("cannot look at volume for subPath: %w", err)
	}
	if err := root.MkdirAll(sub, info.Mode().Perm()); err != nil {
		return fmt.Errorf("cannot make subPath %q: %w", sub, err)
	}
	if err := root.Chmod(sub, info.Mode()&(os.ModePerm|os.ModeSetgid)); err != nil {
		return fmt.Errorf("cannot set the mode of subPath %q: %w", sub, err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := root.Chown(sub, int(st.Uid), int(st.Gid)); err != nil {
			return fmt.Errorf("cannot set the owner of subPath %q: %w", sub, err)
		}
	}
	return nil
}

// makeMountPoint makes a file or directory to mount fd on.
func makeMountPoint(fd int, target string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("cannot look at subPath: %w", err)
	}
	if err := removeTree(target); err != nil { // of a try that failed
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := os.MkdirAll(target, 0o750); err != nil {
			return fmt.Errorf("cannot make mount point for subPath: %w", err)
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return fmt.Errorf("cannot make mount point for subPath: %w", err)
	}
	if err := os.WriteFile(target, nil, 0o640); err != nil {
		return fmt.Errorf("cannot make mount point for subPath: %w", err)
	}
	return nil
}
