package agent

import (
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/picketd/picket/scripts/lab"
)

// containers are the ids of the containers that run on a host, by what its containerd says, with the pids of their processes.
func (f *realFleet) containers(h *lab.Host) map[string]uint32 {
	f.t.Helper()
	c, ctx := f.containerd(h)
	list, err := c.Containers(ctx)
	f.must(err)
	running := map[string]uint32{}
	for _, container := range list {
		if task, err := container.Task(ctx, nil); err == nil {
			running[container.ID()] = task.Pid()
		}
	}
	return running
}

// A host is cut off from the others for a minute, both sides take orders, and it is killed and rebooted meanwhile.
func TestRealFleetCut(t *testing.T) {
	f := newRealFleet(t, 3, 0, lab.Options{})
	one, two, three := f.Hosts[0], f.Hosts[1], f.Hosts[2]
	f.run(one, fleetWeb, "apply", "-f", "-")
	f.eventually("web runs", func() bool { return len(f.pods(two)) == 3 && len(f.pods(one)) == 3 })
	before := map[string]map[string]uint32{}
	for _, h := range f.Hosts {
		before[h.Name] = f.containers(h)
	}
	cutAt := time.Now()
	f.must(f.Partition([]*lab.Host{one}, []*lab.Host{two, three}))
	named := func(name string) string { return strings.ReplaceAll(fleetWeb, "web", name) }
	f.run(one, named("left"), "apply", "-f", "-")
	f.run(two, named("right"), "apply", "-f", "-")
	f.run(one, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {side: left}\n", "apply", "-f", "-")
	f.run(three, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {side: right}\n", "apply", "-f", "-")
	f.eventually("both sides run what they were told", func() bool {
		return len(f.containers(one)) == 2 && len(f.containers(two)) == 2 && len(f.containers(three)) == 2
	})
	f.eventually("both sides see the other one as NotReady", func() bool {
		return strings.Count(f.run(one, "", "get", "nodes"), "NotReady") == 2 && strings.Count(f.run(two, "", "get", "nodes"), "NotReady") == 1
	})
	if out := f.run(one, "", "describe", "node", "host-02"); !strings.Contains(out, "no word from it since") {
		t.Errorf("describe does not say why host-02 is NotReady:\n%s", out)
	}
	// A daemon that crashes is restarted, on either side; an agent that is killed comes back and restarts nothing.
	f.run(one, "", "exec", "daemonset/left", "--", "sh", "-c", "kill -9 1")
	f.must(one.Kill())
	f.must(one.Start(t.Context()))
	f.eventually("the crashed daemon runs again", func() bool { return len(f.containers(one)) == 2 })
	time.Sleep(time.Until(cutAt.Add(time.Minute)))
	for _, h := range f.Hosts {
		now := f.containers(h)
		for id, pid := range before[h.Name] {
			if now[id] != pid {
				t.Errorf("%s: container %s with pid %d has not run on: %v", h.Name, id, pid, now)
			}
		}
	}
	healed := time.Now()
	f.must(f.Heal())
	f.eventually("all agree", func() bool {
		var c []string
		for _, h := range f.Hosts {
			out, err := f.picket(h, "", "get", "configmap", "c", "-o", "jsonpath={.data.side}")
			if err != nil || len(f.pods(h)) != 9 {
				return false
			}
			c = append(c, out)
		}
		return f.ready(f.Hosts, 3) && len(slices.Compact(c)) == 1
	})
	t.Logf("all agree %s after the heal", time.Since(healed).Round(10*time.Millisecond)) // the bar is 10 s
	told := ""
	for _, h := range f.Hosts {
		told += f.run(h, "", "get", "events", "--field-selector", "reason=Overwritten")
	}
	if !strings.Contains(told, "on host-01") || !strings.Contains(told, "on host-03") {
		t.Errorf("no event names both writers of the ConfigMap:\n%s", told)
	}

	// Power cut while alone: what it ran, it runs again, without anybody.
	f.must(f.Partition([]*lab.Host{one}, []*lab.Host{two, three}))
	f.must(one.Crash())
	f.must(one.Start(t.Context()))
	f.eventually("all that it ran runs again", func() bool { return len(f.containers(one)) == 3 })
	if now := f.containers(one); len(now) != 3 || slices.ContainsFunc(slices.Collect(maps.Keys(now)), func(id string) bool { _, old := before[one.Name][id]; return old }) {
		t.Errorf("after a power cut it runs %v", now)
	}
	f.must(f.Heal())
	f.eventually("all agree again", func() bool { return f.ready(f.Hosts, 3) && len(f.pods(two)) == 9 })
}

// What is followed on a host that loses its power ends by itself, and says so.
func TestRealFleetFollowsNobody(t *testing.T) {
	f := newRealFleet(t, 2, 0, lab.Options{})
	one, two := f.Hosts[0], f.Hosts[1]
	f.run(one, fleetWeb, "apply", "-f", "-")
	f.eventually("web runs", func() bool { return len(f.pods(one)) == 2 })
	var remote string
	for _, p := range f.pods(one) {
		if host, name, _ := strings.Cut(p, "/"); host == two.Name {
			remote = name
		}
	}
	cmd := one.Picket(t.Context(), "logs", "-f", remote)
	out, err := cmd.StdoutPipe()
	f.must(err)
	f.must(cmd.Start())
	first := make([]byte, 4)
	_, err = out.Read(first)
	f.must(err)
	f.must(f.Isolate(two)) // as silent as one without power
	ended := make(chan error, 1)
	go func() {
		_, _ = io.Copy(io.Discard, out)
		ended <- cmd.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("logs -f of a host that is gone has not ended within a minute")
		_ = cmd.Process.Kill()
	}
	f.must(f.Heal())
}
