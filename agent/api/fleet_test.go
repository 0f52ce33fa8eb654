package api_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/agent/api/apitest"
	"github.com/picketd/picket/cluster/pki"
)

// The hosts of the tests' fleet: two doors and a plain host.
var threeHosts = []pki.Host{{Node: "host-01", Door: true}, {Node: "host-02", Door: true}, {Node: "host-03"}}

// startFleet serves three hosts, each with a pod that all of them know of: web-1 on host-01 and so on. What a host knows of
// another's pod is less than that one does: it takes the container's image for "heard", and knows no events.
func startFleet(t testing.TB, configure ...func(*api.Options)) *apitest.Fleet {
	t.Helper()
	f := apitest.StartFleet(t, threeHosts, configure...)
	for _, at := range threeHosts {
		h := f.Host(at.Node)
		populate(t, h)
		for i, on := range threeHosts {
			h.Cache.Set(apitest.Nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: on.Node, UID: types.UID("uid-" + on.Node)}})
			pod := podOn(on.Node, fmt.Sprintf("web-%d", i+1))
			if at.Node == on.Node {
				pod.Status.ContainerStatuses[0].Image = "busybox:known"
				h.Cache.Set(apitest.Events, eventOf(pod.Name, "Pod", on.Node, string(pod.UID)))
				h.Cache.Set(apitest.Events, eventOf(on.Node, "Node", on.Node, on.Node))
			}
			h.Cache.Set(apitest.Pods, pod)
		}
		h.Backend.OnLogs = func(_ context.Context, pod *corev1.Pod, _ *corev1.PodLogOptions, w io.Writer) error {
			_, err := fmt.Fprintf(w, "%s says hello on %s\n", pod.Name, at.Node)
			return err
		}
	}
	return f
}

func podOn(node, name string) *corev1.Pod {
	controller := true
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "default", UID: types.UID("uid-" + name), Labels: map[string]string{"app": "web"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: appsv1.SchemeGroupVersion.String(), Kind: "DaemonSet", Name: "web", UID: "ds", Controller: &controller}},
		},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "main", Image: "busybox:1.36"}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.88.0.7",
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: "main", Ready: true, Image: "busybox:heard", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
			}},
		},
	}
}

func eventOf(name, kind, on, uid string) *corev1.Event {
	e := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: name + ".1", Namespace: "default", UID: types.UID("event-" + name)},
		InvolvedObject: corev1.ObjectReference{Kind: kind, Name: name, UID: types.UID(uid), APIVersion: "v1"},
		Reason:         "Started", Message: kind + " " + name + " as " + on + " saw it", Type: corev1.EventTypeNormal, Count: 1, LastTimestamp: metav1.Now(),
	}
	if kind == "Pod" {
		e.InvolvedObject.Namespace = "default"
	}
	return e
}

// What kubectl prints about a pod of another host is what that host knows.
func TestKubectlThroughAnotherDoor(t *testing.T) {
	f := startFleet(t)
	k := f.Host("host-01").Kubectl(t, "alice", apitest.Admins)
	for _, tt := range []struct {
		args string
		want []string
	}{
		{"get pods -o wide", []string{"web-1 1/1 Running", "web-2 1/1 Running", "host-02", "web-3 1/1 Running"}},
		{"get pod web-2", []string{"NAME READY STATUS RESTARTS AGE", "web-2 1/1 Running"}},
		{"get pod web-2 -o yaml", []string{"image: busybox:known"}},
		{"get pod web-2 --subresource=status -o yaml", []string{"image: busybox:known"}},
		{"logs web-2", []string{"web-2 says hello on host-02"}},
		{"logs web-3", []string{"web-3 says hello on host-03"}},
		{"describe pod web-2", []string{"Image: busybox:1.36", "Pod web-2 as host-02 saw it"}},
		{"describe node host-02", []string{"Node host-02 as host-02 saw it"}},
		{"events --for pod/web-2", []string{"Pod web-2 as host-02 saw it"}},
		{"wait pod/web-2 --for=jsonpath={.status.phase}=Running --timeout=20s", []string{"condition met"}},
	} {
		r := k.Try("", strings.Split(tt.args, " ")...)
		if r.Code != 0 || strings.Contains(r.Err, "Warning") {
			t.Errorf("kubectl %s: exit %d %s", tt.args, r.Code, r.Err)
		}
		wantAll(t, fieldsOf(r.Out), tt.want...)
	}
	if out := k.Run("", "get", "events"); strings.Contains(out, "host-02") {
		t.Errorf("a list of all events holds other hosts' too:\n%s", out)
	}
}

