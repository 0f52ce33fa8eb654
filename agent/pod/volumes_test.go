package pod

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// testVolumes makes a pod's volumes on real files and unmounts what is left at the end.
func testVolumes(t *testing.T, list ...corev1.Volume) volumes {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("volumes are mounted: run the tests as root")
	}
	f := testFacts()
	f.pod.Spec.Volumes = list
	v := volumes{facts: f, dir: filepath.Join(t.TempDir(), testUID)}
	t.Cleanup(func() {
		if err := removeTree(v.dir); err != nil {
			t.Error(err)
		}
	})
	return v
}

func (v volumes) mustMount(t *testing.T) {
	t.Helper()
	if err := v.mount(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func volume(name string, source corev1.VolumeSource) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: source}
}

func configVolume(name string, items ...corev1.KeyToPath) corev1.Volume {
	return volume("conf", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Items: items,
	}})
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func modeOf(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..2") {
			list = append(list, "..stamp")
			continue
		}
		list = append(list, e.Name())
	}
	return strings.Join(list, " ")
}

func TestConfigMapVolumeIsLaidOutAsByTheKubelet(t *testing.T) {
	v := testVolumes(t, configVolume("conf"))
	v.mustMount(t)
	dir := v.path(&v.pod.Spec.Volumes[0])
	expect(t, "files", names(t, dir), "..stamp ..data bad=name one two")
	expect(t, "one", content(t, dir+"/one"), "1")
	expect(t, "mode", modeOf(t, dir+"/one"), 0o644)
	link, err := os.Readlink(dir + "/one")
	expect(t, "link", fmt.Sprint(link, err), "..data/one<nil>")

	// Nothing changed: nothing moves.
	before, _ := os.Readlink(dir + "/..data")
	v.mustMount(t)
	after, _ := os.Readlink(dir + "/..data")
	expect(t, "data directory", after, before)
}

func TestConfigMapVolumeFollowsItsObject(t *testing.T) {
	v := testVolumes(t, configVolume("conf"))
	v.mustMount(t)
	dir := v.path(&v.pod.Spec.Volumes[0])
	open, err := os.Open(dir + "/one")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	v.objects.(*fakeObjects).setConfig("conf", map[string]string{"one": "uno", "three": "3"})
	if err := v.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, "files", names(t, dir), "..stamp ..data one three")
	expect(t, "one", content(t, dir+"/one"), "uno")
	old := make([]byte, 1)
	if _, err := open.Read(old); err != nil || string(old) != "1" {
		t.Errorf("what was open reads %q, %v", old, err)
	}
	delete(v.objects.(*fakeObjects).configs, "conf")
	if err := v.refresh(t.Context()); err == nil || !strings.Contains(err.Error(), `configmap "conf" not found`) {
		t.Errorf("error %v", err)
	}
	expect(t, "content of a lost object", content(t, dir+"/one"), "uno")
}

func TestVolumeItemsAndModes(t *testing.T) {
	mode := int32(0o400)
	v := testVolumes(t, configVolume("conf", corev1.KeyToPath{Key: "one", Path: "deep/er/1.txt", Mode: &mode}))
	v.mustMount(t)
	dir := v.path(&v.pod.Spec.Volumes[0])
	expect(t, "files", names(t, dir), "..stamp ..data deep")
	expect(t, "content", content(t, dir+"/deep/er/1.txt"), "1")
	expect(t, "mode", modeOf(t, dir+"/deep/er/1.txt"), 0o400)

	v = testVolumes(t, configVolume("conf", corev1.KeyToPath{Key: "nine", Path: "x"}))
	want := `MountVolume.SetUp failed for volume "conf": configmap "conf": references non-existent config key: nine`
	if err := v.mount(t.Context()); err == nil || err.Error() != want {
		t.Errorf("error %v", err)
	}
	v = testVolumes(t, configVolume("conf", corev1.KeyToPath{Key: "one", Path: "../../../evil"}))
	if err := v.mount(t.Context()); err == nil || !strings.Contains(err.Error(), "outside of its volume") {
		t.Errorf("error %v", err)
	}
}

func TestSecretsAreKeptOffTheDisk(t *testing.T) {
	v := testVolumes(t,
		volume("secret", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "sec"}}),
		volume("all", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "sec"}}},
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
			}}},
		}}}),
	)
	v.mustMount(t)
	v.mustMount(t) // a second time mounts nothing on top
	mounts, err := mountsUnder(v.dir)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "mounts", len(mounts), 2)
	for i := range v.pod.Spec.Volumes {
		tmpfs, err := isMounted(v.path(&v.pod.Spec.Volumes[i]), unix.TMPFS_MAGIC)
		expect(t, "tmpfs", fmt.Sprint(tmpfs, err), "true <nil>")
	}
	expect(t, "secret", content(t, v.path(&v.pod.Spec.Volumes[0])+"/pass"), "word")
	all := v.path(&v.pod.Spec.Volumes[1])
	expect(t, "projected files", names(t, all), "..stamp ..data bad=name labels one pass two")
	expect(t, "labels", content(t, all+"/labels"), `controller-revision-hash="6f7d"`)
}

