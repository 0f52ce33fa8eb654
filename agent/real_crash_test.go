package agent

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/picketd/picket/runtime/runtimetest"
)

// crashesOfEach is how often each part of a host is killed in a pod's start or stop: 20 times in a long campaign (bar of the issue).
func crashesOfEach() int {
	if os.Getenv("PICKET_SOAK") != "" {
		return 20
	}
	return 4
}

// Agent, log writer, shim, reaper and containerd are killed, each at random moments in the start and stop of a pod with init container,
// sidecar, hooks, probe, volume, and a network and a process namespace of its own: it ends in the right state, and nothing of it is
// left (bar of the issue).
func TestRealCrashesInAPodsLife(t *testing.T) {
	h := newRealHost(t)
	own, err := runtimetest.StartTemporary(t.Context()) // it is killed, which other tests' containers must not see
	if err != nil {
		t.Fatal(err)
	}
	h.ownContainerd, h.cfg.Runtime.Address = own, own.Address
	h.removed = func() {
		if err := own.Close(); err != nil {
			t.Error(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := &crashes{realHost: h, random: rand.New(rand.NewPCG(seed, 0))}
	c.agent = h.launch()
	c.client = h.clientset()
	c.run("warm up", func() {})
	before := c.left()
	for _, victim := range []struct {
		name string
		kill func()
	}{
		{"agent", func() { c.agent.signal(syscall.SIGKILL); c.agent = h.launch() }},
		{"log writer", func() { kill(processesOf(t, "picket-logger", h.dir)) }},
		{"shim", func() { kill(own.Shims()) }},
		{"reaper", func() { kill(reapersOf(own)) }},
		{"containerd", func() {
			if err := own.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := own.Restart(context.Background()); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		for range crashesOfEach() / 2 { // each has a start and a stop
			c.run(victim.name, victim.kill)
		}
		var after map[string]int
		t.Cleanup(func() { t.Logf("before %v, after the %s was killed %v", before, victim.name, after) })
		c.eventually("nothing is left of the pods after the "+victim.name+" was killed", func() bool {
			after = c.left()
			return maps.Equal(before, after)
		})
	}
}

type crashes struct {
	*realHost
	agent  *agentProcess
	client *kubernetes.Clientset
	random *rand.Rand
	rounds int
	uids   []string // of the pods there were
}

// run starts and stops a pod, and has something killed in the midst of both.
func (c *crashes) run(victim string, kill func()) {
	c.t.Helper()
	c.rounds++
	sets, ctx := c.client.AppsV1().DaemonSets("default"), context.Background()
	ds := everythingDaemon(fmt.Sprintf("round-%d", c.rounds))
	if _, err := sets.Create(ctx, ds, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	c.moment(700)
	kill()
	c.eventually(fmt.Sprintf("the pod of %s runs though the %s was killed", ds.Name, victim), func() bool {
		got, err := sets.Get(ctx, ds.Name, metav1.GetOptions{})
		return err == nil && got.Status.NumberAvailable == 1 && len(c.pids()) == 3 // with the reaper
	})
	c.note()
	if err := sets.Delete(ctx, ds.Name, metav1.DeleteOptions{}); err != nil {
		c.t.Fatal(err)
	}
	c.moment(400)
	kill()
	c.eventually(fmt.Sprintf("the pod of %s is gone though the %s was killed", ds.Name, victim), func() bool {
		_, err := sets.Get(ctx, ds.Name, metav1.GetOptions{})
		pods, listErr := c.client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		cl, cctx := c.containerd()
		all, containersErr := cl.Containers(cctx)
		return apierrors.IsNotFound(err) && listErr == nil && len(pods.Items) == 0 && containersErr == nil && len(all) == 0
	})
}

// note remembers which pods there were.
func (c *crashes) note() {
	pods, err := c.client.CoreV1().Pods("default").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, p := range pods.Items {
		c.uids = append(c.uids, string(p.UID))
	}
}

// moment is a random one within so many milliseconds.
func (c *crashes) moment(most int) { time.Sleep(time.Duration(c.random.IntN(most)) * time.Millisecond) }

// reapersOf are the first processes of the pods that share their processes.
func reapersOf(c *runtimetest.Containerd) (pids []int) {
	for _, shim := range c.Shims() {
		for _, pid := range runtimetest.Children(shim) {
			if args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && bytes.HasPrefix(args, []byte("/pause\x00")) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func kill(pids []int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // gone already
	}
}

// left counts what there is of pods on the host; tests of other packages may run on the machine.
func (c *crashes) left() map[string]int {
	all := map[string]int{
		"shims": len(c.ownContainerd.Shims()), "log writers": len(processesOf(c.t, "picket-logger", c.dir)), "mounts": len(runtimetest.Mounts(c.dir)),
	}
	for what, pattern := range map[string]string{
		"links": filepath.Join("/sys/class/net", c.cfg.runtimeConfig(c.cfg.Logger).BridgeName(), "brif/*"), "records": filepath.Join(c.cfg.podsDir(), "*"),
		"addresses": filepath.Join(c.cfg.DataDir, "cni/*/[0-9]*"), "cached results": filepath.Join(c.cfg.DataDir, "cni/cache/results/*"), "namespaces": filepath.Join(c.cfg.RunDir, "pods/*"),
		"logs": filepath.Join(c.cfg.Runtime.PodLogs, "*"), "links to logs": filepath.Join(c.cfg.Runtime.ContainerLogs, "*"),
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			c.t.Fatal(err)
		}
		all[what] = len(found)
	}
	for _, uid := range c.uids {
		found, _ := filepath.Glob("/sys/fs/cgroup/*/picket/pod" + uid) // the pattern is well-formed
		all["cgroups"] += len(found)
	}
	cl, ctx := c.containerd()
	_ = cl.SnapshotService("").Walk(ctx, func(_ context.Context, s snapshots.Info) error { // containerd away: asked again
		if s.Kind == snapshots.KindActive {
			all["snapshots"]++
		}
		return nil
	})
	return all
}

// everythingDaemon has one of each of what a pod's life consists of.
func everythingDaemon(name string) *appsv1.DaemonSet {
	ds := busyDaemon(name, "busybox:1", "")
	always := corev1.ContainerRestartPolicyAlways
	mounts := []corev1.VolumeMount{{Name: "scratch", MountPath: "/scratch"}}
	busy := ds.Spec.Template.Spec.Containers[0]
	busy.VolumeMounts = mounts
	sidecar := busy
	sidecar.Name, sidecar.RestartPolicy = "sidecar", &always
	spec := &ds.Spec.Template.Spec
	share := true
	spec.HostNetwork, spec.ShareProcessNamespace = false, &share
	spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}}}
	spec.InitContainers = []corev1.Container{
		{Name: "init", Image: "busybox:1", Command: []string{"sh", "-c", "echo ready >/scratch/init"}, VolumeMounts: mounts},
		sidecar,
	}
	busy.Lifecycle = &corev1.Lifecycle{
		PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "cat /scratch/init >/scratch/started"}}},
		PreStop:   &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "sleep 0.1"}}},
	}
	busy.ReadinessProbe = &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"grep", "ready", "/scratch/started"}}}, PeriodSeconds: 1, TimeoutSeconds: 30,
	}
	spec.Containers = []corev1.Container{busy}
	return ds
}
