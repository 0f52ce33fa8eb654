package agent

import (
	"errors"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/runtime"
)

func TestManifestBecomesAPod(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		p := h.onlyPod()
		if !podReady(p) || p.Status.Phase != corev1.PodRunning || !strings.HasPrefix(p.Name, "web-") || p.Spec.NodeName != "host-01" {
			t.Errorf("pod %s: %+v", p.Name, p.Status)
		}
		s := h.daemonSet("web").Status
		if s.DesiredNumberScheduled != 1 || s.NumberAvailable != 1 || s.UpdatedNumberScheduled != 1 || s.ObservedGeneration != h.daemonSet("web").Generation {
			t.Errorf("status %+v", s)
		}
		if err := h.delete(resourceDaemonSets, "default", "web"); err != nil {
			t.Fatal(err)
		}
		if pods, containers := h.pods(), h.fake.List(); len(pods) != 0 || len(containers) != 0 {
			t.Errorf("left behind: pods %s, containers %v", names(pods), containers)
		}
		if entries, _ := os.ReadDir(h.cfg.podsDir()); len(entries) != 0 {
			t.Errorf("left behind in the pods' directory: %v", entries)
		}
		if len(h.loop.daemonSets) != 0 {
			t.Errorf("the loop still knows %v", h.loop.daemonSets)
		}
	})
}

func TestUpdateReplacesThePod(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		first := h.onlyPod()
		h.apply(webOf("busybox:1", "") + "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: other}}\n")
		if p := h.onlyPod(); p.UID != first.UID {
			t.Error("an equal template replaced the pod")
		}
		h.apply(webOf("busybox:2", ""))
		h.after(handOverPause)
		second := h.onlyPod()
		if second.UID == first.UID || second.Spec.Containers[0].Image != "busybox:2" {
			t.Errorf("pod %s runs %s", second.Name, second.Spec.Containers[0].Image)
		}
		if list := cached[api.Object](h.loop, resourceRevisions); len(list) != 2 {
			t.Errorf("%d revisions", len(list))
		}
		// Going back is the first revision again, under a new number.
		h.apply(webOf("busybox:1", ""))
		h.after(handOverPause)
		if list := cached[api.Object](h.loop, resourceRevisions); len(list) != 2 {
			t.Errorf("%d revisions after going back", len(list))
		}
		if third := h.onlyPod(); third.Labels["controller-revision-hash"] != first.Labels["controller-revision-hash"] {
			t.Errorf("revision %s is not %s again", third.Labels["controller-revision-hash"], first.Labels["controller-revision-hash"])
		}
	})
}

// A DaemonSet follows the host's labels and taints at once (SEMANTICS.md 4).
func TestLabelsAndTaintsActAtOnce(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", "nodeSelector: {rack: r1}"))
		if pods := h.pods(); len(pods) != 0 {
			t.Fatalf("pods run without the label: %s", names(pods))
		}
		if err := h.changeNode(func(n *corev1.Node) { n.Labels["rack"] = "r1" }); err != nil {
			t.Fatal(err)
		}
		first := h.onlyPod()
		noSchedule := corev1.Taint{Key: "dedicated", Value: "gpu", Effect: corev1.TaintEffectNoSchedule}
		if err := h.changeNode(func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, noSchedule) }); err != nil {
			t.Fatal(err)
		}
		if p := h.onlyPod(); p.UID != first.UID || h.daemonSet("web").Status.NumberMisscheduled != 1 {
			t.Errorf("NoSchedule: pod %s, status %+v", p.Name, h.daemonSet("web").Status)
		}
		if err := h.changeNode(func(n *corev1.Node) { n.Spec.Taints[0].Effect = corev1.TaintEffectNoExecute }); err != nil {
			t.Fatal(err)
		}
		if pods := h.pods(); len(pods) != 0 {
			t.Errorf("NoExecute left %s", names(pods))
		}
		if err := h.changeNode(func(n *corev1.Node) { n.Spec.Taints = nil }); err != nil {
			t.Fatal(err)
		}
		h.onlyPod()
		if err := h.changeNode(func(n *corev1.Node) { delete(n.Labels, "rack") }); err != nil {
			t.Fatal(err)
		}
		if pods := h.pods(); len(pods) != 0 {
			t.Errorf("the label is gone, but not %s", names(pods))
		}
	})
}

