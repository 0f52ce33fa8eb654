package api

import (
	"encoding/json"
	"mime"
	"net/http"
	"slices"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Clients compare this Content-Type as a string: any other spelling makes them fall back to the legacy answers.
const mediaDiscovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

// describe finds the handler of a path that describes the API itself, discovery or OpenAPI; nil when the path is none of them.
//
//	/api   /api/v1   /apis   /apis/apps   /apis/apps/v1   /openapi/v2   /openapi/v3   /openapi/v3/apis/apps/v1
func describe(path string) http.HandlerFunc {
	if rest, ok := strings.CutPrefix(path, "/openapi/v3"); ok && (rest == "" || rest[0] == '/') {
		return readOnly(openAPI(strings.Trim(rest, "/")))
	}
	if path == "/openapi/v2" {
		return readOnly(openAPIV2)
	}
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case parts[0] == "api" && len(parts) == 1:
		return readOnly(discoverCore)
	case parts[0] == "api" && len(parts) == 2:
		return readOnly(discoverResources(schema.GroupVersion{Version: parts[1]}))
	case parts[0] == "apis" && len(parts) == 1:
		return readOnly(discoverGroups)
	case parts[0] == "apis" && len(parts) == 2:
		return readOnly(discoverGroup(parts[1]))
	case parts[0] == "apis" && len(parts) == 3:
		return readOnly(discoverResources(schema.GroupVersion{Group: parts[1], Version: parts[2]}))
	}
	return nil
}

func readOnly(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			writeError(w, apierrors.NewMethodNotSupported(schema.GroupResource{Resource: r.URL.Path}, strings.ToLower(r.Method)))
			return
		}
		next(w, r)
	}
}

// groupVersions lists what is served in the order of the table: core first.
func groupVersions() []schema.GroupVersion {
	var gvs []schema.GroupVersion
	for _, r := range resources {
		if !slices.Contains(gvs, r.GroupVersion) {
			gvs = append(gvs, r.GroupVersion)
		}
	}
	return gvs
}

// Discovery is what the API serves, as aggregated discovery (v2) says it: all groups, core included. scripts/openapi builds the
// OpenAPI documents from it.
func Discovery() *apidiscoveryv2.APIGroupDiscoveryList {
	return aggregated(func(schema.GroupVersion) bool { return true })
}

// aggregated describes the group versions that keep selects.
func aggregated(keep func(schema.GroupVersion) bool) *apidiscoveryv2.APIGroupDiscoveryList {
	list := &apidiscoveryv2.APIGroupDiscoveryList{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: apidiscoveryv2.SchemeGroupVersion.String()},
	}
	for _, gv := range groupVersions() {
		if !keep(gv) {
			continue
		}
		version := apidiscoveryv2.APIVersionDiscovery{Version: gv.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
		for _, r := range resources {
			if r.GroupVersion == gv {
				version.Resources = append(version.Resources, r.discovery())
			}
		}
		list.Items = append(list.Items, apidiscoveryv2.APIGroupDiscovery{
			ObjectMeta: metav1.ObjectMeta{Name: gv.Group}, Versions: []apidiscoveryv2.APIVersionDiscovery{version},
		})
	}
	return list
}

func (r *resource) discovery() apidiscoveryv2.APIResourceDiscovery {
	d := apidiscoveryv2.APIResourceDiscovery{
		Resource: r.Name, SingularResource: r.Singular, ResponseKind: &metav1.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind},
		Scope: apidiscoveryv2.ScopeCluster, Verbs: r.Verbs, ShortNames: r.Short, Categories: r.Categories,
	}
	if r.Namespaced {
		d.Scope = apidiscoveryv2.ScopeNamespace
	}
	for _, sub := range r.Subresources {
		if sub.Unsupported != "" {
			continue
		}
		kind := r.subresourceKind(sub)
		d.Subresources = append(d.Subresources, apidiscoveryv2.APISubresourceDiscovery{
			Subresource: sub.Name, Verbs: sub.Verbs, ResponseKind: (*metav1.GroupVersionKind)(&kind),
		})
	}
	return d
}

