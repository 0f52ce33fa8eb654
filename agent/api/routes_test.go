package api_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/agent/api/apitest"
)

// client is a plain HTTP client with a role's certificate.
type client struct {
	t    testing.TB
	http *http.Client
	url  string
}

func newClient(t testing.TB, h *apitest.Host, user string, organizations ...string) *client {
	t.Helper()
	config := h.Config(t, user, organizations...)
	c, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return &client{t: t, http: c, url: h.URL}
}

type answer struct {
	code   int
	header http.Header
	body   string
	status metav1.Status
}

func (c *client) do(method, path, contentType, body string, header ...string) answer {
	c.t.Helper()
	req, err := http.NewRequest(method, c.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		c.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	read := io.ReadAll
	if resp.StatusCode == http.StatusOK && strings.Contains(path, "watch=true") {
		read = first
	}
	text, err := read(resp.Body)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	a := answer{code: resp.StatusCode, header: resp.Header, body: string(text)}
	_ = json.Unmarshal(text, &a.status) // logs and tables are none
	return a
}

// initial makes a watch begin with what there is and a bookmark: it says something even when there is nothing.
const initial = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"

// first reads a watch's first event.
func first(r io.Reader) ([]byte, error) { return bufio.NewReader(r).ReadBytes('\n') }

// route is one verb of one resource or subresource, with a request for it.
type route struct {
	resource, sub, verb string
	method, path        string
}

// routes reads all that is served out of legacy discovery, and adds what is known but not served.
func routes(t *testing.T, admin *client) []route {
	t.Helper()
	var all []route
	for _, gv := range []string{"api/v1", "apis/apps/v1", "apis/authentication.k8s.io/v1", "apis/authorization.k8s.io/v1"} {
		var list metav1.APIResourceList
		if err := json.Unmarshal([]byte(admin.do("GET", "/"+gv, "", "").body), &list); err != nil {
			t.Fatal(err)
		}
		for _, r := range list.APIResources {
			all = append(all, routesOf(gv, r)...)
		}
	}
	for _, sub := range []string{"attach", "portforward"} {
		all = append(all, routesOf("api/v1", metav1.APIResource{Name: "pods/" + sub, Namespaced: true, Verbs: metav1.Verbs{"create", "get"}})...)
	}
	return all
}

func routesOf(gv string, r metav1.APIResource) []route {
	name, sub, _ := strings.Cut(r.Name, "/")
	collection := "/" + gv + "/" + name
	if r.Namespaced {
		collection = "/" + gv + "/namespaces/default/" + name
	}
	object := collection + "/x"
	if sub != "" {
		object += "/" + sub
	}
	methods := map[string]struct{ method, path string }{
		"get": {"GET", object}, "list": {"GET", collection}, "watch": {"GET", collection + "?watch=true&" + initial},
		"create": {"POST", collection}, "update": {"PUT", object}, "patch": {"PATCH", object},
		"delete": {"DELETE", object}, "deletecollection": {"DELETE", collection},
	}
	var all []route
	for _, verb := range r.Verbs {
		m := methods[verb]
		if sub != "" && verb == "create" {
			m.path = object
		}
		all = append(all, route{name, sub, verb, m.method, m.path})
	}
	return all
}

// mayUse is who may use what, written down a second time, by hand.
func mayUse(r route) []string {
	name := r.resource
	if r.sub != "" {
		name += "/" + r.sub
	}
	everybody := []string{apitest.Viewers, apitest.Operators, apitest.Admins}
	operators := everybody[1:]
	switch name {
	case "pods/exec", "pods/attach", "pods/portforward":
		return []string{apitest.Admins}
	case "pods/eviction":
		return operators
	}
	if strings.HasPrefix(name, "self") || slices.Contains([]string{"get", "list", "watch"}, r.verb) {
		return everybody
	}
	switch name + " " + r.verb {
	case "pods delete", "pods deletecollection", "daemonsets patch", "daemonsets update", "nodes patch", "nodes update":
		return operators
	}
	return []string{apitest.Admins}
}

// No verb on any resource is reachable without a certificate of a role that allows it.
func TestEveryRouteWithEveryRole(t *testing.T) {
	h := apitest.Start(t)
	all := routes(t, newClient(t, h, "root", apitest.Admins))
	if len(all) < 50 {
		t.Fatalf("only %d routes were found", len(all))
	}
	callers := map[string]*client{
		"":                newClient(t, h, ""),
		apitest.Hosts:     newClient(t, h, "host-02", apitest.Hosts, apitest.Doors),
		"no role":         newClient(t, h, "eve", "somebody"),
		apitest.Viewers:   newClient(t, h, "victor", apitest.Viewers),
		apitest.Operators: newClient(t, h, "olga", apitest.Operators),
		apitest.Admins:    newClient(t, h, "alice", apitest.Admins),
	}
	for _, r := range all {
		for caller, c := range callers {
			a := c.do(r.method, r.path, "application/json", "{}")
			refused := a.code == http.StatusForbidden || a.code == http.StatusUnauthorized
			if allowed := slices.Contains(mayUse(r), caller); allowed == refused {
				t.Errorf("%s %s as %q: %d, allowed should be %v\n%s", r.method, r.path, caller, a.code, allowed, a.body)
			}
			if caller == "" && a.code != http.StatusUnauthorized {
				t.Errorf("%s %s without a certificate: %d", r.method, r.path, a.code)
			}
			if a.code >= 500 && a.code != http.StatusNotImplemented {
				t.Errorf("%s %s as %q: %d %s", r.method, r.path, caller, a.code, a.body)
			}
		}
	}
	if n := len(h.Backend.Writes()); n != 0 {
		t.Errorf("%d writes were made by requests without a valid body or object", n)
	}
}

func TestAnonymousPaths(t *testing.T) {
	h := apitest.Start(t)
	c := newClient(t, h, "")
	for _, path := range []string{"/healthz", "/readyz", "/version"} {
		if a := c.do("GET", path, "", ""); a.code != http.StatusOK {
			t.Errorf("GET %s without a certificate: %d", path, a.code)
		}
	}
	for _, path := range []string{"/", "/api", "/apis", "/apis/apps", "/apis/apps/v1", "/openapi/v3", "/metrics", "/nonsense", "/healthz/../api/v1/secrets", "/version/"} {
		if a := c.do("GET", path, "", ""); a.code != http.StatusUnauthorized || a.status.Reason != metav1.StatusReasonUnauthorized {
			t.Errorf("GET %s without a certificate: %d", path, a.code)
		}
	}
}

// A certificate of another authority is no certificate.
func TestForeignCertificate(t *testing.T) {
	h, other := apitest.Start(t), apitest.Start(t)
	config := h.Config(t, "")
	foreign := other.Config(t, "mallory", apitest.Admins)
	config.CertData, config.KeyData = foreign.CertData, foreign.KeyData
	c, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdleConnections()
	resp, err := c.Get(h.URL + "/api/v1/nodes")
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("a foreign certificate got %d", resp.StatusCode)
		}
	}
}