// tolerationSeconds: the pod goes when they are over, also when the agent was restarted meanwhile, and stays away.
func TestEvictionAfterTolerationSeconds(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", `tolerations: [{key: broken, operator: Exists, effect: NoExecute, tolerationSeconds: 60}]`))
		if err := h.changeNode(func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "broken", Effect: corev1.TaintEffectNoExecute}}
		}); err != nil {
			t.Fatal(err)
		}
		h.after(40 * time.Second)
		h.onlyPod()
		h.stop()
		h.boot()
		h.after(19 * time.Second)
		h.onlyPod()
		h.after(2 * time.Second)
		if pods := h.pods(); len(pods) != 0 {
			t.Fatalf("tolerated for longer than 60 s: %s", names(pods))
		}
		h.after(time.Hour)
		if pods := h.pods(); len(pods) != 0 {
			t.Errorf("came back although the taint stands: %s", names(pods))
		}
		if err := h.changeNode(func(n *corev1.Node) { n.Spec.Taints = nil }); err != nil {
			t.Fatal(err)
		}
		h.onlyPod()
	})
}

// The config file owns what it names; the API owns the rest.
func TestConfigFileOwnsItsLabels(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		for name, change := range map[string]func(*corev1.Node){
			"changed": func(n *corev1.Node) { n.Labels["disktype"] = "hdd" },
			"removed": func(n *corev1.Node) { delete(n.Labels, "disktype") },
			"own":     func(n *corev1.Node) { n.Labels[corev1.LabelHostname] = "other" },
		} {
			err := h.changeNode(change)
			if !apierrors.IsForbidden(err) {
				t.Errorf("%s: %v", name, err)
			}
			if name != "own" && !strings.Contains(err.Error(), h.cfg.File) {
				t.Errorf("%s: the error does not name the file: %v", name, err)
			}
		}
		if err := h.changeNode(func(n *corev1.Node) { n.Labels["rack"], n.Spec.Unschedulable = "r1", true }); err != nil {
			t.Fatal(err)
		}
		h.stop()
		h.cfg.Node.Labels = map[string]string{"rack": "r2"} // the file takes the label over and leaves the other
		h.boot()
		n := h.node()
		if n.Labels["rack"] != "r2" || n.Labels["disktype"] != "" || !n.Spec.Unschedulable {
			t.Errorf("labels %v, unschedulable %v", n.Labels, n.Spec.Unschedulable)
		}
	})
}

// A restarted agent adopts what runs: no container is touched (ARCHITECTURE.md, State).
func TestRestartTouchesNothing(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		before := h.onlyPod()
		h.stop()
		h.fake.Take()
		h.boot()
		after := h.onlyPod()
		if after.UID != before.UID || !podReady(after) || after.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Errorf("after the restart: %s %+v", after.Name, after.Status)
		}
		for _, call := range h.fake.Take() {
			if !strings.HasPrefix(call, "setup") && !strings.HasPrefix(call, "image") && !strings.HasPrefix(call, "status") {
				t.Errorf("the restarted agent did: %s", call)
			}
		}
	})
}

// While containerd is away nothing is decided; when it comes, what was applied meanwhile starts.
func TestContainerdAwayAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHost(t)
		h.fake.SetDown(true)
		h.boot()
		defer func() { h.stop() }()
		h.apply(webOf("busybox:1", ""))
		if ready := conditionOf(h.node(), corev1.NodeReady); ready.Status != corev1.ConditionFalse || !strings.Contains(ready.Message, "containerd") {
			t.Errorf("%+v", ready)
		}
		h.after(time.Minute)
		h.fake.SetDown(false)
		h.after(time.Minute)
		if p := h.onlyPod(); !podReady(p) {
			t.Errorf("%+v", p.Status)
		}
	})
}

// The host went down with everything: the last-good state starts again.
func TestReboot(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		before := h.onlyPod()
		h.stop()
		h.fake.Reboot()
		h.boot()
		after := h.onlyPod()
		if after.UID != before.UID || !podReady(after) || after.Status.ContainerStatuses[0].RestartCount != 1 {
			t.Errorf("after the reboot: %+v", after.Status)
		}
	})
}

