package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/cluster"
	"github.com/picketd/picket/cluster/clustertest"
	"github.com/picketd/picket/cluster/pki"
	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

// testFleet is trunks of agents, each on a containerd in memory, that meet over a network in memory, in virtual time.
type testFleet struct {
	t         *testing.T
	net       *clustertest.Network
	authority *pki.Authority
	hosts     []*fleetHost
}

// fleetHost is one of them.
type fleetHost struct {
	*testHost
	f       *testFleet
	machine *clustertest.Host
	end     func() // nil when it is down
}

func withFleet(t *testing.T, n int, f func(t *testing.T, f *testFleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		authority, err := pki.NewAuthority("picket", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		fleet := &testFleet{t: t, net: clustertest.NewNetwork(1), authority: authority}
		fleet.net.SetFaults(clustertest.Faults{Delay: time.Millisecond, Jitter: time.Millisecond})
		defer func() {
			for _, h := range fleet.hosts {
				h.kill()
			}
			time.Sleep(time.Minute) // memberlist's last probes
		}()
		for i := range n {
			fleet.add(fmt.Sprintf("host-%02d", i+1), true)
		}
		fleet.within(time.Minute, "all hosts are ready everywhere", fleet.allReady)
		f(t, fleet)
	})
}

// add starts a host that joins at the first one.
func (f *testFleet) add(name string, door bool) *fleetHost {
	f.t.Helper()
	h := &fleetHost{testHost: newTestHost(f.t), f: f, machine: f.net.Host(name)}
	h.cfg.Node.Name, h.cfg.Node.Labels = name, map[string]string{"disktype": "ssd"}
	h.cfg.Cluster.GossipKeys, h.cfg.Cluster.Bind = "", "0.0.0.0:9745"
	if len(f.hosts) > 0 {
		h.cfg.Cluster.Join = []string{f.hosts[0].machine.Addr().String() + ":9745"}
	}
	h.certify(door)
	f.hosts = append(f.hosts, h)
	h.boot()
	return h
}

