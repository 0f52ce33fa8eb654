package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/agent/api/apitest"
)

const (
	inDefault = "/api/v1/namespaces/default"
	appsV1    = "/apis/apps/v1/namespaces/default"
	strategic = "application/strategic-merge-patch+json"
	merge     = "application/merge-patch+json"
	jsonPatch = "application/json-patch+json"
)

// Whatever is wrong with a request is answered with a Status that says so as Kubernetes would.
func TestBadRequests(t *testing.T) {
	h, _ := start(t)
	c := newClient(t, h, "alice", apitest.Admins)
	pod := `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x"}}`
	tests := []struct {
		method, path, contentType, body string
		code                            int
		reason                          metav1.StatusReason
		message                         string
	}{
		{"GET", "/nonsense", "", "", 404, "NotFound", "the server could not find the requested resource"},
		{"GET", "/api/v1/nonsense", "", "", 404, "NotFound", "the server could not find the requested resource"},
		{"GET", "/api/v2/pods", "", "", 404, "NotFound", "the server could not find the requested resource"},
		{"GET", inDefault + "/pods/web-x2z4k/nonsense", "", "", 404, "NotFound", "could not find"},
		{"GET", inDefault + "/nodes", "", "", 404, "NotFound", "could not find"},
		{"GET", "/api/v1/namespaces//pods", "", "", 404, "NotFound", "could not find"},
		{"GET", appsV1 + "/daemonsets/nope", "", "", 404, "NotFound", `daemonsets.apps "nope" not found`},
		{"DELETE", appsV1 + "/daemonsets/nope", "", "", 404, "NotFound", `daemonsets.apps "nope" not found`},
		{"PATCH", appsV1 + "/daemonsets/nope", merge, "{}", 404, "NotFound", `daemonsets.apps "nope" not found`},
		{"POST", "/api/v1/namespaces/nowhere/configmaps", "application/json", `{"metadata":{"name":"a"}}`, 404, "NotFound", `namespaces "nowhere" not found`},
		{"POST", inDefault + "/pods", "application/json", pod, 405, "MethodNotAllowed", "create is not supported on resources of kind \"pods\""},
		{"PUT", inDefault + "/pods/web-x2z4k", "application/json", pod, 405, "MethodNotAllowed", "update is not supported"},
		{"POST", inDefault + "/configmaps/x", "application/json", "{}", 405, "MethodNotAllowed", "create is not supported"},
		{"POST", "/api/v1/configmaps", "application/json", "{}", 405, "MethodNotAllowed", "create is not supported"},
		{"PUT", inDefault + "/configmaps", "application/json", "{}", 405, "MethodNotAllowed", "update is not supported"},
		{"OPTIONS", inDefault + "/configmaps", "", "", 405, "MethodNotAllowed", "options is not supported"},
		{"DELETE", "/api/v1/secrets", "", "", 405, "MethodNotAllowed", "deletecollection is not supported"},
		{"PATCH", appsV1 + "/daemonsets/web/status", merge, "{}", 405, "MethodNotAllowed", "patch is not supported"},
		{"POST", inDefault + "/configmaps", "text/plain", "a", 415, "UnsupportedMediaType", "accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"},
		{"PATCH", appsV1 + "/daemonsets/web", "application/json", "{}", 415, "UnsupportedMediaType", "accepted media types include: application/json-patch+json"},
		{"PATCH", appsV1 + "/daemonsets/web", "application/apply-patch+yaml", "{}", 415, "UnsupportedMediaType", "server-side apply is not served"},
		{"POST", inDefault + "/configmaps", "application/json", "{", 400, "BadRequest", "the object provided is unrecognized (must be of type ConfigMap)"},
		{"POST", inDefault + "/configmaps", "application/json", pod, 400, "BadRequest", "cannot be handled as a ConfigMap"},
		{"POST", inDefault + "/configmaps", "application/json", `{"apiVersion":"v2","kind":"ConfigMap"}`, 400, "BadRequest", "cannot be handled as a ConfigMap"},
		{"POST", inDefault + "/configmaps", "application/json", `{"apiVersion":"apps/v1","kind":"DaemonSet"}`, 400, "BadRequest", "(apps/v1) does not match the expected API version (v1)"},
		{"POST", inDefault + "/configmaps", "application/json", `{"data":{"a":1}}`, 400, "BadRequest", "cannot unmarshal number"},
		{"POST", inDefault + "/configmaps", "application/vnd.kubernetes.protobuf", "k8s\x00\xff\xff", 400, "BadRequest", ""},
		{"POST", inDefault + "/configmaps", "application/json", "", 400, "BadRequest", ""},
		{"POST", inDefault + "/configmaps", "application/json", `{"metadata":{}}`, 422, "Invalid", "name or generateName is required"},
		{"POST", inDefault + "/configmaps", "application/json", `{"metadata":{"name":"A_B"}}`, 422, "Invalid", "metadata.name"},
		{"POST", inDefault + "/configmaps", "application/json", `{"metadata":{"name":"a","namespace":"b"}}`, 400, "BadRequest", "namespace of the provided object does not match"},
		{"POST", inDefault + "/configmaps", "application/json", `{"metadata":{"name":"a","resourceVersion":"5"}}`, 400, "BadRequest", "resourceVersion should not be set"},
		{"POST", inDefault + "/configmaps?dryRun=Some", "application/json", `{"metadata":{"name":"a"}}`, 422, "Invalid", `supported values: "All"`},
		{"POST", inDefault + "/configmaps?fieldValidation=Hard", "application/json", `{"metadata":{"name":"a"}}`, 422, "Invalid", "fieldValidation"},
		{"PUT", appsV1 + "/daemonsets/web", "application/json", `{"metadata":{"name":"other"}}`, 400, "BadRequest", "the name of the object (other) does not match the name on the URL (web)"},
		{"PATCH", appsV1 + "/daemonsets/web", merge, `{"metadata":{"name":"other"}}`, 400, "BadRequest", "does not match the name on the URL"},
		{"PATCH", appsV1 + "/daemonsets/web", merge, `{"metadata":{"uid":"other"}}`, 409, "Conflict", "Precondition failed: UID in precondition: other"},
		{"PATCH", appsV1 + "/daemonsets/web", merge, `{"metadata":{"resourceVersion":"562949953421313"}}`, 409, "Conflict", "the object has been modified"},
		{"PATCH", appsV1 + "/daemonsets/web", merge, `[`, 400, "BadRequest", ""},
		{"PATCH", appsV1 + "/daemonsets/web", merge, `{"spec":5}`, 400, "BadRequest", "cannot unmarshal"},
		{"PATCH", appsV1 + "/daemonsets/web", merge, `{"spec":null}`, 422, "Invalid", "spec.selector"},
		{"PATCH", appsV1 + "/daemonsets/web", strategic, `{"spec":{"template":{"spec":{"containers":5}}}}`, 400, "BadRequest", ""},
		{"PATCH", appsV1 + "/daemonsets/web", strategic, `{"spec":{"template":{"spec":{"containers":[{"image":"x"}]}}}}`, 400, "BadRequest", "merge key"},
		{"PATCH", appsV1 + "/daemonsets/web?fieldValidation=Strict", merge, `{"spec":{"x":1}}`, 422, "Invalid", `strict decoding error: unknown field "spec.x"`},
		{"PATCH", appsV1 + "/daemonsets/web", jsonPatch, `{}`, 400, "BadRequest", ""},
		{"PATCH", appsV1 + "/daemonsets/web", jsonPatch, `[{"op":"test","path":"/metadata/name","value":"no"}]`, 422, "Invalid", "test"},
		{"PATCH", appsV1 + "/daemonsets/web", jsonPatch, `[{"op":"remove","path":"/nope"}]`, 422, "Invalid", ""},
		{"PATCH", appsV1 + "/daemonsets/web", jsonPatch, "[" + strings.Repeat(`{"op":"test","path":"/kind","value":"x"},`, 10000) + `{"op":"test","path":"/kind"}]`, 413, "RequestEntityTooLarge", "The allowed maximum operations in a JSON patch is 10000, got 10001"},
		{"POST", inDefault + "/configmaps", "application/json", strings.Repeat(" ", 3<<20+1), 413, "RequestEntityTooLarge", "limit is 3145728"},
		{"GET", inDefault + "/pods?labelSelector=!!", "", "", 400, "BadRequest", "unable to parse requirement"},
		{"GET", inDefault + "/pods?fieldSelector=a", "", "", 400, "BadRequest", "invalid"},
		{"GET", inDefault + "/pods?fieldSelector=spec.x%3D1", "", "", 400, "BadRequest", "field label not supported: spec.x"},
		{"GET", inDefault + "/pods?limit=-1", "", "", 422, "Invalid", "limit"},
		{"GET", inDefault + "/pods?limit=x", "", "", 400, "BadRequest", ""},
		{"GET", inDefault + "/pods?resourceVersion=x", "", "", 422, "Invalid", "resourceVersion"},
		{"GET", inDefault + "/pods?resourceVersion=5", "", "", 410, "Expired", "too old resource version"},
		{"GET", inDefault + "/pods?resourceVersion=281474976720656", "", "", 504, "Timeout", "Too large resource version"},
		{"GET", inDefault + "/pods?resourceVersionMatch=Exact", "", "", 422, "Invalid", "resourceVersionMatch is forbidden unless resourceVersion is provided"},
		{"GET", inDefault + "/pods?sendInitialEvents=true", "", "", 422, "Invalid", "sendInitialEvents is forbidden for list"},
		{"GET", inDefault + "/pods?watch=true&sendInitialEvents=true", "", "", 422, "Invalid", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"},
		{"GET", inDefault + "/pods?watch=true&resourceVersion=5", "", "", 410, "Expired", "too old resource version"},
		{"GET", inDefault + "/pods?continue=x", "", "", 400, "BadRequest", "continue key is not valid"},
		{"GET", inDefault + "/pods?continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NX0", "", "", 410, "Expired", "The provided continue parameter is too old"},
		{"GET", inDefault + "/pods?includeObject=Some", "", "", 400, "BadRequest", "includeObject"},
		{"DELETE", appsV1 + "/daemonsets/web", "application/json", `{"preconditions":{"uid":"other"}}`, 409, "Conflict", ""},
		{"DELETE", appsV1 + "/daemonsets/web", "application/json", `{"preconditions":{"resourceVersion":"5"}}`, 409, "Conflict", ""},
		{"DELETE", appsV1 + "/daemonsets/web", "application/json", `{"propagationPolicy":"Orphan"}`, 422, "Invalid", "propagationPolicy"},
		{"DELETE", appsV1 + "/daemonsets/web", "application/json", `{"propagationPolicy":"Some"}`, 422, "Invalid", "propagationPolicy"},
		{"DELETE", appsV1 + "/daemonsets/web", "application/json", `{"dryRun":["Some"]}`, 422, "Invalid", "dryRun"},
		{"DELETE", appsV1 + "/daemonsets/web", "application/json", `{"kind":"Status","apiVersion":"v1"}`, 400, "BadRequest", "DeleteOptions"},
		{"DELETE", appsV1 + "/daemonsets/web", "application/json", `nonsense`, 400, "BadRequest", ""},
		{"POST", inDefault + "/pods/web-x2z4k/eviction", "application/json", `{"metadata":{"name":"other"}}`, 400, "BadRequest", "name in URL does not match"},
		{"POST", inDefault + "/pods/web-x2z4k/attach", "", "", 501, "MethodNotAllowed", "attach is not served"},
		{"POST", inDefault + "/pods/web-x2z4k/exec?command=id&stdout=true", "", "", 400, "BadRequest", "Upgrade request required"},
		{"POST", inDefault + "/pods/web-x2z4k/exec?stdout=true", "", "", 400, "BadRequest", "you must specify at least one command"},
		{"POST", inDefault + "/pods/web-x2z4k/exec?command=id", "", "", 400, "BadRequest", "you must specify at least 1 of stdin, stdout, stderr"},
		{"POST", inDefault + "/pods/web-x2z4k/exec?command=id&stdout=true&container=x", "", "", 400, "BadRequest", "container x is not valid for pod web-x2z4k"},
		{"POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "application/json", "[]", 400, "BadRequest", ""},
	}
	for _, tt := range tests {
		a := c.do(tt.method, tt.path, tt.contentType, tt.body)
		if a.code != tt.code || a.status.Reason != tt.reason || !strings.Contains(a.status.Message, tt.message) {
			t.Errorf("%s %s %.80s\n got %d %s: %.300s\nwant %d %s: %s", tt.method, tt.path, tt.body, a.code, a.status.Reason, a.body, tt.code, tt.reason, tt.message)
		}
		if a.status.Kind != "Status" || a.status.APIVersion != "v1" || a.status.Status != metav1.StatusFailure || int(a.status.Code) != a.code {
			t.Errorf("%s %s: the answer is no Status: %.300s", tt.method, tt.path, a.body)
		}
	}
	if _, ok := h.Cache.Get(apitest.DaemonSets, "default", "web"); !ok {
		t.Error("a bad request deleted web")
	}
}

func TestNotAcceptable(t *testing.T) {
	h := apitest.Start(t)
	c := newClient(t, h, "alice", apitest.Admins)
	for accept, code := range map[string]int{
		"application/vnd.kubernetes.protobuf":                                      406,
		"text/html":                                                                406,
		"application/json;as=Table;v=v2;g=meta.k8s.io":                             406,
		"application/vnd.kubernetes.protobuf,application/json":                     200,
		"application/vnd.kubernetes.protobuf, */*":                                 200,
		"application/json;as=Table;v=v2;g=meta.k8s.io,application/json":            200,
		"application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io":         200,
		"application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json;q=0.9": 200,
	} {
		if a := c.do("GET", inDefault+"/configmaps", "", "", "Accept", accept); a.code != code {
			t.Errorf("Accept %s: %d", accept, a.code)
		}
	}
}

func TestFieldValidation(t *testing.T) {
	h := apitest.Start(t)
	c := newClient(t, h, "alice", apitest.Admins)
	body := `{"metadata":{"name":"NAME","nonsense":1},"data":{"a":"b"},"data":{"a":"c"}}`
	tests := []struct {
		mode     string
		code     int
		warnings int
	}{{"Strict", 400, 0}, {"Warn", 201, 2}, {"", 201, 2}, {"Ignore", 201, 0}}
	for i, tt := range tests {
		a := c.do("POST", inDefault+"/configmaps?fieldValidation="+tt.mode, "application/json", strings.Replace(body, "NAME", fmt.Sprint("cm", i), 1))
		if a.code != tt.code || len(a.header.Values("Warning")) != tt.warnings {
			t.Errorf("fieldValidation=%s: %d, warnings %q", tt.mode, a.code, a.header.Values("Warning"))
		}
		for _, warning := range a.header.Values("Warning") {
			if !strings.HasPrefix(warning, `299 - "`) {
				t.Errorf("warning %q", warning)
			}
		}
		if tt.code == 400 {
			wantAll(t, a.status.Message, `ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error:`, `unknown field "metadata.nonsense"`, `duplicate field "data"`)
		}
	}
}

func TestProtobufBodies(t *testing.T) {
	h := apitest.Start(t)
	config := h.Config(t, "alice", apitest.Admins)
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	client := kubernetes.NewForConfigOrDie(config)
	ctx := context.Background()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "settings-"}, Data: map[string]string{"a": "b"}}
	made, err := client.CoreV1().ConfigMaps("default").Create(ctx, cm, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(made.Name, "settings-") || len(made.Name) != len("settings-")+5 || made.UID == "" || made.ResourceVersion == "" || made.Data["a"] != "b" {
		t.Errorf("created %+v", made)
	}
	made.Data["a"] = "c"
	updated, err := client.CoreV1().ConfigMaps("default").Update(ctx, made, metav1.UpdateOptions{})
	if err != nil || updated.Data["a"] != "c" {
		t.Fatalf("%v %v", updated, err)
	}
	if _, err := client.CoreV1().ConfigMaps("default").Update(ctx, made, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("an update of an old version: %v", err)
	}
	uid := types.UID("other")
	err = client.CoreV1().ConfigMaps("default").Delete(ctx, made.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if !apierrors.IsConflict(err) {
		t.Errorf("deletion with another uid: %v", err)
	}
	if err := client.CoreV1().ConfigMaps("default").Delete(ctx, made.Name, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	long := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: strings.Repeat("x", 63)}}
	if made, err = client.CoreV1().ConfigMaps("default").Create(ctx, long, metav1.CreateOptions{}); err != nil || len(made.Name) != 63 {
		t.Errorf("a long generateName made %v, %v", made, err)
	}
	h.Cache.Set(apitest.Pods, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}})
	grace := int64(7)
	eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default"}, DeleteOptions: &metav1.DeleteOptions{GracePeriodSeconds: &grace}}
	if err := client.CoreV1().Pods("default").EvictV1(ctx, eviction); err != nil {
		t.Fatal(err)
	}
	writes := h.Backend.Writes()
	if last := writes[len(writes)-1]; last.Name != "p" || last.GracePeriodSeconds == nil || *last.GracePeriodSeconds != 7 {
		t.Errorf("the eviction asked for %+v", last)
	}
}