// Without its state file the agent leaves alone what runs, until the DaemonSet is applied again; then it knows its pods.
func TestLostStateFile(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		before := h.onlyPod()
		h.stop()
		if err := os.Remove(filepath.Join(h.dir, "state.db")); err != nil {
			t.Fatal(err)
		}
		h.boot()
		h.after(time.Hour)
		if p := h.onlyPod(); p.UID != before.UID || len(h.running()) != 1 {
			t.Fatalf("pod %s, %d containers run", p.Name, len(h.running()))
		}
		if h.eventsOf("UnknownDaemonSet") == nil {
			t.Error("no event says that the DaemonSet is not known")
		}
		// It is still looked after.
		h.fake.Exit(h.running()[0].ID, 1)
		h.after(time.Minute)
		if len(h.running()) != 1 {
			t.Error("a container of an unknown DaemonSet was not restarted")
		}
		h.apply(webOf("busybox:1", ""))
		if p := h.onlyPod(); p.UID != before.UID {
			t.Errorf("pod %s was replaced by %s", before.Name, p.Name)
		}
		if err := h.delete(resourceDaemonSets, "default", "web"); err != nil {
			t.Fatal(err)
		}
		if pods := h.pods(); len(pods) != 0 {
			t.Errorf("not deleted: %s", names(pods))
		}
	})
}

// A record that cannot be read is set aside, and made again from the containers' labels.
func TestDamagedRecord(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		before := h.onlyPod()
		h.stop()
		record := filepath.Join(h.cfg.podsDir(), string(before.UID)+".json")
		if err := os.WriteFile(record, []byte(`{"pod":`), 0o600); err != nil {
			t.Fatal(err)
		}
		h.fake.Take()
		h.boot()
		after := h.onlyPod()
		if after.UID != before.UID || after.Name != before.Name || !podReady(after) {
			t.Errorf("%s %s: %+v", after.Name, after.UID, after.Status)
		}
		for _, call := range h.fake.Take() {
			if strings.HasPrefix(call, "signal") || strings.HasPrefix(call, "remove") || strings.HasPrefix(call, "create") {
				t.Errorf("the agent did: %s", call)
			}
		}
		if _, err := os.Stat(record + ".corrupt"); err != nil {
			t.Errorf("the damaged record was not kept: %v", err)
		}
		if h.eventsOf("StateDamaged") == nil {
			t.Error("no event tells of it")
		}
	})
}

// A decision to stop is on disk before the first signal: the next agent carries it out.
func TestStopSurvivesTheAgent(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", "terminationGracePeriodSeconds: 60"))
		h.fake.SetDeaf("web-0")
		first := h.onlyPod()
		if err := h.delete(resourcePods, "default", first.Name); err != nil {
			t.Fatal(err)
		}
		h.after(10 * time.Second)
		h.stop()
		h.boot()
		if p := h.onlyPod(); p.UID != first.UID || p.DeletionTimestamp == nil {
			t.Fatalf("%s: %v", p.Name, p.DeletionTimestamp)
		}
		h.after(49 * time.Second)
		if h.onlyPod().UID != first.UID {
			t.Error("killed before its time was over")
		}
		h.after(2 * time.Second)
		if p := h.onlyPod(); p.UID == first.UID || !podReady(p) {
			t.Errorf("not replaced after its grace period: %s %+v", p.Name, p.Status)
		}
	})
}

func TestPreconditions(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		ds := h.daemonSet("web")
		w := api.Write{Resource: resourceDaemonSets, Namespace: "default", Name: "web", Object: ds.DeepCopy()}
		check := func(what string, is func(error) bool, change func(*api.Write)) {
			t.Helper()
			w := w
			change(&w)
			if _, err := h.write(w); !is(err) {
				t.Errorf("%s: %v", what, err)
			}
		}
		check("created twice", apierrors.IsAlreadyExists, func(w *api.Write) { w.Create = true })
		check("old resourceVersion", apierrors.IsConflict, func(w *api.Write) { w.ResourceVersion = "1" })
		check("other uid", apierrors.IsConflict, func(w *api.Write) { w.UID = types.UID("x") })
		check("unknown", apierrors.IsNotFound, func(w *api.Write) { w.Name = "nothing"; w.Object = nil })
		check("dry run", func(err error) bool { return err == nil }, func(w *api.Write) { w.Object = nil; w.DryRun = true })
		if h.daemonSet("web").UID != ds.UID {
			t.Error("a dry run deleted it")
		}
	})
}

