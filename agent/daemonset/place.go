package daemonset

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// silent is the logger that component-helpers asks for; its zero value logs nothing.
var silent klog.Logger

// Place answers NodeShouldRunDaemonPod's two questions for one host (SEMANTICS.md 1). A timer of a NoExecute taint that is
// tolerated for a while only is Plan's business: it needs memory and a clock.
func Place(ds *appsv1.DaemonSet, node *corev1.Node) Placement {
	spec := &ds.Spec.Template.Spec
	if why := mismatch(spec, node); why.code != CodeNone {
		return notPlaced(why)
	}
	tolerations := Tolerations(spec)
	if taint, found := untolerated(node, tolerations, corev1.TaintEffectNoExecute); found {
		return notPlaced(because{code: CodeTaint, detail: taint.ToString()})
	}
	if taint, found := untolerated(node, tolerations, corev1.TaintEffectNoSchedule); found {
		p := notPlaced(because{code: CodeTaint, detail: taint.ToString()})
		p.ShouldContinue = true
		return p
	}
	return Placement{ShouldRun: true, ShouldContinue: true}
}

func notPlaced(why because) Placement {
	return Placement{Reason: words{because: why}.text(), because: why}
}

// untolerated is the node's first taint of this effect that nothing tolerates.
func untolerated(node *corev1.Node, tolerations []corev1.Toleration, effect corev1.TaintEffect) (corev1.Taint, bool) {
	ofEffect := func(t *corev1.Taint) bool { return t.Effect == effect }
	return corev1helpers.FindMatchingUntoleratedTaint(silent, node.Spec.Taints, tolerations, ofEffect, true)
}

// mismatch says why the pod's own wishes (nodeName, os, nodeSelector, required affinity) exclude the node; zero when they do not.
func mismatch(spec *corev1.PodSpec, node *corev1.Node) because {
	if spec.NodeName != "" && spec.NodeName != node.Name {
		return because{code: CodeNodeName, detail: spec.NodeName}
	}
	// A kubelet would refuse such a pod after it was placed; here it is not placed at all.
	if os := node.Labels[corev1.LabelOSStable]; spec.OS != nil && os != "" && string(spec.OS.Name) != os {
		return because{code: CodeOS, detail: string(spec.OS.Name), more: os}
	}
	ok, err := nodeaffinity.NewRequiredNodeAffinity(spec.NodeSelector, spec.Affinity).Match(node)
	if ok {
		return because{}
	}
	if missing := missingLabels(spec.NodeSelector, node.Labels); missing != "" {
		return because{code: CodeNodeSelector, detail: missing}
	}
	if err != nil {
		return because{code: CodeAffinityUnreadable, detail: err.Error()}
	}
	terms := spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	return because{code: CodeAffinity, detail: describeTerms(terms)}
}

// missingLabels lists the pairs of selector that labels does not have, sorted.
func missingLabels(selector, labels map[string]string) string {
	var missing []string
	for key, want := range selector {
		if have, ok := labels[key]; !ok || have != want {
			missing = append(missing, key+"="+want)
		}
	}
	slices.Sort(missing)
	return strings.Join(missing, ",")
}

// describeTerms writes an affinity as a person reads it: "zone In [a b], disktype Exists or metadata.name In [host-01]".
func describeTerms(terms []corev1.NodeSelectorTerm) string {
	var either []string
	for _, term := range terms {
		var all []string
		for _, r := range slices.Concat(term.MatchExpressions, term.MatchFields) {
			text := r.Key + " " + string(r.Operator)
			if len(r.Values) > 0 {
				text += fmt.Sprint(" ", r.Values)
			}
			all = append(all, text)
		}
		if len(all) == 0 {
			all = []string{"an empty term, which matches no host"}
		}
		either = append(either, strings.Join(all, ", "))
	}
	if len(either) == 0 {
		return "it has no terms"
	}
	return strings.Join(either, " or ")
}
