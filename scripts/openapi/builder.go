package main

import (
	"fmt"
	"slices"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kube-openapi/pkg/builder3"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/picketd/picket/agent/api"
)

// builder makes the document of one group version.
type builder struct {
	gv schema.GroupVersion
	// kinds are the x-kubernetes-group-version-kind extensions by model name: kubectl finds the schema of a kind by them. Every
	// model named here gets into the document, with everything it refers to.
	kinds map[string][]any
	err   error // the first; checked at the end
}

func (b *builder) document(resources []apidiscoveryv2.APIResourceDiscovery) (*spec3.OpenAPI, error) {
	paths := map[string]*spec3.Path{}
	for i := range resources {
		b.resource(&resources[i], paths)
	}
	if b.err != nil {
		return nil, b.err
	}
	config := &common.OpenAPIV3Config{
		GetDefinitions: GetOpenAPIDefinitions,
		GetDefinitionName: func(name string) (string, spec.Extensions) {
			if kinds := b.kinds[name]; len(kinds) > 0 {
				return name, spec.Extensions{gvkExtension: kinds}
			}
			return name, nil
		},
	}
	var models []string
	for model := range b.kinds {
		models = append(models, model)
	}
	slices.Sort(models)
	schemas, err := builder3.BuildOpenAPIDefinitionsForResources(config, models...)
	if err != nil {
		return nil, err
	}
	return &spec3.OpenAPI{
		Version:    "3.0.0",
		Info:       &spec.Info{InfoProps: spec.InfoProps{Title: "picket", Version: b.gv.String()}},
		Paths:      &spec3.Paths{Paths: paths},
		Components: &spec3.Components{Schemas: schemas},
	}, nil
}

const (
	gvkExtension    = "x-kubernetes-group-version-kind"
	actionExtension = "x-kubernetes-action"
)

// model is the reference to a kind's schema, which it adds to the document.
func (b *builder) model(gvk schema.GroupVersionKind) *spec.Schema {
	obj, err := scheme.Scheme.New(gvk)
	if err != nil {
		b.err = fmt.Errorf("cannot find the type of %s: %w", gvk, err)
		return nil
	}
	named, ok := obj.(interface{ OpenAPIModelName() string })
	if !ok {
		b.err = fmt.Errorf("%T has no OpenAPI model name", obj)
		return nil
	}
	name := named.OpenAPIModelName()
	if _, known := b.kinds[name]; !known {
		b.kinds[name] = []any{extensionGVK(gvk)}
	}
	return spec.RefProperty("#/components/schemas/" + name)
}

func extensionGVK(gvk schema.GroupVersionKind) map[string]any {
	return map[string]any{"group": gvk.Group, "version": gvk.Version, "kind": gvk.Kind}
}

// resource adds a resource's paths.
func (b *builder) resource(r *apidiscoveryv2.APIResourceDiscovery, paths map[string]*spec3.Path) {
	gvk := schema.GroupVersionKind(*r.ResponseKind)
	collection := "/" + api.OpenAPIPath(b.gv) + "/"
	var where []*spec3.Parameter
	if r.Scope == apidiscoveryv2.ScopeNamespace {
		if slices.Contains(r.Verbs, "list") {
			paths[collection+r.Resource] = b.path(gvk, []string{"list"}, nil)
		}
		collection += "namespaces/{namespace}/"
		where = append(where, pathParameter("namespace", "object name and auth scope, such as for teams and projects"))
	}
	collection += r.Resource
	paths[collection] = b.path(gvk, intersect(r.Verbs, "list", "create", "deletecollection"), where)
	where = append(where, pathParameter("name", "name of the "+gvk.Kind))
	if verbs := intersect(r.Verbs, "get", "update", "patch", "delete"); len(verbs) > 0 {
		paths[collection+"/{name}"] = b.path(gvk, verbs, where)
	}
	for _, sub := range r.Subresources {
		// Verbs of the streaming ones (exec, log) have bodies of their own; the document names their path and kind only.
		paths[collection+"/{name}/"+sub.Subresource] = b.path(schema.GroupVersionKind(*sub.ResponseKind), sub.Verbs, where)
	}
}