// A dry run answers like the real thing and changes nothing.
func TestDryRun(t *testing.T) {
	h, _ := start(t)
	c := newClient(t, h, "alice", apitest.Admins)
	before := len(h.Cache.List(apitest.ConfigMaps, "", nil, nil))
	obj, _ := h.Cache.Get(apitest.DaemonSets, "default", "web")
	a := c.do("POST", inDefault+"/configmaps?dryRun=All", "application/json", `{"metadata":{"name":"a"}}`)
	var made corev1.ConfigMap
	if err := json.Unmarshal([]byte(a.body), &made); err != nil || a.code != 201 || made.UID == "" || made.CreationTimestamp.IsZero() {
		t.Errorf("create: %d %s", a.code, a.body)
	}
	requests := []struct{ method, path, contentType, body, want string }{
		{"PATCH", appsV1 + "/daemonsets/web?dryRun=All", merge, `{"spec":{"minReadySeconds":9}}`, `"minReadySeconds":9`},
		{"PATCH", appsV1 + "/daemonsets/web?dryRun=All", merge, `{"spec":{"minReadySeconds":9}}`, `"generation":2`},
		{"DELETE", appsV1 + "/daemonsets/web?dryRun=All", "", "", `"status":"Success"`},
		{"DELETE", appsV1 + "/daemonsets/web", "application/json", `{"dryRun":["All"]}`, `"status":"Success"`},
		{"DELETE", appsV1 + "/daemonsets?dryRun=All", "", "", `"kind":"DaemonSetList"`},
		{"POST", inDefault + "/pods/web-x2z4k/eviction?dryRun=All", "application/json", `{"metadata":{"name":"web-x2z4k"}}`, `"status":"Success"`},
	}
	for _, r := range requests {
		if a := c.do(r.method, r.path, r.contentType, r.body); a.code/100 != 2 || !strings.Contains(a.body, r.want) {
			t.Errorf("%s %s: %d %s", r.method, r.path, a.code, a.body)
		}
	}
	if n := len(h.Cache.List(apitest.ConfigMaps, "", nil, nil)); n != before {
		t.Errorf("there are %d ConfigMaps, were %d", n, before)
	}
	if now, ok := h.Cache.Get(apitest.DaemonSets, "default", "web"); !ok || now != obj {
		t.Error("the DaemonSet was changed")
	}
	if _, ok := h.Cache.Get(apitest.Pods, "default", "web-x2z4k"); !ok {
		t.Error("the pod was deleted")
	}
}

