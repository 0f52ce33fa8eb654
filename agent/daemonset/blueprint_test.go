package daemonset

import (
	"fmt"
	"net/netip"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func two(ds *appsv1.DaemonSet) {
	ds.Spec.Template.Spec.Containers = append(ds.Spec.Template.Spec.Containers, corev1.Container{Name: "d", Image: "busybox:2"})
}

func mustBlueprint(t testing.TB, ds *appsv1.DaemonSet, complete ...func(*corev1.Pod)) *Blueprint {
	t.Helper()
	b, err := NewBlueprint(ds, NextHistory(nil, ds, nil)[0], complete...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// told is what a host with a healthy pod says.
func told(change ...func(*Status)) Status {
	s := Status{
		Generation: 1, Placed: true, HasPod: true, Ready: true, Available: true, Updated: true, Phase: corev1.PodRunning, PodUID: podUID,
		PodIPs: [2]netip.Addr{netip.MustParseAddr("10.88.0.7")}, Created: t0, Since: t0.Add(time.Minute),
	}
	for _, c := range change {
		c(&s)
	}
	return s
}

func crashing(s *Status) {
	s.Ready, s.Available, s.Code, s.Restarts, s.LastRestart = false, false, CodeCrashLoopBackOff, 7, t0.Add(30*time.Second)
}

// TestBlueprintIsThePodOfTheOtherHost: name, labels, owner, tolerations and affinity are as the host itself makes them.
func TestBlueprintIsThePodOfTheOtherHost(t *testing.T) {
	ds := makeDS(two, func(ds *appsv1.DaemonSet) {
		ds.Annotations = map[string]string{appsv1.DeprecatedTemplateGeneration: "4"}
		ds.Spec.Template.Annotations = map[string]string{"note": "yes"}
		ds.Spec.Template.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{}}
	})
	want := mustPod(t, ds, makeNode(nil), 7)
	want.CreationTimestamp = metav1.NewTime(t0)
	b := mustBlueprint(t, ds)
	got := b.Pod("host-01", "192.0.2.1", told(func(s *Status) { s.PodUID = want.UID }))
	other := b.Pod("host-02", "192.0.2.2", told())
	if other.Spec.NodeName != "host-02" || other.Name != PodName("web", podUID) {
		t.Errorf("the other pod is %s on %s", other.Name, other.Spec.NodeName)
	}
	assertEqual(t, got.ObjectMeta, want.ObjectMeta)
	assertEqual(t, got.Spec, want.Spec)
}

func TestPodName(t *testing.T) {
	pod := mustPod(t, makeDS(), makeNode(nil), 7)
	if got := PodName("web", pod.UID); got != pod.Name {
		t.Errorf("got %q, want %q", got, pod.Name)
	}
	if got := PodName("web", "uid-1"); got != "" {
		t.Errorf("a name is made of no uid: %q", got)
	}
}

// podInShort is a pod in short, as kubectl's columns and describe tell it.
func podInShort(p *corev1.Pod) string {
	out := fmt.Sprintf("%s %s on %s", p.Status.Phase, p.Status.PodIP, p.Status.HostIP)
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		state := "running"
		if w := c.State.Waiting; w != nil {
			state = w.Reason
		}
		if t := c.State.Terminated; t != nil {
			state = t.Reason
		}
		out += fmt.Sprintf("; %s %s %s", c.Name, c.Image, state)
		if c.Ready {
			out += " ready"
		}
		if c.RestartCount > 0 {
			out += fmt.Sprintf(" %d restarts, last %s", c.RestartCount, c.LastTerminationState.Terminated.FinishedAt.Sub(t0))
		}
	}
	if p.DeletionTimestamp != nil {
		out += fmt.Sprintf("; deleted %s", p.DeletionTimestamp.Sub(t0))
	}
	return out
}

func conditionsOf(p *corev1.Pod) string {
	var list []string
	for _, c := range p.Status.Conditions {
		list = append(list, strings.TrimSpace(fmt.Sprintf("%s=%s %s %s %s", c.Type, c.Status, c.LastTransitionTime.Sub(t0), c.Reason, c.Message)))
	}
	return strings.Join(list, "; ")
}

func TestBlueprintStatus(t *testing.T) {
	const up = "Initialized=True 0s; Ready=True 1m0s; ContainersReady=True 1m0s; PodScheduled=True 0s"
	down := func(after, why string) string {
		return fmt.Sprintf("Initialized=True 0s; Ready=False %[1]s %[2]s; ContainersReady=False %[1]s %[2]s; PodScheduled=True 0s", after, why)
	}
	const unreadyCD = "ContainersNotReady containers with unready status: [c d]"
	prepared := func(ds *appsv1.DaemonSet) {
		always := corev1.ContainerRestartPolicyAlways
		ds.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "busybox:3"}, {Name: "s", Image: "busybox:4", RestartPolicy: &always}}
	}
	hostNetwork := func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.HostNetwork = true }
	for _, c := range []struct {
		name       string
		ds         *appsv1.DaemonSet
		status     Status
		shown      string
		conditions string
	}{
		{"ready", makeDS(two), told(), "Running 10.88.0.7 on 192.0.2.1; c busybox:1 running ready; d busybox:2 running ready", up},
		{"available after minReadySeconds", makeDS(two, minReady(20)), told(), "Running 10.88.0.7 on 192.0.2.1; c busybox:1 running ready; d busybox:2 running ready", strings.ReplaceAll(up, "1m0s", "40s")},
		{
			"crashing", makeDS(two), told(crashing, func(s *Status) { s.ReadyContainers = 2 }),
			"Running 10.88.0.7 on 192.0.2.1; c busybox:1 CrashLoopBackOff 7 restarts, last 30s; d busybox:2 running ready",
			down("1m0s", "ContainersNotReady containers with unready status: [c]"),
		},
		{
			"runs and is not ready", makeDS(two), told(func(s *Status) { s.Ready, s.Available, s.Code = false, false, CodeNotReady }),
			"Running 10.88.0.7 on 192.0.2.1; c busybox:1 running; d busybox:2 running", down("1m0s", unreadyCD),
		},
		{
			"being made", makeDS(two), told(func(s *Status) {
				s.Ready, s.Available, s.Phase, s.Code, s.PodIPs = false, false, corev1.PodPending, CodeNotReady, [2]netip.Addr{}
			}),
			"Pending  on 192.0.2.1; c busybox:1 ContainerCreating; d busybox:2 ContainerCreating", down("1m0s", unreadyCD),
		},
		{
			"a reason without a code", makeDS(two), told(func(s *Status) {
				s.Ready, s.Available, s.Phase, s.Code, s.Detail = false, false, corev1.PodPending, CodeOther, "SandboxChanged"
			}),
			"Pending 10.88.0.7 on 192.0.2.1; c busybox:1 SandboxChanged; d busybox:2 SandboxChanged", down("1m0s", unreadyCD),
		},
		{
			"on its way out", makeDS(two), told(func(s *Status) { s.Ready, s.Available, s.Terminating, s.ReadyContainers = false, false, true, 3 }),
			"Running 10.88.0.7 on 192.0.2.1; c busybox:1 running ready; d busybox:2 running ready; deleted 1m30s", down("1m0s", ""),
		},
		{
			"the host is silent", makeDS(two), told(func(s *Status) { s.Silent, s.SilentSince = "no word from it since 12:02:00", t0.Add(2*time.Minute) }),
			"Running 10.88.0.7 on 192.0.2.1; c busybox:1 running ready; d busybox:2 running ready", down("2m0s", "NodeNotReady no word from it since 12:02:00"),
		},
		{
			"the second init container crashes", makeDS(prepared), told(crashing, func(s *Status) { s.Phase, s.ReadyContainers = corev1.PodPending, 1 }),
			"Pending 10.88.0.7 on 192.0.2.1; i busybox:3 Completed ready; s busybox:4 CrashLoopBackOff 7 restarts, last 30s; c busybox:1 PodInitializing",
			strings.Replace(down("1m0s", "ContainersNotReady containers with unready status: [s c]"),
				"Initialized=True 0s", "Initialized=False 0s ContainersNotInitialized containers with incomplete status: [s]", 1),
		},
		{
			"the first init container is at work", makeDS(prepared), told(func(s *Status) {
				s.Ready, s.Available, s.Phase, s.Code = false, false, corev1.PodPending, CodePodInitializing
			}),
			"Pending 10.88.0.7 on 192.0.2.1; i busybox:3 PodInitializing; s busybox:4 PodInitializing; c busybox:1 PodInitializing",
			strings.Replace(down("1m0s", "ContainersNotReady containers with unready status: [s c]"),
				"Initialized=True 0s", "Initialized=False 0s ContainersNotInitialized containers with incomplete status: [i s]", 1),
		},
		{
			"a sidecar is not ready any more", makeDS(prepared), told(func(s *Status) { s.Ready, s.Available, s.Code, s.ReadyContainers = false, false, CodeNotReady, 5 }),
			"Running 10.88.0.7 on 192.0.2.1; i busybox:3 Completed ready; s busybox:4 running; c busybox:1 running ready",
			down("1m0s", "ContainersNotReady containers with unready status: [s]"),
		},
		{"the host's network", makeDS(hostNetwork), told(), "Running 192.0.2.1 on 192.0.2.1; c busybox:1 running ready", up},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := mustBlueprint(t, c.ds).Pod("host-01", "192.0.2.1", c.status)
			if got := podInShort(pod); got != c.shown {
				t.Errorf("got  %s\nwant %s", got, c.shown)
			}
			if got := conditionsOf(pod); got != strings.ReplaceAll(c.conditions, " ;", ";") {
				t.Errorf("got  %s\nwant %s", got, c.conditions)
			}
		})
	}
}

