package agent

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/picketd/picket/agent/daemonset"
	"github.com/picketd/picket/cluster"
	"github.com/picketd/picket/cluster/clustertest"
	"k8s.io/apimachinery/pkg/types"
)

var web = types.NamespacedName{Namespace: "default", Name: "web"}

// own is this host's word on web.
func (h *fleetHost) own() (s daemonset.Status) {
	h.t.Helper()
	err := h.do(func() error {
		if d := h.loop.daemonSets[web]; d != nil {
			s = d.own
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// updating are the hosts that are in their turn.
func (f *testFleet) updating() []string {
	var list []string
	for _, h := range f.up() {
		if h.own().Updating {
			list = append(list, h.cfg.Node.Name)
		}
	}
	return list
}

// runs says whether a host runs an image, alone.
func (h *fleetHost) runs(image string) bool {
	list := h.running()
	return len(list) == 1 && strings.HasSuffix(list[0].ImageRef, "/"+image)
}

// rollsOut waits until an image runs on all hosts that are up, and sees to it that never more than budget are in their turn. It
// returns how long it took, and in what order they came.
func (f *testFleet) rollsOut(limit time.Duration, image string, budget int) (time.Duration, []string) {
	f.t.Helper()
	var order []string
	began := time.Now()
	for ; ; time.Sleep(20 * time.Millisecond) {
		now := f.updating()
		if len(now) > budget {
			f.t.Fatalf("%v update at a time", now)
		}
		for _, name := range now {
			if !slices.Contains(order, name) {
				order = append(order, name)
			}
		}
		if len(now) == 0 && f.everywhere(func(h *fleetHost) bool { return h.runs(image) && h.own().Available }) {
			return time.Since(began), order
		}
		if time.Since(began) > limit {
			f.t.Fatalf("%s does not run everywhere after %s:%s", image, limit, f.whyNot(image))
		}
	}
}

// whyNot is what hosts that do not run an image say.
func (f *testFleet) whyNot(image string) (text string) {
	for _, h := range f.up() {
		if own := h.own(); !h.runs(image) || !own.Available || own.Updating {
			text += fmt.Sprintf("\n%s: view %x updating %t: %s", h.cfg.Node.Name, own.View[:4], own.Updating, own.Reason)
		}
	}
	return text
}

// webUpdating is web with what an update goes by.
func webUpdating(image string, maxUnavailable, annotations string) string {
	text := strings.Replace(webOf(image, ""), "metadata: {name: web}", "metadata: {name: web, annotations: {"+annotations+"}}", 1)
	return strings.Replace(text, "spec:\n", "spec:\n  updateStrategy: {rollingUpdate: {maxUnavailable: "+maxUnavailable+"}}\n", 1)
}

func (f *testFleet) runWeb(n int32) {
	f.t.Helper()
	f.hosts[0].apply(webOf("busybox:1", ""))
	f.within(20*time.Second, "web runs and is shown everywhere", func() bool {
		return f.everywhere(func(h *fleetHost) bool { return h.webReady(n, n) })
	})
}

func TestRollingUpdate(t *testing.T) {
	withFleet(t, 5, func(t *testing.T, f *testFleet) {
		f.runWeb(5)
		f.hosts[3].apply(webOf("busybox:2", ""))
		took, order := f.rollsOut(20*time.Second, "busybox:2", 1)
		if !slices.Equal(order, []string{"host-01", "host-02", "host-03", "host-04", "host-05"}) {
			t.Errorf("the order is %v", order)
		}
		t.Logf("5 hosts, one at a time: %s", took)
		f.hosts[1].apply(webUpdating("busybox:3", "2", ""))
		took, order = f.rollsOut(20*time.Second, "busybox:3", 2)
		t.Logf("5 hosts, two at a time: %s, %v", took, order)
	})
}

// A host that was lost before the apply, or dies without having heard of it, is gone on without, and updates itself when it returns.
func TestUpdateGoesOnWithoutALostHost(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		f.runWeb(3)
		f.hosts[1].kill()
		f.hosts[0].apply(webOf("busybox:2", ""))
		took, _ := f.rollsOut(20*time.Second, "busybox:2", 1)
		t.Logf("two hosts without the third: %s", took)
		if n := len(f.hosts[2].exclusions()); n != 1 {
			t.Errorf("%d exclusions", n)
		}
		f.hosts[1].boot()
		f.rollsOut(20*time.Second, "busybox:2", 1)
		f.within(2*adoptEvery, "no exclusion is left, also none that comes from another host", func() bool {
			return f.everywhere(func(h *fleetHost) bool { return len(h.exclusions()) == 0 })
		})
		f.hosts[2].apply(webOf("busybox:3", ""))
		f.rollsOut(20*time.Second, "busybox:3", 1)
	})
}

// exclusions are those in a host's store.
func (h *fleetHost) exclusions() (list []string) {
	for _, o := range h.loop.store.All() {
		if _, _, ok := excludes(o.Key); ok {
			list = append(list, o.Key)
		}
	}
	return list
}

// An exclusion of an older version, of a host whose entry is above it, or of one that was deleted, means nothing any more.
func TestVoidExclusions(t *testing.T) {
	withFleet(t, 2, func(t *testing.T, f *testFleet) {
		f.runWeb(2)
		h := f.hosts[0]
		key := "DaemonSet/default/web"
		now, _ := h.loop.store.Get(key)
		c := daemonset.Common{Generation: now.Version.Generation, Hash: now.Version.Hash}
		standing, _ := h.loop.fleet.roster.Standing("host-02")
		of := func(ds types.NamespacedName, node string, entry uint64) cluster.Object {
			w := newExclusion(c, entry, 0).write(ds, node)
			return cluster.Object{Key: w.Key, Version: *w.Version}
		}
		for name, c := range map[string]struct {
			o    cluster.Object
			want bool
		}{
			"of now":            {of(web, "host-02", standing.Entry), false},
			"of a host's past":  {of(web, "host-02", standing.Entry-1), true},
			"of a host to come": {of(web, "host-03", 1), false},
			"of another kind":   {now, false},
			"of an unknown set": {of(types.NamespacedName{Namespace: "default", Name: "db"}, "host-02", standing.Entry), false},
		} {
			if got := h.loop.fleet.isVoid(c.o); got != c.want {
				t.Errorf("%s: void %t", name, got)
			}
		}
		before := of(web, "host-02", standing.Entry)
		h.apply(webOf("busybox:2", ""))
		if !h.loop.fleet.isVoid(before) {
			t.Error("one of the version before is not void")
		}
		now, _ = h.loop.store.Get(key)
		c = daemonset.Common{Generation: now.Version.Generation, Hash: now.Version.Hash}
		present := of(web, "host-02", standing.Entry)
		if h.loop.fleet.isVoid(present) {
			t.Error("one of the present version is void")
		}
		if err := h.delete(resourceNodes, "", "host-02"); err != nil {
			t.Fatal(err)
		}
		if !h.loop.fleet.isVoid(present) {
			t.Error("one of a host that was deleted is not void")
		}
	})
}

// A host that dies in its turn holds the update, within the budget, and is named with what gives it up; when it returns all goes on.
func TestAHostThatDiesInItsTurnHoldsTheUpdate(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		f.runWeb(3)
		slow := strings.Replace(webOf("busybox:2", ""), "spec:\n", "spec:\n  minReadySeconds: 5\n", 1)
		f.hosts[2].apply(slow)
		f.within(time.Minute, "host-01 updates", func() bool { return f.hosts[0].own().Updating })
		time.Sleep(time.Second)
		f.hosts[0].kill()
		time.Sleep(time.Minute)
		if f.hosts[1].runs("busybox:2") || f.hosts[2].runs("busybox:2") {
			t.Fatal("the update went on")
		}
		if why := f.hosts[1].own().Reason; !strings.Contains(why, "host-01") || !strings.Contains(why, "kubectl delete node") {
			t.Errorf("it says %q", why)
		}
		f.hosts[0].boot()
		f.rollsOut(time.Minute, "busybox:2", 1)
	})
}