// A client that gets a pod of another host watches it here from what it got.
func TestWatchFromAnotherHostsPod(t *testing.T) {
	f := startFleet(t)
	c := newClient(t, f.Host("host-01"), "vera", apitest.Viewers)
	known, _ := f.Host("host-01").Cache.Get(apitest.Pods, "default", "web-2")
	for _, accept := range []string{"application/json", "application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"} {
		a := c.do("GET", "/api/v1/namespaces/default/pods/web-2", "", "", "Accept", accept)
		if a.code != 200 || strings.Count(a.body, `"resourceVersion":"`+known.GetResourceVersion()+`"`) != strings.Count(a.body, `"resourceVersion"`) {
			t.Errorf("as %s: %d %s, want only this host's version %s", accept, a.code, a.body, known.GetResourceVersion())
		}
	}
	again := eventOf("web-2", "Pod", "host-02", "uid-web-2")
	again.Name = "web-2.2"
	f.Host("host-02").Cache.Set(apitest.Events, again)
	// A first page would be all: the second one could not be had.
	a := c.do("GET", "/api/v1/events?fieldSelector=involvedObject.name%3Dweb-2,involvedObject.namespace%3Ddefault&limit=1", "", "")
	if a.code != 200 || strings.Count(a.body, "host-02 saw it") != 2 || strings.Contains(a.body, `"continue"`) || strings.Contains(a.body, `"resourceVersion":"562`) {
		t.Errorf("events: %d %s", a.code, a.body)
	}
}

func TestLogsFollowAnotherHost(t *testing.T) {
	f := startFleet(t)
	seen, ended := make(chan struct{}), make(chan error, 1)
	f.Host("host-02").Backend.OnLogs = func(ctx context.Context, _ *corev1.Pod, opts *corev1.PodLogOptions, w io.Writer) error {
		if !opts.Follow || opts.Container != "main" {
			t.Errorf("the options that arrive are %+v", opts)
		}
		fmt.Fprintln(w, "first")
		<-seen
		fmt.Fprintln(w, "second")
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}
	out, in := io.Pipe()
	k := f.Host("host-01").Kubectl(t, "vera", apitest.Viewers)
	go k.Stream(strings.NewReader(""), in, io.Discard, "logs", "-f", "web-2")
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "first" {
		t.Fatalf("the first line is %q", lines.Text())
	}
	close(seen)
	if !lines.Scan() || lines.Text() != "second" {
		t.Fatalf("the second line is %q", lines.Text())
	}
	// Ending the first host's server is as good as the client's going away: its requests end.
	f.Host("host-01").Stop(t)
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("host-02 follows a log that nobody reads")
	}
}

func TestDeleteOnAnotherHost(t *testing.T) {
	f := startFleet(t)
	owner, door := f.Host("host-02"), f.Host("host-01")
	owner.Backend.OnWrite = func(w api.Write) error {
		// The pod stops: for a while it is still there.
		if w.Object == nil && w.Name == "web-2" && !w.DryRun {
			obj, _ := owner.Cache.Get(w.Resource, w.Namespace, w.Name)
			pod := obj.DeepCopyObject().(*corev1.Pod)
			now := metav1.Now()
			pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &now, w.GracePeriodSeconds
			owner.Cache.Set(apitest.Pods, pod)
			door.Cache.Delete(apitest.Pods, "default", "web-2") // what the other host is told in the end
			return errors.New("it is stopping")
		}
		return nil
	}
	k := door.Kubectl(t, "olga", apitest.Operators)
	if r := k.Try("", "delete", "pod", "web-2", "--dry-run=server"); r.Code != 0 || len(owner.Backend.Writes()) != 1 || !owner.Backend.Writes()[0].DryRun {
		t.Errorf("a dry run: exit %d %s, writes %+v", r.Code, r.Err, owner.Backend.Writes())
	}
	if r := k.Try("", "delete", "pod", "web-2"); !strings.Contains(r.Err, "it is stopping") {
		t.Errorf("the owner's error does not arrive: %s%s", r.Out, r.Err)
	}
	owner.Backend.OnWrite = nil
	door.Cache.Set(apitest.Pods, podOn("host-02", "web-2"))
	go func() { // the news of the end arrives
		eventually(t, "the pod was not deleted on its host", func() bool {
			_, there := owner.Cache.Get(apitest.Pods, "default", "web-2")
			return !there
		})
		door.Cache.Delete(apitest.Pods, "default", "web-2")
	}()
	wantAll(t, k.Run("", "delete", "pod", "web-2", "--grace-period=7"), `pod "web-2" deleted`)
	writes := owner.Backend.Writes()
	last := writes[len(writes)-1]
	if last.Author != "olga" || last.GracePeriodSeconds == nil || *last.GracePeriodSeconds != 7 {
		t.Errorf("host-02 wrote %+v", last)
	}
	if n := len(door.Backend.Writes()); n != 0 {
		t.Errorf("host-01 made %d writes of its own", n)
	}
}

