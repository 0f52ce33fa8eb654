package daemonset

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// heard is what another host makes of a status that was told.
func heard(t *testing.T, s Status) Status {
	t.Helper()
	got, err := DecodeStatus(s.Encode())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestReasons: what the host says in full and what the others make of the 120 bytes they hear. Every code of the planner occurs.
func TestReasons(t *testing.T) {
	id := func(p *Pod) { p.UID, p.Name = podUID, PodName("web", podUID) }
	pod := func(revision string, change ...func(*Pod)) Pod { return makePod(1, revision, append(change, id)...) }
	because := func(reason string) func(*Pod) { return func(p *Pod) { p.Reason = reason } }
	pending := func(p *Pod) { p.Phase = corev1.PodPending }
	restarted := func(p *Pod) { p.Restarts = 7 }
	windows := func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }
	elsewhere := func(ds *appsv1.DaemonSet) {
		ds.Spec.Template.Spec.NodeName = "a-host-with-a-rather-long-name.example.com"
	}
	in := func(zone string) func(*appsv1.DaemonSet) { return affinity(term(zone, corev1.NodeSelectorOpIn, "b")) }
	noExecute := taint(corev1.TaintEffectNoExecute)
	controlPlane := corev1.Taint{Key: "node-role.kubernetes.io/control-plane", Effect: corev1.TaintEffectNoSchedule}
	readyNow := readySince(t0.Add(-time.Second))

	seen := map[Code]bool{}
	for _, c := range []struct {
		code     Code
		node     *corev1.Node
		ds       *appsv1.DaemonSet
		pods     []Pod
		failures int
		here     string
		remote   string // "": the same
	}{
		{code: CodeNone, ds: makeDS(), pods: []Pod{pod(revB, ready)}},
		{code: CodeDeleted, here: "the DaemonSet was deleted"},
		{
			code: CodeNodeName, ds: makeDS(elsewhere), here: "spec.nodeName asks for a-host-with-a-rather-long-name.example.com",
			remote: "spec.nodeName asks for a-host-with-a-rather-…",
		},
		{code: CodeOS, ds: makeDS(windows), here: "spec.os.name asks for windows, the host runs linux", remote: "spec.os.name asks for windows"},
		{code: CodeNodeSelector, ds: makeDS(selecting("disktype", "hdd")), here: "node selector disktype=hdd does not match"},
		{
			code: CodeNodeSelector, ds: makeDS(selecting("storage.example.com/disktype", "hdd")),
			here: "node selector storage.example.com/disktype=hdd does not match", remote: "node selector …/disktype=hdd does not match",
		},
		{code: CodeAffinity, ds: makeDS(in("zone")), here: "required node affinity does not match: zone In [b]"},
		{
			code: CodeAffinityUnreadable, ds: makeDS(affinity(term("zone", "Near", "a"))),
			here:   `required node affinity cannot be read: nodeSelectorTerms[0].matchExpressions[0].operator: Unsupported value: "Near": supported values: "In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"`,
			remote: "required node affinity cannot be read: nodeSelectorTerms[0].…",
		},
		{code: CodeTaint, node: makeNode(nil, noExecute), ds: makeDS(), here: "taint dedicated=gpu:NoExecute is not tolerated"},
		{
			code: CodeTaint, node: makeNode(nil, controlPlane), ds: makeDS(), here: "taint node-role.kubernetes.io/control-plane:NoSchedule is not tolerated",
			remote: "taint …/control-plane:NoS… is not tolerated",
		},
		{
			code: CodeEvicted, node: makeNode(nil, noExecute), ds: makeDS(tolerating(toleration("", 0))), pods: []Pod{pod(revB)},
			here:   "taint dedicated=gpu:NoExecute is tolerated for 0s only; the pod stays away until the taint is removed",
			remote: "taint dedicated=gpu:NoExecute is tolerated for a limited time only; the pod stays away until the taint is removed",
		},
		{code: CodeNoPod, ds: makeDS(), here: "no pod runs yet"},
		{code: CodeTerminating, ds: makeDS(), pods: []Pod{pod(revA, terminating)}, here: "pod NAME is terminating"},
		{
			code: CodeFinished, ds: makeDS(), pods: []Pod{pod(revB, failed)}, failures: 3,
			here:   "pod NAME is Failed, the next attempt (3 so far) is at 2026-03-01T12:00:04Z",
			remote: "pod NAME is Failed, the next attempt is at 2026-03-01T12:00:04Z",
		},
		{code: CodeNotReady, ds: makeDS(), pods: []Pod{pod(revB, restarted)}, here: "pod NAME is not ready, 7 restarts"},
		{code: CodeNotReady, ds: makeDS(), pods: []Pod{pod(revB, func(p *Pod) { p.Restarts = 1 })}, here: "pod NAME is not ready, 1 restart"},
		{
			code: CodeOther, ds: makeDS(), pods: []Pod{pod(revB, pending, because("cannot mount volumes: hostPath /data is no directory"))},
			here: "pod NAME is pending: cannot mount volumes: hostPath /data is no directory", remote: "pod NAME is pending: cannot mount volumes:…",
		},
		{
			code: CodeProbe, ds: makeDS(), pods: []Pod{pod(revB, because("readiness probe failed: container web: HTTP probe failed with statuscode: 404"))},
			here:   "pod NAME is not ready: its readiness probe fails: container web: HTTP probe failed with statuscode: 404",
			remote: "pod NAME is not ready: its readiness probe fails",
		},
		{
			code: CodeMinReady, ds: makeDS(minReady(60)), pods: []Pod{pod(revB, readyNow)},
			here:   "pod NAME is ready and counts as available at 2026-03-01T12:00:59Z (minReadySeconds 60)",
			remote: "pod NAME is ready and counts as available at 2026-03-01T12:00:59Z",
		},
		{
			code: CodeReplacing, ds: makeDS(surging), pods: []Pod{pod(revA, ready)}, here: "pod NAME of the older revision aaaa is being replaced",
		},
		{
			code: CodePaused, ds: makeDS(pausing), pods: []Pod{pod(revA, ready)},
			here: "pod NAME runs the older revision aaaa: the update is paused by the annotation picket.io/paused",
		},
		{
			code: CodeOnDelete, ds: makeDS(deleting), pods: []Pod{pod(revA, ready)},
			here: "pod NAME runs the older revision aaaa: the update strategy is OnDelete: the pod is replaced when it is deleted",
		},
		{
			code: CodeSurging, ds: makeDS(surging), pods: []Pod{pod(revA, ready), makePod(2, revB)},
			here:   "pod NAME runs the older revision aaaa: waiting for pod web-2 of revision bbbb to become available",
			remote: "pod NAME runs the older revision aaaa: waiting for pod of revision bbbb to become available",
		},
		{
			code: CodeOthersHere, ds: makeDS(surging), pods: []Pod{pod(revA, ready), makePod(0, revA, terminating)},
			here: "pod NAME runs the older revision aaaa: waiting for the other pods of this host to be gone",
		},
		{
			code: CodeCrashLoopBackOff, ds: makeDS(), pods: []Pod{pod(revB, restarted, because("CrashLoopBackOff: back-off 5m0s restarting failed container=c"))},
			here: "pod NAME is not ready: CrashLoopBackOff, 7 restarts: back-off 5m0s restarting failed container=c", remote: "pod NAME is not ready: CrashLoopBackOff, 7 restarts",
		},
		{
			code: CodeCreateContainerConfigError, ds: makeDS(), pods: []Pod{pod(revB, pending, because(`CreateContainerConfigError: configmap "settings" not found`))},
			here:   `pod NAME is pending: CreateContainerConfigError: configmap "settings" not found`,
			remote: `pod NAME is pending: CreateContainerConfigError: configmap "settings" …`,
		},
		{code: CodeOOMKilled, ds: makeDS(), pods: []Pod{pod(revB, because("OOMKilled"))}, here: "pod NAME is not ready: OOMKilled"},
	} {
		node := c.node
		if node == nil {
			node = makeNode(nil)
		}
		o := Observed{Pods: c.pods, Warm: warmed, Failures: Failures{Generation: 1, Count: c.failures, Last: t0}}
		s := Plan(viewOf(c.ds), Self{Node: node}, o, t0).Status
		if c.remote == "" {
			c.remote = c.here
		}
		seen[c.code] = true
		named := func(text string) string { return strings.ReplaceAll(text, "NAME", PodName("web", podUID)) }
		if s.Code != c.code || s.Reason != named(c.here) || s.Explain("web") != s.Reason {
			t.Errorf("%v: got %v %q\nwant %q", c.code, s.Code, s.Reason, named(c.here))
		}
		if got := heard(t, s); got.Explain("web") != named(c.remote) || got.Detail != s.Detail {
			t.Errorf("%v, heard elsewhere: got %q (%q)\nwant %q (%q)", c.code, got.Explain("web"), got.Detail, named(c.remote), s.Detail)
		}
	}
	seen[CodeNoRevision] = true // TestWithoutHistoryNothingIsReplaced
	for c := CodeNone; c < CodeContainerCreating; c++ {
		if (c == CodeNone || c.known()) && !seen[c] && c < CodeUnheard { // the rest: TestWhyNot
			t.Errorf("%v has no case", c)
		}
	}
}