func TestGivingUpAHostThatDiedInItsTurn(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		f.runWeb(3)
		f.hosts[2].apply(strings.Replace(webOf("busybox:2", ""), "spec:\n", "spec:\n  minReadySeconds: 5\n", 1))
		f.within(time.Minute, "host-01 updates", func() bool { return f.hosts[0].own().Updating })
		f.hosts[0].kill()
		time.Sleep(20 * time.Second)
		if err := f.hosts[1].delete(resourceNodes, "", "host-01"); err != nil {
			t.Fatal(err)
		}
		f.rollsOut(time.Minute, "busybox:2", 1)
	})
}

// A pod that never becomes available: with Rollback the fleet is back on the old revision, and stays there.
func TestRollback(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		f.runWeb(3)
		for _, h := range f.hosts {
			h.fake.SetFail("start web", fmt.Errorf("exec format error"))
		}
		f.hosts[1].apply(webUpdating("busybox:2", "1", `picket.io/on-failure: Rollback, picket.io/progress-deadline: "30"`))
		f.within(10*time.Second, "host-01 updates", func() bool { return f.hosts[0].own().Updating })
		time.Sleep(20 * time.Second)
		for _, h := range f.hosts[1:] {
			if !h.runs("busybox:1") {
				t.Fatalf("%s took its pod down", h.cfg.Node.Name)
			}
		}
		for _, h := range f.hosts {
			h.fake.SetFail("start web", nil)
		}
		f.hosts[0].fake.SetFail("image busybox:2", fmt.Errorf("gone"))
		_, order := f.rollsOut(3*time.Minute, "busybox:1", 1)
		t.Logf("in their turn were %v", order)
		time.Sleep(5 * time.Minute)
		f.rollsOut(time.Second, "busybox:1", 0)
		if got := f.hosts[2].daemonSet("web").Annotations[daemonset.AnnotationRolledBack]; got == "" {
			t.Error("nothing says that it was rolled back")
		}
	})
}

