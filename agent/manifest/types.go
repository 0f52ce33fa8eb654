package manifest

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Kinds that picket keeps. Pods, Events and ControllerRevisions are derived.
const (
	KindDaemonSet = "DaemonSet"
	KindConfigMap = "ConfigMap"
	KindSecret    = "Secret"
	KindNamespace = "Namespace"
	KindNode      = "Node"
)

// Ref names one object.
type Ref struct{ Kind, Namespace, Name string }

// String is "daemonset/default/web".
func (r Ref) String() string { return strings.ToLower(r.Kind) + "/" + r.Namespace + "/" + r.Name }

// Object is any of *appsv1.DaemonSet, *corev1.ConfigMap, *corev1.Secret, *corev1.Namespace, *corev1.Node.
type Object interface {
	runtime.Object
	metav1.Object
}

// File is what one manifest file holds.
type File struct {
	Objects []Object
	// Skipped are documents of kinds picket does not serve (ServiceAccount, ClusterRole, ...): "doc 3: ClusterRole/fluentd".
	Skipped []Skipped
	// Warnings are about fields that will not be honoured.
	Warnings []Warning
}

// Skipped is a document that was left out on purpose.
type Skipped struct {
	Document   int // 1-based
	Line       int // of the document's first line
	APIVersion string
	Kind       string
	Name       string
}

// Warning names a field picket does not honour, and what happens instead.
type Warning struct {
	Ref   Ref
	Field string // "spec.template.spec.containers[0].livenessProbe"
	Text  string
}

// Error is one thing wrong with a manifest.
type Error struct {
	Source   string // file name or "request body"
	Document int    // 1-based, 0 when the whole file is meant
	Line     int    // 0 when unknown
	Ref      Ref    // as far as known
	Field    string // "" when the document as a whole is meant
	Text     string
}

func (e Error) Error() string { return fmt.Sprintf("%s: %s", e.Source, e.Text) } // real form: "web.yaml:12: daemonset/default/web: spec.selector: Required value"

// Errors is everything wrong with one source.
type Errors []Error