// Preconditions hold wherever the pod is; versions are those of the host that the client talks to.
func TestDeleteElsewhereWithPreconditions(t *testing.T) {
	f := startFleet(t)
	c := newClient(t, f.Host("host-01"), "olga", apitest.Operators)
	known, _ := f.Host("host-01").Cache.Get(apitest.Pods, "default", "web-2")
	path := "/api/v1/namespaces/default/pods/web-2"
	options := func(what, value string) string {
		return fmt.Sprintf(`{"kind":"DeleteOptions","apiVersion":"v1","preconditions":{%q:%q}}`, what, value)
	}
	for _, body := range []string{options("uid", "another"), options("resourceVersion", "1")} {
		if a := c.do("DELETE", path, "application/json", body); a.code != 409 {
			t.Errorf("%s: %d %s", body, a.code, a.body)
		}
	}
	if a := c.do("DELETE", path, "application/json", options("resourceVersion", known.GetResourceVersion())); a.code != 200 || a.status.Details == nil || a.status.Details.UID != known.GetUID() {
		t.Errorf("with the right version: %d %s", a.code, a.body)
	}
	if a := c.do("DELETE", path, "application/json", ""); a.code != 404 || a.status.Reason != metav1.StatusReasonNotFound {
		t.Errorf("a pod that its host has ended: %d %s", a.code, a.body)
	}
}

func TestEvictionElsewhere(t *testing.T) {
	f := startFleet(t)
	c := newClient(t, f.Host("host-01"), "olga", apitest.Operators)
	body := `{"kind":"Eviction","apiVersion":"policy/v1","metadata":{"name":"web-2"},"deleteOptions":{"gracePeriodSeconds":3}}`
	if a := c.do("POST", "/api/v1/namespaces/default/pods/web-2/eviction", "application/json", body); a.code != 201 {
		t.Fatalf("%d %s", a.code, a.body)
	}
	if w := f.Host("host-02").Backend.Writes(); len(w) != 1 || w[0].Name != "web-2" || *w[0].GracePeriodSeconds != 3 {
		t.Errorf("host-02 wrote %+v", w)
	}
}

// A collection's pods are deleted each where it is, also when one host is down.
func TestDeleteCollectionOfPods(t *testing.T) {
	f := startFleet(t)
	f.Cut("host-03")
	c := newClient(t, f.Host("host-01"), "olga", apitest.Operators)
	a := c.do("DELETE", "/api/v1/namespaces/default/pods?labelSelector=app%3Dweb", "application/json", "")
	if a.code != 503 || !strings.Contains(a.status.Message, "pod web-3 is on host-03, which cannot be reached") {
		t.Errorf("%d %s", a.code, a.body)
	}
	for node, want := range map[string]int{"host-01": 1, "host-02": 1, "host-03": 0} {
		if n := len(f.Host(node).Backend.Writes()); n != want {
			t.Errorf("%s made %d writes, want %d", node, n, want)
		}
	}
}