// What a client writes into status and system fields counts for nothing.
func TestSystemFieldsAreKept(t *testing.T) {
	h, _ := start(t)
	c := newClient(t, h, "alice", apitest.Admins)
	before, _ := h.Cache.Get(apitest.DaemonSets, "default", "web")
	a := c.do("PATCH", appsV1+"/daemonsets/web", merge,
		`{"metadata":{"creationTimestamp":null,"generation":77,"labels":{"a":"b"}},"status":{"numberReady":5}}`)
	if a.code != 200 {
		t.Fatal(a.body)
	}
	after, _ := h.Cache.Get(apitest.DaemonSets, "default", "web")
	if after.GetLabels()["a"] != "b" || after.GetGeneration() != before.GetGeneration() || after.GetCreationTimestamp() != before.GetCreationTimestamp() {
		t.Errorf("%+v", after)
	}
	wantAll(t, a.body, `"numberReady":1`)
	if a := c.do("PATCH", appsV1+"/daemonsets/web", merge, `{"status":{"numberReady":5}}`); a.code != 200 {
		t.Error(a.body)
	}
	if now, _ := h.Cache.Get(apitest.DaemonSets, "default", "web"); now != after {
		t.Error("a patch that changes nothing was written")
	}
}

// A patch that names no resourceVersion wins over changes that come between.
func TestPatchIsTriedAgain(t *testing.T) {
	races, race := 3, 0
	var h *apitest.Host
	h, _ = start(t)
	c := newClient(t, h, "alice", apitest.Admins)
	h.Backend.OnWrite = func(w api.Write) error {
		if races--; races >= 0 && w.Name == "web" {
			obj, _ := h.Cache.Get(apitest.DaemonSets, "default", "web")
			moved := obj.DeepCopyObject().(api.Object)
			race++
			moved.SetAnnotations(map[string]string{"race": fmt.Sprint(race)})
			h.Cache.Set(apitest.DaemonSets, moved)
		}
		return nil
	}
	if a := c.do("PATCH", appsV1+"/daemonsets/web", merge, `{"metadata":{"labels":{"a":"b"}}}`); a.code != 200 || !strings.Contains(a.body, `"race":"3"`) {
		t.Errorf("%d %s", a.code, a.body)
	}
	races = 1
	version := `{"metadata":{"labels":{"a":"c"},"resourceVersion":"` + currentVersion(h) + `"}}`
	if a := c.do("PATCH", appsV1+"/daemonsets/web", merge, version); a.code != http.StatusConflict {
		t.Errorf("a patch that insists on its version: %d %s", a.code, a.body)
	}
}