func (h *fleetHost) certify(door bool) {
	h.t.Helper()
	pair, err := h.f.authority.IssueHost(pki.Host{Node: h.cfg.Node.Name, Door: door}, time.Now())
	if err == nil {
		err = pki.HostKit{CA: h.f.authority.TrustedPEM(), Pair: pair}.Write(h.cfg.API.PKI, true)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// boot starts the agent and lets it join.
func (h *fleetHost) boot() {
	h.t.Helper()
	h.testHost.boot()
	f := h.loop.fleet
	transport, err := h.machine.Transport(9745)
	if err != nil {
		h.t.Fatal(err)
	}
	f.wire.transport, f.wire.dial = transport, h.machine.Dial
	listener, err := h.machine.Listen(9746)
	if err == nil {
		err = f.join(h.machine.Addr().String() + ":9746")
	}
	if err != nil {
		h.t.Fatal(err)
	}
	serving, err := pki.NewServing(h.cfg.API.PKI, time.Now, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	server := &http.Server{Handler: f.replication, TLSConfig: serving.TLSConfig(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	if err := h.do(func() error { return nil }); err != nil { // the loop turns, and sees the channel of changes
		h.t.Fatal(err)
	}
	h.end = func() {
		_ = server.Close()
		if err := f.close(); err != nil {
			h.t.Error(err)
		}
		h.stop()
		h.end = nil
	}
}

// kill ends the agent without a word to anybody.
func (h *fleetHost) kill() {
	if h.end != nil {
		h.end()
	}
}

// powerCut also ends its containers.
func (h *fleetHost) powerCut() {
	h.kill()
	h.fake = runtimetest.NewFake()
}

// within waits in virtual time.
func (f *testFleet) within(limit time.Duration, what string, ok func() bool) time.Duration {
	f.t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			f.t.Fatalf("not within %s: %s\n%s", limit, what, f.report())
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(began)
}

func (f *testFleet) report() string {
	var text strings.Builder
	for _, h := range f.up() {
		fmt.Fprintf(&text, "%s: nodes", h.cfg.Node.Name)
		for _, n := range cached[*corev1.Node](h.loop, resourceNodes) {
			fmt.Fprintf(&text, " %s=%s", n.Name, conditionOf(n, corev1.NodeReady).Status)
		}
		fmt.Fprintf(&text, "; pods %s\n", names(h.pods()))
	}
	return text.String()
}

func (f *testFleet) up() []*fleetHost {
	return slices.DeleteFunc(slices.Clone(f.hosts), func(h *fleetHost) bool { return h.end == nil })
}

func (f *testFleet) everywhere(ok func(h *fleetHost) bool) bool {
	return !slices.ContainsFunc(f.up(), func(h *fleetHost) bool { return !ok(h) })
}

func (h *fleetHost) nodeReady(name string) corev1.ConditionStatus {
	o, ok := h.loop.cache.Get(resourceNodes, "", name)
	if !ok {
		return "none"
	}
	return conditionOf(o.(*corev1.Node), corev1.NodeReady).Status
}

func (f *testFleet) allReady() bool {
	return f.everywhere(func(h *fleetHost) bool {
		return f.everywhere(func(o *fleetHost) bool { return h.nodeReady(o.cfg.Node.Name) == corev1.ConditionTrue })
	})
}

// webReady says whether a host shows the DaemonSet web with so many ready pods of so many, and the pods.
func (h *fleetHost) webReady(ready, desired int32) bool {
	o, ok := h.loop.cache.Get(resourceDaemonSets, "default", "web")
	if !ok {
		return false
	}
	s := h.daemonSet("web").Status
	return o != nil && s.DesiredNumberScheduled == desired && s.NumberReady == ready && len(h.pods()) == int(desired)
}

func TestFleetRunsADaemonSet(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		f.hosts[1].apply(webOf("busybox", ""))
		took := f.within(10*time.Second, "web runs and is shown everywhere", func() bool {
			return f.everywhere(func(h *fleetHost) bool { return h.webReady(3, 3) })
		})
		t.Logf("shown as ready everywhere after %s", took)
		for _, h := range f.hosts {
			if n := len(h.running()); n != 1 {
				t.Errorf("%s runs %d containers", h.cfg.Node.Name, n)
			}
			uids := map[string]bool{}
			for _, p := range h.pods() {
				uids[p.Spec.NodeName] = true
				if p.Spec.NodeName != h.cfg.Node.Name {
					own := f.named(p.Spec.NodeName).ownPod()
					if own.Name != p.Name || own.UID != p.UID || own.Spec.Containers[0].Image != p.Spec.Containers[0].Image {
						t.Errorf("%s shows %s as %s (%s, %s)", h.cfg.Node.Name, own.Name, p.Name, own.UID, p.UID)
					}
				}
			}
			if len(uids) != 3 {
				t.Errorf("%s shows pods on %v", h.cfg.Node.Name, uids)
			}
		}
		// Any door deletes it.
		if err := f.hosts[2].delete(resourceDaemonSets, "default", "web"); err != nil {
			t.Fatal(err)
		}
		f.within(time.Minute, "nothing of it is left", func() bool {
			return f.everywhere(func(h *fleetHost) bool {
				return len(h.pods()) == 0 && len(h.running()) == 0 && len(h.loop.daemonSets) == 0
			})
		})
	})
}

// A word of a DaemonSet that is deleted and forgotten comes late: when it is taken back, nothing of the DaemonSet is left.
func TestALateWordOfADeletedDaemonSet(t *testing.T) {
	withFleet(t, 2, func(t *testing.T, f *testFleet) {
		f.runWeb(2)
		h := f.hosts[0]
		word, _ := h.loop.fleet.statuses.Get("host-02", "default/web")
		if err := h.delete(resourceDaemonSets, "default", "web"); err != nil {
			t.Fatal(err)
		}
		gone := func() bool { return len(h.loop.daemonSets) == 0 }
		f.within(time.Minute, "it is gone", gone)
		hear := func(word cluster.Status) {
			if err := h.do(func() error { return h.loop.hearWord(word) }); err != nil {
				t.Fatal(err)
			}
		}
		hear(word)
		if gone() {
			t.Error("it is not heard")
		}
		word.Body = nil
		hear(word)
		f.within(time.Minute, "it is gone again", gone)
	})
}

func (f *testFleet) named(name string) *fleetHost {
	for _, h := range f.hosts {
		if h.cfg.Node.Name == name {
			return h
		}
	}
	f.t.Fatalf("there is no %s", name)
	return nil
}

func (h *fleetHost) ownPod() *corev1.Pod {
	h.t.Helper()
	for _, p := range h.pods() {
		if p.Spec.NodeName == h.cfg.Node.Name {
			return p
		}
	}
	h.t.Fatalf("%s has no pod of its own", h.cfg.Node.Name)
	return nil
}

// changeNodeOf writes a Node, of any host, through this one.
func (h *fleetHost) changeNodeOf(name string, change func(*corev1.Node)) error {
	h.t.Helper()
	o, ok := h.loop.cache.Get(resourceNodes, "", name)
	if !ok {
		h.t.Fatalf("%s does not show %s", h.cfg.Node.Name, name)
	}
	n := o.(*corev1.Node).DeepCopy()
	change(n)
	_, err := h.write(api.Write{Resource: resourceNodes, Name: name, Object: n, ResourceVersion: n.ResourceVersion})
	return err
}

func TestAHostThatFails(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		one, two, three := f.hosts[0], f.hosts[1], f.hosts[2]
		one.apply(webOf("busybox", ""))
		f.within(10*time.Second, "web runs", func() bool { return f.everywhere(func(h *fleetHost) bool { return h.webReady(3, 3) }) })
		three.powerCut()
		took := f.within(10*time.Second, "it is NotReady everywhere", func() bool {
			return f.everywhere(func(h *fleetHost) bool { return h.nodeReady("host-03") == corev1.ConditionUnknown })
		})
		t.Logf("NotReady everywhere after %s", took)
		one.quiet()
		if !one.webReady(2, 3) || len(two.running()) != 1 {
			t.Errorf("the status is %+v", one.daemonSet("web").Status)
		}
		for _, c := range one.daemonSet("web").Status.Conditions {
			if c.Type == "Available" && !strings.Contains(c.Message, "host-03: no word from it since") {
				t.Errorf("Available says %q", c.Message)
			}
		}
		// Cordoned, labelled and tainted while it is down: applied when it returns.
		if err := two.changeNodeOf("host-03", func(n *corev1.Node) {
			n.Labels["zone"] = "a"
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "broken", Effect: corev1.TaintEffectNoExecute})
		}); err != nil {
			t.Fatal(err)
		}
		three.boot()
		f.within(30*time.Second, "it is back, and runs nothing", func() bool {
			return f.allReady() && len(three.running()) == 0 && f.everywhere(func(h *fleetHost) bool { return h.webReady(2, 2) })
		})
		if err := one.changeNodeOf("host-03", func(n *corev1.Node) { n.Spec.Taints = nil }); err != nil {
			t.Fatal(err)
		}
		f.within(30*time.Second, "it runs web again", func() bool { return f.everywhere(func(h *fleetHost) bool { return h.webReady(3, 3) }) })
		err := one.changeNodeOf("host-03", func(n *corev1.Node) { n.Labels["disktype"] = "hdd" })
		if err == nil || !strings.Contains(err.Error(), "/etc/picket/picketd.yaml on host-03") {
			t.Errorf("a label of another host's config file: %v", err)
		}
	})
}