func TestBlueprintShowsBothFamilies(t *testing.T) {
	pod := mustBlueprint(t, makeDS()).Pod("host-01", "", told(func(s *Status) { s.PodIPs[1] = netip.MustParseAddr("fd00::7") }))
	assertEqual(t, pod.Status.PodIPs, []corev1.PodIP{{IP: "10.88.0.7"}, {IP: "fd00::7"}})
	if pod.Status.HostIP != "" || pod.Status.HostIPs != nil {
		t.Errorf("an unknown address is shown: %+v", pod.Status.HostIPs)
	}
}

// TestBlueprintLeavesItsPodsAlone: making one pod changes no other, and not the template.
func TestBlueprintLeavesItsPodsAlone(t *testing.T) {
	ds := makeDS(two)
	b := mustBlueprint(t, ds, func(p *corev1.Pod) {
		p.Spec.SchedulerName, p.Status.QOSClass = "default-scheduler", corev1.PodQOSBestEffort
	})
	common := b.pod.DeepCopy()
	first := b.Pod("host-01", "192.0.2.1", told(crashing))
	before := first.DeepCopy()
	b.Pod("host-02", "192.0.2.2", told(func(s *Status) { s.Terminating = true }))
	assertEqual(t, first, before)
	assertEqual(t, b.pod, common)
	if first.Spec.SchedulerName != "default-scheduler" || first.Status.QOSClass != corev1.PodQOSBestEffort {
		t.Error("the pod is not completed")
	}
}