// A version that halts is given up for another, which fails too: the way back is to the one that ran everywhere. When that fails as well,
// it is not the template, and the fleet stays where it is.
func TestRollbackPassesOverWhatHasFailed(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		f.runWeb(3)
		breaks := func(err error) {
			for _, h := range f.hosts {
				h.fake.SetFail("start web", err)
			}
		}
		event := func(reason string) bool {
			return slices.ContainsFunc(f.hosts, func(h *fleetHost) bool { return len(h.eventsOf(reason)) > 0 })
		}
		stuck := func() bool { return f.hosts[0].own().Stuck }
		breaks(errors.New("exec format error"))
		f.hosts[1].apply(webUpdating("busybox:2", "1", `picket.io/progress-deadline: "30"`))
		f.within(2*time.Minute, "host-01 is stuck", stuck)
		f.hosts[1].apply(webUpdating("busybox:3", "1", `picket.io/on-failure: Rollback, picket.io/progress-deadline: "30"`))
		f.within(time.Minute, "host-01 is in its turn", func() bool { return !stuck() })
		f.within(time.Minute, "it is rolled back", func() bool { return event("RolledBack") })
		f.within(time.Minute, "and not rolled back again", func() bool { return stuck() && event("RollbackFailed") })
		if image := f.hosts[2].daemonSet("web").Spec.Template.Spec.Containers[0].Image; image != "busybox:1" {
			t.Errorf("it went back to %s", image)
		}
		breaks(nil)
		f.rollsOut(3*time.Minute, "busybox:1", 1)
	})
}

func TestPausedAndResumed(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		f.runWeb(3)
		f.hosts[1].apply(webUpdating("busybox:2", "1", `picket.io/paused: "true"`))
		time.Sleep(time.Minute)
		f.rollsOut(time.Second, "busybox:1", 0)
		f.hosts[1].apply(webUpdating("busybox:2", "1", `picket.io/paused: "false"`))
		f.rollsOut(20*time.Second, "busybox:2", 1)
	})
}

