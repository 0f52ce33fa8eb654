package api_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/agent/api/apitest"
)

const (
	userHeader  = "X-Picket-User"
	groupHeader = "X-Picket-Group"
)

// as is a client with the certificate of a host.
func as(t *testing.T, f *apitest.Fleet, from, to string) *client {
	t.Helper()
	return &client{t: t, http: &http.Client{Transport: f.Transport(t, from, to)}, url: f.Host(to).URL}
}

func secretOn(f *apitest.Fleet, node string) {
	f.Host(node).Cache.Set(apitest.Secrets, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "password"}, Data: map[string][]byte{"p": []byte("hunter2")},
	})
}

// A door's call is its user's, with the user's role and no more.
func TestForwardedRoles(t *testing.T) {
	f := startFleet(t)
	secretOn(f, "host-02")
	door := as(t, f, "host-01", "host-02")
	const pod = "/api/v1/namespaces/default/pods/web-2"
	for _, tt := range []struct {
		groups         []string
		method, path   string
		code           int
		want, mustMiss string
	}{
		{[]string{apitest.Viewers}, "GET", pod + "/log", 200, "hello on host-02", ""},
		{[]string{apitest.Viewers}, "POST", pod + "/exec?command=id&stdout=true", 403, `User \"victor@example\" cannot create resource \"pods/exec\"`, ""},
		{[]string{apitest.Viewers}, "GET", pod + "/exec?command=id&stdout=true", 403, "it needs the role admin", ""},
		{[]string{apitest.Viewers}, "DELETE", pod, 403, "it needs the role operator", ""},
		{[]string{apitest.Viewers}, "GET", "/api/v1/namespaces/default/secrets/password", 200, `"p":""`, "aHVudGVyMg"},
		{[]string{apitest.Viewers}, "POST", "/picket.io/v1/leave", 403, "it needs the role admin", ""},
		{[]string{apitest.Operators}, "GET", pod + "/exec?command=id&stdout=true", 403, "it needs the role admin", ""},
		{[]string{apitest.Operators}, "GET", "/api/v1/namespaces/default/secrets/password", 200, `"p":""`, "aHVudGVyMg"},
		{[]string{apitest.Operators, "picket:gods"}, "POST", "/api/v1/namespaces/default/configmaps", 403, "the certificate gives operator", ""},
		{[]string{"picket:gods", "system:masters", apitest.Hosts, apitest.Doors}, "GET", pod, 403, "the certificate gives nobody", ""},
		{nil, "GET", pod, 403, "the certificate gives nobody", ""},
		{[]string{apitest.Admins}, "GET", "/api/v1/namespaces/default/secrets/password", 200, "aHVudGVyMg", ""},
		{[]string{apitest.Admins}, "GET", pod + "/exec?command=id&stdout=true", 400, "Upgrade request required", ""},
		{[]string{apitest.Operators}, "DELETE", pod, 200, "Success", ""},
	} {
		a := door.forwarded(tt.method, tt.path, []string{"victor%40example"}, tt.groups)
		if a.code != tt.code || !strings.Contains(a.body, tt.want) || tt.mustMiss != "" && strings.Contains(a.body, tt.mustMiss) {
			t.Errorf("%s %s as %v: %d %s", tt.method, tt.path, tt.groups, a.code, a.body)
		}
	}
	if w := f.Host("host-02").Backend.Writes(); len(w) != 1 || w[0].Author != "victor@example" {
		t.Errorf("writes were %+v", w)
	}
	if a := door.do("GET", pod, "", ""); a.code != 403 {
		t.Errorf("a door for itself: %d %s", a.code, a.body)
	}
}

