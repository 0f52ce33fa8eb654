package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/api/apitest"
	"github.com/picketd/picket/agent/daemonset"
)

const pathWhy = "/apis/picket.io/v1/namespaces/default/daemonsets/web/why"

// whyOfWeb knows the DaemonSet web alone.
func whyOfWeb(name types.NamespacedName) (*daemonset.Why, error) {
	if name.String() != "default/web" {
		return nil, apierrors.NewNotFound(apitest.DaemonSets, name.Name)
	}
	return &daemonset.Why{
		ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name},
		Rollout:    daemonset.WhyRollout{State: daemonset.RolloutComplete, Message: "complete"},
		Hosts:      []daemonset.WhyHost{{Host: "host-01", Placed: true, State: daemonset.HostAvailable, Current: true}},
	}, nil
}

func TestWhy(t *testing.T) {
	h := apitest.Start(t)
	h.Backend.OnWhy = whyOfWeb
	viewer := newClient(t, h, "victor", apitest.Viewers)
	a := viewer.do("GET", pathWhy, "", "")
	var why daemonset.Why
	if err := json.Unmarshal([]byte(a.body), &why); err != nil || a.code != http.StatusOK {
		t.Fatalf("%d %v\n%s", a.code, err, a.body)
	}
	if why.Kind != "Why" || why.APIVersion != "picket.io/v1" || why.Name != "web" || len(why.Hosts) != 1 || why.Hosts[0].Host != "host-01" {
		t.Errorf("%s", a.body)
	}
	for _, never := range []string{"creationTimestamp", "by", "message\":\"\"", "guess"} {
		if strings.Contains(a.body, `"`+never) {
			t.Errorf("%s is in %s", never, a.body)
		}
	}
}

func TestWhyIsRefused(t *testing.T) {
	h := apitest.Start(t)
	h.Backend.OnWhy = whyOfWeb
	for _, tt := range []struct {
		name, organization, method, path string
		code                             int
	}{
		{"nobody", "", "GET", pathWhy, http.StatusUnauthorized},
		{"eve", "somebody", "GET", pathWhy, http.StatusForbidden},
		{"host-02", apitest.Hosts, "GET", pathWhy, http.StatusForbidden},
		{"alice", apitest.Admins, "POST", pathWhy, http.StatusMethodNotAllowed},
		{"alice", apitest.Admins, "GET", strings.Replace(pathWhy, "web", "nope", 1), http.StatusNotFound},
		{"alice", apitest.Admins, "GET", strings.Replace(pathWhy, "default", "other", 1), http.StatusNotFound},
		{"alice", apitest.Admins, "GET", strings.TrimSuffix(pathWhy, "/why"), http.StatusNotFound},
		{"alice", apitest.Admins, "GET", pathWhy + "/", http.StatusNotFound},
		{"alice", apitest.Admins, "GET", strings.Replace(pathWhy, "web", "", 1), http.StatusNotFound},
		{"alice", apitest.Admins, "GET", strings.Replace(pathWhy, "daemonsets", "deployments", 1), http.StatusNotFound},
		{"alice", apitest.Admins, "GET", strings.Replace(pathWhy, "picket.io/v1", "apps/v1", 1), http.StatusNotFound},
	} {
		var organizations []string
		if tt.organization != "" {
			organizations = []string{tt.organization}
		}
		user := tt.name
		if tt.organization == "" {
			user = ""
		}
		a := newClient(t, h, user, organizations...).do(tt.method, tt.path, "", "")
		if a.code != tt.code || a.status.Kind != "Status" {
			t.Errorf("%s %s as %s: %d, want %d\n%s", tt.method, tt.path, tt.name, a.code, tt.code, a.body)
		}
	}
}

// It is an answer and no object: kubectl gets it by its path, and lists no kind of it.
func TestKubectlGetsWhy(t *testing.T) {
	h, k := start(t)
	h.Backend.OnWhy = whyOfWeb
	wantAll(t, k.Run("", "get", "--raw", pathWhy), `"kind":"Why"`)
	for _, command := range []string{"api-resources", "api-versions"} {
		if out := k.Run("", command); strings.Contains(out, "picket.io") || strings.Contains(strings.ToLower(out), "why") {
			t.Errorf("%s:\n%s", command, out)
		}
	}
}