// The socket's users are admins; writes through it carry its name.
func TestSocketIsAdmin(t *testing.T) {
	h := apitest.Start(t)
	c := &client{t: t, url: "http://picket", http: socketClient(t, h.Socket)}
	if a := c.do("POST", "/api/v1/namespaces/default/configmaps", "application/yaml", settings); a.code != http.StatusCreated {
		t.Fatalf("create through the socket: %d %s", a.code, a.body)
	}
	if w := h.Backend.Writes(); len(w) != 1 || w[0].Author != api.SocketUser {
		t.Errorf("writes were %+v", w)
	}
}

func TestSecretsAreHidden(t *testing.T) {
	h := apitest.Start(t)
	h.Cache.Set(apitest.Secrets, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "password", Annotations: map[string]string{
			corev1.LastAppliedConfigAnnotation: `{"data":{"p":"aHVudGVyMg=="}}`, "note": "kept",
		}},
		Data: map[string][]byte{"p": []byte("hunter2")},
	})
	paths := []string{
		"/api/v1/namespaces/default/secrets/password", "/api/v1/secrets", "/api/v1/secrets?watch=true", "/api/v1/secrets?includeObject=Object",
		"/api/v1/secrets?watch=true&" + initial,
	}
	accepts := []string{
		"application/json", "application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
	}
	for _, org := range []string{apitest.Viewers, apitest.Operators, apitest.Admins} {
		c := newClient(t, h, "u", org)
		for _, path := range paths {
			for _, accept := range accepts {
				a := c.do("GET", path, "", "", "Accept", accept)
				if a.code != http.StatusOK || !strings.Contains(a.body, "password") {
					t.Fatalf("%s: %d %s", path, a.code, a.body)
				}
				if shown := strings.Contains(a.body, "aHVudGVyMg"); shown && org != apitest.Admins {
					t.Errorf("%s saw the data in %s as %s: %s", org, path, accept, a.body)
				} else if !shown && org == apitest.Admins && accept == accepts[0] {
					t.Errorf("%s did not see the data in %s", org, path)
				}
			}
		}
	}
}