func TestDeleteAndAdmitANode(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		one, three := f.hosts[0], f.hosts[2]
		one.apply(webOf("busybox", ""))
		f.within(10*time.Second, "web runs", func() bool { return f.everywhere(func(h *fleetHost) bool { return h.webReady(3, 3) }) })
		if err := one.delete(resourceNodes, "", "host-01"); err == nil {
			t.Error("a host deleted itself")
		}
		if err := one.delete(resourceNodes, "", "host-03"); err != nil {
			t.Fatal(err)
		}
		rest := f.hosts[:2]
		f.within(time.Minute, "its pods stop, and nobody shows it", func() bool {
			return len(three.running()) == 0 && !slices.ContainsFunc(rest, func(h *fleetHost) bool {
				return h.nodeReady("host-03") != "none" || !h.webReady(2, 2)
			})
		})
		if err := three.delete(resourceDaemonSets, "default", "web"); err == nil || !strings.Contains(err.Error(), "the host was deleted from the fleet") {
			t.Errorf("a deleted host deletes a DaemonSet: %v", err)
		}
		if _, _, err := one.loop.fleet.Peer(three.loop.fleet.identity().Certificate.Leaf); err == nil {
			t.Error("the deleted host's certificate is taken")
		}
		if err := one.loop.fleet.Admit(context.Background(), "host-03"); err != nil {
			t.Fatal(err)
		}
		f.within(time.Minute, "it is back and runs web", func() bool {
			return f.allReady() && f.everywhere(func(h *fleetHost) bool { return h.webReady(3, 3) })
		})
		// Deleted once more; a new certificate takes it back.
		if err := one.delete(resourceNodes, "", "host-03"); err != nil {
			t.Fatal(err)
		}
		f.within(time.Minute, "its pods stop", func() bool { return len(three.running()) == 0 })
		time.Sleep(time.Minute)
		three.kill()
		three.certify(true)
		three.boot()
		f.within(time.Minute, "it is back with a new certificate", func() bool {
			return f.allReady() && f.everywhere(func(h *fleetHost) bool { return h.webReady(3, 3) })
		})
	})
}

