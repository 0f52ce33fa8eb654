package daemonset

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestStatus(t *testing.T) {
	readyAt, created := t0.Add(-10*time.Minute), func(n int) time.Time { return makePod(n, revA).Created }
	here := Status{Node: "host-01", Generation: 1, Placed: true, HasPod: true, Revision: revB, Updated: true}
	with := func(change func(*Status)) Status {
		s := here
		change(&s)
		return s
	}
	for _, c := range []struct {
		name string
		node *corev1.Node
		ds   *appsv1.DaemonSet
		pods []Pod
		want Status
	}{
		{"no pod", nil, makeDS(), nil, Status{Node: "host-01", Generation: 1, Placed: true, Reason: "no pod runs yet"}},
		{"available", nil, makeDS(), []Pod{makePod(1, revB, ready)}, with(func(s *Status) { s.Ready, s.Available, s.Since = true, true, readyAt })},
		{"available since minReadySeconds later", nil, makeDS(minReady(60)), []Pod{makePod(1, revB, ready)}, with(func(s *Status) {
			s.Ready, s.Available, s.Since = true, true, readyAt.Add(time.Minute)
		})},
		{"ready, not available", nil, makeDS(minReady(660)), []Pod{makePod(1, revB, ready)}, with(func(s *Status) {
			s.Ready, s.Since = true, readyAt
			s.Reason = "pod web-1 is ready and counts as available at 2026-03-01T12:01:00Z (minReadySeconds 660)"
		})},
		{"pending", nil, makeDS(), []Pod{makePod(1, revB, func(p *Pod) { p.Phase, p.Reason = corev1.PodPending, "ImagePullBackOff" })}, with(func(s *Status) {
			s.Since, s.Reason = created(1), "pod web-1 is pending: ImagePullBackOff"
		})},
		{"became unready", nil, makeDS(), []Pod{makePod(1, revB, func(p *Pod) { p.UnreadySince, p.Reason = t0.Add(-time.Second), "CrashLoopBackOff" })}, with(func(s *Status) {
			s.Since, s.Reason = t0.Add(-time.Second), "pod web-1 is not ready: CrashLoopBackOff"
		})},
		{"told to stop by this decision: not ready any more", nil, makeDS(), []Pod{makePod(1, revA, ready)}, with(func(s *Status) {
			s.Revision, s.Updated, s.Updating, s.Terminating, s.Since, s.Reason = revA, false, true, true, t0, "pod web-1 is terminating"
		})},
		{"terminating pod of the current revision is no update", nil, makeDS(), []Pod{makePod(1, revB, ready, terminating)}, with(func(s *Status) {
			s.Terminating, s.Since, s.Reason = true, created(1), "pod web-1 is terminating"
		})},
		{"terminating since", nil, makeDS(), []Pod{makePod(1, revB, ready, terminating, func(p *Pod) { p.StoppedAt = t0.Add(-time.Second) })}, with(func(s *Status) {
			s.Terminating, s.Since, s.Reason = true, t0.Add(-time.Second), "pod web-1 is terminating"
		})},
		{"restarted", nil, makeDS(), []Pod{makePod(1, revB, func(p *Pod) {
			p.Reason, p.Restarts = "CrashLoopBackOff: back-off 5m0s restarting failed container=c", 7
		})}, with(func(s *Status) {
			s.Since, s.Reason = created(1), "pod web-1 is not ready: CrashLoopBackOff, 7 restarts: back-off 5m0s restarting failed container=c"
		})},
		{"surge: the old one speaks", nil, makeDS(surging), []Pod{makePod(1, revA, ready), makePod(2, revB)}, with(func(s *Status) {
			s.Revision, s.Updated, s.Updating, s.Ready, s.Available, s.Since = revA, false, true, true, true, readyAt
			s.Reason = "pod web-1 runs the older revision aaaa: waiting for pod web-2 of revision bbbb to become available"
		})},
		{"surge: the new one speaks once the old one goes", nil, makeDS(surging), []Pod{makePod(1, revA, ready), makePod(2, revB, ready)}, with(func(s *Status) {
			s.Updating, s.Ready, s.Available, s.Since = true, true, true, readyAt
		})},
		{"an update that began goes on counting where the DaemonSet is no longer placed", makeNode(nil, taint(corev1.TaintEffectNoSchedule)), makeDS(), []Pod{makePod(1, revA, terminating)}, with(func(s *Status) {
			s.Placed, s.Revision, s.Updated, s.Updating, s.Terminating, s.Since = false, revA, false, true, true, created(1)
			s.Reason = "taint dedicated=gpu:NoSchedule is not tolerated"
		})},
		{"deleted DaemonSet", nil, nil, []Pod{makePod(1, revA, ready)}, with(func(s *Status) {
			s.Placed, s.Revision, s.Updated, s.Terminating, s.Since, s.Reason = false, revA, false, true, t0, "the DaemonSet was deleted"
		})},
		{"misscheduled", makeNode(nil, taint(corev1.TaintEffectNoSchedule)), makeDS(), []Pod{makePod(1, revA, ready)}, with(func(s *Status) {
			s.Placed, s.Revision, s.Updated, s.Ready, s.Available, s.Since = false, revA, false, true, true, readyAt
			s.Reason = "taint dedicated=gpu:NoSchedule is not tolerated"
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.node == nil {
				c.node = makeNode(nil)
			}
			got := planOn(c.node, c.ds, c.pods...).Status
			// What is only passed on, and the reason's short form, are other tests' business.
			c.want.PodUID, c.want.Phase, c.want.Created, c.want.Restarts = got.PodUID, got.Phase, got.Created, got.Restarts
			c.want.Code, c.want.Detail, c.want.View = got.Code, got.Detail, got.View
			if got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

// TestStatusPassesOn: everything that others need to show the pod is the oldest one's that stays.
func TestStatusPassesOn(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.88.0.7"), netip.MustParseAddr("fd00::7")
	pod := makePod(2, revB, ready, func(p *Pod) {
		p.UID, p.Phase = "8d4841e6-3698-5264-9fab-82ce533b0bcd", corev1.PodPending
		p.IPs = []netip.Addr{v4, netip.MustParseAddr("10.88.0.8"), netip.MustParseAddr("fd00::7%eth0")}
		p.Restarts, p.LastRestart, p.ReadyContainers = 3, t0.Add(-time.Minute), 0b101
	})
	v := viewOf(makeDS())
	v.Generation, v.Common.Hash = 7, [32]byte{1, 2, 3, 4, 5}
	got := Plan(v, Self{Node: makeNode(nil)}, Observed{Pods: []Pod{makePod(1, revB, terminating), pod}}, t0).Status
	want := Status{
		Node: "host-01", View: v.Digest, Tag: [4]byte{1, 2, 3, 4}, Generation: 7, Placed: true, HasPod: true, Ready: true, Available: true, Updated: true,
		Phase: corev1.PodPending, Revision: revB, PodUID: "8d4841e6-3698-5264-9fab-82ce533b0bcd", PodIPs: [2]netip.Addr{v4, v6},
		Restarts: 3, LastRestart: t0.Add(-time.Minute), ReadyContainers: 0b101, Created: pod.Created, Since: pod.ReadySince,
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// numbers is a status in short, in the order of kubectl's columns.
func numbers(s appsv1.DaemonSetStatus) string {
	return fmt.Sprintf("desired %d current %d ready %d updated %d available %d unavailable %d misscheduled %d observed %d",
		s.DesiredNumberScheduled, s.CurrentNumberScheduled, s.NumberReady, s.UpdatedNumberScheduled, s.NumberAvailable,
		s.NumberUnavailable, s.NumberMisscheduled, s.ObservedGeneration)
}

func conditions(s appsv1.DaemonSetStatus) string {
	var out []string
	for _, c := range s.Conditions {
		if c.Type == ConditionBlocked {
			continue // TestBlocked
		}
		out = append(out, fmt.Sprintf("%s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message))
	}
	return strings.Join(out, "\n")
}

func TestSum(t *testing.T) {
	done := Status{Node: "a", Generation: 3, Placed: true, HasPod: true, Ready: true, Available: true, Updated: true, Revision: revB}
	on := func(node string, change func(*Status)) Status {
		s := done
		s.Node = node
		if change != nil {
			change(&s)
		}
		return s
	}
	notReady := func(s *Status) { s.Ready, s.Available, s.Reason = false, false, "pod web-1 is not ready" }
	outdated := func(s *Status) { s.Updated, s.Reason = false, "held back" }
	generation3 := func(ds *appsv1.DaemonSet) { ds.Generation = 3 }

	for _, c := range []struct {
		name     string
		ds       *appsv1.DaemonSet
		statuses []Status
		numbers  string
		says     string
	}{
		{
			"nobody has spoken yet [TestObservedGeneration]", makeDS(generation3), nil,
			"desired 0 current 0 ready 0 updated 0 available 0 unavailable 0 misscheduled 0 observed 0",
			"Available=True AllPodsAvailable: 0 of 0 pods are available\nProgressing=True RolloutInProgress: 0 of 0 pods are updated",
		},
		{
			"all done [TestNumberReadyStatus]", makeDS(generation3),
			[]Status{on("a", nil), on("b", nil)},
			"desired 2 current 2 ready 2 updated 2 available 2 unavailable 0 misscheduled 0 observed 3",
			"Available=True AllPodsAvailable: 2 of 2 pods are available\nProgressing=True RolloutComplete: 2 of 2 pods are updated",
		},
		{
			"a missing pod is unavailable", makeDS(generation3),
			[]Status{{Node: "a", Generation: 3, Placed: true, Reason: "no pod runs yet"}, on("b", nil)},
			"desired 2 current 1 ready 1 updated 1 available 1 unavailable 1 misscheduled 0 observed 3",
			"Available=False PodsUnavailable: 1 of 2 pods are available (a: no pod runs yet)\nProgressing=True RolloutInProgress: 1 of 2 pods are updated (a: no pod runs yet)",
		},
		{
			"ready is not yet available", makeDS(generation3),
			[]Status{on("a", func(s *Status) { s.Available, s.Reason = false, "soon" })},
			"desired 1 current 1 ready 1 updated 1 available 0 unavailable 1 misscheduled 0 observed 3",
			"Available=False PodsUnavailable: 0 of 1 pods are available (a: soon)\nProgressing=True WaitingForAvailability: 1 of 1 pods are updated, 0 of them available",
		},
		{
			"misscheduled counts nowhere else", makeDS(generation3),
			[]Status{on("a", func(s *Status) { s.Placed = false }), {Node: "b", Generation: 3}},
			"desired 0 current 0 ready 0 updated 0 available 0 unavailable 0 misscheduled 1 observed 3",
			"Available=True AllPodsAvailable: 0 of 0 pods are available\nProgressing=True RolloutComplete: 0 of 0 pods are updated",
		},
		{
			"one host has not heard: it counts as it was, and what it calls up to date is not", makeDS(generation3),
			[]Status{on("a", nil), on("b", func(s *Status) { s.Generation, s.Revision = 2, revA })},
			"desired 2 current 2 ready 2 updated 1 available 2 unavailable 0 misscheduled 0 observed 2",
			"Available=True AllPodsAvailable: 2 of 2 pods are available\n" +
				"Progressing=True RolloutInProgress: 1 of 2 pods are updated (b: it has not told of generation 3 yet)",
		},
		{
			"one host has not heard of a change that makes no revision", makeDS(generation3),
			[]Status{on("b", func(s *Status) { s.Generation = 2 }), on("a", nil)},
			"desired 2 current 2 ready 2 updated 2 available 2 unavailable 0 misscheduled 0 observed 2",
			"Available=True AllPodsAvailable: 2 of 2 pods are available\n" +
				"Progressing=True RolloutInProgress: 2 of 2 pods are updated (b: it has not told of generation 3 yet)",
		},
		{
			"a host that never spoke counts nowhere and is waited for", makeDS(generation3),
			[]Status{on("a", nil), {Node: "b", Unheard: true}},
			"desired 1 current 1 ready 1 updated 1 available 1 unavailable 0 misscheduled 0 observed 2",
			"Available=True AllPodsAvailable: 1 of 1 pods are available\n" +
				"Progressing=True RolloutInProgress: 1 of 1 pods are updated (b: it has not told of generation 3 yet)",
		},
		{
			"a host that never spoke and is silent is not waited for", makeDS(generation3),
			[]Status{on("a", nil), {Node: "b", Unheard: true, Silent: "no word from it since 12:03:10"}},
			"desired 1 current 1 ready 1 updated 1 available 1 unavailable 0 misscheduled 0 observed 3",
			"Available=True AllPodsAvailable: 1 of 1 pods are available\n" +
				"Progressing=True RolloutComplete: 1 of 1 pods are updated (b: no word from it since 12:03:10)",
		},
		{
			"a host that fell silent has its pod, and nothing to rely on", makeDS(generation3),
			[]Status{on("b", func(s *Status) { s.Silent = "no word from it since 12:03:10" }), on("a", nil)},
			"desired 2 current 2 ready 1 updated 2 available 1 unavailable 1 misscheduled 0 observed 3",
			"Available=False PodsUnavailable: 1 of 2 pods are available (b: no word from it since 12:03:10)\n" +
				"Progressing=True WaitingForAvailability: 2 of 2 pods are updated, 1 of them available",
		},
		{
			"a host that has been silent for generations is not up to date and holds back no word of the others", makeDS(generation3),
			[]Status{on("a", nil), on("b", func(s *Status) { s.Generation, s.Revision, s.Silent = 1, revA, "no word from it since May" })},
			"desired 2 current 2 ready 1 updated 1 available 1 unavailable 1 misscheduled 0 observed 3",
			"Available=False PodsUnavailable: 1 of 2 pods are available (b: no word from it since May)\n" +
				"Progressing=True RolloutInProgress: 1 of 2 pods are updated (b: no word from it since May)",
		},
		{
			"a silent host with a pod it should not have", makeDS(generation3),
			[]Status{on("a", func(s *Status) { s.Placed, s.Silent = false, "no word" }), on("b", nil)},
			"desired 1 current 1 ready 1 updated 1 available 1 unavailable 0 misscheduled 1 observed 3",
			"Available=True AllPodsAvailable: 1 of 1 pods are available\nProgressing=True RolloutComplete: 1 of 1 pods are updated",
		},
		{
			"a reason that was heard is told in words", makeDS(generation3),
			[]Status{on("a", func(s *Status) {
				s.Ready, s.Available, s.PodUID, s.Code, s.Restarts = false, false, podUID, CodeCrashLoopBackOff, 7
			})},
			"desired 1 current 1 ready 0 updated 1 available 0 unavailable 1 misscheduled 0 observed 3",
			"Available=False PodsUnavailable: 0 of 1 pods are available (a: pod web-7dhp6 is not ready: CrashLoopBackOff, 7 restarts)\n" +
				"Progressing=True WaitingForAvailability: 1 of 1 pods are updated, 0 of them available",
		},
		{
			"a host says a lot", makeDS(generation3),
			[]Status{on("a", func(s *Status) { s.Available, s.Reason = false, "line\n"+strings.Repeat("x", 1000) })},
			"desired 1 current 1 ready 1 updated 1 available 0 unavailable 1 misscheduled 0 observed 3",
			"Available=False PodsUnavailable: 0 of 1 pods are available (a: line?" + strings.Repeat("x", 192) + "…)\n" +
				"Progressing=True WaitingForAvailability: 1 of 1 pods are updated, 0 of them available",
		},
		{
			"paused", makeDS(generation3, pausing),
			[]Status{on("b", outdated), on("a", outdated), on("c", nil)},
			"desired 3 current 3 ready 3 updated 1 available 3 unavailable 0 misscheduled 0 observed 3",
			"Available=True AllPodsAvailable: 3 of 3 pods are available\nProgressing=Unknown RolloutPaused: 1 of 3 pods are updated (a: held back; b: held back)",
		},
		{
			"OnDelete", makeDS(generation3, deleting),
			[]Status{on("a", outdated)},
			"desired 1 current 1 ready 1 updated 0 available 1 unavailable 0 misscheduled 0 observed 3",
			"Available=True AllPodsAvailable: 1 of 1 pods are available\nProgressing=True WaitingForDelete: 0 of 1 pods are updated (a: held back)",
		},
		{
			"a message names five hosts", makeDS(generation3),
			[]Status{
				on("g", notReady), on("f", notReady), on("e", notReady), on("d", notReady), on("c", notReady), on("b", notReady), on("a", notReady),
			},
			"desired 7 current 7 ready 0 updated 7 available 0 unavailable 7 misscheduled 0 observed 3",
			"Available=False PodsUnavailable: 0 of 7 pods are available (a: pod web-1 is not ready; b: pod web-1 is not ready; c: pod web-1 is not ready; " +
				"d: pod web-1 is not ready; e: pod web-1 is not ready; and 2 more)\nProgressing=True WaitingForAvailability: 7 of 7 pods are updated, 0 of them available",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Sum(c.ds, c.statuses)
			if numbers(got) != c.numbers {
				t.Errorf("got  %s\nwant %s", numbers(got), c.numbers)
			}
			if conditions(got) != c.says {
				t.Errorf("got  %s\nwant %s", conditions(got), c.says)
			}
		})
	}
}

func TestConditionsKeepTheirTransitionTime(t *testing.T) {
	at := func(minutes int) metav1.Time { return metav1.NewTime(t0.Add(time.Duration(minutes) * time.Minute)) }
	up := Status{Node: "a", Generation: 1, Placed: true, HasPod: true, Ready: true, Available: true, Updated: true, Since: at(1).Time}
	down := Status{Node: "a", Generation: 1, Placed: true, HasPod: true, Updated: true, Since: at(0).Time}
	ds := makeDS()
	for _, step := range []struct {
		name   string
		status Status
		want   metav1.Time
	}{
		{"first", up, at(1)},
		{"unchanged, though a host says something newer", func() Status { s := up; s.Since = at(5).Time; return s }(), at(1)},
		{"changed, by what the host can tell; never before the last change", down, at(1)},
		{"changed again", func() Status { s := up; s.Since = at(9).Time; return s }(), at(9)},
		{"silent", func() Status {
			s := up
			s.Since, s.Silent, s.SilentSince = at(9).Time, "no word", at(12).Time
			return s
		}(), at(12)},
	} {
		ds.Status = Sum(ds, []Status{step.status})
		if got := ds.Status.Conditions[0].LastTransitionTime; !got.Equal(&step.want) {
			t.Errorf("%s: got %v, want %v", step.name, got, step.want)
		}
	}
}
