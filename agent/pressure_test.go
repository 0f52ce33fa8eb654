package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// conditionOf is a Node's condition, empty when it has none of that type.
func conditionOf(n *corev1.Node, kind corev1.NodeConditionType) corev1.NodeCondition {
	for _, c := range n.Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return corev1.NodeCondition{}
}

func TestPressureThresholds(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	plenty := reading{
		memory: supply{8 * gib, 2 * gib}, nodefs: supply{100 * gib, 50 * gib}, nodefsInodes: supply{1000, 500},
		imagefs: supply{100 * gib, 50 * gib}, imagefsInodes: supply{1000, 500}, pids: supply{32768, 30000},
	}
	for name, c := range map[string]struct {
		change func(*reading)
		want   string
	}{
		"plenty":                 {func(*reading) {}, ""},
		"memory at":              {func(r *reading) { r.memory.free = 100 * mib }, ""},
		"memory below":           {func(r *reading) { r.memory.free = 100*mib - 1 }, "MemoryPressure"},
		"nodefs at":              {func(r *reading) { r.nodefs.free = 10 * gib }, ""},
		"nodefs below":           {func(r *reading) { r.nodefs.free = 10*gib - 1 }, "DiskPressure"},
		"inodes at":              {func(r *reading) { r.nodefsInodes.free = 50 }, ""},
		"inodes below":           {func(r *reading) { r.nodefsInodes.free = 49 }, "DiskPressure"},
		"imagefs at":             {func(r *reading) { r.imagefs.free = 15 * gib }, ""},
		"imagefs below":          {func(r *reading) { r.imagefs.free = 15*gib - 1 }, "DiskPressure"},
		"imagefs' inodes below":  {func(r *reading) { r.imagefsInodes.free = 49 }, "DiskPressure"},
		"process ids at":         {func(r *reading) { r.pids.free = 328 }, ""},
		"process ids below":      {func(r *reading) { r.pids.free = 327 }, "PIDPressure"},
		"nothing left":           {func(r *reading) { r.memory.free, r.nodefs.free, r.pids.free = 0, 0, 0 }, "MemoryPressure DiskPressure PIDPressure"},
		"nothing is known":       {func(r *reading) { *r = reading{} }, ""},
		"a file system as btrfs": {func(r *reading) { r.nodefsInodes = supply{} }, ""},
	} {
		r := plenty
		c.change(&r)
		short, why := r.short()
		var got []string
		for p, on := range short {
			if on {
				got = append(got, string(pressureNames[p].condition))
			}
		}
		if strings.Join(got, " ") != c.want || (why == "") != (c.want == "") {
			t.Errorf("%s: %q (%s)", name, got, why)
		}
	}
}

