package pod

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func emptyDir(medium corev1.StorageMedium, mode *int32) corev1.Volume {
	return volume("empty", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium, Mode: mode}})
}

// An emptyDir has the mode that is asked for, on every medium, and more for the pod's fsGroup.
func TestEmptyDirMode(t *testing.T) {
	mode, group := int32(0o1750), int64(2000)
	for _, medium := range []corev1.StorageMedium{corev1.StorageMediumDefault, corev1.StorageMediumMemory, "HugePages-2Mi"} {
		for _, group := range []*int64{nil, &group} {
			v := testVolumes(t, emptyDir(medium, &mode))
			v.pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: group}
			v.pod.Spec.Containers[0].Resources.Limits = list("hugepages-2Mi", "4Mi")
			want, wantGroup := fs.ModeDir|fs.ModeSticky|0o750, uint32(0)
			if group != nil {
				want, wantGroup = fs.ModeDir|fs.ModeSticky|fs.ModeSetgid|0o770, 2000
			}
			v.mustMount(t)
			info, err := os.Stat(v.path(&v.pod.Spec.Volumes[0]))
			if err != nil {
				t.Fatal(err)
			}
			expect(t, string(medium)+" mode", info.Mode(), want)
			expect(t, string(medium)+" group", info.Sys().(*syscall.Stat_t).Gid, wantGroup)
		}
	}
}

// An agent that is killed between the mount and what follows leaves a directory that the next one finishes; a finished one is the
// containers'.
func TestEmptyDirInMemoryIsFinished(t *testing.T) {
	group := int64(2000)
	v := testVolumes(t, emptyDir(corev1.StorageMediumMemory, nil))
	v.pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group}
	dir := v.path(&v.pod.Spec.Volumes[0])
	if err := mountAt(dir, "tmpfs", unix.TMPFS_MAGIC, "mode=0"); err != nil {
		t.Fatal(err)
	}
	v.mustMount(t)
	expect(t, "mode", modeOf(t, dir), fs.ModeDir|fs.ModeSetgid|0o777)
	if err := unix.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	v.mustMount(t)
	expect(t, "mode that a container gave it", modeOf(t, dir), fs.ModeDir|0o700)
	mounts, err := mountsUnder(v.dir)
	expect(t, "mounts", fmt.Sprint(len(mounts), err), "1 <nil>")
}

// The size of an emptyDir in memory is the least of its limit, the pod's and what the host has.
func TestEmptyDirInMemoryHasASize(t *testing.T) {
	for _, test := range []struct {
		limit, memory string
		want          int64
	}{{"", "", 1000 << 20}, {"1Mi", "", 1 << 20}, {"", "2Mi", 2 << 20}, {"4Mi", "2Mi", 2 << 20}, {"4Gi", "", 1000 << 20}} {
		v := testVolumes(t, emptyDir(corev1.StorageMediumMemory, nil))
		if test.limit != "" {
			limit := resource.MustParse(test.limit)
			v.pod.Spec.Volumes[0].EmptyDir.SizeLimit = &limit
		}
		if test.memory != "" {
			v.pod.Spec.Containers[0].Resources.Limits = list("memory", test.memory)
		}
		v.mustMount(t)
		var st unix.Statfs_t
		if err := unix.Statfs(v.path(&v.pod.Spec.Volumes[0]), &st); err != nil {
			t.Fatal(err)
		}
		expect(t, fmt.Sprint(test.limit, " of ", test.memory), int64(st.Blocks)*st.Bsize, test.want)
	}
}

// Huge pages are of the size that the medium names, or of the only one that containers ask for; what cannot be had is told.
func TestHugePages(t *testing.T) {
	for _, test := range []struct {
		medium corev1.StorageMedium
		limits corev1.ResourceList
		says   string
	}{
		{"HugePages", list("hugepages-2Mi", "4Mi"), ""},
		{"HugePages-2Mi", list("hugepages-2Mi", "4Mi", "hugepages-1Gi", "1Gi"), ""},
		{"HugePages", list("hugepages-2Mi", "4Mi", "hugepages-1Gi", "1Gi"), "several sizes"},
		{"HugePages-1Gi", list("hugepages-2Mi", "4Mi"), "no container requests"},
		{"HugePages", list("memory", "4Mi"), "no container requests"},
		{"HugePages-3Mi", list("hugepages-3Mi", "3Mi"), "the kernel of this host has no huge pages of 3Mi"},
		{"HugePages-x", nil, "HugePages-x"},
	} {
		v := testVolumes(t, emptyDir(test.medium, nil))
		v.pod.Spec.Containers[0].Resources.Limits = test.limits
		err := v.mount(t.Context())
		if test.says != "" {
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%s: error %v", test.medium, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Statfs_t
		if err := unix.Statfs(v.path(&v.pod.Spec.Volumes[0]), &st); err != nil {
			t.Fatal(err)
		}
		expect(t, "file system", st.Type, unix.HUGETLBFS_MAGIC)
		expect(t, "page size", st.Bsize, 2<<20)
		v.mustMount(t)
	}
}

// Files belong to the user that their item names, else the volume.
func TestFilesHaveOwners(t *testing.T) {
	all, one := int64(1000), int64(1001)
	v := testVolumes(t, volume("all", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultUser: &all, Sources: []corev1.VolumeProjection{
		{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: "conf"},
			Items:                []corev1.KeyToPath{{Key: "one", Path: "one", User: &one}, {Key: "two", Path: "two"}},
		}},
		{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "labels", User: &one, FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
		}}},
	}}}), volume("secret", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "sec", DefaultUser: &all}}),
		volume("conf", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}, DefaultUser: &all,
		}}))
	v.mustMount(t)
	for file, want := range map[string]uint32{"all/one": 1001, "all/two": 1000, "all/labels": 1001, "secret/pass": 1000, "conf/one": 1000} {
		info, err := os.Stat(v.dir + "/volumes/" + file)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, file, info.Sys().(*syscall.Stat_t).Uid, want)
	}
}