// operators' updates are judged by what they change.
func TestOperatorChanges(t *testing.T) {
	h, _ := start(t)
	k := h.Kubectl(t, "olga", apitest.Operators)
	alice := h.Kubectl(t, "alice", apitest.Admins)
	alice.Run("", "set", "image", "ds/web", "main=busybox:2")
	alice.Run("", "create", "cm", "settings")
	tests := []struct {
		args    string
		allowed bool
	}{
		{"rollout undo ds/web", true},
		{"rollout restart ds/web", true},
		{"annotate ds web picket.io/paused=true", true},
		{"label ds web tier=front", true},
		{"label node host-01 zone=a", true},
		{"cordon host-01", true},
		{"uncordon host-01", true},
		{"set image ds/web main=evil", false},
		{"set env ds/web A=b", false},
		{"annotate ds web kubectl.kubernetes.io/last-applied-configuration={} --overwrite", false},
		{`patch ds web -p {"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":"now"}},"spec":{"hostPID":true}}}}`, false},
		{`patch ds web -p {"spec":{"template":{"metadata":{"annotations":{"other":"now"}}}}}`, false},
		{`patch ds web -p {"spec":{"minReadySeconds":5}}`, false},
		{"taint node host-01 a=b:NoExecute", false},
		{"delete node host-01", false},
		{"delete ds web", false},
		{"label cm settings a=b", false},
		{"create cm more", false},
		{"exec web-x2z4k -- id", false},
		{"delete pod web-x2z4k", true},
	}
	for _, tt := range tests {
		r := k.Try("", strings.Split(tt.args, " ")...)
		if (r.Code == 0) != tt.allowed {
			t.Errorf("kubectl %s as an operator: exit %d\n%s%s", tt.args, r.Code, r.Out, r.Err)
		}
		if !tt.allowed && !strings.Contains(strings.ToLower(r.Err), "forbidden") {
			t.Errorf("kubectl %s as an operator: %s", tt.args, r.Err)
		}
	}
	obj, _ := h.Cache.Get(apitest.DaemonSets, "default", "web")
	if image := obj.(*appsv1.DaemonSet).Spec.Template.Spec.Containers[0].Image; image != "busybox:1.36" {
		t.Errorf("after the undo the image is %s", image)
	}
}

func TestCanI(t *testing.T) {
	h := apitest.Start(t)
	type ask = authorizationv1.ResourceAttributes
	tests := []struct {
		org  string
		ask  ask
		want bool
	}{
		{apitest.Viewers, ask{Verb: "get", Resource: "pods", Subresource: "log"}, true},
		{apitest.Viewers, ask{Verb: "list", Resource: "secrets"}, true},
		{apitest.Viewers, ask{Verb: "delete", Resource: "pods"}, false},
		{apitest.Operators, ask{Verb: "delete", Resource: "pods"}, true},
		{apitest.Operators, ask{Verb: "patch", Group: "apps", Resource: "daemonsets"}, true},
		{apitest.Operators, ask{Verb: "create", Group: "apps", Resource: "daemonsets"}, false},
		{apitest.Operators, ask{Verb: "create", Resource: "pods", Subresource: "exec"}, false},
		{apitest.Operators, ask{Verb: "*", Group: "*", Resource: "*"}, false},
		{apitest.Admins, ask{Verb: "*", Group: "*", Resource: "*"}, true},
		{apitest.Admins, ask{Verb: "create", Resource: "pods"}, false},
		{apitest.Admins, ask{Verb: "get", Resource: "services"}, false},
	}
	for _, tt := range tests {
		config := h.Config(t, "u", tt.org)
		config.ContentType = runtime.ContentTypeProtobuf // as kubectl sends it; kubectl itself would end this process on a "no"
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &tt.ask}}
		got, err := kubernetes.NewForConfigOrDie(config).AuthorizationV1().SelfSubjectAccessReviews().Create(context.Background(), review, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got.Status.Allowed != tt.want {
			t.Errorf("%+v as %s: %+v", tt.ask, tt.org, got.Status)
		}
	}
}

// unverified is a TLS configuration that asks for certificates and believes them all.
func unverified() *tls.Config { return &tls.Config{ClientAuth: tls.RequireAnyClientCert} }