func TestAPlainHostIsNoDoor(t *testing.T) {
	withFleet(t, 2, func(t *testing.T, f *testFleet) {
		plain := f.add("plain", false)
		f.within(time.Minute, "all are ready", f.allReady)
		f.hosts[0].apply(webOf("busybox", ""))
		f.within(10*time.Second, "web runs", func() bool { return f.everywhere(func(h *fleetHost) bool { return h.webReady(3, 3) }) })
		err := plain.delete(resourceDaemonSets, "default", "web")
		if err == nil || !strings.Contains(err.Error(), "plain is no door") {
			t.Errorf("a plain host deletes: %v", err)
		}
		if err := plain.delete(resourceNodes, "", "host-01"); err == nil {
			t.Error("a plain host deletes a node")
		}
		if err := plain.loop.fleet.delete("host-01"); err == nil {
			t.Error("a plain host's deletion is signed")
		}
		time.Sleep(time.Minute)
		if !f.everywhere(func(h *fleetHost) bool { return h.webReady(3, 3) }) {
			t.Error(f.report())
		}
	})
}

func TestBothSidesOfACutGoOn(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		one, two := f.hosts[0], f.hosts[1]
		one.apply(webOf("busybox", ""))
		f.within(10*time.Second, "web runs", func() bool { return f.everywhere(func(h *fleetHost) bool { return h.webReady(3, 3) }) })
		before := map[string]string{}
		for _, h := range f.hosts {
			before[h.cfg.Node.Name] = h.running()[0].ID
		}
		f.net.Partition([]string{"host-01"}, []string{"host-02", "host-03"})
		time.Sleep(30 * time.Second)
		one.apply(strings.ReplaceAll(webOf("busybox", ""), "name: web}\nspec", "name: alone}\nspec"))
		two.apply(strings.ReplaceAll(webOf("busybox", ""), "name: web}\nspec", "name: pair}\nspec"))
		// Both sides also change the same object.
		one.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {side: one}\n")
		two.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {side: two}\n")
		time.Sleep(30 * time.Second)
		for _, h := range f.hosts {
			if n := len(h.running()); n != 2 {
				t.Errorf("%s runs %d containers during the cut", h.cfg.Node.Name, n)
			}
			if !slices.ContainsFunc(h.running(), func(c runtime.ContainerStatus) bool { return c.ID == before[h.cfg.Node.Name] }) {
				t.Errorf("%s: the container that ran before the cut does not run", h.cfg.Node.Name)
			}
		}
		f.net.Heal()
		took := f.within(10*time.Second, "all agree", func() bool {
			return f.allReady() && f.everywhere(func(h *fleetHost) bool { return len(h.running()) == 3 && len(h.pods()) == 9 })
		})
		t.Logf("all agree %s after the heal", took)
		told := 0
		for _, h := range f.hosts {
			for _, text := range h.eventsOf("Overwritten") {
				if !strings.Contains(text, "tester on host-01") || !strings.Contains(text, "tester on host-02") {
					t.Errorf("an event names not both writers: %s", text)
				}
				told++
			}
		}
		if told == 0 {
			t.Error("nobody tells that a write was lost")
		}
	})
}

