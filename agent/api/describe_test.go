package api

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	kubectl "k8s.io/kubectl/pkg/cmd"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// fetch asks a path that describes the API.
func fetch(t *testing.T, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	handler := describe(r.URL.Path)
	if handler == nil {
		t.Fatalf("%s is not a path that describes the API", path)
	}
	w := httptest.NewRecorder()
	handler(w, r)
	return w.Result()
}

func decodeJSON(t *testing.T, r io.Reader, into any) {
	t.Helper()
	if err := json.NewDecoder(r).Decode(into); err != nil {
		t.Fatal(err)
	}
}

const (
	acceptV2      = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	acceptV2Beta1 = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
)

func TestDiscoveryForms(t *testing.T) {
	for _, c := range []struct{ name, accept, coreKind, groupsKind, contentType string }{
		{"1.30 and later", acceptV2 + "," + acceptV2Beta1 + ",application/json", "APIGroupDiscoveryList", "APIGroupDiscoveryList", acceptV2},
		{"1.29 knows v2beta1 only", acceptV2Beta1 + ",application/json", "APIVersions", "APIGroupList", "application/json"},
		{"plain first", "application/json," + acceptV2, "APIVersions", "APIGroupList", "application/json"},
		{"curl", "*/*", "APIVersions", "APIGroupList", "application/json"},
		{"none", "", "APIVersions", "APIGroupList", "application/json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for path, want := range map[string]string{"/api": c.coreKind, "/apis": c.groupsKind} {
				answer := fetch(t, path, "Accept", c.accept)
				var meta metav1.TypeMeta
				decodeJSON(t, answer.Body, &meta)
				if got := answer.Header.Get("Content-Type"); meta.Kind != want || got != c.contentType {
					t.Errorf("%s: got %s as %q, want %s as %q", path, meta.Kind, got, want, c.contentType)
				}
			}
		})
	}
}

// TestDiscoveryIsTheTable holds that client-go's own discovery client finds every resource of the table, in both forms.
func TestDiscoveryIsTheTable(t *testing.T) {
	server := httptest.NewServer(describing(nil))
	defer server.Close()
	for _, legacy := range []bool{false, true} {
		client := discovery.NewDiscoveryClientForConfigOrDie(&rest.Config{Host: server.URL})
		client.UseLegacyDiscovery = legacy
		_, lists, err := client.ServerGroupsAndResources()
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]metav1.APIResource{}
		for _, list := range lists {
			for _, r := range list.APIResources {
				found[list.GroupVersion+" "+r.Name] = r
			}
		}
		for _, r := range resources {
			got := found[r.GroupVersion.String()+" "+r.Name]
			if got.Kind != r.Kind || got.Namespaced != r.Namespaced || strings.Join(got.Verbs, " ") != strings.Join(r.Verbs, " ") ||
				strings.Join(got.ShortNames, " ") != strings.Join(r.Short, " ") || strings.Join(got.Categories, " ") != strings.Join(r.Categories, " ") {
				t.Errorf("legacy %t: %s is discovered as %+v", legacy, r.Name, got)
			}
			for _, sub := range r.Subresources {
				got, ok := found[r.GroupVersion.String()+" "+r.Name+"/"+sub.Name]
				if ok != (sub.Unsupported == "") || ok && got.Kind != sub.Kind {
					t.Errorf("legacy %t: %s/%s is discovered as %+v (%t)", legacy, r.Name, sub.Name, got, ok)
				}
			}
		}
		// kubectl drain asks for exactly this.
		if got := found["v1 pods/eviction"]; got.Group != "policy" || got.Version != "v1" || got.Kind != "Eviction" {
			t.Errorf("legacy %t: pods/eviction is %+v, want policy/v1 Eviction", legacy, got)
		}
	}
}

