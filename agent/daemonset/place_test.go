package daemonset

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

func affinity(terms ...corev1.NodeSelectorTerm) func(*appsv1.DaemonSet) {
	return func(ds *appsv1.DaemonSet) {
		ds.Spec.Template.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms},
		}}
	}
}

func term(key string, op corev1.NodeSelectorOperator, values ...string) corev1.NodeSelectorTerm {
	return corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: op, Values: values}}}
}

func TestNodeShouldRunDaemonPod(t *testing.T) {
	field := func(value string) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{value}}}}
	}
	windows := func(ds *appsv1.DaemonSet) {
		ds.Spec.Template.Spec.OS = &corev1.PodOS{Name: corev1.Windows}
	}
	nodeName := func(name string) func(*appsv1.DaemonSet) {
		return func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.NodeName = name }
	}
	both := func(a, b func(*appsv1.DaemonSet)) func(*appsv1.DaemonSet) {
		return func(ds *appsv1.DaemonSet) { a(ds); b(ds) }
	}
	noOS := makeNode(nil)
	delete(noOS.Labels, corev1.LabelOSStable)
	unschedulable := makeNode(nil)
	unschedulable.Spec.Unschedulable = true

	for _, c := range []struct {
		name   string
		node   *corev1.Node
		ds     func(*appsv1.DaemonSet)
		run    bool
		stay   bool
		reason string
	}{
		{name: "plain", run: true, stay: true},
		{name: "spec.unschedulable is not looked at", node: unschedulable, run: true, stay: true},
		{name: "nodeName matches", ds: nodeName("host-01"), run: true, stay: true},
		{name: "nodeName of another host", ds: nodeName("host-02"), reason: "spec.nodeName asks for host-02"},
		{name: "selector matches", ds: selecting("disktype", "ssd"), run: true, stay: true},
		{name: "selector with another value", ds: selecting("disktype", "hdd"), reason: "node selector disktype=hdd does not match"},
		{name: "selector of an absent label", ds: selecting("gpu", ""), reason: "node selector gpu= does not match"},
		{
			name: "only the pairs that do not match are named, sorted",
			ds: func(ds *appsv1.DaemonSet) {
				ds.Spec.Template.Spec.NodeSelector = map[string]string{"zone": "b", "disktype": "ssd", "gpu": "yes"}
			},
			reason: "node selector gpu=yes,zone=b does not match",
		},
		{name: "affinity matches", ds: affinity(term("zone", corev1.NodeSelectorOpIn, "a", "b")), run: true, stay: true},
		{name: "affinity: second term matches", ds: affinity(term("gpu", corev1.NodeSelectorOpExists), term("zone", corev1.NodeSelectorOpIn, "a")), run: true, stay: true},
		{
			name:   "affinity does not match",
			ds:     affinity(term("zone", corev1.NodeSelectorOpIn, "b", "c"), term("gpu", corev1.NodeSelectorOpExists)),
			reason: "required node affinity does not match: zone In [b c] or gpu Exists",
		},
		{name: "affinity by field", ds: affinity(field("host-02")), reason: "required node affinity does not match: metadata.name In [host-02]"},
		{name: "affinity by field matches", ds: affinity(field("host-01")), run: true, stay: true},
		{name: "affinity without terms", ds: affinity(), reason: "required node affinity does not match: it has no terms"},
		{name: "affinity with an empty term", ds: affinity(corev1.NodeSelectorTerm{}), reason: "required node affinity does not match: an empty term, which matches no host"},
		{
			name: "affinity that cannot be read", ds: affinity(term("zone", "Near", "a")),
			reason: `required node affinity cannot be read: nodeSelectorTerms[0].matchExpressions[0].operator: Unsupported value: "Near": supported values: "In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"`,
		},
		{
			name: "selector is named before affinity", ds: both(selecting("gpu", "yes"), affinity(term("zone", corev1.NodeSelectorOpIn, "b"))),
			reason: "node selector gpu=yes does not match",
		},
		{name: "Windows pod", ds: windows, reason: "spec.os.name asks for windows, the host runs linux"},
		{name: "Windows pod where the host does not say what it is", node: noOS, ds: windows, run: true, stay: true},
		{name: "NoSchedule", node: makeNode(nil, taint(corev1.TaintEffectNoSchedule)), stay: true, reason: "taint dedicated=gpu:NoSchedule is not tolerated"},
		{name: "NoExecute", node: makeNode(nil, taint(corev1.TaintEffectNoExecute)), reason: "taint dedicated=gpu:NoExecute is not tolerated"},
		{name: "PreferNoSchedule is not looked at", node: makeNode(nil, taint(corev1.TaintEffectPreferNoSchedule)), run: true, stay: true},
		{
			name: "both effects: NoExecute decides", node: makeNode(nil, taint(corev1.TaintEffectNoSchedule), taint(corev1.TaintEffectNoExecute)),
			ds: tolerating(toleration(corev1.TaintEffectNoSchedule)), reason: "taint dedicated=gpu:NoExecute is not tolerated",
		},
		{
			name: "NoExecute tolerated, NoSchedule not", node: makeNode(nil, taint(corev1.TaintEffectNoExecute), taint(corev1.TaintEffectNoSchedule)),
			ds: tolerating(toleration(corev1.TaintEffectNoExecute)), stay: true, reason: "taint dedicated=gpu:NoSchedule is not tolerated",
		},
		{name: "NoSchedule tolerated", node: makeNode(nil, taint(corev1.TaintEffectNoSchedule)), ds: tolerating(toleration(corev1.TaintEffectNoSchedule)), run: true, stay: true},
		{name: "any effect tolerated", node: makeNode(nil, taint(corev1.TaintEffectNoExecute)), ds: tolerating(toleration("")), run: true, stay: true},
		{name: "everything tolerated", node: makeNode(nil, taint(corev1.TaintEffectNoExecute)), ds: tolerating(corev1.Toleration{Operator: corev1.TolerationOpExists}), run: true, stay: true},
		{name: "tolerated for a while", node: makeNode(nil, taint(corev1.TaintEffectNoExecute)), ds: tolerating(toleration(corev1.TaintEffectNoExecute, 60)), run: true, stay: true},
		{
			name: "numeric comparison", node: makeNode(nil, corev1.Taint{Key: "sla", Value: "950", Effect: corev1.TaintEffectNoExecute}),
			ds: tolerating(corev1.Toleration{Key: "sla", Operator: corev1.TolerationOpGt, Value: "900"}), run: true, stay: true,
		},
		{
			name: "mismatch and taint: the mismatch decides", node: makeNode(nil, taint(corev1.TaintEffectNoSchedule)), ds: selecting("gpu", "yes"),
			reason: "node selector gpu=yes does not match",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			node, ds := c.node, makeDS()
			if node == nil {
				node = makeNode(nil)
			}
			if c.ds != nil {
				c.ds(ds)
			}
			if got := Place(ds, node); got.ShouldRun != c.run || got.ShouldContinue != c.stay || got.Reason != c.reason {
				t.Errorf("got %+v\nwant %+v", got, c)
			}
		})
	}
}