// A host reboots while it is cut off: it runs what it ran, and takes orders.
func TestAHostLeftAlone(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		three := f.hosts[2]
		f.hosts[0].apply(webOf("busybox", ""))
		f.within(10*time.Second, "web runs", func() bool { return f.everywhere(func(h *fleetHost) bool { return h.webReady(3, 3) }) })
		f.net.Partition([]string{"host-03"}, []string{"host-01", "host-02"})
		time.Sleep(time.Hour)
		three.powerCut()
		three.boot()
		f.within(10*time.Second, "web runs on it", func() bool { return len(three.running()) == 1 })
		three.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {side: three}\n")
		time.Sleep(time.Hour)
		f.net.Heal()
		f.within(10*time.Second, "all agree", func() bool {
			return f.allReady() && f.everywhere(func(h *fleetHost) bool {
				_, ok := h.loop.cache.Get(resourceConfigMaps, "default", "c")
				return ok && h.webReady(3, 3)
			})
		})
	})
}

func TestALateHostRunsAll(t *testing.T) {
	withFleet(t, 2, func(t *testing.T, f *testFleet) {
		f.hosts[0].apply(webOf("busybox", ""))
		f.within(10*time.Second, "web runs", func() bool { return f.everywhere(func(h *fleetHost) bool { return h.webReady(2, 2) }) })
		late := f.add("late", true)
		took := f.within(2*time.Second, "it runs web", func() bool { return len(late.running()) == 1 })
		t.Logf("it runs all %s after its start", took)
		f.within(10*time.Second, "all see it", func() bool { return f.everywhere(func(h *fleetHost) bool { return h.webReady(3, 3) }) })
	})
}

// Fifty whole agents on a network that loses packets: an apply runs everywhere within three seconds, and is shown so.
func TestFiftyWholeAgents(t *testing.T) {
	const hosts = 50
	withFleet(t, 1, func(t *testing.T, f *testFleet) {
		f.net.SetFaults(clustertest.Faults{Loss: 0.05, Reorder: 0.2, ReorderBy: 20 * time.Millisecond, Delay: time.Millisecond, Jitter: 2 * time.Millisecond})
		for i := 1; i < hosts; i++ {
			f.add(fmt.Sprintf("host-%02d", i+1), true)
		}
		joined := f.within(time.Minute, "all hosts are ready everywhere", f.allReady)
		f.hosts[17].apply(webOf("busybox", ""))
		ran := f.within(3*time.Second, "it runs everywhere", func() bool {
			return f.everywhere(func(h *fleetHost) bool { return len(h.running()) == 1 })
		})
		shown := f.within(30*time.Second, "every host shows that it does", func() bool {
			return f.everywhere(func(h *fleetHost) bool { return h.webReady(hosts, hosts) })
		})
		t.Logf("%d hosts: ready everywhere %s after the last start; a DaemonSet runs everywhere after %s, every host shows it so %s later", hosts, joined, ran, shown)
		f.net.Partition(namesOf(f.hosts[:20]), namesOf(f.hosts[20:]))
		time.Sleep(time.Minute)
		f.hosts[3].apply(webOf("busybox", "priorityClassName: system-node-critical"))
		f.hosts[30].changeNodeOf("host-02", func(n *corev1.Node) { n.Labels["zone"] = "a" })
		time.Sleep(time.Minute)
		f.net.Heal()
		agreed := f.within(time.Minute, "all agree", func() bool {
			return f.allReady() && f.everywhere(func(h *fleetHost) bool {
				n, ok := h.loop.cache.Get(resourceNodes, "", "host-02")
				return ok && n.GetLabels()["zone"] == "a" && h.daemonSet("web").Spec.Template.Spec.PriorityClassName != ""
			})
		})
		t.Logf("all agree %s after two minutes of a cut", agreed)
	})
}

func namesOf(hosts []*fleetHost) []string {
	var list []string
	for _, h := range hosts {
		list = append(list, h.cfg.Node.Name)
	}
	return list
}
