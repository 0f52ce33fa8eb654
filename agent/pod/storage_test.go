package pod

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/picketd/picket/runtime"
)

func quantity(s string) resource.Quantity { return resource.MustParse(s) }

func limited(c *corev1.Container, limit string) {
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: quantity(limit)}
}

// emptyDirOf is a volume; limit "" is none.
func emptyDirOf(name string, medium corev1.StorageMedium, limit string) corev1.Volume {
	v := corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium}}}
	if limit != "" {
		q := quantity(limit)
		v.EmptyDir.SizeLimit = &q
	}
	return v
}

func TestStorageLimits(t *testing.T) {
	const mib = 1 << 20
	for name, c := range map[string]struct {
		change  func(*corev1.Pod)
		used    Storage
		limited bool
		want    string
	}{
		"no limit": {func(*corev1.Pod) {}, Storage{Containers: map[string]int64{"web": 1 << 40}}, false, ""},
		"no limit on a volume": {
			func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{emptyDirOf("a", "", "")} }, Storage{EmptyDirs: map[string]int64{"a": 1 << 40}}, false, "",
		},
		"a limit of nothing is none": {
			func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{emptyDirOf("a", "", "0")} }, Storage{EmptyDirs: map[string]int64{"a": mib}}, false, "",
		},
		"memory limits itself": {
			func(p *corev1.Pod) {
				p.Spec.Volumes = []corev1.Volume{emptyDirOf("a", corev1.StorageMediumMemory, "1Mi")}
			}, Storage{}, false, "",
		},
		"a volume at its limit": {
			func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{emptyDirOf("a", "", "1Mi")} }, Storage{EmptyDirs: map[string]int64{"a": mib}}, true, "",
		},
		"a volume over its limit": {
			func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{emptyDirOf("a", "", "1Mi")} },
			Storage{EmptyDirs: map[string]int64{"a": mib + 1}},
			true,
			`Usage of EmptyDir volume "a" exceeds the limit "1Mi". `,
		},
		"a container at its limit": {
			func(p *corev1.Pod) { limited(&p.Spec.Containers[0], "1Mi") }, Storage{Containers: map[string]int64{"web": mib}}, true, "",
		},
		"a container over its limit, the pod not": {
			func(p *corev1.Pod) { limited(&p.Spec.Containers[0], "1Mi"); limited(&p.Spec.Containers[1], "2Mi") },
			Storage{Containers: map[string]int64{"web": mib + 1, "log": mib}},
			true, `Container web exceeded its local ephemeral storage limit "1Mi". `,
		},
		"the pod over the sum": {
			func(p *corev1.Pod) { limited(&p.Spec.Containers[0], "1Mi"); limited(&p.Spec.Containers[1], "2Mi") },
			Storage{Containers: map[string]int64{"web": mib, "log": mib}, EmptyDirs: map[string]int64{"a": mib + 1}},
			true,
			"Pod ephemeral local storage usage exceeds the total limit of containers 3Mi. ",
		},
		"one without a limit, as in Kubernetes": {
			func(p *corev1.Pod) { limited(&p.Spec.Containers[0], "1Mi") },
			Storage{Containers: map[string]int64{"web": 0, "log": mib + 1}},
			true,
			"Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := testPod("web", "log")
			c.change(p)
			if c.used.EmptyDirs["a"] > 0 && len(p.Spec.Volumes) == 0 {
				p.Spec.Volumes = []corev1.Volume{emptyDirOf("a", "", "")}
			}
			expect(t, "limited", LimitsStorage(p), c.limited)
			expect(t, "message", c.used.Exceeds(p), c.want)
		})
	}
}

// What is measured is what du says: holes are nothing, a second name is nothing, and neither is what other file systems hold.
func TestStorageIsMeasured(t *testing.T) {
	dir := t.TempDir()
	p := testPod("web", "log")
	p.Spec.Volumes = []corev1.Volume{emptyDirOf("a", "", "1Mi"), emptyDirOf("memory", corev1.StorageMediumMemory, ""), {Name: "host", VolumeSource: corev1.VolumeSource{
		HostPath: &corev1.HostPathVolumeSource{Path: "/"},
	}}}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{
		{Name: "web", ContainerID: statusID(containerID(p, "web", 3))}, {Name: "log"},
	}
	cfg := &Config{Dir: dir + "/pods", PodLogs: dir + "/logs"}
	volume := filepath.Join(cfg.Dir, string(p.UID), "volumes", "a")
	write := func(path string, size int) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, make([]byte, size), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write(volume+"/file", 1<<20)
	write(volume+"/below/deep/file", 1<<20)
	if err := errors.Join(os.Link(volume+"/file", volume+"/again"), os.WriteFile(volume+"/hole", nil, 0o600), os.Truncate(volume+"/hole", 1<<30)); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(podLogDir(cfg.PodLogs, p), "web", "0.log"), 1<<19)
	write(filepath.Join(podLogDir(cfg.PodLogs, p), "web", "1.log.20261129.gz"), 1<<19)
	asked := ""
	used, err := cfg.Storage(t.Context(), p, func(_ context.Context, id string) (int64, error) {
		asked += id
		return 7 << 20, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	about := func(got, want int64) bool { return got >= want && got < want+64<<10 } // directories count
	if !about(used.EmptyDirs["a"], 2<<20) || len(used.EmptyDirs) != 1 || !about(used.Containers["web"], 8<<20) || used.Containers["log"] != 0 {
		t.Errorf("%+v", used)
	}
	expect(t, "asked for", asked, containerID(p, "web", 3))
	// A container that is gone has its logs only; another failure is one.
	used, err = cfg.Storage(t.Context(), p, func(context.Context, string) (int64, error) { return 0, runtime.ErrNotFound })
	if err != nil || !about(used.Containers["web"], 1<<20) {
		t.Errorf("%+v, %v", used, err)
	}
	if _, err = cfg.Storage(t.Context(), p, func(context.Context, string) (int64, error) { return 0, runtime.ErrUnavailable }); !errors.Is(err, runtime.ErrUnavailable) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := cfg.Storage(ctx, p, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