// forwarded sends a request as a door would.
func (c *client) forwarded(method, path string, users, groups []string) answer {
	c.t.Helper()
	req, err := http.NewRequest(method, c.url+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, user := range users {
		req.Header.Add(userHeader, user)
	}
	for _, group := range groups {
		req.Header.Add(groupHeader, group)
	}
	res, err := c.http.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	a := answer{code: res.StatusCode, header: res.Header, body: string(body)}
	_ = json.Unmarshal(body, &a.status)
	return a
}

// Nobody but a door that is in the fleet speaks for others.
func TestForgedUsers(t *testing.T) {
	f := startFleet(t)
	secretOn(f, "host-02")
	h := f.Host("host-02")
	users := newClient(t, h, "victor", apitest.Viewers)
	admins := newClient(t, h, "alice", apitest.Admins)
	socket := &client{t: t, url: "http://picket", http: socketClient(t, h.Socket)}
	plain := as(t, f, "host-03", "host-02")
	forger := newClient(t, h, "host-01", apitest.Doors) // a door's name and group, and no host's certificate
	nobody := newClient(t, h, "")
	one := []string{"root"}
	for _, tt := range []struct {
		who    string
		c      *client
		users  []string
		groups []string
		code   int
		want   string
	}{
		{"a viewer", users, one, []string{apitest.Admins}, 403, "may not call in the name of another user: only doors"},
		{"a viewer without a user", users, nil, []string{apitest.Admins}, 403, "may not call in the name"},
		{"a viewer without a group", users, one, nil, 403, "may not call in the name"},
		{"an admin", admins, one, []string{apitest.Viewers}, 403, "may not call in the name"},
		{"the socket", socket, one, []string{apitest.Admins}, 403, "may not call in the name"},
		{"a plain host", plain, one, []string{apitest.Admins}, 403, "host-03 is no door"},
		{"no host", forger, one, []string{apitest.Admins}, 403, "only doors"},
		{"nobody", nobody, one, []string{apitest.Admins}, 401, "a client certificate of this fleet is needed"},
		{"a door for two users", as(t, f, "host-01", "host-02"), []string{"a", "b"}, []string{apitest.Admins}, 403, "a call is one user's"},
		{"a door for no user", as(t, f, "host-01", "host-02"), nil, []string{apitest.Admins}, 403, "a call is one user's"},
		{"a door for a nameless user", as(t, f, "host-01", "host-02"), []string{""}, []string{apitest.Admins}, 403, "cannot be read"},
		{"a door for a garbled user", as(t, f, "host-01", "host-02"), []string{"%zz"}, []string{apitest.Admins}, 403, "cannot be read"},
	} {
		for _, path := range []string{"/api/v1/namespaces/default/secrets/password", "/api", "/picket.io/v1/leave"} {
			a := tt.c.forwarded("GET", path, tt.users, tt.groups)
			if a.code != tt.code || !strings.Contains(a.status.Message, tt.want) || strings.Contains(a.body, "aHVudGVyMg") {
				t.Errorf("%s: %s: %d %s", tt.who, path, a.code, a.body)
			}
		}
	}
	f.Delete("host-01")
	if a := as(t, f, "host-01", "host-02").forwarded("GET", "/api/v1/pods", one, []string{apitest.Admins}); a.code != 403 || !strings.Contains(a.status.Message, "host-01 was deleted from the fleet") {
		t.Errorf("a deleted door: %d %s", a.code, a.body)
	}
}

// What a client adds to its own request does not travel on.
func TestNothingOfTheClientsIsForwarded(t *testing.T) {
	f := startFleet(t)
	c := &client{t: t, url: "http://picket", http: socketClient(t, f.Host("host-01").Socket)} // HTTP/1.1, where a Connection header is taken
	const log = "/api/v1/namespaces/default/pods/web-2/log"
	// Naming our headers as hop-by-hop must not take them off the forwarded request, nor leave it without the user.
	a := c.do("GET", log, "", "", "Connection", "X-Picket-User, X-Picket-Group", "Authorization", "Bearer x")
	if a.code != 200 || !strings.Contains(a.body, "hello on host-02") {
		t.Errorf("%d %s", a.code, a.body)
	}
	if got := a.header.Values("X-Content-Type-Options"); len(got) != 1 {
		t.Errorf("headers are doubled: %v", got)
	}
}

// The users of a door's socket are known by the door, where they go.
func TestSocketUsersElsewhere(t *testing.T) {
	f := startFleet(t)
	c := &client{t: t, url: "http://picket", http: socketClient(t, f.Host("host-01").Socket)}
	if a := c.do("DELETE", "/api/v1/namespaces/default/pods/web-2", "", ""); a.code != 200 {
		t.Fatalf("%d %s", a.code, a.body)
	}
	if w := f.Host("host-02").Backend.Writes(); len(w) != 1 || w[0].Author != api.SocketUser+"@host-01" {
		t.Errorf("writes were %+v", w)
	}
}

// Two hosts that each think the other has the pod do not send a request in circles.
func TestForwardedOnce(t *testing.T) {
	f := startFleet(t)
	f.Host("host-01").Cache.Set(apitest.Pods, podOn("host-02", "lost"))
	f.Host("host-02").Cache.Set(apitest.Pods, podOn("host-01", "lost"))
	const want = "host-01 forwarded this to host-02, which knows the pod on host-01 and does not forward it again"
	c := newClient(t, f.Host("host-01"), "alice", apitest.Admins)
	const pod = "/api/v1/namespaces/default/pods/lost"
	for _, r := range []struct{ method, path string }{
		{"GET", pod}, {"GET", pod + "/log"}, {"DELETE", pod}, {"GET", pod + "/exec?command=id&stdout=true"}, {"GET", pod + "/status"},
	} {
		if a := c.do(r.method, r.path, "", ""); a.code != 503 || !strings.Contains(a.status.Message, want) {
			t.Errorf("%s %s: %d %s", r.method, r.path, a.code, a.body)
		}
	}
	// A list is what that host has, and no error.
	if a := c.do("GET", "/api/v1/events?fieldSelector=involvedObject.name%3Dlost,involvedObject.namespace%3Ddefault", "", ""); a.code != 200 || a.header.Get("Warning") != "" {
		t.Errorf("events: %d %v %s", a.code, a.header, a.body)
	}
}

// Other hosts' agents reach what agents ask each other, and nobody else does.
func TestPeerPaths(t *testing.T) {
	served := 0
	f := startFleet(t, func(o *api.Options) {
		o.PeerHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			served++
			_, _ = io.WriteString(w, "asked "+r.URL.Path)
		})
	})
	const path = "/picket/v1/push"
	h := f.Host("host-02")
	for who, tt := range map[string]struct {
		c    *client
		code int
	}{
		"a door": {as(t, f, "host-01", "host-02"), 200}, "a plain host": {as(t, f, "host-03", "host-02"), 200},
		"an admin": {newClient(t, h, "alice", apitest.Admins), 403}, "nobody": {newClient(t, h, ""), 401},
		"the socket": {&client{t: t, url: "http://picket", http: socketClient(t, h.Socket)}, 401},
	} {
		a := tt.c.do("POST", path, "", "body")
		if a.code != tt.code || tt.code != 200 && a.status.Kind != "Status" || tt.code == 200 && a.body != "asked "+path {
			t.Errorf("%s: %d %s", who, a.code, a.body)
		}
	}
	f.Delete("host-03")
	if a := as(t, f, "host-03", "host-02").do("POST", path, "", ""); a.code != 403 || !strings.Contains(a.status.Message, "was deleted from the fleet") {
		t.Errorf("a deleted host: %d %s", a.code, a.body)
	}
	if served != 2 {
		t.Errorf("the handler was called %d times", served)
	}
	alone := apitest.Start(t)
	if a := newClient(t, alone, "host-02", apitest.Hosts).do("POST", path, "", ""); a.code != 403 {
		t.Errorf("a host alone: %d %s", a.code, a.body)
	}
}