func intersect(verbs []string, wanted ...string) []string {
	return slices.DeleteFunc(wanted, func(v string) bool { return !slices.Contains(verbs, v) })
}

func (b *builder) path(gvk schema.GroupVersionKind, verbs []string, where []*spec3.Parameter) *spec3.Path {
	p := &spec3.Path{PathProps: spec3.PathProps{Parameters: where}}
	for _, verb := range verbs {
		switch op := b.operation(gvk, verb); verb {
		case "get", "list":
			p.Get = op
		case "create":
			p.Post = op
		case "update":
			p.Put = op
		case "patch":
			p.Patch = op
		case "delete", "deletecollection":
			p.Delete = op
		}
	}
	return p
}

var actions = map[string]string{"get": "get", "list": "list", "create": "post", "update": "put", "patch": "patch", "delete": "delete", "deletecollection": "deletecollection"}

func (b *builder) operation(gvk schema.GroupVersionKind, verb string) *spec3.Operation {
	op := &spec3.Operation{
		VendorExtensible: spec.VendorExtensible{Extensions: spec.Extensions{actionExtension: actions[verb], gvkExtension: extensionGVK(gvk)}},
		OperationProps:   spec3.OperationProps{Parameters: queryParameters(verb)},
	}
	answer := gvk
	switch verb {
	case "list":
		answer.Kind += "List"
	case "delete", "deletecollection":
		answer = schema.GroupVersionKind{Version: "v1", Kind: "Status"}
		op.RequestBody = body(b.model(schema.GroupVersionKind{Version: "v1", Kind: "DeleteOptions"}), "application/json")
	case "create", "update":
		op.RequestBody = body(b.model(gvk), "application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
	case "patch":
		op.RequestBody = body(spec.RefProperty("#/components/schemas/"+metav1.Patch{}.OpenAPIModelName()),
			"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json")
		if _, known := b.kinds[metav1.Patch{}.OpenAPIModelName()]; !known {
			b.kinds[metav1.Patch{}.OpenAPIModelName()] = nil
		}
	}
	op.Responses = &spec3.Responses{ResponsesProps: spec3.ResponsesProps{StatusCodeResponses: map[int]*spec3.Response{
		200: {ResponseProps: spec3.ResponseProps{Description: "OK", Content: content(b.model(answer), "application/json")}},
	}}}
	return op
}

func body(model *spec.Schema, media ...string) *spec3.RequestBody {
	return &spec3.RequestBody{RequestBodyProps: spec3.RequestBodyProps{Content: content(model, media...)}}
}

func content(model *spec.Schema, media ...string) map[string]*spec3.MediaType {
	c := map[string]*spec3.MediaType{}
	for _, m := range media {
		c[m] = &spec3.MediaType{MediaTypeProps: spec3.MediaTypeProps{Schema: model}}
	}
	return c
}

func pathParameter(name, description string) *spec3.Parameter {
	return &spec3.Parameter{ParameterProps: spec3.ParameterProps{
		Name: name, In: "path", Description: description, Required: true, Schema: spec.StringProperty(),
	}}
}

// queryParameters are those of a verb. kubectl asks a patch's whether fieldValidation is among them before it trusts the server to
// validate.
func queryParameters(verb string) []*spec3.Parameter {
	var names string
	switch verb {
	case "list":
		names = "fieldSelector labelSelector limit:integer resourceVersion resourceVersionMatch sendInitialEvents:boolean timeoutSeconds:integer watch:boolean"
	case "create", "update", "patch":
		names = "dryRun fieldManager fieldValidation"
	case "delete":
		names = "dryRun gracePeriodSeconds:integer propagationPolicy"
	case "deletecollection":
		names = "dryRun fieldSelector labelSelector gracePeriodSeconds:integer propagationPolicy"
	}
	var parameters []*spec3.Parameter
	for _, field := range strings.Fields(names) {
		name, kind, typed := strings.Cut(field, ":")
		if !typed {
			kind = "string"
		}
		parameters = append(parameters, &spec3.Parameter{ParameterProps: spec3.ParameterProps{
			Name: name, In: "query", Schema: &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{kind}}},
		}})
	}
	return parameters
}
