package api

import (
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Verbs as discovery, authorization and errors spell them.
const (
	verbGet              = "get"
	verbList             = "list"
	verbWatch            = "watch"
	verbCreate           = "create"
	verbUpdate           = "update"
	verbPatch            = "patch"
	verbDelete           = "delete"
	verbDeleteCollection = "deletecollection"
)

var (
	readVerbs = []string{verbGet, verbList, verbWatch}
	// allVerbs are those of an object that a client owns.
	allVerbs = []string{verbCreate, verbDelete, verbDeleteCollection, verbGet, verbList, verbPatch, verbUpdate, verbWatch}
)

// resource is one served resource. Discovery, routing, roles, selectors and tables all derive from the one table below.
type resource struct {
	schema.GroupVersion
	Name       string // plural, as in paths
	Singular   string
	Kind       string
	Short      []string
	Categories []string
	Namespaced bool
	Verbs      []string
	// Operator holds the verbs that operators have beyond reading. Their updates and patches are judged by what they change (operator.go).
	Operator     []string
	Subresources []subresource
	// Fields are the field selectors understood besides metadata.name and metadata.namespace.
	Fields selectableFields
	// Table prints the objects; nil for resources that are never listed.
	Table *tablePrinter
}

// subresource is a path below an object: /api/v1/namespaces/default/pods/web-x2z4k/log.
type subresource struct {
	Name string
	// GroupVersion and Kind are those of the body, when they differ from the parent's.
	schema.GroupVersion
	Kind  string
	Verbs []string
	// Role is the least role that may use it.
	Role role
	// Unsupported says why the path is known but not served; such a path is left out of discovery and answers 501.
	Unsupported string
}

// resources is everything this API serves.
var resources = []*resource{
	{
		GroupVersion: corev1.SchemeGroupVersion, Name: "configmaps", Singular: "configmap", Kind: "ConfigMap", Short: []string{"cm"},
		Namespaced: true, Verbs: allVerbs, Table: &configMapTable,
	},
	{
		GroupVersion: corev1.SchemeGroupVersion, Name: "events", Singular: "event", Kind: "Event", Short: []string{"ev"},
		Namespaced: true, Verbs: readVerbs, Fields: eventFields, Table: &eventTable,
	},
	{
		GroupVersion: corev1.SchemeGroupVersion, Name: "namespaces", Singular: "namespace", Kind: "Namespace", Short: []string{"ns"},
		Verbs:        []string{verbCreate, verbDelete, verbGet, verbList, verbPatch, verbUpdate, verbWatch},
		Subresources: []subresource{{Name: "status", Kind: "Namespace", Verbs: []string{verbGet}, Role: viewer}},
		Fields:       namespaceFields, Table: &namespaceTable,
	},
	{
		GroupVersion: corev1.SchemeGroupVersion, Name: "nodes", Singular: "node", Kind: "Node", Short: []string{"no"},
		Verbs:        []string{verbDelete, verbGet, verbList, verbPatch, verbUpdate, verbWatch},
		Operator:     []string{verbPatch, verbUpdate},
		Subresources: []subresource{{Name: "status", Kind: "Node", Verbs: []string{verbGet}, Role: viewer}},
		Fields:       nodeFields, Table: &nodeTable,
	},
	{
		GroupVersion: corev1.SchemeGroupVersion, Name: "pods", Singular: "pod", Kind: "Pod", Short: []string{"po"}, Categories: []string{"all"},
		Namespaced: true, Verbs: []string{verbDelete, verbDeleteCollection, verbGet, verbList, verbWatch},
		Operator: []string{verbDelete, verbDeleteCollection},
		Subresources: []subresource{
			{
				Name: "attach", Kind: "PodAttachOptions", Verbs: []string{verbCreate, verbGet}, Role: admin,
				Unsupported: "attach is not served: use exec to run a command in the container, or logs to see its output",
			},
			{Name: "eviction", GroupVersion: policyv1.SchemeGroupVersion, Kind: "Eviction", Verbs: []string{verbCreate}, Role: operator},
			{Name: "exec", Kind: "PodExecOptions", Verbs: []string{verbCreate, verbGet}, Role: admin},
			{Name: "log", Kind: "Pod", Verbs: []string{verbGet}, Role: viewer},
			{
				Name: "portforward", Kind: "PodPortForwardOptions", Verbs: []string{verbCreate, verbGet}, Role: admin,
				Unsupported: "portforward is not served: reach the pod's IP from its host, or use hostPort",
			},
			{Name: "status", Kind: "Pod", Verbs: []string{verbGet}, Role: viewer},
		},
		Fields: podFields, Table: &podTable,
	},
	{
		GroupVersion: corev1.SchemeGroupVersion, Name: "secrets", Singular: "secret", Kind: "Secret",
		Namespaced: true, Verbs: allVerbs, Fields: secretFields, Table: &secretTable,
	},
	{
		GroupVersion: appsv1.SchemeGroupVersion, Name: "controllerrevisions", Singular: "controllerrevision", Kind: "ControllerRevision",
		Namespaced: true, Verbs: readVerbs, Table: &controllerRevisionTable,
	},
	{
		GroupVersion: appsv1.SchemeGroupVersion, Name: "daemonsets", Singular: "daemonset", Kind: "DaemonSet", Short: []string{"ds"}, Categories: []string{"all"},
		Namespaced: true, Verbs: allVerbs, Operator: []string{verbPatch, verbUpdate},
		Subresources: []subresource{{Name: "status", Kind: "DaemonSet", Verbs: []string{verbGet}, Role: viewer}},
		Table:        &daemonSetTable,
	},
	{
		GroupVersion: authenticationv1.SchemeGroupVersion, Name: "selfsubjectreviews", Singular: "selfsubjectreview", Kind: "SelfSubjectReview",
		Verbs: []string{verbCreate},
	},
	{
		GroupVersion: authorizationv1.SchemeGroupVersion, Name: "selfsubjectaccessreviews", Singular: "selfsubjectaccessreview", Kind: "SelfSubjectAccessReview",
		Verbs: []string{verbCreate},
	},
	{
		GroupVersion: authorizationv1.SchemeGroupVersion, Name: "selfsubjectrulesreviews", Singular: "selfsubjectrulesreview", Kind: "SelfSubjectRulesReview",
		Verbs: []string{verbCreate},
	},
}

// lookupResource finds a served resource by its path elements; nil when it is not served.
func lookupResource(gv schema.GroupVersion, name string) *resource {
	for _, r := range resources {
		if r.GroupVersion == gv && r.Name == name {
			return r
		}
	}
	return nil
}

// lookupGroupResource finds a resource whatever its version: one version of each is served.
func lookupGroupResource(gr schema.GroupResource) *resource {
	for _, r := range resources {
		if r.GroupResource() == gr {
			return r
		}
	}
	return nil
}

func (r *resource) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: r.Group, Resource: r.Name}
}

func (r *resource) GroupVersionKind() schema.GroupVersionKind {
	return r.WithKind(r.Kind)
}

func (r *resource) GroupKind() schema.GroupKind {
	return schema.GroupKind{Group: r.Group, Kind: r.Kind}
}

// ListKind is the kind of the list of these objects.
func (r *resource) ListKind() schema.GroupVersionKind {
	return r.WithKind(r.Kind + "List")
}

// subresource finds a subresource; nil when there is none of that name.
func (r *resource) subresource(name string) *subresource {
	for i := range r.Subresources {
		if r.Subresources[i].Name == name {
			return &r.Subresources[i]
		}
	}
	return nil
}
