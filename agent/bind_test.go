package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/picketd/picket/cluster"
	"github.com/picketd/picket/cluster/pki"
)

// identityOf reads the identity of a host with a certificate of an authority; others are trusted beside it.
func identityOf(t *testing.T, authority *pki.Authority, others ...*pki.Authority) *pki.Identity {
	t.Helper()
	pair, err := authority.IssueHost(pki.Host{Node: "host-01", Door: true}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ca := authority.CertificatePEM()
	for _, o := range others {
		ca = append(ca, o.CertificatePEM()...)
	}
	dir := t.TempDir()
	if err := (pki.HostKit{CA: ca, Pair: pair}).Write(dir, true); err != nil {
		t.Fatal(err)
	}
	id, err := pki.ReadIdentity(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func newAuthority(t *testing.T) *pki.Authority {
	t.Helper()
	a, err := pki.NewAuthority("prod", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestStateBelongsToOneFleet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	one, two, three := newAuthority(t), newAuthority(t), newAuthority(t)
	log := slog.New(slog.DiscardHandler)
	// open says how much is in the store, after it has put something into an empty one.
	open := func(fleet string, id *pki.Identity) (objects int, setAside string) {
		t.Helper()
		db, setAside, err := openBound(path, fleet, id, log)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		s, err := cluster.OpenStore(db, "host-01", time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if objects = len(s.All()); objects == 0 {
			if _, err := s.PutAll([]cluster.Write{{Key: "ConfigMap/default/c", Body: []byte("x")}}); err != nil {
				t.Fatal(err)
			}
		}
		state, err := openState(db, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if foreign := state.foreign(); foreign != (setAside != "") {
			t.Errorf("set aside %q, foreign %t", setAside, foreign)
		}
		return objects, setAside
	}
	for _, step := range []struct {
		what    string
		fleet   string
		id      *pki.Identity
		objects int
		aside   string
	}{
		{"a new file", "prod", identityOf(t, one), 0, ""},
		{"the same fleet", "prod", identityOf(t, one), 1, ""},
		{"a second authority beside the first", "prod", identityOf(t, one, two), 1, ""},
		{"the first authority has gone", "prod", identityOf(t, two), 1, ""},
		{"another fleet of that authority", "test", identityOf(t, two), 0, "the fleet prod,"},
		{"another authority", "test", identityOf(t, three), 0, "the fleet test (of another authority),"},
	} {
		if n, aside := open(step.fleet, step.id); n != step.objects || !strings.Contains(aside, step.aside) || (aside == "") != (step.aside == "") {
			t.Errorf("%s: %d objects, set aside %q", step.what, n, aside)
		}
		if step.aside != "" { // its pods have been dealt with
			db, _, err := cluster.OpenDB(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := (&state{db: db}).noMoreForeign(); err != nil {
				t.Error(err)
			}
			db.Close()
		}
	}
	kept, err := filepath.Glob(path + ".of-another-fleet-*")
	if err != nil || len(kept) != 2 {
		t.Errorf("kept are %v: %v", kept, err)
	}
}

// A host that moves to another fleet keeps the pods that this one wants too, as they are, and stops the others once it knows.
func TestAHostMovesToAnotherFleet(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox", ""))
		h.apply(strings.ReplaceAll(webOf("busybox", ""), "name: web}\nspec", "name: old}\nspec"))
		h.after(time.Second)
		if len(h.running()) != 2 {
			t.Fatal("two pods were to run")
		}
		h.stop()
		if err := os.RemoveAll(filepath.Join(h.dir, "pki")); err != nil { // an authority of its own, made anew
			t.Fatal(err)
		}
		before := h.running()
		h.boot()
		h.after(time.Minute)
		if now := h.running(); len(now) != 2 {
			t.Fatalf("%d pods run before the new fleet is known", len(now))
		}
		h.apply(webOf("busybox", ""))
		h.after(time.Second)
		if err := h.do(h.loop.endForeign); err != nil {
			t.Fatal(err)
		}
		h.after(time.Minute)
		now := h.running()
		if len(now) != 1 || now[0].ID != before[0].ID && now[0].ID != before[1].ID || h.onlyPod().Labels["app"] != "web" {
			t.Errorf("running are %v, before %v", now, before)
		}
		if told := h.eventsOf("ForeignPod"); len(told) != 1 || !strings.Contains(told[0], "default/old") {
			t.Errorf("told is %q", told)
		}
		if h.loop.state.foreign() {
			t.Error("it is still to be asked for")
		}
	})
}

// A host that leaves ends also the pods of DaemonSets that nobody has told it about: picket leave waits for all of them.
func TestAHostThatLeavesEndsWhatItDoesNotKnow(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		h.apply(webOf("busybox", ""))
		h.after(time.Second)
		h.stop()
		if err := os.Remove(filepath.Join(h.dir, "state.db")); err != nil {
			t.Fatal(err)
		}
		h.boot()
		h.after(time.Minute)
		if len(h.running()) != 1 {
			t.Fatal("a pod of an unknown DaemonSet was to run on")
		}
		if err := h.do(func() error { h.loop.leaving = true; h.loop.setOut(); return nil }); err != nil {
			t.Fatal(err)
		}
		h.after(time.Minute)
		if len(h.running()) != 0 || len(h.loop.pods.byUID) != 0 {
			t.Errorf("%d containers run, %d pods are left", len(h.running()), len(h.loop.pods.byUID))
		}
	})
}
