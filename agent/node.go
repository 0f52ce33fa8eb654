package agent

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/api"
)

var resourceNodes = schema.GroupResource{Resource: "nodes"}

// node is this host's Node object in its two sections: what the host says of itself (facts and the config file's labels and
// taints) and what came through the API. The config file owns the keys it names; the API owns the rest.
type node struct {
	name           string
	uid            types.UID
	created        metav1.Time
	configFile     string
	labels         map[string]string // config file
	taints         []corev1.Taint    // config file
	addresses      []corev1.NodeAddress
	facts          hostFacts
	version        string // of picketd
	runtimeVersion string // of containerd
	readySince     metav1.Time
	wasReady       bool

	section corev1.Node // the API's: labels, annotations, taints, unschedulable
	current *corev1.Node
}

func (n *node) reference() corev1.ObjectReference {
	// kubectl describe node looks for events by the node's name in the uid field too, as the kubelet writes them.
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: n.name, UID: types.UID(n.name)}
}

// standardLabels are the host's own, whatever the config file says.
func (n *node) standardLabels() map[string]string {
	return map[string]string{
		corev1.LabelHostname:   n.name,
		corev1.LabelOSStable:   n.facts.os,
		corev1.LabelArchStable: n.facts.arch,
	}
}

// compose builds the Node as users see it.
func (n *node) compose(containerdUp bool, now time.Time) *corev1.Node {
	labels := map[string]string{}
	maps.Copy(labels, n.section.Labels)
	maps.Copy(labels, n.labels)
	maps.Copy(labels, n.standardLabels())
	taints := slices.Clone(n.taints)
	for _, t := range n.section.Spec.Taints {
		if !slices.ContainsFunc(taints, func(o corev1.Taint) bool { return o.MatchTaint(&t) }) {
			taints = append(taints, t)
		}
	}
	if n.section.Spec.Unschedulable {
		taints = append(taints, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}
	if containerdUp != n.wasReady || n.readySince.IsZero() {
		n.wasReady, n.readySince = containerdUp, metav1.NewTime(now)
	}
	return &corev1.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{
			Name: n.name, UID: n.uid, CreationTimestamp: n.created, Labels: labels, Annotations: n.section.Annotations,
		},
		Spec: corev1.NodeSpec{Taints: taints, Unschedulable: n.section.Spec.Unschedulable},
		Status: corev1.NodeStatus{
			Capacity:    n.facts.capacity,
			Allocatable: n.facts.capacity,
			Conditions:  []corev1.NodeCondition{n.readyCondition(containerdUp)},
			Addresses:   n.addresses,
			NodeInfo:    n.facts.info(n.version, n.runtimeVersion),
		},
	}
}

func (n *node) readyCondition(containerdUp bool) corev1.NodeCondition {
	c := corev1.NodeCondition{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "PicketReady", Message: "picketd runs and containerd answers",
		LastHeartbeatTime: n.readySince, LastTransitionTime: n.readySince,
	}
	if !containerdUp {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, "ContainerdUnreachable", "containerd does not answer; what runs goes on running"
	}
	return c
}

// split takes the API's section out of a whole Node that a client wrote. What the host or its config file owns must be as it is.
func (n *node) split(written *corev1.Node) (corev1.Node, error) {
	out := corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: n.name, Annotations: written.Annotations},
		Spec:       corev1.NodeSpec{Unschedulable: written.Spec.Unschedulable},
	}
	owned := maps.Clone(n.labels)
	if owned == nil {
		owned = map[string]string{}
	}
	maps.Copy(owned, n.standardLabels())
	for k, v := range owned {
		if got, ok := written.Labels[k]; !ok || got != v {
			return out, n.refuse("label", k)
		}
	}
	for k, v := range written.Labels {
		if _, ok := owned[k]; !ok {
			if out.Labels == nil {
				out.Labels = map[string]string{}
			}
			out.Labels[k] = v
		}
	}
	for _, t := range n.taints {
		if !slices.ContainsFunc(written.Spec.Taints, func(o corev1.Taint) bool { return o.MatchTaint(&t) && o.Value == t.Value }) {
			return out, n.refuse("taint", t.ToString())
		}
	}
	for _, t := range written.Spec.Taints {
		fromConfig := slices.ContainsFunc(n.taints, func(o corev1.Taint) bool { return o.MatchTaint(&t) })
		if !fromConfig && t.Key != corev1.TaintNodeUnschedulable {
			t.TimeAdded = nil // an eviction's timer is this host's own
			out.Spec.Taints = append(out.Spec.Taints, t)
		}
	}
	return out, nil
}

func (n *node) refuse(what, key string) error {
	if _, standard := n.standardLabels()[key]; standard && what == "label" {
		return apierrors.NewForbidden(resourceNodes, n.name, fmt.Errorf("label %s is set by the host itself and cannot be changed", key))
	}
	file := n.configFile
	if file == "" {
		file = "the agent's configuration"
	}
	return apierrors.NewForbidden(resourceNodes, n.name, fmt.Errorf("%s %s belongs to %s on %s: change it there (node.%ss)", what, key, file, n.name, what))
}

// parseTaint reads "key=value:Effect" or "key:Effect".
func parseTaint(s string) (corev1.Taint, error) {
	spec, effect, ok := strings.Cut(s, ":")
	key, value, _ := strings.Cut(spec, "=")
	t := corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)}
	switch {
	case !ok || key == "":
		return t, fmt.Errorf("taint %q is not key=value:Effect", s)
	case t.Effect != corev1.TaintEffectNoSchedule && t.Effect != corev1.TaintEffectNoExecute && t.Effect != corev1.TaintEffectPreferNoSchedule:
		return t, fmt.Errorf("taint %q: effect must be NoSchedule, PreferNoSchedule or NoExecute", s)
	}
	return t, nil
}

func parseTaints(list []string) ([]corev1.Taint, error) {
	taints := make([]corev1.Taint, 0, len(list))
	for _, s := range list {
		t, err := parseTaint(s)
		if err != nil {
			return nil, err
		}
		taints = append(taints, t)
	}
	return taints, nil
}

// publishNode puts the Node as it is now into the cache and lets every DaemonSet be placed anew when labels or taints changed.
func (l *loop) publishNode() {
	before := l.node.current
	l.node.current = l.node.compose(l.connected, l.now())
	l.cache.Set(resourceNodes, l.node.current.DeepCopy())
	if before == nil || !maps.Equal(before.Labels, l.node.current.Labels) || !slices.EqualFunc(before.Spec.Taints, l.node.current.Spec.Taints, equalTaints) {
		l.planAll()
	}
}

func equalTaints(a, b corev1.Taint) bool {
	return a.Key == b.Key && a.Value == b.Value && a.Effect == b.Effect
}

// writeNode takes a client's write of a Node.
func (l *loop) writeNode(w api.Write) error {
	if w.Name != l.node.name {
		return apierrors.NewNotFound(resourceNodes, w.Name)
	}
	written, ok := w.Object.(*corev1.Node)
	if !ok {
		return apierrors.NewMethodNotSupported(resourceNodes, "delete")
	}
	section, err := l.node.split(written)
	if err != nil || w.DryRun {
		return err
	}
	return l.put(w.Author, &section)
}
