package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/picketd/picket/agent/daemonset"
)

// loseEverything takes the state file and the pods' records and directories away; the containers run on.
func (h *testHost) loseEverything() {
	h.t.Helper()
	h.after(time.Hour) // as it is between two installations: the numbers that make pods' uids begin elsewhere
	h.stop()
	if err := errors.Join(os.Remove(filepath.Join(h.dir, "state.db")), os.RemoveAll(h.cfg.podsDir())); err != nil {
		h.t.Fatal(err)
	}
	h.boot()
	h.after(time.Minute)
}

// With the whole data directory lost the DaemonSet finds its pod again when it comes back, and does not put a second one beside it.
func TestLostDataDirectory(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		before := h.onlyPod()
		h.loseEverything()
		if len(h.running()) != 1 || h.eventsOf("UnknownPod") == nil {
			t.Errorf("%d containers run, events %q", len(h.running()), h.eventsOf("UnknownPod"))
		}
		h.fake.Take()
		h.apply(webOf("busybox:1", ""))
		h.after(time.Minute)
		p := h.onlyPod()
		if p.UID != before.UID || p.Name != before.Name || !podReady(p) || len(h.running()) != 1 {
			t.Errorf("%s became %s %+v; %d containers run", before.Name, p.Name, p.Status, len(h.running()))
		}
		for _, call := range h.fake.Take() {
			if strings.HasPrefix(call, "create") || strings.HasPrefix(call, "signal") || strings.HasPrefix(call, "remove") {
				t.Errorf("the agent did: %s", call)
			}
		}
		h.fake.Exit(h.running()[0].ID, 1)
		h.after(time.Minute)
		if len(h.running()) != 1 {
			t.Error("nobody looks after it")
		}
	})
}

// When the DaemonSet that comes back has another template, the pod of the old one ends before the new one starts.
func TestLostDataDirectoryAndAnotherTemplate(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		before := h.onlyPod()
		h.fake.SetDeaf("web-0")
		h.loseEverything()
		h.apply(strings.Replace(webOf("busybox:2", ""), "{name: web, image", "{name: other, image", 1))
		h.after(29 * time.Second)
		if p := h.onlyPod(); p.UID != before.UID || p.DeletionTimestamp == nil || len(h.running()) != 1 {
			t.Errorf("pod %s, ends %v; %d containers run", p.Name, p.DeletionTimestamp, len(h.running()))
		}
		h.after(time.Minute)
		if p := h.onlyPod(); p.UID == before.UID || !podReady(p) || len(h.running()) != 1 {
			t.Errorf("pod %s %+v; %d containers run", p.Name, p.Status, len(h.running()))
		}
	})
}

// One that ended meanwhile, unheard, is not taken for a running one.
func TestLostDataDirectoryAndAnExit(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		h.loseEverything()
		h.fake.Exit(h.running()[0].ID, 3)
		h.after(time.Minute)
		h.apply(webOf("busybox:1", ""))
		h.after(time.Minute)
		if p := h.onlyPod(); !podReady(p) || p.Status.ContainerStatuses[0].RestartCount != 1 || len(h.running()) != 1 {
			t.Errorf("%+v; %d containers run", p.Status, len(h.running()))
		}
	})
}

// A containerd that takes questions and never answers, before what runs is known: writes wait for one question, not for one each.
func TestContainerdHangsAtAdoption(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		before := h.onlyPod()
		h.stop()
		h.fake.SetHang("containers", true)
		h.boot()
		began := time.Now()
		for i := range 20 {
			h.apply(fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: c%d}}", i))
		}
		if took := time.Since(began); took > askWithin {
			t.Errorf("20 writes took %s", took)
		}
		h.fake.SetHang("containers", false)
		h.after(askWithin + 2*tick)
		if p := h.onlyPod(); p.UID != before.UID || !podReady(p) {
			t.Errorf("not adopted: %+v", p.Status)
		}
	})
}

// A power cut took the record of a pod, which is not synced, and its containers: its files and logs go too.
func TestLostRecordAndContainers(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		before := h.onlyPod()
		h.stop()
		logs := filepath.Join(h.cfg.Runtime.PodLogs, "default_"+before.Name+"_"+string(before.UID))
		link := filepath.Join(h.cfg.Runtime.ContainerLogs, "link.log")
		if err := errors.Join(
			os.Truncate(filepath.Join(h.cfg.podsDir(), string(before.UID)+".json"), 0),
			os.MkdirAll(filepath.Join(logs, "web"), 0o755), os.MkdirAll(filepath.Dir(link), 0o755), os.Symlink(filepath.Join(logs, "web", "0.log"), link),
			os.Mkdir(filepath.Join(h.cfg.podsDir(), "lost+found"), 0o700),
		); err != nil {
			t.Fatal(err)
		}
		h.fake.Reboot()
		h.boot()
		h.after(time.Minute)
		after := h.onlyPod()
		for _, path := range []string{filepath.Join(h.cfg.podsDir(), string(before.UID)), logs, link} {
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("left behind: %s", path)
			}
		}
		if len(h.running()) != 1 || after.UID == before.UID || !podReady(after) {
			t.Errorf("pod %s %+v", after.Name, after.Status)
		}
		for _, path := range []string{string(after.UID), string(after.UID) + ".json", string(before.UID) + ".json.corrupt", "lost+found"} {
			if _, err := os.Stat(filepath.Join(h.cfg.podsDir(), path)); err != nil {
				t.Error(err)
			}
		}
	})
}

// A state file that is lost on a host whose clock begins in the past at every boot gives out the same numbers again: a new pod
// must not take the place of one that is there.
func TestNumbersGivenOutAgain(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		first := h.onlyPod()
		if err := h.do(func() error {
			h.loop.state.pods.next--
			name, err := h.loop.createPod(h.loop.daemonSet(ownerOf(first)), daemonset.Action{Revision: first.Labels["controller-revision-hash"]}, time.Now())
			if err == nil && name == first.Name {
				t.Error("the name was given out again")
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	})
}

// The host got another name: what its pods were told of their node is no longer true.
func TestRenamedHost(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		before := h.onlyPod()
		h.stop()
		h.cfg.Node.Name = "host-02"
		h.boot()
		after := h.onlyPod()
		if after.UID == before.UID || after.Spec.NodeName != "host-02" || !podReady(after) {
			t.Errorf("pod %s is on node %s: %+v", after.Name, after.Spec.NodeName, after.Status)
		}
		if len(h.running()) != 1 || len(h.eventsOf("NodeRenamed")) != 1 {
			t.Errorf("%d containers run, events: %v", len(h.running()), h.eventsOf("NodeRenamed"))
		}
	})
}

// A DaemonSet that was deleted and made anew while containerd was away finds its pod, which names its present uid.
func TestRecreatedBeforeAdoption(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox:1", ""))
		before := h.onlyPod()
		h.stop()
		h.fake.SetDown(true)
		h.boot()
		if err := h.delete(resourceDaemonSets, "default", "web"); err != nil {
			t.Fatal(err)
		}
		h.apply(webOf("busybox:1", ""))
		h.fake.SetDown(false)
		h.after(time.Minute)
		after := h.onlyPod()
		if after.UID != before.UID || metav1.GetControllerOf(after).UID != h.daemonSet("web").UID {
			t.Errorf("pod %s belongs to %s, the DaemonSet is %s", after.Name, metav1.GetControllerOf(after).UID, h.daemonSet("web").UID)
		}
	})
}
