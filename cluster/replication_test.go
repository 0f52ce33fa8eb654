package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/picketd/picket/cluster/clustertest"
)

var lossless = clustertest.Faults{Delay: time.Millisecond, Jitter: time.Millisecond}

func TestAnApplyReachesAll(t *testing.T) {
	withAgents(t, 1, lossless, func(t *testing.T, f *agents) {
		hosts := f.addMany(5)
		f.within(time.Minute, "they meet", f.met)
		hosts[3].mustPut("DaemonSet/default/web", "v1")
		took := f.within(time.Second, "it is everywhere", func() bool {
			return f.everyone(func(a *agent) bool { return a.has("DaemonSet/default/web", "v1") })
		})
		t.Logf("everywhere after %s", took)
		hosts[0].say("default/web", "running")
		f.within(time.Second, "the status is everywhere", func() bool {
			return f.everyone(func(a *agent) bool {
				st, ok := a.statuses.Get("host-00", "default/web")
				return ok && string(st.Body) == "running"
			})
		})
		large := strings.Repeat("x", 1<<20)
		hosts[1].mustPut("ConfigMap/default/large", large)
		f.within(time.Second, "a large object is everywhere", func() bool {
			return f.everyone(func(a *agent) bool { return a.has("ConfigMap/default/large", large) })
		})
		if _, err := hosts[2].put(Write{Key: "ConfigMap/default/huge", Body: make([]byte, MaxBody+1)}); err == nil || !strings.Contains(err.Error(), "4194305") || !strings.Contains(err.Error(), "4194304") {
			t.Errorf("an object over the limit: %v", err)
		}
	})
}

func TestALateHostGetsAll(t *testing.T) {
	withAgents(t, 2, lossless, func(t *testing.T, f *agents) {
		hosts := f.addMany(3)
		f.within(time.Minute, "they meet", f.met)
		for i := range 500 {
			hosts[i%3].mustPut(fmt.Sprintf("ConfigMap/default/c-%d", i), "x")
		}
		hosts[0].say("default/web", "running")
		late := f.add("late", true, hosts[1])
		began := time.Now()
		<-late.r.Synced()
		t.Logf("synced after %s", time.Since(began))
		if len(late.store.All()) != 500 {
			t.Errorf("it has %d objects when it says that it is in step", len(late.store.All()))
		}
		f.within(5*time.Second, "all are alike", func() bool { return alike(f.list) })
	})
}