// TestCodesAreForEver: other versions of picketd know these numbers.
func TestCodesAreForEver(t *testing.T) {
	var list []string
	for c := range 256 {
		if Code(c).known() {
			list = append(list, sayings[c].name)
		} else if c > 0 && c < len(sayings) && list[len(list)-1] != "-" {
			list = append(list, "-")
		}
	}
	const want = "Deleted NodeName OS NodeSelector NodeAffinity NodeAffinityUnreadable Taint Evicted - " +
		"NoPod Terminating Finished NotReady Other MinReadySeconds ReadinessProbe - Replacing Paused OnDelete Surging OthersHere NoRevision - " +
		"Unheard Failed Quiet Unacknowledged Updating Unavailable Before Returned Stranger Halted - Raising Preparing Aside - " +
		"ContainerCreating PodInitializing CrashLoopBackOff ErrImagePull ImagePullBackOff ErrImageNeverPull InvalidImageName " +
		"CreateContainerConfigError CreateContainerError RunContainerError PostStartHookError - " +
		"Completed Error OOMKilled StartError Unknown LogWriterLost"
	if got := strings.Join(list, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for name, number := range map[string]Code{"Deleted": 1, "NoPod": 16, "Replacing": 32, "ContainerCreating": 64, "Completed": 96} {
		if sayings[number].name != name {
			t.Errorf("%d is %v, want %s", number, number, name)
		}
	}
	if got := (Status{Code: 200, Detail: "and more"}).Explain("web"); got != "for a reason this version of picketd does not know (Code200: and more)" {
		t.Errorf("got %q", got)
	}
}

func TestBrief(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "",
		"dedicated=gpu:NoSchedule":          "dedicated=gpu:NoSchedule",
		"dedicated=gpus:NoSchedule":         "dedicated=gpus:NoSche…",
		"example.com/gpu=true:NoSchedule":   "…/gpu=true:NoSchedule",
		"example.com/a-long-key:NoSchedule": "…/a-long-key:NoSche…",
		"cannot read /etc/a/long/path/file": "cannot read /etc/a/lo…",
		"ääääääääääääa":                     "ääääääääää…",
		"line\nline":                        "line?line",
	} {
		got := brief(text, maxDetail)
		if got != want || brief(got, maxDetail) != got || len(got) > maxDetail {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