func TestEmptyDir(t *testing.T) {
	limit := resource.MustParse("1Mi")
	v := testVolumes(t,
		volume("disk", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
		volume("none", corev1.VolumeSource{}),
		volume("memory", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &limit}}),
	)
	group := int64(2000)
	v.pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group}
	v.mustMount(t)
	for i := range v.pod.Spec.Volumes {
		dir := v.path(&v.pod.Spec.Volumes[i])
		expect(t, dir, modeOf(t, dir), fs.ModeDir|fs.ModeSetgid|0o777)
		if err := os.WriteFile(dir+"/kept", []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(v.path(&v.pod.Spec.Volumes[2]), &st); err != nil {
		t.Fatal(err)
	}
	expect(t, "size", int64(st.Blocks)*st.Bsize, 1<<20)
	v.mustMount(t)
	for i := range v.pod.Spec.Volumes {
		expect(t, "content", content(t, v.path(&v.pod.Spec.Volumes[i])+"/kept"), "x")
	}
}

func TestFSGroupOwnsSecrets(t *testing.T) {
	mode, group := int32(0o400), int64(2000)
	v := testVolumes(t, volume("secret", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "sec", DefaultMode: &mode}}))
	v.pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group}
	v.mustMount(t)
	info, err := os.Stat(v.path(&v.pod.Spec.Volumes[0]) + "/pass")
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "mode", info.Mode(), 0o440)
	expect(t, "group", info.Sys().(*syscall.Stat_t).Gid, 2000)
	if info, err = os.Stat(v.path(&v.pod.Spec.Volumes[0])); err != nil {
		t.Fatal(err)
	}
	expect(t, "the volume's mode", info.Mode(), fs.ModeDir|fs.ModeSetgid|0o755)
	expect(t, "the volume's group", info.Sys().(*syscall.Stat_t).Gid, 2000)
}

func TestHostPathTypes(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", dir+"/socket")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for _, test := range []struct {
		path  string
		kind  corev1.HostPathType
		wrong string
	}{
		{dir, corev1.HostPathUnset, ""},
		{dir + "/made/by/unset", corev1.HostPathUnset, ""},
		{dir, corev1.HostPathDirectory, ""},
		{dir + "/file", corev1.HostPathDirectory, "is not a directory"},
		{dir + "/none", corev1.HostPathDirectory, "does not exist"},
		{dir + "/made/dir", corev1.HostPathDirectoryOrCreate, ""},
		{dir + "/file", corev1.HostPathDirectoryOrCreate, "is not a directory"},
		{dir + "/file", corev1.HostPathFile, ""},
		{dir, corev1.HostPathFile, "is not a file"},
		{dir + "/none", corev1.HostPathFile, "does not exist"},
		{dir + "/made2/file", corev1.HostPathFileOrCreate, ""},
		{dir + "/socket", corev1.HostPathSocket, ""},
		{dir + "/file", corev1.HostPathSocket, "is not a socket"},
		{"/dev/null", corev1.HostPathCharDev, ""},
		{dir + "/file", corev1.HostPathCharDev, "is not a character device"},
		{"/dev/null", corev1.HostPathBlockDev, "is not a block device"},
	} {
		err := prepareHostPath(&corev1.HostPathVolumeSource{Path: test.path, Type: &test.kind})
		if (test.wrong == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), test.wrong) {
			t.Errorf("%s as %q: error %v, want %q", test.path, test.kind, err, test.wrong)
		}
	}
	expect(t, "made directory", modeOf(t, dir+"/made/dir").IsDir(), true)
	expect(t, "made file", modeOf(t, dir+"/made2/file").IsRegular(), true)
}

func TestSubPath(t *testing.T) {
	v := testVolumes(t, configVolume("conf"))
	v.mustMount(t)
	dir := v.path(&v.pod.Spec.Volumes[0])
	file, err := v.mountSubPath(dir, "one", "web", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "file", content(t, file), "1")

	host := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(host+"/a/b", 0o755), os.WriteFile(host+"/a/b/c", []byte("c"), 0o600), os.Chmod(host, fs.ModeSetgid|0o770),
		os.Chown(host, 1000, 2000), os.Symlink("/a/b", host+"/inside"), os.Symlink("../../../../../../etc", host+"/outside"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	deep, err := v.mountSubPath(host, "inside", "web", 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "through a link", content(t, deep+"/c"), "c")
	made, err := v.mountSubPath(host, "new/dir", "web", 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "mode of what was made", modeOf(t, made), fs.ModeDir|fs.ModeSetgid|0o770)
	if _, err := v.mountSubPath(host, "outside/passwd", "web", 0, 3); err == nil {
		t.Error("a link out of the volume was followed")
	}
	if _, err := v.mountSubPath(host, "../x", "web", 0, 3); err == nil {
		t.Error(".. was followed")
	}
	// Another try finds its place taken and takes it over.
	if again, err := v.mountSubPath(host, "inside", "web", 0, 1); err != nil || again != deep {
		t.Errorf("again: %s, %v", again, err)
	}
	if err := removeTree(v.subPaths("web", 0)); err != nil {
		t.Fatal(err)
	}
	expect(t, "the volume itself", content(t, host+"/a/b/c"), "c")
}

func TestRemoveTreeNeverDeletesThroughAMount(t *testing.T) {
	host := t.TempDir()
	if err := os.WriteFile(host+"/precious", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "pod with space")
	inner := dir + "/deep/mount"
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // one over the other
		if err := unix.Mount(host, inner, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	busy, err := os.Open(inner + "/precious")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if err := os.Symlink(host, dir+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := removeTree(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the tree is left: %v", err)
	}
	expect(t, "what was mounted", content(t, host+"/precious"), "x")
	if err := removeTree(dir); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestUnsupportedVolumeIsRefused(t *testing.T) {
	for _, source := range []corev1.VolumeSource{
		{NFS: &corev1.NFSVolumeSource{}},
		{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "Paper"}},
	} {
		v := testVolumes(t, volume("x", source))
		if err := v.mount(t.Context()); err == nil || !strings.Contains(err.Error(), "not supported") {
			t.Errorf("%v: error %v", source, err)
		}
	}
}
