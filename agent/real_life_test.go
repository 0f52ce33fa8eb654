package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// One case each of order, hooks, probes, restart and termination, on real containers: a pod writes down what it goes through. (The
// tables of the kubelet's rules are in package pod, in virtual time.)
func TestRealPodLife(t *testing.T) {
	h := newRealHost(t)
	h.start()
	client := h.clientset()
	out := filepath.Join(h.dir, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	sets := client.AppsV1().DaemonSets("default")
	ds := busyDaemon("life", "busybox:1", "")
	spec, mounts := &ds.Spec.Template.Spec, []corev1.VolumeMount{{Name: "out", MountPath: "/out"}}
	grace := int64(30)
	spec.TerminationGracePeriodSeconds = &grace
	spec.Volumes = []corev1.Volume{{Name: "out", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: out}}}}
	container := func(name, script string) corev1.Container {
		return corev1.Container{Name: name, Image: "busybox:1", Command: []string{"sh", "-c", script}, VolumeMounts: mounts}
	}
	run := func(command string) corev1.ProbeHandler {
		return corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", command}}}
	}
	long := func(name string) string {
		return "echo " + name + " up >>/out/log; trap 'echo " + name + " down >>/out/log; exit 0' TERM; while true; do sleep 0.05; done"
	}
	always := corev1.ContainerRestartPolicyAlways
	spec.InitContainers = []corev1.Container{container("init", "sleep 0.3; echo init >>/out/log"), container("sidecar", long("sidecar"))}
	spec.InitContainers[1].RestartPolicy = &always
	main := container("main", long("main"))
	main.Lifecycle = &corev1.Lifecycle{
		PostStart: &corev1.LifecycleHandler{Exec: run("while ! grep -q 'main up' /out/log; do sleep 0.05; done; echo hook >>/out/log").Exec},
		PreStop:   &corev1.LifecycleHandler{Exec: run("echo prestop >>/out/log").Exec},
	}
	main.LivenessProbe = &corev1.Probe{ProbeHandler: run("test ! -e /out/sick"), PeriodSeconds: 1, FailureThreshold: 1, TimeoutSeconds: 30}
	main.ReadinessProbe = &corev1.Probe{ProbeHandler: run("test -e /out/open"), PeriodSeconds: 1, TimeoutSeconds: 30}
	spec.Containers = []corev1.Container{main, container("last", long("last"))}
	if _, err := sets.Create(t.Context(), ds, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	said := func(want string) func() bool {
		return func() bool {
			text, _ := os.ReadFile(filepath.Join(out, "log")) // not there yet: nothing
			return strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", ", ") == want
		}
	}
	touch := func(name string) {
		if err := os.WriteFile(filepath.Join(out, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	available := func(n int32) func() bool {
		return func() bool {
			got, err := sets.Get(t.Context(), "life", metav1.GetOptions{})
			return err == nil && got.Status.NumberAvailable == n
		}
	}
	life := "init, sidecar up, main up, hook, last up"
	h.eventually(life, said(life))
	if !available(0)() {
		t.Error("available before the readiness probe succeeds")
	}
	touch("open")
	h.eventually("the pod is available", available(1))

	touch("sick")
	h.eventually("the liveness probe ends the container", func() bool {
		text, _ := os.ReadFile(filepath.Join(out, "log"))
		return strings.Count(string(text), "main down") > 0
	})
	if err := os.Remove(filepath.Join(out, "sick")); err != nil {
		t.Fatal(err)
	}
	restart := ", prestop, main down, main up, hook"
	h.eventually("it is started again", said(life+restart))
	h.eventually("the pod is available again", available(1))
	if err := os.WriteFile(filepath.Join(out, "log"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := sets.Delete(t.Context(), "life", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.eventually("the pod is gone", func() bool { return len(h.pids()) == 0 })
	text, err := os.ReadFile(filepath.Join(out, "log"))
	lines := strings.Fields(strings.ReplaceAll(string(text), " ", "-"))
	before := func(a, b string) bool { return strings.Index(string(text), a) < strings.Index(string(text), b) }
	if err != nil || len(lines) != 4 || lines[3] != "sidecar-down" || !before("prestop", "main down") {
		t.Errorf("the end went %q, %v", lines, err)
	}
}