func TestConfigThatRestarts(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		const settings = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: %q}\n"
		manifest := strings.Replace(webUpdating("busybox:1", "1", `picket.io/restart-on-config: "true"`), `image: "busybox:1"}`,
			`image: "busybox:1", envFrom: [{configMapRef: {name: settings}}]}`, 1)
		f.hosts[0].apply(fmt.Sprintf(settings, "1") + "---\n" + manifest)
		f.within(20*time.Second, "web runs everywhere", func() bool {
			return f.everywhere(func(h *fleetHost) bool { return h.webReady(3, 3) })
		})
		before := map[types.UID]bool{}
		for _, h := range f.hosts {
			before[h.ownPod().UID] = true
		}
		f.hosts[1].apply(fmt.Sprintf(settings, "2"))
		took := f.within(20*time.Second, "all pods are new", func() bool {
			if now := f.updating(); len(now) > 1 {
				t.Fatalf("%v update at a time", now)
			}
			return f.everywhere(func(h *fleetHost) bool { return len(h.running()) == 1 && !before[h.ownPod().UID] && h.own().Available })
		})
		t.Logf("a ConfigMap restarts three hosts in %s", took)
	})
}

// havoc kills hosts and cuts links for a while, and then lets all be well again.
type havoc struct {
	f      *testFleet
	random *rand.Rand
	turns  map[string]bool // killed in their turn
	down   map[*fleetHost]time.Time
}

// happen does something, or nothing.
func (tr *havoc) happen(now time.Time) {
	for h, until := range tr.down {
		if now.After(until) {
			h.boot()
			delete(tr.down, h)
			delete(tr.turns, h.cfg.Node.Name)
		}
	}
	h := tr.f.hosts[1+tr.random.IntN(len(tr.f.hosts)-1)]
	switch tr.random.IntN(40) {
	case 0:
		if len(tr.down) < 3 && h.end != nil {
			tr.turns[h.cfg.Node.Name] = h.own().Updating
			h.kill()
			tr.down[h] = now.Add(time.Duration(1+tr.random.IntN(20)) * time.Second)
		}
	case 1:
		other := tr.f.hosts[tr.random.IntN(len(tr.f.hosts))]
		tr.f.net.Cut(h.cfg.Node.Name, other.cfg.Node.Name)
	case 2:
		tr.f.net.Heal()
	}
}

// Fifty whole agents roll out while hosts crash and links drop: never more than the budget take their pods down, and it ends.
func TestFiftyAgentsRollOut(t *testing.T) {
	const hosts = 50
	withFleet(t, 1, func(t *testing.T, f *testFleet) {
		f.net.SetFaults(clustertest.Faults{Loss: 0.05, Reorder: 0.2, ReorderBy: 20 * time.Millisecond, Delay: time.Millisecond, Jitter: 2 * time.Millisecond})
		for i := 1; i < hosts; i++ {
			f.add(fmt.Sprintf("host-%02d", i+1), true)
		}
		f.within(time.Minute, "all hosts are ready everywhere", f.allReady)
		f.runWeb(hosts)
		for i, c := range []struct {
			maxUnavailable string
			budget         int
		}{{"1", 1}, {"3", 3}, {"20%", 10}} {
			image := fmt.Sprintf("busybox:%d", i+2)
			f.hosts[hosts/3].apply(webUpdating(image, c.maxUnavailable, ""))
			f.survives(12*time.Second, rand.New(rand.NewPCG(uint64(i), 1)), c.budget)
			took, _ := f.rollsOut(3*time.Minute, image, c.budget)
			t.Logf("maxUnavailable %s: all is done %s after the trouble", c.maxUnavailable, took)
		}
	})
}

