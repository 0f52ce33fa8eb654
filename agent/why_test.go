package agent

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/daemonset"
)

// Any host answers for all.
func TestFleetWhy(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		one, two, three := f.hosts[0], f.hosts[1], f.hosts[2]
		b := &backend{loop: two.loop}
		web := types.NamespacedName{Namespace: "default", Name: "web"}
		if _, err := b.Why(t.Context(), web); !apierrors.IsNotFound(err) {
			t.Errorf("before there is one: %v", err)
		}
		one.apply(webOf("busybox", "nodeSelector: {disktype: ssd}"))
		f.within(10*time.Second, "web runs", func() bool { return f.everywhere(func(h *fleetHost) bool { return h.webReady(3, 3) }) })
		if err := one.changeNodeOf("host-01", func(n *corev1.Node) {
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "broken", Effect: corev1.TaintEffectNoExecute})
		}); err != nil {
			t.Fatal(err)
		}
		f.within(10*time.Second, "host-01 runs nothing", func() bool { return f.everywhere(func(h *fleetHost) bool { return h.webReady(2, 2) }) })
		pod := three.ownPod()
		three.kill()
		f.within(10*time.Second, "host-03 is lost", func() bool { return two.nodeReady("host-03") == corev1.ConditionUnknown })
		two.quiet()

		why, err := b.Why(t.Context(), web)
		if err != nil {
			t.Fatal(err)
		}
		want := []struct{ host, by, state, message string }{
			{"host-01", "taint broken:NoExecute is not tolerated", daemonset.HostNotPlaced, ""},
			{"host-02", "disktype=ssd", daemonset.HostAvailable, ""},
			{"host-03", "disktype=ssd", daemonset.HostSilent, "no word from it since"},
		}
		if len(why.Hosts) != len(want) {
			t.Fatalf("%d hosts: %+v", len(why.Hosts), why.Hosts)
		}
		for i, w := range want {
			if h := why.Hosts[i]; h.Host != w.host || h.By != w.by || h.State != w.state || !strings.Contains(h.Message, w.message) {
				t.Errorf("%+v, want %+v", h, w)
			}
		}
		if h := why.Hosts[2]; h.Pod != pod.Name || !h.Current || h.Revision != 1 {
			t.Errorf("%+v, want its pod %s", h, pod.Name)
		}
		if why.Name != "web" || why.Generation != 1 || why.Rollout.Message != "2 of 2 pods are updated, 1 available; not available: host-03" {
			t.Errorf("%+v %+v", why.ObjectMeta, why.Rollout)
		}
		// A revision is as old as the write that made it: kubectl shows its age.
		for _, r := range two.loop.daemonSets[web].revisions {
			if r.CreationTimestamp.IsZero() {
				t.Errorf("%s has no creationTimestamp", r.Name)
			}
		}
	})
}