func currentVersion(h *apitest.Host) string {
	obj, _ := h.Cache.Get(apitest.DaemonSets, "default", "web")
	return obj.GetResourceVersion()
}

// A pod that still stops is the answer to its deletion; one that is gone is a Status.
func TestDeleteAnswers(t *testing.T) {
	h, _ := start(t)
	c := newClient(t, h, "alice", apitest.Admins)
	a := c.do("DELETE", inDefault+"/pods/web-x2z4k", "", "")
	var status metav1.Status
	if err := json.Unmarshal([]byte(a.body), &status); err != nil || status.Details == nil || status.Details.UID != "pod-uid" || status.Details.Kind != "pods" {
		t.Errorf("%d %s", a.code, a.body)
	}
}

// All pages show the state at the first one, and a watch from there brings the rest.
func TestPagesShowOneState(t *testing.T) {
	h := apitest.Start(t)
	c := newClient(t, h, "alice", apitest.Admins)
	for i := range 6 {
		h.Cache.Set(apitest.ConfigMaps, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("cm", i)}})
	}
	var page corev1.ConfigMapList
	get := func(query string) {
		t.Helper()
		a := c.do("GET", inDefault+"/configmaps?limit=4"+query, "", "")
		page = corev1.ConfigMapList{}
		if err := json.Unmarshal([]byte(a.body), &page); err != nil || a.code != 200 {
			t.Fatalf("%d %s", a.code, a.body)
		}
	}
	get("")
	version := page.ResourceVersion
	if len(page.Items) != 4 || page.RemainingItemCount == nil || *page.RemainingItemCount != 2 {
		t.Fatalf("the first page: %+v", page)
	}
	h.Cache.Delete(apitest.ConfigMaps, "default", "cm5")
	h.Cache.Set(apitest.ConfigMaps, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "cm9"}})
	get("&continue=" + page.Continue)
	if len(page.Items) != 2 || page.Items[1].Name != "cm5" || page.Continue != "" || page.ResourceVersion != version {
		t.Errorf("the second page: %+v", page)
	}
	get("&resourceVersionMatch=Exact&resourceVersion=" + version)
	if len(page.Items) != 4 || page.RemainingItemCount == nil || *page.RemainingItemCount != 2 {
		t.Errorf("the list at %s: %+v", version, page)
	}
}

