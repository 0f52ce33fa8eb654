package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// slowly answers as the agent does, but late.
type slowly struct {
	http.Handler
	after time.Duration
}

func (s slowly) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	time.Sleep(s.after)
	s.Handler.ServeHTTP(w, r)
}

// Half of the hosts answer after 9 seconds; the others do not wait for them.
func TestHostileSlowNeighbours(t *testing.T) {
	withAgents(t, 50, lossless, func(t *testing.T, f *agents) {
		hosts := f.addMany(10)
		f.within(time.Minute, "they meet", f.met)
		fast := hosts[5:]
		for _, a := range hosts[:5] {
			_ = a.server.Close()
			a.server = serveAt(a, a.serving.TLSConfig(), slowly{a.r, 9 * time.Second})
		}
		for i := range 20 {
			a, key := fast[i%5], fmt.Sprintf("ConfigMap/default/c-%d", i)
			a.mustPut(key, "x")
			f.within(3*time.Second, "an apply is on all fast hosts", func() bool {
				for _, a := range fast {
					if !a.has(key, "x") {
						return false
					}
				}
				return true
			})
			time.Sleep(time.Second)
		}
		// What is not pushed, but found by comparing.
		if _, err := fast[0].store.PutAll([]Write{{Key: "ConfigMap/default/quiet", Body: []byte("x"), Hash: hashOf("x")}}); err != nil {
			t.Fatal(err)
		}
		f.within(time.Minute, "what was not told is found", func() bool {
			return f.everyone(func(a *agent) bool { return a.has("ConfigMap/default/quiet", "x") })
		})
		f.within(time.Minute, "the slow ones have all too", func() bool { return alike(f.list) })
	})
}

// A host that gossips but whose API cannot be reached holds nobody up and is not called without pause.
func TestHostileClosedPort(t *testing.T) {
	withAgents(t, 51, lossless, func(t *testing.T, f *agents) {
		hosts := f.addMany(4)
		f.within(time.Minute, "they meet", f.met)
		closed := hosts[3]
		_ = closed.server.Close()
		f.list = hosts[:3]
		dialled := func() int {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.dials[closed.url("")[len("https://"):]]
		}
		before := dialled()
		for i := range 600 {
			time.Sleep(time.Second)
			f.list[i%3].say("default/web", fmt.Sprint(i))
			if i%60 == 0 {
				f.works()
			}
		}
		dials := dialled() - before
		t.Logf("in ten minutes with a change a second, a host whose port is closed was dialled %d times by each", dials/3)
		if dials/3 > 90 {
			t.Error("that is too often")
		}
		closed.server = serveAt(closed, closed.serving.TLSConfig(), closed.r)
		f.list = hosts
		took := f.within(compareEvery+time.Second, "it is told again", func() bool { return alike(f.list) })
		t.Logf("alike %s after the port was opened", took)
		f.works()
	})
}

// A change is on disk before anybody hears of it: where it was made, and where it is passed on.
func TestDurableBeforeTold(t *testing.T) {
	withRogue(t, 52, func(t *testing.T, f *agents, evil *rogue) {
		var mu sync.Mutex
		var missing, seen []string
		evil.answers(func(_ http.ResponseWriter, path string, body []byte) {
			if path != pathPush {
				return
			}
			news := (&fields{rest: body}).bytes()
			records, err := decodeRecords(news)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, r := range records {
				if r.set != setObjects {
					continue
				}
				seen = append(seen, r.key)
				for _, a := range f.list { // whoever sent it has it on disk
					if o, ok := a.store.Get(r.key); ok && !onDisk(t, a, o) {
						missing = append(missing, a.name+" "+r.key)
					}
				}
			}
		})
		for i := range 20 {
			f.list[i%3].mustPut(fmt.Sprintf("ConfigMap/default/c-%d", i), "x")
			time.Sleep(50 * time.Millisecond)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(seen) < 20 || len(missing) > 0 {
			t.Errorf("of %d that were told, were not on disk: %v", len(seen), missing)
		}
	})
}

// onDisk looks into a copy of the file as it is now.
func onDisk(t *testing.T, a *agent, o Object) bool {
	t.Helper()
	data, err := os.ReadFile(a.db.Path())
	path := filepath.Join(t.TempDir(), "copy.db")
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		t.Error(err)
		return false
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Error(err)
		return false
	}
	defer db.Close()
	found := false
	_ = db.View(func(tx *bbolt.Tx) error {
		found = bytes.Equal(tx.Bucket(bucketObjects).Get([]byte(o.Key)), encode(o))
		return nil
	})
	return found
}

// A host that ends between taking a change in and passing it on has it after its start, and the others find it there.
func TestCrashBetweenMergeAndTell(t *testing.T) {
	withAgents(t, 53, lossless, func(t *testing.T, f *agents) {
		hosts := f.addMany(3)
		f.within(time.Minute, "they meet", f.met)
		f.net.Partition([]string{"host-00", "host-01"}, []string{"host-02"})
		time.Sleep(20 * time.Second)
		stored, err := hosts[0].store.PutAll([]Write{{Key: "ConfigMap/default/late", Body: []byte("x"), Hash: hashOf("x")}})
		if err != nil {
			t.Fatal(err)
		}
		if m := (objectReplica{hosts[1].store}).merge("host-00", []record{objectRecord(stored[0])}, 1); len(m.changed) != 1 {
			t.Fatal(m)
		}
		hosts[0].stop() // and never comes back
		hosts[1].stop() // the file is not closed
		f.net.Heal()
		hosts[1].start(hosts[2])
		f.within(20*time.Second, "it is found", func() bool { return hosts[2].has("ConfigMap/default/late", "x") })
	})
}

// A full disk takes nothing: nothing is shown, nothing is passed on, and when there is room it comes by itself.
func TestFullDiskIsFoundByComparing(t *testing.T) {
	dir := smallDisk(t)
	withAgents(t, 54, lossless, func(t *testing.T, f *agents) {
		one := f.add("host-00", true)
		db, err := bbolt.Open(filepath.Join(dir, "state.db"), 0o600, &bbolt.Options{NoSync: true, NoFreelistSync: true})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		full := f.addWith("host-01", true, db, one)
		f.within(time.Minute, "they meet", f.met)
		f.works()
		filler := filepath.Join(dir, "filler")
		fill(t, filler)
		before := full.r.Stats()
		large := strings.Repeat("x", 60<<10)
		for i := range 5 {
			one.mustPut(fmt.Sprintf("ConfigMap/default/c-%d", i), large)
		}
		time.Sleep(30 * time.Second)
		if n := len(full.store.All()); n > 1 || full.r.Stats().Taken != before.Taken {
			t.Errorf("%d objects are shown, %d were taken", n, full.r.Stats().Taken-before.Taken)
		}
		if changed, _ := full.store.TakeNews(); len(changed) > 1 { // that of works
			t.Errorf("news are %v", keysOf(changed))
		}
		// Something that is refused in the same message does not hide that the disk failed.
		bad := forge(t, signs(f, one.identity().Certificate), Object{Key: "bad", Version: Version{Generation: 1}})
		bad.Body = []byte("altered")
		o, _ := one.store.Get("ConfigMap/default/c-0")
		if _, err := full.r.take("host-00", []record{objectRecord(bad), objectRecord(o)}); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("the error is %v", err)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		took := f.within(compareEvery+5*time.Second, "it has all", func() bool { return alike(f.list) })
		t.Logf("%s after there was room it has all", took)
		full.stop()
	})
}
