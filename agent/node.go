package agent

import (
	"crypto/sha256"
	"encoding/json"
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

	"github.com/picketd/picket/agent/daemonset"
	"github.com/picketd/picket/agent/manifest"
	"github.com/picketd/picket/cluster"
)

var resourceNodes = schema.GroupResource{Resource: "nodes"}

// node is a host's Node object in its parts: what the host says of itself, what came through the API, and how it is now. The
// host's config file owns the labels and taints it names; the API owns the rest.
type node struct {
	name       string
	host       hostSection
	section    corev1.Node            // the API's: labels, annotations, taints, unschedulable
	conditions []corev1.NodeCondition // Ready is the last
	readyAt    time.Time              // when this host heard that one change
	current    *corev1.Node
}

// hostSection is what a host says of itself. It is replicated under hostKey, and only the host itself may write it.
type hostSection struct {
	Created    metav1.Time           `json:"created"`
	ConfigFile string                `json:"configFile,omitempty"`
	Labels     map[string]string     `json:"labels,omitempty"` // config file
	Taints     []corev1.Taint        `json:"taints,omitempty"` // config file
	Addresses  []corev1.NodeAddress  `json:"addresses"`
	Capacity   corev1.ResourceList   `json:"capacity"`
	Info       corev1.NodeSystemInfo `json:"info"`
}

// ready is the condition Ready.
func (n *node) ready() corev1.NodeCondition {
	if len(n.conditions) == 0 {
		return corev1.NodeCondition{}
	}
	return n.conditions[len(n.conditions)-1]
}

// keyOfHost is the store's key of what a host says of itself.
func keyOfHost(name string) string { return kindHost + "//" + name }

// kindHost is no kind of the API: users see Nodes.
const kindHost = "Host"

// hostOf is the name in a key of keyOfHost.
func hostOf(key string) (name string, ok bool) { return strings.CutPrefix(key, kindHost+"//") }

func (s hostSection) write(name string) (cluster.Write, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return cluster.Write{}, fmt.Errorf("cannot store what this host says of itself: %w", err)
	}
	return cluster.Write{Key: keyOfHost(name), Body: body, Hash: sha256.Sum256(body), Author: "picketd"}, nil
}

func (n *node) reference() corev1.ObjectReference {
	// kubectl describe node looks for events by the node's name in the uid field too, as the kubelet writes them.
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: n.name, UID: types.UID(n.name)}
}

// standardLabels are the host's own, whatever the config file says.
func (n *node) standardLabels() map[string]string {
	labels := map[string]string{corev1.LabelHostname: n.name}
	if n.host.Info.OperatingSystem != "" { // a host that was not heard yet has not said
		labels[corev1.LabelOSStable], labels[corev1.LabelArchStable] = n.host.Info.OperatingSystem, n.host.Info.Architecture
	}
	return labels
}

// owned are the labels that nobody may change through the API.
func (n *node) owned() map[string]string {
	labels := maps.Clone(n.host.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, n.standardLabels())
	return labels
}

// compose builds the Node as users see it.
func (n *node) compose() *corev1.Node {
	labels := map[string]string{}
	maps.Copy(labels, n.section.Labels)
	maps.Copy(labels, n.owned())
	taints := slices.Clone(n.host.Taints)
	for _, t := range append(pressureTaints(n.conditions), n.section.Spec.Taints...) {
		if !slices.ContainsFunc(taints, func(o corev1.Taint) bool { return o.MatchTaint(&t) }) {
			taints = append(taints, t)
		}
	}
	if n.section.Spec.Unschedulable {
		taints = append(taints, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}
	return &corev1.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{
			Name: n.name, UID: daemonset.UID(manifest.KindNode, "", n.name, 0), CreationTimestamp: n.host.Created, Labels: labels, Annotations: n.section.Annotations,
		},
		Spec: corev1.NodeSpec{Taints: taints, Unschedulable: n.section.Spec.Unschedulable},
		Status: corev1.NodeStatus{
			Capacity:    n.host.Capacity,
			Allocatable: n.host.Capacity,
			Conditions:  n.conditions,
			Addresses:   n.host.Addresses,
			NodeInfo:    n.host.Info,
		},
	}
}

// split takes the API's section out of a whole Node that a client wrote. What the host or its config file owns must be as it is.
func (n *node) split(written *corev1.Node) (corev1.Node, error) {
	out := corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: n.name, Annotations: written.Annotations},
		Spec:       corev1.NodeSpec{Unschedulable: written.Spec.Unschedulable},
	}
	owned := n.owned()
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
	for _, t := range n.host.Taints {
		if !slices.ContainsFunc(written.Spec.Taints, func(o corev1.Taint) bool { return o.MatchTaint(&t) && o.Value == t.Value }) {
			return out, n.refuse("taint", t.ToString())
		}
	}
	for _, t := range written.Spec.Taints {
		fromConfig := slices.ContainsFunc(n.host.Taints, func(o corev1.Taint) bool { return o.MatchTaint(&t) })
		if !fromConfig && !madeByCondition(t) {
			t.TimeAdded = nil // an eviction's timer is the host's own
			out.Spec.Taints = append(out.Spec.Taints, t)
		}
	}
	return out, nil
}

func (n *node) refuse(what, key string) error {
	if _, standard := n.standardLabels()[key]; standard && what == "label" {
		return apierrors.NewForbidden(resourceNodes, n.name, fmt.Errorf("label %s is set by the host itself and cannot be changed", key))
	}
	file := n.host.ConfigFile
	if file == "" {
		file = "the agent's configuration"
	}
	return apierrors.NewForbidden(resourceNodes, n.name, fmt.Errorf("%s %s belongs to %s on %s: change it there (node.%ss)", what, key, file, n.name, what))
}

// sameForPlacement says whether two states of a Node place pods alike.
func sameForPlacement(a, b *corev1.Node) bool {
	return a != nil && b != nil && maps.Equal(a.Labels, b.Labels) && slices.EqualFunc(a.Spec.Taints, b.Spec.Taints, equalTaints)
}

func equalTaints(a, b corev1.Taint) bool {
	return a.Key == b.Key && a.Value == b.Value && a.Effect == b.Effect
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
