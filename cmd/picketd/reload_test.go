package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// reloadTest is a reloader in virtual time with everything around it.
type reloadTest struct {
	*testing.T
	path             string
	agent            *fakeAgent
	log              output
	systemd          told
	logs             *logging
	ordered, changed chan struct{}
}

// runReload starts one on a file, inside of a bubble.
func runReload(t *testing.T, path string) *reloadTest {
	r := &reloadTest{T: t, path: path, agent: &fakeAgent{summary: "fine"}, ordered: make(chan struct{}, 1), changed: make(chan struct{}, 1)}
	r.logs = newLogging(&r.log, false)
	s := testSource(t, "--config", path)
	first, err := s.read()
	if err != nil {
		t.Fatal(err)
	}
	notify := notifier(r.systemd.notify)
	reloader := &reloader{source: s, agent: r.agent, logs: r.logs, notify: notify, status: &status{summary: r.agent.Summary, notify: notify}, last: first}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() { cancel(); synctest.Wait() })
	go reloader.run(ctx, r.ordered, r.changed)
	return r
}

func (r *reloadTest) write(text string) {
	r.Helper()
	if err := os.WriteFile(r.path, []byte(text), 0o600); err != nil {
		r.Fatal(err)
	}
}

// change writes the file and lets the watch notice.
func (r *reloadTest) change(text string) {
	r.Helper()
	r.write(text)
	r.changed <- struct{}{}
	time.Sleep(settleAtMost)
	synctest.Wait()
}

func (r *reloadTest) sighup() {
	r.ordered <- struct{}{}
	synctest.Wait()
}

func (r *reloadTest) expect(what, taken string, refused int) {
	r.Helper()
	if got := r.agent.taken(); got != taken || r.agent.refusals() != refused {
		r.Errorf("%s: taken %q, %d refused; want %q, %d\n%s", what, got, r.agent.refusals(), taken, refused, r.log.String())
	}
}

func TestReload(t *testing.T) {
	path := write(t, "log: {level: info}")
	synctest.Test(t, func(t *testing.T) {
		r := runReload(t, path)
		r.changed <- struct{}{}
		time.Sleep(time.Minute)
		r.expect("nothing new", "", 0)

		r.change("log: {level: debug}")
		r.expect("a change", "debug", 0)
		if !r.logs.Enabled(t.Context(), -4) {
			t.Error("the log's level has not changed")
		}
		r.changed <- struct{}{}
		time.Sleep(time.Minute)
		r.expect("the same again", "debug", 0)
		r.sighup()
		r.expect("an order", "debug debug", 0)
	})
}

func TestReloadRefused(t *testing.T) {
	path := write(t, "log: {level: debug}")
	synctest.Test(t, func(t *testing.T) {
		r := runReload(t, path)
		r.change("log: {level: loud}\nnode:\n  lables: {}\n")
		r.expect("an invalid file", "", 1)
		for _, want := range []string{path + ":1: log.level: ", path + ":3: node.lables: unknown key"} {
			if strings.Count(r.log.String(), want) != 1 {
				t.Errorf("the log does not say %q once:\n%s", want, r.log.String())
			}
		}
		messages := r.systemd.take()
		last := messages[len(messages)-1]
		if !strings.HasPrefix(messages[0], "RELOADING=1\nMONOTONIC_USEC=") || last != "READY=1" || !slices.Contains(messages, "STATUS=fine; the new configuration is refused: "+path+`:1: log.level: "loud" is not one of debug, info, warn, error`) {
			t.Errorf("systemd was told %q", messages)
		}
		r.changed <- struct{}{}
		time.Sleep(time.Minute)
		r.expect("the same mistake", "", 1)

		r.change("log: {level: warn}")
		r.expect("a valid file", "warn", 1)
		if messages := r.systemd.take(); !slices.Contains(messages, "STATUS=fine") {
			t.Errorf("the status still complains: %q", messages)
		}
	})
}

// What vanishes or runs empty is more often a slip than a wish: it takes an order.
func TestReloadLost(t *testing.T) {
	path := write(t, "log: {level: debug}")
	synctest.Test(t, func(t *testing.T) {
		r := runReload(t, path)
		r.change(" \n")
		r.expect("an empty file", "", 1)
		r.change("log: {level: debug}")
		r.expect("the old content again", "debug", 1)
		r.changed <- struct{}{}
		time.Sleep(time.Minute)
		r.expect("nothing new since", "debug", 1)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		r.changed <- struct{}{}
		time.Sleep(time.Minute)
		r.expect("no file", "debug", 2)
		r.sighup()
		r.expect("no file, by order", "debug", 3)
		r.write("")
		r.sighup()
		r.expect("an empty file, by order", "debug info", 3)
	})
}

// The default file may be missing, and come later; but it may not go.
func TestReloadMissing(t *testing.T) {
	r := &reloader{}
	if err := r.lost(content{}, true); err != nil {
		t.Errorf("no file as before: %v", err)
	}
	if err := r.lost(content{path: "/f"}, false); err != nil {
		t.Errorf("a first file, still empty: %v", err)
	}
	r.last = content{path: "/f", data: []byte("log: {}")}
	if err := r.lost(content{}, true); err == nil {
		t.Error("a file that is gone counts as defaults")
	}
}