func TestLeaveAndAdmit(t *testing.T) {
	f := startFleet(t)
	h := f.Host("host-01")
	alice, olga := newClient(t, h, "alice", apitest.Admins), newClient(t, h, "olga", apitest.Operators)
	const leave, admit = "/picket.io/v1/leave", "/picket.io/v1/admit/host-02"
	plain := newClient(t, f.Host("host-03"), "alice", apitest.Admins)
	for _, tt := range []struct {
		c            *client
		method, path string
		code         int
		want         string
	}{
		{olga, "POST", leave, 403, `User \"olga\" cannot create path \"/picket.io/v1/leave\": it needs the role admin`},
		{olga, "POST", admit, 403, "it needs the role admin"},
		{as(t, f, "host-02", "host-01"), "POST", leave, 403, "cannot create path"},
		{newClient(t, h, ""), "POST", leave, 401, "certificate"},
		{alice, "GET", leave, 405, "not supported"},
		{alice, "POST", admit, 500, "host-02 was not deleted"},
		{alice, "POST", admit + "?dryRun=All", 400, "dryRun"},
		{alice, "POST", leave + "?dryRun=some", 422, "dryRun"},
		{alice, "POST", "/picket.io/v1/admit/", 404, ""},
		{alice, "POST", "/picket.io/v1/admit/a/b", 404, ""},
		{alice, "POST", "/picket.io/v1/elsewhere", 404, ""},
		{plain, "POST", admit, 403, "host-03 is no door"},
		{alice, "POST", leave + "?dryRun=All", 200, "host-01 leaves: its pods stop, then picketd ends; start picketd to bring it back"},
	} {
		if a := tt.c.do(tt.method, tt.path, "", ""); a.code != tt.code || !strings.Contains(a.body, tt.want) {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, a.code, a.body)
		}
	}
	if asked := f.Asked(); len(asked) != 0 {
		t.Fatalf("the fleet was asked to %v", asked)
	}
	f.Delete("host-02")
	for _, tt := range []struct {
		c          *client
		path, want string
	}{
		{alice, admit, "host-02 is admitted"}, {alice, leave, "host-01 has left the fleet"}, {plain, leave, "host-03 has left the fleet"},
	} {
		if a := tt.c.do("POST", tt.path, "", ""); a.code != 200 || a.status.Status != metav1.StatusSuccess || a.status.Message != tt.want {
			t.Errorf("%s: %d %s", tt.path, a.code, a.body)
		}
	}
	if asked := f.Asked(); !slices.Equal(asked, []string{"admit host-02", "leave host-01", "leave host-03"}) {
		t.Errorf("the fleet was asked to %v", asked)
	}
	if a := alice.do("GET", "/apis", "", ""); strings.Contains(a.body, "picket.io") {
		t.Errorf("discovery speaks of them: %s", a.body)
	}
}

// A forwarded answer ends where it should: the connection goes on.
func TestConnectionsOutliveForwarding(t *testing.T) {
	f := startFleet(t)
	conn, err := net.Dial("unix", f.Host("host-01").Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 2 {
		_, _ = io.WriteString(conn, "GET /api/v1/namespaces/default/pods/web-2/log HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	r := bufio.NewReader(conn)
	for range 2 {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != "web-2 says hello on host-02\n" {
			t.Errorf("%q %v", body, err)
		}
	}
}