// TestAddedTolerations: the taints of a node in trouble, each on its own (Kubernetes: TestTaintPressureNodeDaemonLaunchesPod,
// TestNotReadyNodeDaemonLaunchesPod, TestUnreachableNodeDaemonLaunchesPod, TestUnschedulableNodeDaemonDoesNotLaunchPod).
func TestAddedTolerations(t *testing.T) {
	for _, c := range []struct {
		key     string
		effect  corev1.TaintEffect
		runs    bool
		hostNet bool // runs with hostNetwork
	}{
		{corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute, true, true},
		{corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute, true, true},
		{corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule, true, true},
		{corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule, true, true},
		{corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule, true, true},
		{corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule, true, true},
		{corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule, false, true},
		{corev1.TaintNodeNotReady, corev1.TaintEffectNoSchedule, false, false},
		{corev1.TaintNodeDiskPressure, corev1.TaintEffectNoExecute, false, false},
	} {
		node := makeNode(nil, corev1.Taint{Key: c.key, Effect: c.effect})
		ds := makeDS()
		if got := Place(ds, node).ShouldRun; got != c.runs {
			t.Errorf("%s:%s: runs %v, want %v", c.key, c.effect, got, c.runs)
		}
		ds.Spec.Template.Spec.HostNetwork = true
		if got := Place(ds, node).ShouldRun; got != c.hostNet {
			t.Errorf("%s:%s with hostNetwork: runs %v, want %v", c.key, c.effect, got, c.hostNet)
		}
	}
}

func TestTolerationsReplaceLimits(t *testing.T) {
	own := corev1.Toleration{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(30))}
	spec := &corev1.PodSpec{Tolerations: []corev1.Toleration{toleration(""), own}}
	got := Tolerations(spec)
	if len(got) != 7 {
		t.Errorf("%d tolerations, want the template's one, and six: %v", len(got), got)
	}
	if got[1].Key != own.Key || got[1].TolerationSeconds != nil {
		t.Errorf("a daemon pod must tolerate %s without limit, got %v", own.Key, got[1])
	}
	if spec.Tolerations[1].TolerationSeconds == nil || len(spec.Tolerations) != 2 {
		t.Errorf("the template was changed: %v", spec.Tolerations)
	}
}