func TestNewBlueprintOfARevisionThatCannotBeRead(t *testing.T) {
	if _, err := NewBlueprint(makeDS(), &appsv1.ControllerRevision{}); err == nil {
		t.Error("a revision without data has a blueprint")
	}
}

// BenchmarkBlueprint prints what one of the pods of a fleet costs in memory: 500 hosts with 10 DaemonSets each.
func BenchmarkBlueprint(b *testing.B) {
	var blueprints []*Blueprint
	for range 10 {
		blueprints = append(blueprints, mustBlueprint(b, makeDS()))
	}
	var words []Status
	for n := range 5000 {
		words = append(words, told(func(s *Status) { s.PodUID = types.UID(derive("Pod", fmt.Sprint(n)).String()) }))
	}
	for name, status := range map[string]func(*Status){"ready": func(*Status) {}, "crashing": crashing} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var before, after goruntime.MemStats
			for b.Loop() {
				pods := make([]*corev1.Pod, 0, len(words))
				goruntime.GC()
				goruntime.ReadMemStats(&before)
				for n, s := range words {
					status(&s)
					pods = append(pods, blueprints[n%10].Pod("host-01", "192.0.2.1", s))
				}
				goruntime.GC()
				goruntime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(pods)), "B/pod")
				goruntime.KeepAlive(pods)
			}
		})
	}
}