func TestReloadRestart(t *testing.T) {
	path := write(t, "log: {level: info}")
	synctest.Test(t, func(t *testing.T) {
		r := runReload(t, path)
		r.agent.set(func(f *fakeAgent) { f.restart = []string{"api.listen", "dataDir"} })
		r.change("log: {level: warn}\ndataDir: /x")
		for _, want := range []string{`msg="a changed key needs a restart" key=api.listen`, `msg="a changed key needs a restart" key=dataDir`} {
			if !strings.Contains(r.log.String(), want) {
				t.Errorf("the log does not say %q:\n%s", want, r.log.String())
			}
		}
		if messages := r.systemd.take(); !slices.Contains(messages, "STATUS=fine; needs a restart for api.listen, dataDir") {
			t.Errorf("systemd was told %q", messages)
		}
		r.agent.set(func(f *fakeAgent) { f.reloadErr = errors.New("the loop does not answer") })
		r.change("log: {level: error}")
		r.expect("a refusal by the agent", "warn error", 1)
		if !r.logs.Enabled(t.Context(), 4) {
			t.Error("the log took a configuration that the agent refused")
		}
	})
}

// Changes are taken together when they come close upon each other, but not put off for ever.
func TestSettle(t *testing.T) {
	path := write(t, "log: {level: info}")
	synctest.Test(t, func(t *testing.T) {
		r := runReload(t, path)
		for _, level := range []string{"debug", "warn", "error"} {
			r.write("log: {level: " + level + "}")
			r.changed <- struct{}{}
			time.Sleep(settleFor / 2)
		}
		r.expect("while it is written", "", 0)
		time.Sleep(settleFor)
		synctest.Wait()
		r.expect("when it is quiet", "error", 0)

		r.write("log: {level: debug}")
		begin := time.Now()
		for r.agent.taken() == "error" && time.Since(begin) < time.Minute {
			select {
			case r.changed <- struct{}{}:
			default:
			}
			time.Sleep(settleFor / 2)
			synctest.Wait()
		}
		if waited := time.Since(begin); waited > settleAtMost+settleFor {
			t.Errorf("endless changes put it off for %s", waited)
		}
		r.expect("amid changes", "error debug", 0)
	})
}

// All the ways in which files are replaced are noticed, long before anybody looks by itself.
func TestWatch(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir, elsewhere := t.TempDir(), t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	path := in("picketd.yaml")
	must(os.WriteFile(path, nil, 0o600))
	changed := watch(t.Context(), path, newLogging(&output{}, false).Logger)
	quiet := func() { // the watch is set, and what has happened so far was told
		for {
			select {
			case <-changed:
			case <-time.After(50 * time.Millisecond):
				return
			}
		}
	}
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"written", func() { must(os.WriteFile(path, []byte("a"), 0o600)) }},
		{"renamed over", func() {
			must(os.WriteFile(in(".tmp"), []byte("b"), 0o600))
			must(os.Rename(in(".tmp"), path))
		}},
		{"removed", func() { must(os.Remove(path)) }},
		{"made again", func() { must(os.WriteFile(path, []byte("c"), 0o600)) }},
		{"replaced by a link into ..data, as Kubernetes mounts files", func() {
			must(os.Mkdir(in("..1"), 0o700))
			must(os.WriteFile(in("..1/picketd.yaml"), []byte("d"), 0o600))
			must(os.Symlink("..1", in("..data")))
			must(os.Remove(path))
			must(os.Symlink("..data/picketd.yaml", path))
		}},
		{"..data swapped", func() {
			must(os.Mkdir(in("..2"), 0o700))
			must(os.WriteFile(in("..2/picketd.yaml"), []byte("e"), 0o600))
			must(os.Symlink("..2", in("..data_tmp")))
			must(os.Rename(in("..data_tmp"), in("..data")))
		}},
		{"replaced by a link to elsewhere", func() {
			must(os.WriteFile(filepath.Join(elsewhere, "x.yaml"), []byte("f"), 0o600))
			must(os.Remove(path))
			must(os.Symlink(filepath.Join(elsewhere, "x.yaml"), path))
		}},
		{"the link's target renamed over", func() {
			must(os.WriteFile(filepath.Join(elsewhere, "tmp"), []byte("g"), 0o600))
			must(os.Rename(filepath.Join(elsewhere, "tmp"), filepath.Join(elsewhere, "x.yaml")))
		}},
	} {
		quiet()
		step.do()
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Errorf("%s: nothing was noticed", step.name)
		}
	}
}

// A directory that does not exist yet is no reason to give up.
func TestWatchNothing(t *testing.T) {
	changed := watch(t.Context(), filepath.Join(t.TempDir(), "not/yet/picketd.yaml"), newLogging(&output{}, false).Logger)
	<-changed // the first look
}