func TestDescribePaths(t *testing.T) {
	for path, code := range map[string]int{
		"/api/v1": 200, "/apis/apps": 200, "/apis/apps/v1": 200, "/api/v2": 404, "/apis/batch": 404, "/apis/batch/v1": 404, "/apis/": 200,
		"/openapi/v2": 406, "/openapi/v3": 200, "/openapi/v3/": 200, "/openapi/v3/apis/apps/v1": 200, "/openapi/v3/apis/batch/v1": 404,
	} {
		if answer := fetch(t, path); answer.StatusCode != code {
			t.Errorf("%s: %d, want %d", path, answer.StatusCode, code)
		}
	}
	for _, path := range []string{"/", "/openapi/v2/", "/openapi/v30", "/version", "/api/v1/nodes", "/apis/apps/v1/daemonsets", "/metrics"} {
		if describe(path) != nil {
			t.Errorf("%s is taken for a path that describes the API", path)
		}
	}
	w := httptest.NewRecorder()
	describe("/api")(w, httptest.NewRequest(http.MethodPost, "/api", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST /api: %d, want 405", w.Code)
	}
}

// schemaDocument is the part of an OpenAPI document that clients look kinds up in.
type schemaDocument struct {
	Components struct {
		Schemas map[string]struct {
			Kinds []metav1.GroupVersionKind `json:"x-kubernetes-group-version-kind"`
		}
	}
}

// TestOpenAPIIsTheTable fails when a resource was added to the table and `go generate ./agent/api` was not run.
func TestOpenAPIIsTheTable(t *testing.T) {
	for _, r := range resources {
		answer := fetch(t, "/openapi/v3/"+OpenAPIPath(r.GroupVersion))
		var doc struct {
			schemaDocument
			Paths map[string]any
		}
		decodeJSON(t, answer.Body, &doc)
		known := map[metav1.GroupVersionKind]bool{}
		for _, schema := range doc.Components.Schemas {
			for _, kind := range schema.Kinds {
				known[kind] = true
			}
		}
		if kind := metav1.GroupVersionKind(r.GroupVersionKind()); !known[kind] {
			t.Errorf("no schema of %v in the document of %s: run `go generate ./agent/api`", kind, r.GroupVersion)
		}
		path := "/" + OpenAPIPath(r.GroupVersion) + "/"
		if r.Namespaced {
			path += "namespaces/{namespace}/"
		}
		for _, sub := range r.Subresources {
			if _, ok := doc.Paths[path+r.Name+"/{name}/"+sub.Name]; ok != (sub.Unsupported == "") {
				t.Errorf("%s/%s: in the document: %t: run `go generate ./agent/api`", r.Name, sub.Name, ok)
			}
		}
	}
}

func TestOpenAPICaching(t *testing.T) {
	var index struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	decodeJSON(t, fetch(t, "/openapi/v3").Body, &index)
	url := index.Paths["apis/apps/v1"].ServerRelativeURL
	plain := fetch(t, url)
	zipped := fetch(t, url, "Accept-Encoding", "gzip")
	if got := zipped.Header.Get("Cache-Control"); got != "public, immutable" || zipped.Header.Get("Expires") == "" {
		t.Errorf("Cache-Control of the hashed URL is %q", got)
	}
	if got := fetch(t, "/openapi/v3/apis/apps/v1").Header.Get("Cache-Control"); got != "" {
		t.Errorf("Cache-Control without a hash is %q", got)
	}
	unzipped, err := gzip.NewReader(zipped.Body)
	if err != nil {
		t.Fatal(err)
	}
	a, errA := io.ReadAll(plain.Body)
	b, errB := io.ReadAll(unzipped)
	if errA != nil || errB != nil || !bytes.Equal(a, b) || !json.Valid(a) {
		t.Errorf("plain (%d bytes, %v) and gzipped (%d bytes, %v) documents differ or are no JSON", len(a), errA, len(b), errB)
	}
	if plain.Header.Get("ETag") == zipped.Header.Get("ETag") {
		t.Error("plain and gzipped documents share an ETag")
	}
	for _, answer := range []*http.Response{plain, zipped} {
		again := fetch(t, url, "Accept-Encoding", answer.Header.Get("Content-Encoding"), "If-None-Match", answer.Header.Get("ETag"))
		if again.StatusCode != http.StatusNotModified {
			t.Errorf("with the ETag %s: %d, want 304", answer.Header.Get("ETag"), again.StatusCode)
		}
	}
	moved := fetch(t, "/openapi/v3/apis/apps/v1?hash=OLD&timeout=32s")
	if location := moved.Header.Get("Location"); moved.StatusCode != http.StatusMovedPermanently || location != url+"&timeout=32s" {
		t.Errorf("an old hash: %d to %q, want 301 to %q", moved.StatusCode, location, url+"&timeout=32s")
	}
	protobuf := fetch(t, url, "Accept", "application/com.github.proto-openapi.spec.v3@v1.0+protobuf")
	if protobuf.StatusCode != http.StatusNotAcceptable {
		t.Errorf("protobuf only: %d, want 406", protobuf.StatusCode)
	}
}

func TestAcceptsGzip(t *testing.T) {
	for header, want := range map[string]bool{"gzip": true, "deflate, gzip;q=0.5": true, "*": true, "gzip;q=0": false, "": false, "br": false} {
		if acceptsGzip(header) != want {
			t.Errorf("Accept-Encoding %q: %t", header, !want)
		}
	}
}

// describing serves what describes the API, and everything else with next.
func describing(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if handler := describe(r.URL.Path); handler != nil {
			handler(w, r)
			return
		}
		next(w, r)
	}
}

