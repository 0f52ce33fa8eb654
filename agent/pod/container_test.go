package pod

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/picketd/picket/runtime"
)

func list(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

func TestResources(t *testing.T) {
	for _, test := range []struct {
		name             string
		requests, limits corev1.ResourceList
		critical         bool
		want             runtime.Resources
	}{
		{"nothing", nil, nil, false, runtime.Resources{CPUShares: 2, OOMScoreAdj: 1000}},
		{"node critical", nil, nil, true, runtime.Resources{CPUShares: 2, OOMScoreAdj: -997}},
		{
			"guaranteed", list("cpu", "500m", "memory", "100Mi"), list("cpu", "500m", "memory", "100Mi"), false,
			runtime.Resources{CPUShares: 512, CPUQuota: 50000, CPUPeriod: 100000, MemoryLimit: 100 << 20, OOMScoreAdj: -997},
		},
		{
			"burstable", list("cpu", "100m", "memory", "250Mi"), list("cpu", "2"), false,
			runtime.Resources{CPUShares: 102, CPUQuota: 200000, CPUPeriod: 100000, OOMScoreAdj: 750},
		},
		{"much memory", list("memory", "2Gi"), nil, false, runtime.Resources{CPUShares: 2, OOMScoreAdj: 3}},
		{"little memory", list("memory", "1Ki"), nil, false, runtime.Resources{CPUShares: 2, OOMScoreAdj: 999}},
		{
			"tiny limit", nil, list("cpu", "1m"), false,
			runtime.Resources{CPUShares: 2, CPUQuota: 1000, CPUPeriod: 100000, OOMScoreAdj: 999},
		},
		{
			"huge", list("cpu", "500"), list("hugepages-2Mi", "64Mi", "hugepages-1Gi", "2Gi"), false,
			runtime.Resources{
				CPUShares: 262144, OOMScoreAdj: 999, HugepageLimits: map[string]uint64{"2MB": 64 << 20, "1GB": 2 << 30},
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := testPod("web")
			if test.critical {
				pod.Spec.PriorityClassName = systemNodeCritical
			}
			c := &pod.Spec.Containers[0]
			c.Resources.Requests, c.Resources.Limits = test.requests, test.limits
			if got := resources(pod, c, testHost().Allocatable); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// The pod's cgroup: requests by Kubernetes' formula over init containers and sidecars, a limit where every container has it, and
// spec.resources before both.
func TestPodResources(t *testing.T) {
	type container struct{ requests, limits corev1.ResourceList }
	shares := func(n uint64) runtime.Resources { return runtime.Resources{CPUShares: n} }
	for _, test := range []struct {
		name             string
		init, sidecar    *container
		main             []container
		requests, limits corev1.ResourceList // spec.resources
		want             runtime.Resources
		wantFirst        runtime.Resources // the first main container's
	}{
		{name: "nothing", main: []container{{}}, want: shares(2), wantFirst: runtime.Resources{CPUShares: 2, OOMScoreAdj: 1000}},
		{
			name: "two containers", main: []container{
				{list("cpu", "250m", "memory", "10Mi"), list("cpu", "500m", "memory", "20Mi")}, {list("cpu", "250m"), list("cpu", "1", "memory", "30Mi")},
			},
			want:      runtime.Resources{CPUShares: 512, CPUQuota: 150000, CPUPeriod: 100000, MemoryLimit: 50 << 20},
			wantFirst: runtime.Resources{CPUShares: 256, CPUQuota: 50000, CPUPeriod: 100000, MemoryLimit: 20 << 20, OOMScoreAdj: 990},
		},
		{
			name: "one without a memory limit", main: []container{{nil, list("cpu", "500m", "memory", "20Mi")}, {nil, list("cpu", "1")}},
			want:      runtime.Resources{CPUShares: 2, CPUQuota: 150000, CPUPeriod: 100000},
			wantFirst: runtime.Resources{CPUShares: 512, CPUQuota: 50000, CPUPeriod: 100000, MemoryLimit: 20 << 20, OOMScoreAdj: 999},
		},
		{
			name: "a sidecar and a big init container after it", init: &container{list("cpu", "2"), list("memory", "100Mi")},
			sidecar: &container{list("cpu", "500m"), list("memory", "10Mi")}, main: []container{{list("cpu", "500m"), list("memory", "20Mi")}},
			want:      runtime.Resources{CPUShares: 2560, MemoryLimit: 110 << 20},
			wantFirst: runtime.Resources{CPUShares: 512, MemoryLimit: 20 << 20, OOMScoreAdj: 999},
		},
		{
			name: "an init container without a limit", init: &container{}, main: []container{{nil, list("memory", "20Mi")}},
			want: shares(2), wantFirst: runtime.Resources{CPUShares: 2, MemoryLimit: 20 << 20, OOMScoreAdj: 999},
		},
		{
			name: "of the pod", main: []container{{list("memory", "100Mi"), nil}, {nil, list("cpu", "500m")}},
			requests: list("cpu", "1", "memory", "300Mi"), limits: list("cpu", "2", "memory", "400Mi"),
			want:      runtime.Resources{CPUShares: 1024, CPUQuota: 200000, CPUPeriod: 100000, MemoryLimit: 400 << 20},
			wantFirst: runtime.Resources{CPUShares: 2048, CPUQuota: 200000, CPUPeriod: 100000, MemoryLimit: 400 << 20, OOMScoreAdj: 800},
		},
		{
			name: "huge pages", main: []container{{list("hugepages-2Mi", "4Mi"), list("hugepages-2Mi", "4Mi", "memory", "1Mi")}, {nil, list("hugepages-2Mi", "2Mi")}},
			want:      runtime.Resources{CPUShares: 2, HugepageLimits: map[string]uint64{"2MB": 6 << 20}},
			wantFirst: runtime.Resources{CPUShares: 2, MemoryLimit: 1 << 20, OOMScoreAdj: 999, HugepageLimits: map[string]uint64{"2MB": 4 << 20}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := testPod()
			if test.requests != nil || test.limits != nil {
				pod.Spec.Resources = &corev1.ResourceRequirements{Requests: test.requests, Limits: test.limits}
			}
			add := func(to []corev1.Container, c *container, names ...string) []corev1.Container {
				if c == nil {
					return to
				}
				made := initContainers(names...)[0]
				made.Resources = corev1.ResourceRequirements{Requests: c.requests, Limits: c.limits}
				return append(to, made)
			}
			pod.Spec.InitContainers = add(nil, test.sidecar, "log+")
			pod.Spec.InitContainers = add(pod.Spec.InitContainers, test.init, "init")
			for i := range test.main {
				pod.Spec.Containers = add(pod.Spec.Containers, &test.main[i], "web")
			}
			if got := podConfig(pod, testHost()).Resources; !reflect.DeepEqual(*got, test.want) {
				t.Errorf("pod:\n got %+v\nwant %+v", *got, test.want)
			}
			if got := resources(pod, &pod.Spec.Containers[0], testHost().Allocatable); !reflect.DeepEqual(got, test.wantFirst) {
				t.Errorf("container:\n got %+v\nwant %+v", got, test.wantFirst)
			}
		})
	}
}

// The kernel kills a sidecar no sooner than the containers that it serves.
func TestOOMScoreOfASidecar(t *testing.T) {
	pod := testPod("web", "db")
	pod.Spec.InitContainers = initContainers("log+", "init")
	for i, memory := range []string{"200Mi", "400Mi"} {
		pod.Spec.Containers[i].Resources.Requests = list("memory", memory)
	}
	score := func(c *corev1.Container) int { return oomScoreAdj(pod, c, testHost().Allocatable) }
	expect(t, "sidecar", score(&pod.Spec.InitContainers[0]), 800)
	expect(t, "init", score(&pod.Spec.InitContainers[1]), 999)
	expect(t, "db", score(&pod.Spec.Containers[1]), 600)
}

func TestSecurityMergesContainerOverPod(t *testing.T) {
	user, other, group, no, yes := int64(1), int64(2), int64(3), false, true
	pod := testPod("web")
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{
		RunAsUser: &user, RunAsGroup: &group, RunAsNonRoot: &yes, SupplementalGroups: []int64{7}, FSGroup: &group,
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	c := &pod.Spec.Containers[0]
	c.SecurityContext = &corev1.SecurityContext{
		RunAsUser: &other, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
		Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"net_admin", "CAP_SYS_TIME"}, Drop: []corev1.Capability{"all"}},
	}
	got, err := security(pod, c, "")
	if err != nil {
		t.Fatal(err)
	}
	strict := corev1.SupplementalGroupsPolicyStrict
	pod.Spec.SecurityContext.SupplementalGroupsPolicy = &strict
	if strictly, err := security(pod, c, ""); err != nil || got.OnlyTheseGroups || !strictly.OnlyTheseGroups {
		t.Errorf("supplementalGroupsPolicy: %v", err)
	}
	profile := got.Seccomp
	got.Seccomp = nil
	want := runtime.Security{
		RunAsUser: &other, RunAsGroup: &group, RunAsNonRoot: true, SupplementalGroups: []int64{7, 3}, NoNewPrivileges: true,
		ReadOnlyRootfs: true, AddCapabilities: []string{"CAP_NET_ADMIN", "CAP_SYS_TIME"}, DropCapabilities: []string{"ALL"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	allows := func(call string) bool {
		return slices.ContainsFunc(profile.Syscalls, func(s specs.LinuxSyscall) bool { return slices.Contains(s.Names, call) })
	}
	expect(t, "read allowed", allows("read"), true)
	expect(t, "settimeofday allowed by CAP_SYS_TIME", allows("settimeofday"), true)
	expect(t, "reboot allowed", allows("reboot"), false)

	c.SecurityContext.Privileged = &yes
	if got, err := security(pod, c, ""); err != nil || got.Seccomp != nil || !got.Privileged {
		t.Errorf("privileged: %v, %v", got, err)
	}
}

func TestPodConfig(t *testing.T) {
	pod := testPod("web")
	pod.Spec.Containers[0].Ports = []corev1.ContainerPort{
		{ContainerPort: 80, HostPort: 8080, Protocol: corev1.ProtocolUDP, HostIP: "127.0.0.1"}, {ContainerPort: 81},
	}
	pod.Spec.InitContainers = initContainers("init", "log+")
	for i := range pod.Spec.InitContainers {
		pod.Spec.InitContainers[i].Ports = []corev1.ContainerPort{{ContainerPort: 82, HostPort: 9000 + int32(i)}}
	}
	got := podConfig(pod, testHost())
	expect(t, "hostname", got.Hostname, "web-abcde")
	expect(t, "cgroup", got.CgroupParent, "/picket/pod"+testUID)
	want := []runtime.PortMapping{
		{HostPort: 9001, ContainerPort: 82, Protocol: "tcp"}, {HostIP: "127.0.0.1", HostPort: 8080, ContainerPort: 80, Protocol: "udp"},
	}
	if !slices.Equal(got.Ports, want) {
		t.Errorf("ports %+v", got.Ports)
	}
	pod.Spec.HostNetwork = true
	got = podConfig(pod, testHost())
	expect(t, "hostname with hostNetwork", got.Hostname, "host-01.lan")
	expect(t, "ports with hostNetwork", len(got.Ports), 0)
}

func TestContainerAsTheRuntimeGetsIt(t *testing.T) {
	both := corev1.MountPropagationBidirectional
	pod := testPod("web")
	host := t.TempDir()
	pod.Spec.Volumes = []corev1.Volume{volume("host", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: host}})}
	c := &pod.Spec.Containers[0]
	c.Command = []string{"sh", "-c", "echo $(NAME) $(MISSING)"}
	c.Args = []string{"$$(NAME)"}
	c.WorkingDir = "/w"
	c.Env = []corev1.EnvVar{{Name: "NAME", Value: "n"}}
	c.VolumeMounts = []corev1.VolumeMount{
		{Name: "host", MountPath: "/data/deep", MountPropagation: &both, ReadOnly: true},
		{Name: "host", MountPath: "/data", BindMountOptions: []string{"noexec"}},
		{Name: "host", MountPath: "/etc/hosts", SubPathExpr: "$(NAME)-hosts"},
	}
	inBubble(t, pod, func(b *bench) {
		b.start(nil)
		synctest.Wait()
		got := b.fake.Config(id("web", 0))
		if got.ID == "" {
			t.Fatalf("no container: %v", b.events)
		}
		expect(t, "image", got.Image, "docker.io/library/busybox")
		expect(t, "command", strings.Join(got.Command, "|"), "sh|-c|echo n $(MISSING)")
		expect(t, "args", strings.Join(got.Args, "|"), "$(NAME)")
		expect(t, "env", strings.Join(got.Env, "|"), "HOSTNAME=web-abcde|NAME=n")
		expect(t, "revision label", got.Labels[LabelRevision], "6f7d")
		expect(t, "daemonset label", got.Labels[LabelDaemonSet], "web")
		expect(t, "attempt label", got.Labels[LabelAttempt], "0")
		dir := filepath.Join(b.cfg.Dir, testUID)
		want := []runtime.Mount{
			{Source: host, Destination: "/data", Propagation: "private", Options: []string{"noexec"}},
			{Source: host, Destination: "/data/deep", Propagation: "rshared", ReadOnly: true},
			{Source: dir + "/volume-subpaths/web/0/2", Destination: "/etc/hosts", Propagation: "private"},
			{Source: dir + "/resolv.conf", Destination: "/etc/resolv.conf"},
			{Source: dir + "/hostname", Destination: "/etc/hostname"},
			{Source: dir + "/containers/web/0", Destination: "/dev/termination-log"},
		}
		if !reflect.DeepEqual(got.Mounts, want) {
			t.Errorf("mounts:\n got %+v\nwant %+v", got.Mounts, want)
		}
		expect(t, "made subPath", modeOf(t, host+"/n-hosts").IsDir(), true)
		expect(t, "termination message", modeOf(t, dir+"/containers/web/0"), 0o666)
		expect(t, "log", got.LogPath, filepath.Join(b.cfg.PodLogs, "default_web-abcde_"+testUID, "web", "0.log"))

		links, err := os.ReadDir(b.cfg.ContainerLogs)
		if err != nil || len(links) != 1 {
			t.Fatalf("links %v, %v", links, err)
		}
		target, err := os.Readlink(filepath.Join(b.cfg.ContainerLogs, links[0].Name()))
		expect(t, "link's target", target, got.LogPath)
		if err != nil || !strings.HasPrefix(links[0].Name(), "web-abcde_default_web-") {
			t.Errorf("link %s, %v", links[0].Name(), err)
		}
		// Log shippers' pattern for the container's id: 64 hexadecimal digits.
		expect(t, "link's length", len(links[0].Name()), len("web-abcde_default_web-")+64+len(".log"))
	})
}

func TestLogsOfTheAttemptBeforeAreKept(t *testing.T) {
	inBubble(t, testPod("web"), func(b *bench) {
		b.start(nil)
		synctest.Wait()
		dir := filepath.Dir(b.fake.Config(id("web", 0)).LogPath)
		for i := range 3 {
			for _, name := range []string{b.fake.Config(id("web", i)).LogPath, b.fake.Config(id("web", i)).LogPath + ".20260102.gz"} {
				if err := os.WriteFile(name, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			b.fake.Exit(id("web", i), 1)
			time.Sleep(restartDelayMax)
		}
		expect(t, "logs", names(t, dir), "2.log 2.log.20260102.gz")
		expect(t, "links", len(strings.Fields(names(t, b.cfg.ContainerLogs))), 1)
		b.worker.Stop(Stop{})
		<-b.worker.Done()
		expect(t, "links after the pod", names(t, b.cfg.ContainerLogs), "")
		expect(t, "logs after the pod", names(t, b.cfg.PodLogs), "")
	})
}