func TestPanicIsAStatus(t *testing.T) {
	h := apitest.Start(t)
	c := newClient(t, h, "alice", apitest.Admins)
	h.Backend.OnWrite = func(api.Write) error { panic("boom") }
	if a := c.do("POST", inDefault+"/configmaps", "application/json", `{"metadata":{"name":"a"}}`); a.code != 500 || a.status.Reason != "InternalError" {
		t.Errorf("%d %s", a.code, a.body)
	}
	h.Backend.OnWrite = func(api.Write) error { return errors.New("disk full") }
	if a := c.do("POST", inDefault+"/configmaps", "application/json", `{"metadata":{"name":"a"}}`); a.code != 500 || a.status.Message != "Internal error occurred: disk full" {
		t.Errorf("%d %s", a.code, a.body)
	}
}

func TestChecks(t *testing.T) {
	h := apitest.Start(t, func(o *api.Options) {
		o.Healthz = func() error { return nil }
		o.Readyz = func() error { return errors.New("containerd cannot be reached") }
	})
	c := newClient(t, h, "")
	if a := c.do("GET", "/healthz", "", ""); a.code != 200 || a.body != "ok" {
		t.Errorf("%d %s", a.code, a.body)
	}
	if a := c.do("GET", "/readyz", "", ""); a.code != 503 || !strings.Contains(a.body, "containerd cannot be reached") {
		t.Errorf("%d %s", a.code, a.body)
	}
}

func TestNewRefusesUnverifiedClients(t *testing.T) {
	cache := api.NewCache(apitest.Versions(1))
	_, err := api.New(api.Options{Cache: cache, Backend: &apitest.Backend{Cache: cache}, TLSConfig: unverified()})
	if err == nil {
		t.Error("a server that takes any certificate was made")
	}
}