func TestNamespaceTakesItsObjectsAlong(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply("{apiVersion: v1, kind: Namespace, metadata: {name: logs}}\n---\n" + strings.Replace(webOf("busybox:1", ""), "name: web}", "name: web, namespace: logs}", 1))
		h.onlyPod()
		if err := h.delete(resources["Namespace"], "", "logs"); err != nil {
			t.Fatal(err)
		}
		if pods := h.pods(); len(pods) != 0 {
			t.Errorf("pods of the deleted namespace: %s", names(pods))
		}
		if err := h.delete(resources["Namespace"], "", "default"); !apierrors.IsForbidden(err) {
			t.Errorf("deleting default: %v", err)
		}
	})
}

// A bug in one request is that request's error.
func TestPanicIsAnError(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		if err := h.do(func() error { panic("no reason") }); err == nil || !strings.Contains(err.Error(), "no reason") {
			t.Errorf("%v", err)
		}
		h.apply(webOf("busybox:2", ""))
		h.after(handOverPause)
		if p := h.onlyPod(); p.Spec.Containers[0].Image != "busybox:2" {
			t.Error("the loop does not go on")
		}
	})
}

// A missing image takes nothing down but what depends on it, and is tried again.
func TestMissingImage(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.fake.SetFail("image nothing", errors.New("not found in the registry"))
		h.apply(webOf("nothing", ""))
		h.after(time.Second)
		p := h.onlyPod()
		if w := p.Status.ContainerStatuses[0].State.Waiting; w == nil || w.Reason != "ErrImagePull" && w.Reason != "ImagePullBackOff" {
			t.Errorf("%+v", p.Status.ContainerStatuses[0].State)
		}
		if c := h.daemonSet("web").Status.Conditions[0]; !strings.Contains(c.Message, "not found in the registry") {
			t.Errorf("the DaemonSet does not say why: %+v", c)
		}
		h.fake.SetFail("image nothing", nil)
		h.after(5 * time.Minute)
		if !podReady(h.onlyPod()) {
			t.Error("not tried again")
		}
	})
}

// A thousand pods come and go; nothing of them stays (bar of the issue).
func TestNothingGrows(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		cycle := func(n int) {
			for range n {
				if err := h.delete(resourcePods, "default", h.onlyPod().Name); err != nil {
					t.Fatal(err)
				}
			}
		}
		cycle(50)
		goroutines, files := goruntime.NumGoroutine(), openFiles(t)
		cycle(1000)
		h.onlyPod()
		if n := goruntime.NumGoroutine(); n > goroutines {
			t.Errorf("%d goroutines have become %d", goroutines, n)
		}
		if n := openFiles(t); n > files {
			t.Errorf("%d open files have become %d", files, n)
		}
		if n := len(h.fake.List()); n != 1 {
			t.Errorf("%d containers", n)
		}
		if entries, _ := os.ReadDir(h.cfg.podsDir()); len(entries) != 2 {
			t.Errorf("%d entries in the pods' directory", len(entries))
		}
		if n := len(cached[api.Object](h.loop, resourceEvents)); n > eventsLimit {
			t.Errorf("%d events", n)
		}
	})
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// News of containers that nobody knows is no news.
func TestStrangeEvents(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		h.fake.Emit(runtime.Event{Kind: runtime.EventExit, ContainerID: "other-0", PodUID: "other", ExitCode: 1})
		h.fake.Emit(runtime.Event{Kind: runtime.EventExit, ContainerID: string(h.onlyPod().UID) + "-web-7", PodUID: string(h.onlyPod().UID)})
		h.fake.Emit(runtime.Event{Kind: runtime.EventConnected})
		h.after(time.Second)
		if p := h.onlyPod(); !podReady(p) || p.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Errorf("%+v", p.Status)
		}
	})
}

