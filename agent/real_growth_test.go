package agent

import (
	"context"
	"os"
	goruntime "runtime"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/picketd/picket/runtime/runtimetest"
)

// onlyPodName is the one pod that is not on its way out, once it is ready; "" before.
func onlyPodName(t *testing.T, client *kubernetes.Clientset) string {
	t.Helper()
	list, err := client.CoreV1().Pods("default").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 || list.Items[0].DeletionTimestamp != nil || !podReady(&list.Items[0]) {
		return ""
	}
	return list.Items[0].Name
}

// Fifty pods with a network of their own come and go on a real containerd: no goroutine, descriptor, shim, mount, link, rule or
// cgroup of them stays (bar of the issue).
func TestRealNothingGrows(t *testing.T) {
	h := newRealHost(t)
	h.start()
	client := h.clientset()
	ds := busyDaemon("web", "busybox:1", "")
	ds.Spec.Template.Spec.HostNetwork = false
	if _, err := client.AppsV1().DaemonSets("default").Create(t.Context(), ds, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	cycle := func(n int) {
		for range n {
			name := ""
			h.eventually("a ready pod", func() bool { name = onlyPodName(t, client); return name != "" })
			if err := client.CoreV1().Pods("default").Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		h.eventually("a ready pod", func() bool { return onlyPodName(t, client) != "" })
	}
	cycle(5)
	before := h.footprint()
	cycle(50)
	var after map[string]int
	h.eventually("what belongs to removed pods is gone", func() bool {
		after = h.footprint()
		for what, n := range after {
			if n > before[what] {
				return false
			}
		}
		return true
	})
	t.Logf("before %v, after %v", before, after)
}

// footprint counts what pods leave on a host.
func (h *realHost) footprint() map[string]int {
	count := func(dir, part string) int {
		n := 0
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if strings.Contains(e.Name(), part) {
				n++
			}
		}
		return n
	}
	return map[string]int{
		"goroutines": goruntime.NumGoroutine(), "descriptors": count("/proc/self/fd", ""), "shims": len(shared.containerd.Shims()),
		"mounts": len(runtimetest.Mounts(h.dir)), "links": count("/sys/class/net", "veth"), "records": count(h.cfg.podsDir(), ""),
		"leases": count(h.cfg.DataDir+"/cni", ""), "cgroups": count("/sys/fs/cgroup/memory/picket", "pod") + count("/sys/fs/cgroup/picket", "pod"),
	}
}
