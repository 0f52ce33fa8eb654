package agent

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/daemonset"
	"github.com/picketd/picket/runtime"
)

var webName = types.NamespacedName{Namespace: "default", Name: "web"}

// pausedWeb is webOf, paused: it is left to the test when a pod is replaced.
func pausedWeb(image string) string {
	return strings.Replace(webOf(image, ""), "{name: web}", `{name: web, annotations: {picket.io/paused: "true"}}`, 1)
}

// act has the loop carry out what the planner could have said about DaemonSet web.
func (h *testHost) act(actions ...daemonset.Action) {
	h.t.Helper()
	if err := h.do(func() error {
		for _, a := range actions {
			h.loop.act(context.Background(), webName, h.loop.daemonSets[webName], a, h.loop.now())
		}
		return nil
	}); err != nil {
		h.t.Fatal(err)
	}
}

// observed is what the planner is told of DaemonSet web.
func (h *testHost) observed() (o daemonset.Observed) {
	h.t.Helper()
	if err := h.do(func() error {
		o = h.loop.pods.observed(webName)
		return nil
	}); err != nil {
		h.t.Fatal(err)
	}
	return o
}

func (h *testHost) onlyWarm() daemonset.Warm {
	h.t.Helper()
	warm := h.observed().Warm
	if len(warm) != 1 {
		h.t.Fatalf("warm pods: %+v", warm)
	}
	return warm[0]
}

// update applies another image and returns the revision that came of it.
func (h *testHost) update(image string) (revision string) {
	h.t.Helper()
	h.apply(pausedWeb(image))
	_ = h.do(func() error { revision = currentRevision(h.loop.daemonSets[webName].revisions); return nil })
	return revision
}

// withWarm runs a test on a host where busybox:1 runs and busybox:2 is warm.
func withWarm(t *testing.T, f func(t *testing.T, h *testHost, revision string)) {
	t.Helper()
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(pausedWeb("busybox:1"))
		revision := h.update("busybox:2")
		h.act(daemonset.Action{Kind: daemonset.Prepare, Revision: revision})
		f(t, h, revision)
	})
}

func TestWarmHandOver(t *testing.T) {
	withWarm(t, func(t *testing.T, h *testHost, revision string) {
		old := h.onlyPod() // nobody is shown the warm one
		warm := h.onlyWarm()
		if !warm.Prepared || warm.Trouble != "" || warm.Revision != revision || warm.ImagesOnly || len(h.running()) != 1 || len(h.fake.List()) != 2 {
			t.Fatalf("warm %+v, containers %+v", warm, h.fake.List())
		}
		if o := h.observed().Pods; len(o) != 1 || o[0].UID != string(old.UID) || len(h.eventsOf("Started")) != 1 {
			t.Errorf("pods %+v, events %q", o, h.eventsOf("Started"))
		}
		h.after(time.Minute)
		h.fake.Take()
		h.act(daemonset.Action{Kind: daemonset.Delete, UID: string(old.UID)})
		ended := slices.IndexFunc(h.observed().Pods, func(p daemonset.Pod) bool { return p.UID == string(old.UID) && p.Ended && p.Terminating })
		if ended < 0 {
			t.Errorf("the old pod has ended, and is told as %+v", h.observed().Pods)
		}
		if calls := h.fake.Take(); !slices.Equal(calls, []string{"signal web-0 ", "start web-0"}) {
			t.Errorf("calls %q: the start comes before all that is left of the old one", calls)
		}
		created := h.loop.now()
		h.after(time.Minute)
		p := h.onlyPod()
		if string(p.UID) != warm.UID || !podReady(p) || !p.CreationTimestamp.Time.Equal(created.Truncate(time.Second)) && !p.CreationTimestamp.Time.Equal(created) {
			t.Errorf("pod %s, created %v, %+v", p.UID, p.CreationTimestamp, p.Status)
		}
		if len(h.observed().Warm) != 0 || len(h.fake.List()) != 1 {
			t.Errorf("left: %+v %+v", h.observed().Warm, h.fake.List())
		}
		h.stop()
		h.boot()
		h.after(time.Minute)
		if again := h.onlyPod(); again.UID != p.UID || len(h.running()) != 1 || len(h.observed().Warm) != 0 {
			t.Errorf("after a restart: %s, warm %+v", again.UID, h.observed().Warm)
		}
	})
}

