package manifest

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

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

// String is "daemonset/default/web", or "node/host-01" for kinds without namespaces.
func (r Ref) String() string {
	if r.Namespace == "" {
		return strings.ToLower(r.Kind) + "/" + r.Name
	}
	return strings.ToLower(r.Kind) + "/" + r.Namespace + "/" + r.Name
}

// Object is any of *appsv1.DaemonSet, *corev1.ConfigMap, *corev1.Secret, *corev1.Namespace, *corev1.Node.
type Object interface {
	runtime.Object
	metav1.Object
}

// File is what one manifest file holds.
type File struct {
	// Objects are as the user wrote them, only with their namespace filled in: Apply merges them with what is stored and
	// fills in the defaults. Each carries its own text in the last-applied annotation, as kubectl apply would send it.
	Objects []Object
	// Skipped are documents of kinds picket does not serve (ServiceAccount, ClusterRole, ...).
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

// String is "document 3 (line 41): ClusterRole fluentd (rbac.authorization.k8s.io/v1)".
func (s Skipped) String() string {
	return fmt.Sprintf("document %d (line %d): %s %s (%s)", s.Document, s.Line, printable(s.Kind), printable(s.Name), printable(s.APIVersion))
}

// Warning names a field picket does not honour, and what happens instead.
type Warning struct {
	Ref   Ref
	Field string // "spec.template.spec.containers[0].livenessProbe"
	Text  string
	Line  int // in the source; 0 when unknown
}

// String is what kubectl prints after "Warning: ".
func (w Warning) String() string { return w.Field + ": " + w.Text }

// Error is one thing wrong with a manifest.
type Error struct {
	Source   string // file name or "request body"
	Document int    // 1-based, 0 when the whole file is meant
	Line     int    // 0 when unknown
	Ref      Ref    // as far as known
	Field    string // "" when the document as a whole is meant
	Text     string
}

// Error is "web.yaml:12: daemonset/default/web: spec.selector: Required value"; what is unknown is left out.
func (e Error) Error() string {
	var b strings.Builder
	b.WriteString(printable(e.Source))
	switch {
	case e.Line > 0:
		fmt.Fprintf(&b, ":%d", e.Line)
	case e.Document > 0:
		fmt.Fprintf(&b, ": document %d", e.Document)
	}
	if e.Ref.Kind != "" {
		b.WriteString(": " + printable(e.Ref.String()))
	}
	if e.Field != "" {
		b.WriteString(": " + printable(e.Field))
	}
	b.WriteString(": " + oneLine(e.Text))
	return b.String()
}

// Errors is everything wrong with one source.
type Errors []Error

// Error is one line an error.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// orNil keeps an empty list from becoming a non-nil error.
func (e Errors) orNil() error {
	if len(e) == 0 {
		return nil
	}
	return e
}

// oneLine takes line breaks and control characters out of texts that quote a document.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}

// printable quotes what a hostile file name or document could use to forge log lines or drive a terminal.
func printable(s string) string {
	if !utf8.ValidString(s) {
		return strconv.Quote(s)
	}
	for _, r := range s {
		if !strconv.IsPrint(r) {
			return strconv.Quote(s)
		}
	}
	return s
}