// describedKubectl runs kubectl in this process against a server that describes the API and answers the rest with next.
func describedKubectl(t *testing.T, next http.HandlerFunc, args ...string) (stdout, stderr string, failed bool) {
	t.Helper()
	server := httptest.NewServer(describing(next))
	defer server.Close()
	var out, errOut bytes.Buffer
	flags := genericclioptions.NewConfigFlags(true)
	*flags.CacheDir = t.TempDir()
	*flags.KubeConfig = "/dev/null"
	*flags.APIServer = server.URL
	cmd := kubectl.NewKubectlCommand(kubectl.KubectlOptions{
		ConfigFlags: flags, IOStreams: genericiooptions.IOStreams{Out: &out, ErrOut: &errOut},
	})
	cmd.SetArgs(args)
	type fatal struct{}
	cmdutil.BehaviorOnFatal(func(message string, _ int) { errOut.WriteString(message); panic(fatal{}) })
	defer cmdutil.DefaultBehaviorOnFatal()
	func() {
		defer func() {
			if p := recover(); p != nil {
				if _, ok := p.(fatal); !ok {
					panic(p)
				}
				failed = true
			}
		}()
		failed = cmd.Execute() != nil
	}()
	return out.String(), errOut.String(), failed
}

func TestExplain(t *testing.T) {
	for _, c := range []struct{ what, want string }{
		{"ds", "DaemonSet represents the configuration of a daemon set."},
		{"ds.spec.template.spec.containers", "A single application container that you want to run within a pod."},
		{"ds.spec.updateStrategy.rollingUpdate.maxUnavailable", "<IntOrString>"},
		{"pods.spec.tolerations", "tolerates"},
		{"cm.data", "Data contains the configuration data."},
		{"nodes.spec.taints", "If specified, the node's taints."},
		{"events", "Event is a report of an event somewhere in the cluster."},
	} {
		stdout, stderr, failed := describedKubectl(t, http.NotFound, "explain", c.what)
		if failed || !strings.Contains(stdout, c.want) {
			t.Errorf("explain %s: %s%s\nlacks %q", c.what, stdout, stderr, c.want)
		}
	}
}

// TestApplyValidates holds that kubectl's strict validation is satisfied by the documents and leaves the checking to the server.
func TestApplyValidates(t *testing.T) {
	for kind, body := range map[string]string{
		"daemonsets": "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: web}\nspec: {}\n",
		"configmaps": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\n",
		"secrets":    "apiVersion: v1\nkind: Secret\nmetadata: {name: web}\n",
	} {
		var query string
		next := func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/namespaces/default/"+kind) {
				writeError(w, errNoSuchPath())
				return
			}
			query = r.URL.RawQuery
			sent, _ := io.ReadAll(r.Body)
			w.Header().Set("Content-Type", mediaJSON)
			w.WriteHeader(http.StatusCreated)
			_, _ = w.Write(sent)
		}
		file := filepath.Join(t.TempDir(), "manifest.yaml")
		if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		stdout, stderr, failed := describedKubectl(t, next, "apply", "-f", file)
		if failed || !strings.Contains(stdout, "created") {
			t.Errorf("apply of %s: %s%s", kind, stdout, stderr)
		}
		if want := "fieldManager=kubectl-client-side-apply&fieldValidation=Strict"; query != want {
			t.Errorf("apply of %s sent %q, want %q", kind, query, want)
		}
	}
}