// What could not be carried out (here: no record can be written) is tried again, although nothing else happens.
func TestFailedActionsAreTriedAgain(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		inTheWay := func() {
			if err := errors.Join(os.Rename(h.cfg.podsDir(), h.cfg.podsDir()+".away"), os.WriteFile(h.cfg.podsDir(), nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		outOfTheWay := func() {
			if err := errors.Join(os.Remove(h.cfg.podsDir()), os.Rename(h.cfg.podsDir()+".away", h.cfg.podsDir())); err != nil {
				t.Fatal(err)
			}
		}
		inTheWay()
		h.apply(webOf("busybox:1", ""))
		if pods := h.pods(); len(pods) != 0 || h.eventsOf("FailedCreate") == nil {
			t.Errorf("pods %s, events %q", names(pods), h.eventsOf("FailedCreate"))
		}
		h.after(time.Hour / 2)
		if list := h.eventsOf("FailedCreate"); len(list) != 1 {
			t.Errorf("%d events say the same: %q", len(list), list)
		}
		outOfTheWay()
		h.after(2 * tick)
		h.onlyPod()
		inTheWay()
		if err := h.delete(resourceDaemonSets, "default", "web"); err != nil {
			t.Fatal(err)
		}
		if len(h.running()) != 1 || h.eventsOf("FailedDelete") == nil {
			t.Error("the pod was stopped without a record of it")
		}
		outOfTheWay()
		h.after(2 * tick)
		if pods := h.pods(); len(pods) != 0 {
			t.Error("the deletion is not tried again")
		}
	})
}

// Every plan is measured.
func TestPlansAreMeasured(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		n := 0
		if err := h.do(func() error { h.loop.planned = func(time.Duration) { n++ }; return nil }); err != nil {
			t.Fatal(err)
		}
		h.apply(webOf("busybox:1", ""))
		if err := h.do(func() error { return nil }); err != nil || n == 0 {
			t.Errorf("%d plans: %v", n, err)
		}
	})
}

// A path that is new here must not bring back what the fleet has left behind (ARCHITECTURE.md, Manifests directory), whatever
// others have changed in the object meanwhile; the content that was applied last does nothing, and changes nothing back.
func TestNewPathWithOldContent(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		file := func(path string, known bool, image string) {
			t.Helper()
			if err := h.do(func() error { return h.loop.writeFile(path, known, h.objects(webOf(image, ""))) }); err != nil {
				t.Fatal(err)
			}
		}
		change := func(f func(*appsv1.DaemonSet)) {
			t.Helper()
			ds := h.daemonSet("web").DeepCopy()
			f(ds)
			if _, err := h.write(api.Write{Resource: resourceDaemonSets, Namespace: "default", Name: "web", Object: ds}); err != nil {
				t.Fatal(err)
			}
		}
		image := func(want string) {
			t.Helper()
			if got := h.daemonSet("web").Spec.Template.Spec.Containers[0].Image; got != want {
				t.Errorf("the image is %s, not %s", got, want)
			}
		}
		file("a.yaml", false, "busybox:0")
		change(func(ds *appsv1.DaemonSet) { ds.Labels = map[string]string{"team": "x"} })
		file("a.yaml", true, "busybox:1")
		file("a.yaml", true, "busybox:2")
		file("b.yaml", false, "busybox:1")
		image("busybox:2")
		if len(h.eventsOf("ManifestOutdated")) != 1 {
			t.Errorf("events: %v", h.eventsOf("ManifestOutdated"))
		}
		change(func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = "busybox:3" }) // kubectl set image
		file("c.yaml", false, "busybox:2")
		image("busybox:3")
		if h.daemonSet("web").Labels["team"] != "x" {
			t.Error("somebody else's label is gone")
		}
		file("a.yaml", true, "busybox:1") // git revert: a known path's change is a write
		image("busybox:1")
		if err := h.delete(resourceDaemonSets, "default", "web"); err != nil {
			t.Fatal(err)
		}
		file("d.yaml", false, "busybox:1")
		if _, back := h.loop.cache.Get(resourceDaemonSets, "default", "web"); back {
			t.Error("a deleted DaemonSet came back with a new host")
		}
		file("d.yaml", false, "busybox:4")
		image("busybox:4")
	})
}

// A DaemonSet over which the planner panics is that DaemonSet's trouble.
func TestPlannerPanics(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		if err := h.do(func() error {
			d := h.loop.daemonSet(types.NamespacedName{Namespace: "default", Name: "web"})
			d.revisions, d.dirty = append(d.revisions, nil), true
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if len(h.eventsOf("Panic")) != 1 {
			t.Errorf("events: %v", h.eventsOf("Panic"))
		}
		h.apply(strings.ReplaceAll(webOf("busybox:1", ""), "name: web", "name: other"))
		if pods := h.pods(); len(pods) != 2 {
			t.Errorf("pods: %s", names(pods))
		}
	})
}