// survives looks on while hosts crash and links drop, and lets all be well again.
func (f *testFleet) survives(d time.Duration, random *rand.Rand, budget int) {
	f.t.Helper()
	h := &havoc{f: f, random: random, turns: map[string]bool{}, down: map[*fleetHost]time.Time{}}
	for began := time.Now(); time.Since(began) < d; time.Sleep(40 * time.Millisecond) {
		h.happen(time.Now())
		now := f.updating()
		for name, turn := range h.turns {
			if turn {
				now = append(now, name)
			}
		}
		if len(now) > budget {
			f.t.Fatalf("%v are down at a time", now)
		}
	}
	for host := range h.down {
		host.boot()
	}
	f.net.Heal()
}

// A host whose containerd does not answer when its agent starts decides nothing: the others go on without it, and it updates itself
// when it can.
func TestUpdateGoesOnWithoutAHelplessHost(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		f.runWeb(3)
		f.hosts[1].fake.SetDown(true)
		f.hosts[1].kill()
		f.hosts[1].boot()
		f.hosts[0].apply(webOf("busybox:2", ""))
		f.within(20*time.Second, "the others run it", func() bool { return f.hosts[0].runs("busybox:2") && f.hosts[2].runs("busybox:2") })
		if !f.hosts[1].runs("busybox:1") {
			t.Error("the host without containerd did something")
		}
		f.hosts[1].fake.SetDown(false)
		f.rollsOut(time.Minute, "busybox:2", 1)
	})
}

// With maxSurge the new pod runs beside the old one, on so many hosts at a time, and no host is ever without.
func TestSurge(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		f.runWeb(3)
		surging := strings.Replace(webOf("busybox:2", ""), "spec:\n", "spec:\n  updateStrategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}\n", 1)
		f.hosts[1].apply(strings.Replace(surging, "hostNetwork: true", "", 1))
		f.within(20*time.Second, "it runs everywhere", func() bool {
			two := 0
			for _, h := range f.hosts {
				switch n := len(h.running()); n {
				case 0:
					t.Fatalf("%s is without", h.cfg.Node.Name)
				case 2:
					two++
				}
			}
			if two > 1 {
				t.Fatalf("%d hosts run two", two)
			}
			return f.everywhere(func(h *fleetHost) bool { return h.runs("busybox:2") && h.own().Available })
		})
	})
}

// A host returns that the update goes on without, and cannot raise its entry, or decides nothing at all. All wait for it, but not for
// long: then it is one that holds the update within the budget, and is named.
func TestAHostThatReturnsAndCannotSaySo(t *testing.T) {
	for name, c := range map[string]struct {
		hold, release func(h *fleetHost)
		updates       bool // though it is held
	}{
		"it cannot raise its entry": {
			func(h *fleetHost) { h.loop.raisedAt = time.Now().Add(time.Hour) }, func(*fleetHost) {}, true,
		},
		"it decides nothing": { // a pod that it cannot keep a record of
			func(h *fleetHost) { h.loop.strays["stray"], h.loop.pods.dir = h.fake.List(), "/dev/null" },
			func(h *fleetHost) { h.loop.pods.dir = h.cfg.podsDir(); delete(h.loop.strays, "stray") }, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			withFleet(t, 5, func(t *testing.T, f *testFleet) {
				f.runWeb(5)
				last := f.hosts[4]
				last.kill()
				f.hosts[0].apply(strings.Replace(webUpdating("busybox:2", "2", ""), "spec:\n", "spec:\n  minReadySeconds: 10\n", 1))
				f.within(time.Minute, "two hosts update", func() bool { return len(f.updating()) == 2 })
				last.boot()
				_ = last.do(func() error { c.hold(last); return nil })
				named, most := false, 0
				f.within(2*time.Minute, "the others run it", func() bool {
					named = named || strings.Contains(f.hosts[3].own().Reason, "waiting for host-05, which the update was to go on without")
					most = max(most, len(f.updating()))
					return !slices.ContainsFunc(f.hosts[:4], func(h *fleetHost) bool { return !h.runs("busybox:2") || !h.own().Available })
				})
				if !named || most > 2 {
					t.Errorf("it is named: %t; %d updated at a time", named, most)
				}
				if !c.updates && !last.runs("busybox:1") {
					t.Error("it did something")
				}
				_ = last.do(func() error { c.release(last); return nil })
				f.rollsOut(time.Minute, "busybox:2", 2)
			})
		})
	}
}