// subresourceKind is the kind of a subresource's body; its group and version are the parent's unless it names others.
func (r *resource) subresourceKind(sub subresource) schema.GroupVersionKind {
	if sub.GroupVersion.Empty() {
		return r.WithKind(sub.Kind)
	}
	return sub.WithKind(sub.Kind)
}

// discoverCore answers /api.
func discoverCore(w http.ResponseWriter, r *http.Request) {
	if wantsAggregated(r) {
		writeAggregated(w, aggregated(func(gv schema.GroupVersion) bool { return gv.Group == "" }))
		return
	}
	writeDiscovery(w, metav1.APIVersions{
		TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}, ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{},
	})
}

// discoverGroups answers /apis.
func discoverGroups(w http.ResponseWriter, r *http.Request) {
	if wantsAggregated(r) {
		writeAggregated(w, aggregated(func(gv schema.GroupVersion) bool { return gv.Group != "" }))
		return
	}
	list := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
	for _, gv := range groupVersions() {
		if gv.Group != "" {
			list.Groups = append(list.Groups, apiGroup(gv))
		}
	}
	writeDiscovery(w, list)
}

// discoverGroup answers /apis/apps.
func discoverGroup(group string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for _, gv := range groupVersions() {
			if gv.Group == group && group != "" {
				answer := apiGroup(gv)
				answer.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
				writeDiscovery(w, answer)
				return
			}
		}
		writeError(w, errNoSuchPath())
	}
}

func apiGroup(gv schema.GroupVersion) metav1.APIGroup {
	version := metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: gv.Version}
	return metav1.APIGroup{Name: gv.Group, Versions: []metav1.GroupVersionForDiscovery{version}, PreferredVersion: version}
}

// discoverResources answers /api/v1 and /apis/apps/v1. `kubectl drain` and `kubectl auth can-i` read these even when aggregated
// discovery is served.
func discoverResources(gv schema.GroupVersion) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv.String()}
		for _, r := range resources {
			if r.GroupVersion == gv {
				list.APIResources = append(list.APIResources, r.legacyDiscovery()...)
			}
		}
		if len(list.APIResources) == 0 {
			writeError(w, errNoSuchPath())
			return
		}
		writeDiscovery(w, list)
	}
}

func (r *resource) legacyDiscovery() []metav1.APIResource {
	list := []metav1.APIResource{{
		Name: r.Name, SingularName: r.Singular, Namespaced: r.Namespaced, Kind: r.Kind, Verbs: r.Verbs, ShortNames: r.Short, Categories: r.Categories,
	}}
	for _, sub := range r.Subresources {
		if sub.Unsupported == "" {
			list = append(list, metav1.APIResource{
				Name: r.Name + "/" + sub.Name, Namespaced: r.Namespaced, Kind: sub.Kind, Verbs: sub.Verbs,
				Group: sub.Group, Version: sub.Version,
			})
		}
	}
	return list
}

// wantsAggregated tells whether the first form of the Accept header that is served here is aggregated discovery v2. Clients before
// 1.30 offer v2beta1 only and get the legacy answer: they would take v2 for an empty API.
func wantsAggregated(r *http.Request) bool {
	for clause := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		media, params, err := mime.ParseMediaType(clause)
		if err != nil || media != mediaJSON {
			continue
		}
		if params["as"] == "" {
			return false
		}
		if params["as"] == "APIGroupDiscoveryList" && params["g"] == apidiscoveryv2.GroupName && params["v"] == "v2" {
			return true
		}
	}
	return false
}

func writeAggregated(w http.ResponseWriter, list *apidiscoveryv2.APIGroupDiscoveryList) {
	w.Header().Set("Content-Type", mediaDiscovery)
	w.Header().Set("Vary", "Accept")
	_ = json.NewEncoder(w).Encode(list) // the client is gone when this fails
}

func writeDiscovery(w http.ResponseWriter, answer any) {
	w.Header().Set("Vary", "Accept")
	writeJSON(w, http.StatusOK, answer)
}