func TestWarmPodIsDiscarded(t *testing.T) {
	gone := func(t *testing.T, h *testHost, pods int) {
		t.Helper()
		h.after(time.Minute)
		if len(h.fake.List()) != pods || len(h.loop.pods.byUID) != pods || len(h.observed().Warm) != 0 {
			t.Errorf("left: containers %+v, warm %+v, %d pods", h.fake.List(), h.observed().Warm, len(h.loop.pods.byUID))
		}
		if records, _ := filepath.Glob(filepath.Join(h.cfg.podsDir(), "*.json")); len(records) != pods {
			t.Errorf("records %q", records)
		}
	}
	t.Run("by the planner", func(t *testing.T) {
		withWarm(t, func(t *testing.T, h *testHost, revision string) {
			h.act(daemonset.Action{Kind: daemonset.Discard, UID: h.onlyWarm().UID})
			gone(t, h, 1)
		})
	})
	t.Run("with its DaemonSet", func(t *testing.T) {
		withWarm(t, func(t *testing.T, h *testHost, revision string) {
			if err := h.delete(resourceDaemonSets, "default", "web"); err != nil {
				t.Fatal(err)
			}
			gone(t, h, 0)
			if len(h.loop.daemonSets) != 0 {
				t.Errorf("DaemonSets are left: %v", h.loop.daemonSets)
			}
		})
	})
	t.Run("when the host is out", func(t *testing.T) {
		withWarm(t, func(t *testing.T, h *testHost, revision string) {
			if err := h.do(func() error { h.loop.leaving = true; h.loop.setOut(); return nil }); err != nil {
				t.Fatal(err)
			}
			gone(t, h, 0)
		})
	})
	t.Run("when its record is lost", func(t *testing.T) {
		withWarm(t, func(t *testing.T, h *testHost, revision string) {
			uid := h.onlyWarm().UID
			h.stop()
			if err := os.Remove(filepath.Join(h.cfg.podsDir(), uid+".json")); err != nil {
				t.Fatal(err)
			}
			h.boot()
			gone(t, h, 1)
		})
	})
	t.Run("when the host has another name", func(t *testing.T) {
		withWarm(t, func(t *testing.T, h *testHost, revision string) {
			uid := h.onlyWarm().UID
			h.stop()
			h.cfg.Node.Name = "host-02"
			h.boot()
			h.after(time.Minute)
			if slices.ContainsFunc(h.fake.List(), func(c runtime.ContainerStatus) bool { return c.PodUID == uid }) {
				t.Error("it is left")
			}
		})
	})
}

func TestWarmPodOutlivesTheAgent(t *testing.T) {
	withWarm(t, func(t *testing.T, h *testHost, revision string) {
		before, old := h.onlyWarm(), h.onlyPod()
		h.after(time.Second)
		h.stop()
		h.fake.Take()
		h.boot()
		h.after(time.Minute)
		after := h.onlyWarm()
		if !after.Since.After(before.Since) {
			t.Errorf("the time that the agent was away counts: %v after %v", after.Since, before.Since)
		}
		if after.Since = before.Since; after != before {
			t.Errorf("%+v became %+v", before, after)
		}
		for _, call := range h.fake.Take() {
			if call != "setup" {
				t.Errorf("the agent did: %s", call)
			}
		}
		if p := h.onlyPod(); p.UID != old.UID {
			t.Errorf("a paused update replaced pod %s when the agent came back", old.Name)
		}
	})
}