// A restart of containerd, on a host whose next pod is ready, changes nothing that the hosts agree on.
func TestContainerdRestartsInAnUpdate(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		f.runWeb(3)
		last := f.hosts[2]
		entry := func() uint64 { s, _ := last.loop.fleet.roster.Standing("host-03"); return s.Entry }
		before := entry()
		f.hosts[0].apply(strings.Replace(webOf("busybox:2", ""), "spec:\n", "spec:\n  minReadySeconds: 10\n", 1))
		f.within(time.Minute, "its next pod is ready", func() bool { return len(last.observed().Warm) == 1 && last.onlyWarm().Prepared })
		last.fake.SetDown(true)
		for range 40 {
			time.Sleep(50 * time.Millisecond)
			if last.own().Aside {
				t.Fatalf("it stands aside: %s", last.own().Reason)
			}
		}
		last.fake.SetDown(false)
		f.rollsOut(time.Minute, "busybox:2", 1)
		if entry() != before {
			t.Error("its entry was raised")
		}
	})
}

// An agent that starts knows its fleet before it has joined it: it is not alone, and takes nothing down because of an update.
func TestAnAgentThatStartsIsNotAlone(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		f.runWeb(3)
		first := f.hosts[0]
		first.fake.SetFail("image busybox:2", errors.New("not found"))
		f.hosts[1].apply(webOf("busybox:2", ""))
		f.within(time.Minute, "the others run it", func() bool { return f.hosts[1].runs("busybox:2") && f.hosts[2].runs("busybox:2") })
		if err := first.do(first.loop.fleet.raise); err != nil { // its entry is not the first any more, as that of a host that is alone
			t.Fatal(err)
		}
		first.kill()
		first.fake.SetFail("image busybox:2", nil)
		first.testHost.boot()
		time.Sleep(time.Minute)
		if !first.runs("busybox:1") {
			t.Error("it has taken its pod down")
		}
		first.stop()
		first.boot()
		f.rollsOut(time.Minute, "busybox:2", 1)
	})
}

// A host whose disk is full cannot make the next pod, and is able to say so. It says it no less for having said it before in a life of
// the agent that could not write that down: all agree about it anew before it starts.
func TestAHostWithAFullDiskStandsAside(t *testing.T) {
	withFleet(t, 3, func(t *testing.T, f *testFleet) {
		f.runWeb(3)
		first := f.hosts[0]
		first.fake.SetFail("image busybox:2", errors.New("no space left on device"))
		first.fillDisk()
		f.hosts[1].apply(webOf("busybox:2", ""))
		f.within(time.Minute, "the others run it", func() bool { return f.hosts[1].runs("busybox:2") && f.hosts[2].runs("busybox:2") })
		if own := first.own(); !own.Aside || !first.runs("busybox:1") {
			t.Errorf("it says %+v", own)
		}
		entry := func() uint64 { s, _ := first.loop.fleet.roster.Standing("host-01"); return s.Entry }
		first.fake.SetFail("image busybox:2", nil)
		time.Sleep(5 * time.Minute)
		if !first.runs("busybox:1") {
			t.Error("it has taken its pod down, and could not write that down")
		}
		before := entry()
		first.kill()
		first.boot()
		f.rollsOut(time.Minute, "busybox:2", 1)
		if entry() == before {
			t.Error("its entry was not raised")
		}
	})
}

// fillDisk keeps what the planner remembers from being written, as long as the agent runs.
func (h *fleetHost) fillDisk() {
	h.t.Helper()
	none, err := bbolt.Open(filepath.Join(h.t.TempDir(), "none"), 0o600, &bbolt.Options{NoSync: true})
	if err == nil {
		err = none.Close()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	_ = h.do(func() error { h.loop.state.db = none; return nil })
}
