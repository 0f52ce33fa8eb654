package pod

import (
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// emptyDirMode is that of an emptyDir which asks for none: every container may write, whoever it is.
const emptyDirMode = 0o777

func (v volumes) mountEmptyDir(volume *corev1.Volume) error {
	e := volume.EmptyDir
	if e == nil {
		e = &corev1.EmptyDirVolumeSource{}
	}
	dir := v.path(volume)
	switch {
	case e.Medium == corev1.StorageMediumDefault:
		return v.makeEmptyDir(dir, v.modeOf(e))
	case e.Medium == corev1.StorageMediumMemory:
		options := ""
		if size := v.memorySize(e); size > 0 {
			options = ",size=" + strconv.FormatInt(size, 10)
		}
		return v.mountEmpty(dir, "tmpfs", unix.TMPFS_MAGIC, options, v.modeOf(e))
	case strings.HasPrefix(string(e.Medium), string(corev1.StorageMediumHugePages)):
		size, err := v.hugePageSize(e.Medium)
		if err != nil {
			return err
		}
		return v.mountEmpty(dir, "hugetlbfs", unix.HUGETLBFS_MAGIC, ",pagesize="+strconv.FormatInt(size, 10), v.modeOf(e))
	}
	return fmt.Errorf("emptyDir medium %q is not supported", e.Medium)
}

// memorySize is the size of an emptyDir in memory in bytes: its limit, or less if the whole pod, or the host, can have no more.
// 0 leaves the kernel's default.
func (v volumes) memorySize(e *corev1.EmptyDirVolumeSource) int64 {
	size := v.host.Allocatable.Memory().Value()
	limits := []int64{podResources(v.pod).MemoryLimit}
	if e.SizeLimit != nil {
		limits = append(limits, e.SizeLimit.Value())
	}
	for _, limit := range limits {
		if limit > 0 && (limit < size || size == 0) {
			size = limit
		}
	}
	return size
}

// modeOf is the mode of an emptyDir's root, in the kernel's bits: what is asked for, and more for the pod's fsGroup, as the kubelet
// has it.
func (v volumes) modeOf(e *corev1.EmptyDirVolumeSource) uint32 {
	mode := uint32(emptyDirMode)
	if e.Mode != nil {
		mode = uint32(*e.Mode)
	}
	if v.fsGroup() != nil {
		mode |= unix.S_ISGID | 0o770
	}
	return mode
}

// makeEmptyDir makes the directory whole or not at all: once it is there, its mode and content are the containers'.
func (v volumes) makeEmptyDir(dir string, mode uint32) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	unfinished := dir + ".new" // no volume has a name with a dot
	if err := os.MkdirAll(unfinished, 0o755); err != nil {
		return fmt.Errorf("cannot make emptyDir: %w", err)
	}
	if err := v.open(unfinished, mode); err != nil {
		return err
	}
	if err := os.Rename(unfinished, dir); err != nil {
		return fmt.Errorf("cannot make emptyDir: %w", err)
	}
	return nil
}

// mountEmpty mounts a file system as an emptyDir. Until it is ready for its containers its root has no permissions at all.
func (v volumes) mountEmpty(dir, kind string, magic int64, options string, mode uint32) error {
	if err := mountAt(dir, kind, magic, "mode=0"+options); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("cannot look at emptyDir: %w", err)
	}
	if info.Mode()&(fs.ModePerm|fs.ModeSticky|fs.ModeSetgid) != 0 {
		return nil
	}
	return v.open(dir, mode)
}

// open gives an empty directory to its containers.
func (v volumes) open(dir string, mode uint32) error {
	if group := v.fsGroup(); group != nil {
		if err := os.Chown(dir, -1, int(*group)); err != nil {
			return fmt.Errorf("cannot give emptyDir to fsGroup %d: %w", *group, err)
		}
	}
	if err := unix.Chmod(dir, mode); err != nil { // MkdirAll's mode was narrowed by the umask
		return fmt.Errorf("cannot open emptyDir to its containers: %w", err)
	}
	return nil
}

// hugePageSize is the size of the pages of an emptyDir in bytes: HugePages-<size>'s, which some container must have asked for, or
// with HugePages the only one that containers ask for.
func (v volumes) hugePageSize(medium corev1.StorageMedium) (int64, error) {
	want := int64(0)
	if size, ok := strings.CutPrefix(string(medium), string(corev1.StorageMediumHugePagesPrefix)); ok {
		q, err := resource.ParseQuantity(size)
		if err != nil {
			return 0, fmt.Errorf("emptyDir medium %s: %w", medium, err)
		}
		want = q.Value()
	}
	found := int64(0)
	for _, size := range v.requestedHugePages() {
		switch {
		case want != 0 && size != want:
		case want == 0 && found != 0 && size != found:
			return 0, fmt.Errorf("emptyDir medium %s cannot be used when containers request several sizes of huge pages", medium)
		default:
			found = size
		}
	}
	if found == 0 {
		return 0, fmt.Errorf("emptyDir medium %s: no container requests such huge pages", medium)
	}
	if pages := fmt.Sprintf("/sys/kernel/mm/hugepages/hugepages-%dkB", found>>10); !isDirectory(pages) {
		return 0, fmt.Errorf("emptyDir medium %s: the kernel of this host has no huge pages of %s", medium, resource.NewQuantity(found, resource.BinarySI))
	}
	return found, nil
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// requestedHugePages are the sizes in bytes that the pod's containers ask for; requests are never other than limits.
func (v volumes) requestedHugePages() (sizes []int64) {
	for _, list := range [][]corev1.Container{v.pod.Spec.Containers, v.pod.Spec.InitContainers} {
		for _, c := range list {
			for name := range c.Resources.Limits {
				size, ok := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix)
				if q, err := resource.ParseQuantity(size); ok && err == nil {
					sizes = append(sizes, q.Value())
				}
			}
		}
	}
	return sizes
}