// A record that could not be written says that the pod was never started; what runs says otherwise.
func TestReleasedPodWhoseRecordIsOld(t *testing.T) {
	withWarm(t, func(t *testing.T, h *testHost, revision string) {
		record := filepath.Join(h.cfg.podsDir(), h.onlyWarm().UID+".json")
		warm, err := os.ReadFile(record)
		if err != nil {
			t.Fatal(err)
		}
		old := h.onlyPod()
		h.act(daemonset.Action{Kind: daemonset.Delete, UID: string(old.UID)})
		h.after(time.Minute)
		h.stop()
		if err := os.WriteFile(record, warm, 0o600); err != nil {
			t.Fatal(err)
		}
		h.boot()
		h.after(time.Minute)
		if p := h.onlyPod(); p.Labels["controller-revision-hash"] != revision || !podReady(p) || len(h.observed().Warm) != 0 || len(h.running()) != 1 {
			t.Errorf("%+v, warm %+v", p.Status, h.observed().Warm)
		}
	})
}

func TestTroubleOfAWarmPodIsToldToThePlanner(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(pausedWeb("busybox:1"))
		h.fake.SetFail("image busybox:2", context.DeadlineExceeded)
		revision := h.update("busybox:2")
		h.act(daemonset.Action{Kind: daemonset.Prepare, Revision: revision})
		if w := h.onlyWarm(); w.Prepared || w.Trouble != "ErrImagePull: context deadline exceeded" {
			t.Errorf("warm %+v", w)
		}
		h.fake.SetFail("image busybox:2", nil)
		h.after(time.Minute)
		if w := h.onlyWarm(); !w.Prepared || w.Trouble != "" {
			t.Errorf("warm %+v", w)
		}
	})
}

// A host whose turn is far away pulls images only, until the update is paused; the same becomes its warm pod when its turn is near.
func TestImagesArePulledAheadOfTheTurn(t *testing.T) {
	withFleet(t, 6, func(t *testing.T, f *testFleet) {
		f.runWeb(6)
		last := f.hosts[5]
		web := func(paused string) {
			f.hosts[0].apply(strings.Replace(webUpdating("busybox:2", "1", "picket.io/paused: "+paused), "spec:\n", "spec:\n  minReadySeconds: 10\n", 1))
		}
		pulled := func() bool {
			warm := last.observed().Warm
			return len(warm) == 1 && warm[0].ImagesOnly && warm[0].Prepared && len(last.fake.List()) == 1
		}
		web(`"false"`)
		f.within(time.Minute, "it has the image", pulled)
		web(`"true"`)
		f.within(time.Minute, "the pause has come to it", func() bool { return len(last.observed().Warm) == 0 })
		web(`"false"`)
		f.within(time.Minute, "it has the image", pulled)
		uid := last.onlyWarm().UID
		f.within(time.Minute, "it has a warm pod", func() bool {
			warm := last.observed().Warm
			return len(warm) == 1 && warm[0].UID == uid && !warm[0].ImagesOnly && warm[0].Prepared && len(last.fake.List()) == 2
		})
		f.rollsOut(2*time.Minute, "busybox:2", 1)
		if now := string(last.ownPod().UID); now != uid || len(last.observed().Warm) > 0 || len(last.loop.pods.byUID) > 2 {
			t.Errorf("pod %s runs in place of %s; left are %+v", now, uid, last.observed().Warm)
		}
	})
}

// A pod that mounts a ConfigMap as its environment is made again when that changes.
func TestWarmPodFollowsConfigMaps(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {A: old}\n")
		text := strings.Replace(pausedWeb("busybox:1"), "image:", "envFrom: [{configMapRef: {name: x}}], image:", 1)
		h.apply(text)
		h.apply(strings.Replace(text, "busybox:1", "busybox:2", 1))
		var revision string
		_ = h.do(func() error { revision = currentRevision(h.loop.daemonSets[webName].revisions); return nil })
		h.act(daemonset.Action{Kind: daemonset.Prepare, Revision: revision})
		warm := h.onlyWarm()
		h.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {A: new}\n")
		if env := h.fake.Config(warm.UID + "-web-0").Env; !slices.Contains(env, "A=new") || !h.onlyWarm().Prepared {
			t.Errorf("env %q of %+v", env, h.onlyWarm())
		}
	})
}