func TestOwnerOutOfReach(t *testing.T) {
	f := startFleet(t)
	f.Cut("host-02")
	k := f.Host("host-01").Kubectl(t, "alice", apitest.Admins)
	const why = "pod web-2 is on host-02, which cannot be reached: "
	r := k.Try("", "get", "pod", "web-2", "-o", "yaml")
	if r.Code != 0 {
		t.Errorf("get: %s", r.Err)
	}
	wantAll(t, r.Out, "image: busybox:heard")
	wantAll(t, r.Err, "Warning: "+why+"the link is cut; it is shown as host-01 last heard of it")
	r = k.Try("", "describe", "pod", "web-2")
	if r.Code != 0 {
		t.Errorf("describe: %s", r.Err)
	}
	wantAll(t, r.Out, "Status: ", "Running")
	wantAll(t, r.Err, "Warning: events that host-02 keeps are not shown: host-02 cannot be reached")
	for args, before := range map[string]string{
		"logs web-2":       "Error from server (ServiceUnavailable): ",
		"delete pod web-2": "Error from server (ServiceUnavailable): ",
		"exec web-2 -- id": "error: unable to upgrade connection: ",
	} {
		if r := k.Try("", strings.Split(args, " ")...); r.Code == 0 || !strings.Contains(r.Err, before+why) {
			t.Errorf("%s: exit %d %s", args, r.Code, r.Err)
		}
	}
}

// A plain host forwards nothing, and says so itself; its own pods it serves like any other.
func TestAPlainHostsUsers(t *testing.T) {
	f := startFleet(t)
	h := f.Host("host-03")
	k := h.Kubectl(t, "alice", apitest.Admins)
	const noDoor = "host-03 is no door: its certificate was made without --door; apply through another host"
	for args, refusal := range map[string]string{
		"get pods": "", "get pod web-3": "", "get pod web-1": "", "logs web-3": "", "describe node host-01": "", "diff -f -": "",
		"logs web-1":                 "is no door",
		"delete pod web-1":           "is no door",
		"apply -f -":                 noDoor,
		"label node host-03 a=b":     noDoor,
		"delete node host-01":        noDoor,
		"create namespace more":      noDoor,
		"create secret generic more": noDoor,
		"create -f - --dry-run=none": noDoor,
	} {
		r := k.Try(settings, strings.Split(args, " ")...)
		if strings.HasPrefix(args, "diff") {
			if r.Code != 1 || !strings.Contains(r.Out, "level: info") {
				t.Errorf("%s: exit %d %s", args, r.Code, r.Err)
			}
			continue
		}
		if (r.Code != 0) != (refusal != "") || !strings.Contains(r.Err, refusal) {
			t.Errorf("%s: exit %d %s", args, r.Code, r.Err)
		}
	}
	if n := len(h.Backend.Writes()); n != 1 { // diff's dry run
		t.Errorf("%d writes were made", n)
	}
	wantAll(t, k.Run("", "delete", "pod", "web-3"), "deleted")
	// Neither may root, through the socket.
	c := &client{t: t, url: "http://picket", http: socketClient(t, h.Socket)}
	if a := c.do("POST", "/api/v1/namespaces/default/configmaps", "application/yaml", settings); a.code != 403 {
		t.Errorf("the socket of a plain host: %d %s", a.code, a.body)
	}
}

func TestDeleteNode(t *testing.T) {
	f := startFleet(t)
	h := f.Host("host-01")
	if r := h.Kubectl(t, "olga", apitest.Operators).Try("", "delete", "node", "host-02"); r.Code == 0 || !strings.Contains(r.Err, "it needs the role admin") {
		t.Errorf("an operator deletes a node: exit %d %s", r.Code, r.Err)
	}
	c := newClient(t, h, "alice", apitest.Admins)
	if a := c.do("DELETE", "/api/v1/nodes/host-02", "application/json", `{"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"another"}}`); a.code != 409 {
		t.Errorf("with the wrong uid: %d %s", a.code, a.body)
	}
	h.Backend.OnWrite = func(w api.Write) error {
		if w.Object != nil || w.Resource != apitest.Nodes || w.Name != "host-02" || w.Author != "alice" {
			t.Errorf("the write is %+v", w)
		}
		return nil
	}
	var out, errOut bytes.Buffer
	if code := h.Kubectl(t, "alice", apitest.Admins).Stream(strings.NewReader(""), &out, &errOut, "delete", "node", "host-02", "--timeout=20s"); code != 0 || !strings.Contains(out.String(), `node "host-02" deleted`) {
		t.Errorf("exit %d %s%s", code, out.String(), errOut.String())
	}
	if _, there := h.Cache.Get(apitest.Nodes, "", "host-02"); there {
		t.Error("host-02 is still there")
	}
}