// A condition is true at once, and false when it was not met for five minutes.
func TestPressureTransition(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	var s strain
	for i, step := range []struct {
		after       time.Duration
		short, want bool
	}{
		{0, false, false},
		{10 * time.Second, true, true},
		{10 * time.Second, false, true},
		{4 * time.Minute, true, true}, // it begins anew
		{pressureTransition - time.Second, false, true},
		{time.Second, false, false},
		{time.Hour, false, false},
		{0, true, true},
		{-time.Hour, false, true}, // the clock was set back
		{pressureTransition, false, false},
	} {
		now = now.Add(step.after)
		if got := s.take([pressureKinds]bool{diskPressure: step.short}, now); got != ([pressureKinds]bool{diskPressure: step.want}) {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

func TestPressureIsRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	meminfo := write("meminfo", "MemTotal:        8000 kB\nMemFree:          100 kB\nMemAvailable:    5000 kB\nActive(file):    3000 kB\nInactive(file):   200 kB\n")
	if got := memorySupply(meminfo); got != (supply{8000 << 10, 300 << 10}) {
		t.Errorf("memory: %+v", got)
	}
	write("sys/kernel/pid_max", "32768\n")
	write("sys/kernel/threads-max", "30000\n")
	write("loadavg", "0.50 0.40 0.30 2/345 6789\n")
	if got := pidSupply(dir); got != (supply{30000, 29655}) {
		t.Errorf("process ids: %+v", got)
	}
	if got := pidSupply(dir + "/nowhere"); got != (supply{}) {
		t.Errorf("process ids of nothing: %+v", got)
	}
	// This machine has some of everything.
	r := readPressure(dir, dir)
	for i, s := range []supply{r.memory, r.nodefs, r.imagefs, r.pids} {
		if s.total <= 0 || s.free <= 0 || s.free > s.total {
			t.Errorf("%d: %+v", i, s)
		}
	}
	if r := readPressure(dir, ""); r.imagefs.total != 0 {
		t.Errorf("%+v", r.imagefs)
	}
}

// press has the host look at itself and see this.
func (h *testHost) press(r reading) {
	h.t.Helper()
	if err := h.do(func() error { h.loop.pressed(r); return nil }); err != nil {
		h.t.Fatal(err)
	}
}

// fullDisk is a host whose nodefs has a twentieth left.
var fullDisk = reading{nodefs: supply{100, 5}}

func conditionsText(n *corev1.Node) string {
	var list []string
	for _, c := range n.Status.Conditions {
		list = append(list, fmt.Sprintf("%s %s %s %s", c.Type, c.Status, c.Reason, c.Message))
	}
	return strings.Join(list, "\n")
}

// The Node has the kubelet's conditions, in its words; each pressure has its taint, which keeps no daemon pod away; what was collected
// of images may be collected.
func TestNodePressure(t *testing.T) {
	withHost(t, func(t *testing.T, h *testHost) {
		const free = "MemoryPressure False KubeletHasSufficientMemory kubelet has sufficient memory available\n" +
			"DiskPressure False KubeletHasNoDiskPressure kubelet has no disk pressure\n" +
			"PIDPressure False KubeletHasSufficientPID kubelet has sufficient PID available\n" +
			"Ready True PicketReady picketd runs and containerd answers"
		if got := conditionsText(h.node()); got != free {
			t.Errorf("%s", got)
		}
		h.after(time.Minute)
		h.apply(webOf("busybox:1", ""))
		h.press(reading{memory: supply{1 << 30, 1}, nodefs: supply{100, 5}, pids: supply{100, 0}})
		pressedAt := time.Now()
		const short = "MemoryPressure True KubeletHasInsufficientMemory kubelet has insufficient memory available\n" +
			"DiskPressure True KubeletHasDiskPressure kubelet has disk pressure\n" +
			"PIDPressure True KubeletHasInsufficientPID kubelet has insufficient PID available\n" +
			"Ready True PicketReady picketd runs and containerd answers"
		n := h.node()
		if got := conditionsText(n); got != short {
			t.Errorf("%s", got)
		}
		if at := conditionOf(n, corev1.NodeDiskPressure).LastTransitionTime; !at.Time.Equal(pressedAt) {
			t.Errorf("since %s, not %s", at, pressedAt)
		}
		for _, key := range []string{corev1.TaintNodeMemoryPressure, corev1.TaintNodeDiskPressure, corev1.TaintNodePIDPressure} {
			if !slices.Contains(n.Spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule}) {
				t.Errorf("no taint %s in %v", key, n.Spec.Taints)
			}
		}
		select {
		case <-h.loop.collect:
		default:
			t.Error("no images are collected")
		}
		before := h.onlyPod()
		h.apply(strings.ReplaceAll(webOf("busybox:1", ""), "web", "more"))
		if len(h.running()) != 2 || h.eventsOf("NodeHasDiskPressure") == nil {
			t.Errorf("%d containers run, events %q", len(h.running()), h.eventsOf("NodeHasDiskPressure"))
		}
		// Who reads the Node and writes it back makes no taint of its own of it; who removes one does not remove the condition.
		if err := h.changeNode(func(n *corev1.Node) { n.Labels["rack"], n.Spec.Taints = "r1", n.Spec.Taints[:1] }); err != nil {
			t.Fatal(err)
		}
		if n := h.node(); len(n.Spec.Taints) != 3 {
			t.Errorf("taints %v", n.Spec.Taints)
		}
		h.press(reading{memory: supply{1 << 30, 1 << 29}})
		h.after(pressureTransition - time.Second)
		if got := conditionsText(h.node()); got != short {
			t.Errorf("too early: %s", got)
		}
		h.after(time.Second)
		h.press(reading{})
		if n := h.node(); conditionsText(n) != free || len(n.Spec.Taints) != 0 || h.eventsOf("NodeHasNoDiskPressure") == nil {
			t.Errorf("%s\n%v", conditionsText(n), n.Spec.Taints)
		}
		if pods := h.pods(); len(pods) != 2 || !slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return p.UID == before.UID }) {
			t.Errorf("pods: %s", names(pods))
		}
	})
}

