package agent

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Real containers get their stop signal and the time that they need, the critical one after the other has ended; the agent that comes
// after the boot runs new ones, at once.
func TestRealShutdown(t *testing.T) {
	h := newRealHost(t)
	agent := h.start()
	sets := h.clientset().AppsV1().DaemonSets("default")
	for name, class := range map[string]string{"web": "", "critical": "system-node-critical"} {
		ds := busyDaemon(name, "busybox:1", "")
		spec := &ds.Spec.Template.Spec
		spec.PriorityClassName = class
		seconds := int64(20)
		spec.TerminationGracePeriodSeconds = &seconds
		spec.Volumes = []corev1.Volume{{Name: "marks", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: h.dir}}}}
		spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "marks", MountPath: "/marks"}}
		spec.Containers[0].Command = []string{"sh", "-c", "trap 'touch /marks/" + name + "-told; sleep 1; touch /marks/" + name + "-done; exit 0' TERM; while true; do sleep 0.05; done"}
		if _, err := sets.Create(t.Context(), ds, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	h.settled(h.clientset())
	before := map[string]bool{}
	for _, p := range cached[*corev1.Pod](agent.loop, resourcePods) {
		before[string(p.UID)] = true
	}
	began := time.Now()
	agent.ShutDown(context.Background())
	t.Logf("the pods ended in %s", time.Since(began))
	if pids := h.pids(); len(pids) != 0 {
		t.Errorf("they run on: %v", pids)
	}
	at := map[string]time.Time{}
	for _, mark := range []string{"web-told", "web-done", "critical-told", "critical-done"} {
		info, err := os.Stat(filepath.Join(h.dir, mark))
		if err != nil {
			t.Fatal(err)
		}
		at[mark] = info.ModTime()
	}
	if at["critical-told"].Before(at["web-done"]) {
		t.Errorf("the critical pod was told to stop before the other had ended: %v", at)
	}
	h.stop()

	agent = h.start()
	h.settled(h.clientset())
	pods := cached[*corev1.Pod](agent.loop, resourcePods)
	for _, p := range pods {
		if before[string(p.UID)] || p.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Errorf("%s: %+v", p.Name, p.Status)
		}
	}
	if len(pods) != 2 {
		t.Errorf("%s", names(pods))
	}
}