// All hosts hear of a host's pressure; of a host that is not heard nothing is known.
func TestFleetHearsOfPressure(t *testing.T) {
	withFleet(t, 2, func(t *testing.T, f *testFleet) {
		shown := func() *corev1.Node {
			o, _ := f.hosts[0].loop.cache.Get(resourceNodes, "", "host-02")
			return o.(*corev1.Node)
		}
		f.hosts[1].press(fullDisk)
		f.within(10*time.Second, "the other host hears of it", func() bool {
			return conditionOf(shown(), corev1.NodeDiskPressure).Status == corev1.ConditionTrue
		})
		n := shown()
		if conditionsText(n) != conditionsText(f.hosts[1].shownSelf()) || len(n.Spec.Taints) != 1 || n.Spec.Taints[0].Key != corev1.TaintNodeDiskPressure {
			t.Errorf("%s\n%v", conditionsText(n), n.Spec.Taints)
		}
		f.hosts[1].powerCut()
		f.within(time.Minute, "it is not heard any more", func() bool {
			return conditionOf(shown(), corev1.NodeReady).Status == corev1.ConditionUnknown
		})
		n = shown()
		for _, c := range n.Status.Conditions {
			if c.Status != corev1.ConditionUnknown || c.Reason != "NodeStatusUnknown" {
				t.Errorf("%+v", c)
			}
		}
		if len(n.Status.Conditions) != 4 || len(n.Spec.Taints) != 0 {
			t.Errorf("%d conditions, taints %v", len(n.Status.Conditions), n.Spec.Taints)
		}
	})
}

func (h *fleetHost) shownSelf() *corev1.Node {
	o, _ := h.loop.cache.Get(resourceNodes, "", h.cfg.Node.Name)
	return o.(*corev1.Node)
}

func TestHostWord(t *testing.T) {
	w := newHostWord(time.Unix(1800000000, 0))
	w.containerdUp, w.goingDown = true, true
	w.pressures[pidPressure] = pressureState{true, time.Unix(1800000007, 0)}
	encoded := w.encode()
	if len(encoded) > 24 {
		t.Errorf("%d bytes", len(encoded))
	}
	if got, err := decodeHostWord(encoded); err != nil || got != w {
		t.Errorf("%+v, %v", got, err)
	}
	for i := range encoded {
		if _, err := decodeHostWord(encoded[:i]); err == nil {
			t.Errorf("%d bytes are enough", i)
		}
	}
	for name, bad := range map[string][]byte{
		"older": append([]byte{1}, encoded[1:]...), "newer": append([]byte{3}, encoded[1:]...), "more": append(slices.Clone(encoded), 0),
		"flags": append([]byte{hostWordFormat, 0xff}, encoded[2:]...),
	} {
		if got, err := decodeHostWord(bad); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
