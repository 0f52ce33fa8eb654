package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/picketd/picket/agent/api/apitest"
)

const web = `apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: web
  labels: {app: web}
spec:
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      nodeSelector: {disktype: ssd}
      containers:
      - name: main
        image: busybox:1.36
        command: [sh, -c, "while true; do echo Hello; sleep 10; done"]
`

const settings = `apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {level: info}
`

// populate puts in what an agent would show of one host that runs the DaemonSet web.
func populate(t testing.TB, h *apitest.Host) {
	t.Helper()
	created := metav1.NewTime(time.Now().Add(-time.Hour))
	h.Cache.Set(apitest.Namespaces, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: "default", CreationTimestamp: created}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive},
	})
	resources := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("4Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	h.Cache.Set(apitest.Nodes, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "host-01", UID: "node-uid", CreationTimestamp: created, Labels: map[string]string{"disktype": "ssd"}},
		Status: corev1.NodeStatus{
			Capacity: resources, Allocatable: resources,
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "AgentReady"}},
			NodeInfo:   corev1.NodeSystemInfo{KubeletVersion: "v0.1.0", OSImage: "Debian 12", KernelVersion: "6.1", ContainerRuntimeVersion: "containerd://1.6"},
		},
	})
}

// runPod makes the DaemonSet web in the namespace default run on host-01.
func runPod(t testing.TB, h *apitest.Host) *corev1.Pod {
	t.Helper()
	obj, ok := h.Cache.Get(apitest.DaemonSets, "default", "web")
	if !ok {
		t.Fatal("there is no DaemonSet web")
	}
	ds := obj.DeepCopyObject().(*appsv1.DaemonSet)
	started := metav1.NewTime(time.Now().Add(-time.Minute))
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web-x2z4k", Namespace: "default", UID: "pod-uid", Labels: map[string]string{"app": "web"}, CreationTimestamp: started,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(ds, appsv1.SchemeGroupVersion.WithKind("DaemonSet"))},
		},
		Spec: *ds.Spec.Template.Spec.DeepCopy(),
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.88.0.7", HostIP: "10.0.0.1",
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: "main", Ready: true, RestartCount: 1, ContainerID: "containerd://c1", Image: "busybox:1.36",
				State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: started}},
				LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
					ExitCode: 1, Reason: "Error", FinishedAt: started, ContainerID: "containerd://c0",
				}},
			}},
		},
	}
	pod.Spec.NodeName = "host-01"
	settle(h, ds)
	h.Cache.Set(apitest.Events, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: "web.1", Namespace: "default", CreationTimestamp: started},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: pod.Name, UID: pod.UID, APIVersion: "v1"},
		Reason:         "Started", Message: "Started container main", Type: corev1.EventTypeNormal, Count: 1,
		Source: corev1.EventSource{Component: "picketd", Host: "host-01"}, FirstTimestamp: started, LastTimestamp: started,
	})
	return h.Cache.Set(apitest.Pods, pod).(*corev1.Pod)
}

// settle says that the DaemonSet is rolled out.
func settle(h *apitest.Host, ds *appsv1.DaemonSet) {
	ds = ds.DeepCopy()
	ds.Status = appsv1.DaemonSetStatus{
		ObservedGeneration: ds.Generation, DesiredNumberScheduled: 1, CurrentNumberScheduled: 1, NumberReady: 1, UpdatedNumberScheduled: 1, NumberAvailable: 1,
	}
	h.Cache.Set(apitest.DaemonSets, ds)
}

// start serves a host with one node, the DaemonSet web and its pod, and a kubectl of an admin.
func start(t *testing.T) (*apitest.Host, *apitest.Kubectl) {
	t.Helper()
	h := apitest.Start(t)
	populate(t, h)
	k := h.Kubectl(t, "alice", apitest.Admins)
	k.Run(web, "apply", "-f", "-")
	runPod(t, h)
	return h, k
}

func wantAll(t *testing.T, got string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
}

// fields compares a table without its spacing.
func fieldsOf(table string) string {
	var lines []string
	for line := range strings.Lines(table) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}

func TestKubectlGet(t *testing.T) {
	_, k := start(t)
	tests := []struct {
		args string
		want []string
	}{
		{"get ds", []string{"NAME DESIRED CURRENT READY UP-TO-DATE AVAILABLE NODE SELECTOR AGE", "web 1 1 1 1 1 disktype=ssd"}},
		{"get ds -o wide", []string{"AGE CONTAINERS IMAGES SELECTOR", "main busybox:1.36 app=web"}},
		{"get daemonset web -o yaml", []string{"kind: DaemonSet", "image: busybox:1.36", "maxUnavailable: 1"}},
		{"get ds -o json", []string{`"kind": "List"`, `"kind": "DaemonSet"`}},
		{"get ds -o name", []string{"daemonset.apps/web"}},
		{"get ds -A", []string{"NAMESPACE NAME DESIRED", "default web"}},
		{"get pods", []string{"NAME READY STATUS RESTARTS AGE", "web-x2z4k 1/1 Running 1 (60s ago) 60s"}},
		{"get po -o wide", []string{"10.88.0.7 host-01 <none> <none>"}},
		{"get po -l app=web,!missing", []string{"web-x2z4k"}},
		{"get po --field-selector spec.nodeName=host-01,status.phase!=Failed", []string{"web-x2z4k"}},
		{"get nodes", []string{"NAME STATUS ROLES AGE VERSION", "host-01 Ready <none> 60m v0.1.0"}},
		{"get no -o wide", []string{"10.0.0.1 <none> Debian 12 6.1 containerd://1.6"}},
		{"get ns", []string{"default Active 60m"}},
		{"get all", []string{"pod/web-x2z4k", "daemonset.apps/web"}},
		{"get events", []string{"LAST SEEN TYPE REASON OBJECT MESSAGE", "Normal Started pod/web-x2z4k Started container main"}},
		{"get controllerrevisions", []string{"NAME CONTROLLER REVISION AGE", "daemonset.apps/web 1"}},
		{"get po --show-labels", []string{"app=web"}},
		{"get ds --sort-by=.metadata.name", []string{"web 1 1"}},
		{"get po -o custom-columns=N:.metadata.name,IP:.status.podIP", []string{"web-x2z4k 10.88.0.7"}},
		{"get ds web --subresource=status", []string{"web 1 1 1 1 1"}},
		{"get --raw /version", []string{`"minor":"37","gitVersion":"v1.37.`, "+picket.0.1.0-test"}},
		{"api-resources", []string{"daemonsets ds apps/v1 true DaemonSet"}},
		{"explain ds.spec.updateStrategy.type", []string{"RollingUpdate"}},
		{"events", []string{"Started container main"}},
		{"events --for pod/web-x2z4k", []string{"Pod/web-x2z4k"}},
		{"describe ds web", []string{"Pods Status: 1 Running / 0 Waiting / 0 Succeeded / 0 Failed", "Desired Number of Nodes Scheduled: 1"}},
		{"describe pod web-x2z4k", []string{"Status: Running", "Started container main", "Controlled By: DaemonSet/web"}},
		{"describe node host-01", []string{"Non-terminated Pods: (1 in total)", "default web-x2z4k", "Kernel Version: 6.1"}},
		{"describe ns default", []string{"Status: Active"}},
		{"auth whoami", []string{"Username alice", "picket:admins"}},
		{"auth can-i create daemonsets", []string{"yes"}},
		{"auth can-i create pods --subresource=exec", []string{"yes"}},
		{"auth can-i --list", []string{"daemonsets.apps"}},
		{"rollout status ds/web --timeout=20s", []string{`daemon set "web" successfully rolled out`}},
		{"rollout history ds/web", []string{"REVISION CHANGE-CAUSE", "1 <none>"}},
		{"wait ds/web --for=jsonpath={.status.numberReady}=1 --timeout=20s", []string{"daemonset.apps/web condition met"}},
		{"wait pod/web-x2z4k --for=condition=Ready --timeout=20s", []string{"condition met"}},
		{"wait pod -l app=web --for=condition=Ready --timeout=20s", []string{"condition met"}},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			wantAll(t, fieldsOf(k.Run("", strings.Split(tt.args, " ")...)), tt.want...)
		})
	}
}

func TestKubectlWrites(t *testing.T) {
	h, k := start(t)
	ds := func() *appsv1.DaemonSet {
		obj, ok := h.Cache.Get(apitest.DaemonSets, "default", "web")
		if !ok {
			t.Fatal("web is gone")
		}
		return obj.(*appsv1.DaemonSet)
	}
	node := func() *corev1.Node {
		obj, _ := h.Cache.Get(apitest.Nodes, "", "host-01")
		return obj.(*corev1.Node)
	}
	steps := []struct {
		stdin, args, want string
		check             func() bool
	}{
		{web, "apply -f -", "daemonset.apps/web unchanged", nil},
		{strings.Replace(web, "1.36", "1.37", 1), "apply -f - --dry-run=server", "configured (server dry run)", func() bool { return ds().Generation == 1 }},
		{strings.Replace(web, "1.36", "1.37", 1), "apply -f -", "daemonset.apps/web configured", func() bool {
			return ds().Spec.Template.Spec.Containers[0].Image == "busybox:1.37" && ds().Generation == 2
		}},
		{"", "rollout history ds/web", "2         <none>", nil},
		{"", "rollout undo ds/web --dry-run=server", "rolled back (server dry run)", func() bool { return ds().Generation == 2 }},
		{"", "rollout undo ds/web", "daemonset.apps/web rolled back", func() bool { return ds().Spec.Template.Spec.Containers[0].Image == "busybox:1.36" }},
		{"", "rollout undo ds/web --to-revision=3", "skipped rollback (current template already matches revision 3)", nil},
		{"", "rollout restart ds/web", "daemonset.apps/web restarted", func() bool {
			return ds().Spec.Template.Annotations["kubectl.kubernetes.io/restartedAt"] != ""
		}},
		{"", "set image ds/web main=busybox:1.38", "image updated", func() bool { return ds().Spec.Template.Spec.Containers[0].Image == "busybox:1.38" }},
		{"", "set env ds/web LEVEL=debug", "env updated", func() bool { return len(ds().Spec.Template.Spec.Containers[0].Env) == 1 }},
		{"", "set resources ds/web --limits=memory=64Mi", "resource requirements updated", nil},
		{"", "label ds web tier=front", "daemonset.apps/web labeled", func() bool { return ds().Labels["tier"] == "front" }},
		{"", "label ds web tier-", "unlabeled", func() bool { return ds().Labels["tier"] == "" }},
		{"", "annotate ds web picket.io/paused=true", "annotated", func() bool { return ds().Annotations["picket.io/paused"] == "true" }},
		{"", "label node host-01 zone=a", "labeled", func() bool { return node().Labels["zone"] == "a" }},
		{"", "taint node host-01 dedicated=gpu:NoSchedule", "tainted", func() bool { return len(node().Spec.Taints) == 1 }},
		{"", "taint node host-01 dedicated-", "untainted", func() bool { return len(node().Spec.Taints) == 0 }},
		{"", "cordon host-01", "node/host-01 cordoned", func() bool { return node().Spec.Unschedulable }},
		{"", "drain host-01 --ignore-daemonsets", "node/host-01 drained", nil},
		{"", "uncordon host-01", "node/host-01 uncordoned", func() bool { return !node().Spec.Unschedulable }},
		{settings, "create -f -", "configmap/settings created", nil},
		{strings.Replace(settings, "info", "debug", 1), "replace -f -", "configmap/settings replaced", nil},
		{"", "create configmap more --from-literal=a=b", "configmap/more created", nil},
		{"", "create secret generic password --from-literal=p=s3cret", "secret/password created", nil},
		{"", "create ns shop", "namespace/shop created", nil},
		{strings.Replace(web, "name: web", "name: web\n  namespace: shop", 1), "apply -f -", "daemonset.apps/web created", nil},
		{"", `patch cm more --type=json -p [{"op":"add","path":"/data/c","value":"d"}]`, "configmap/more patched", nil},
		{"", `patch cm more --type=merge -p {"data":{"a":null}}`, "configmap/more patched", nil},
		{"", "get cm more -o jsonpath={.data}", `{"c":"d"}`, nil},
		{"", "delete cm more", `configmap "more" deleted`, nil},
		{"", "delete cm --all", `configmap "settings" deleted`, nil},
		{"", "delete pod web-x2z4k", `pod "web-x2z4k" deleted`, nil},
		{"", "delete ns shop", `namespace "shop" deleted`, nil},
		{web, "delete -f -", `daemonset.apps "web" deleted`, nil},
	}
	for _, step := range steps {
		out := k.Run(step.stdin, strings.Split(step.args, " ")...)
		if !strings.Contains(out, step.want) {
			t.Errorf("kubectl %s: %q is missing in:\n%s", step.args, step.want, out)
		}
		if step.check != nil && !step.check() {
			t.Errorf("kubectl %s: the object is not as it should be", step.args)
		}
	}
}

func TestKubectlDiffAndEdit(t *testing.T) {
	_, k := start(t)
	if r := k.Try(web, "diff", "-f", "-"); r.Code != 0 || r.Out != "" {
		t.Errorf("a diff of the same file: exit %d\n%s%s", r.Code, r.Out, r.Err)
	}
	r := k.Try(strings.Replace(web, "1.36", "1.37", 1), "diff", "-f", "-")
	if r.Code != 1 {
		t.Errorf("a diff of another file: exit %d\n%s", r.Code, r.Err)
	}
	wantAll(t, r.Out, "-        image: busybox:1.36", "+        image: busybox:1.37", "-  generation: 1", "+  generation: 2")
	wantAll(t, k.Run("", "get", "ds", "web", "-o", "yaml"), "busybox:1.36")

	t.Setenv("KUBE_EDITOR", "sed -i s/busybox:1.36/busybox:1.40/")
	wantAll(t, k.Run("", "edit", "ds", "web"), "daemonset.apps/web edited")
	wantAll(t, k.Run("", "get", "ds", "web", "-o", "yaml"), "busybox:1.40")
}

func TestKubectlErrors(t *testing.T) {
	_, k := start(t)
	tests := []struct{ stdin, args, want string }{
		{"", "get ds nope", `Error from server (NotFound): daemonsets.apps "nope" not found`},
		{"", "logs nope", `pods "nope" not found`},
		{web, "create -f -", `daemonsets.apps "web" already exists`},
		{strings.Replace(web, "name: web", "name: web\n  namespace: nowhere", 1), "apply -f -", `namespaces "nowhere" not found`},
		{strings.Replace(web, "    spec:", "    spec:\n      frobnicate: 1", 1), "apply -f -", `unknown field "spec.template.spec.frobnicate"`},
		{strings.Replace(web, "image: busybox:1.36", "image: []", 1), "create --validate=false -f -", "cannot unmarshal"},
		{strings.Replace(web, "matchLabels: {app: web}", "matchLabels: {app: other}", 1), "apply -f -", "* spec.template.metadata.labels: Invalid value"},
		{"", "scale ds web --replicas=2", "the server could not find the requested resource"},
		{"", "rollout pause ds/web", "pausing is not supported"},
		{"", "get po --field-selector spec.colour=red", "field label not supported: spec.colour"},
		{"", "run box --image=busybox", `create is not supported on resources of kind "pods"`},
		{"", "attach web-x2z4k", "attach is not served"},
		{"", "port-forward web-x2z4k 0:80", "portforward is not served"},
		{"", "top node", "Metrics API not available"},
		{"", "delete ds web --cascade=orphan", `Unsupported value: "Orphan"`},
		{web, "apply --server-side -f -", "server-side apply is not served"},
	}
	for _, tt := range tests {
		r := k.Try(tt.stdin, strings.Split(tt.args, " ")...)
		if r.Code == 0 || !strings.Contains(r.Err, tt.want) {
			t.Errorf("kubectl %s: exit %d, want %q in:\n%s%s", tt.args, r.Code, tt.want, r.Out, r.Err)
		}
	}
}

func TestKubectlWarnsAboutFieldsNotHonoured(t *testing.T) {
	_, k := start(t)
	r := k.Try(strings.Replace(web, "      containers:", "      schedulerName: other\n      containers:", 1), "apply", "-f", "-")
	if r.Code != 0 {
		t.Fatal(r.Err)
	}
	wantAll(t, r.Err, "Warning: spec.template.spec.schedulerName:")
}

func TestKubectlConflict(t *testing.T) {
	_, k := start(t)
	stale := k.Run("", "get", "ds", "web", "-o", "yaml")
	k.Run("", "set", "image", "ds/web", "main=busybox:2")
	r := k.Try(stale, "replace", "-f", "-")
	if r.Code == 0 {
		t.Error("an outdated object replaced a newer one")
	}
	wantAll(t, r.Err, `Operation cannot be fulfilled on daemonsets.apps "web": the object has been modified; please apply your changes to the latest version and try again`)
}

// A list comes in pages when it is long; nothing is lost or doubled.
func TestKubectlPages(t *testing.T) {
	h, k := start(t)
	for i := range 23 {
		h.Cache.Set(apitest.ConfigMaps, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("cm-%02d", i)}})
	}
	if n := strings.Count(k.Run("", "get", "cm", "--chunk-size=5", "-o", "name"), "configmap/cm-"); n != 23 {
		t.Errorf("pages held %d of 23 objects", n)
	}
}

// A file as Helm makes them, with kinds that are not served here: kubectl names those, and applies the rest.
func TestKubectlAppliesWhatIsServed(t *testing.T) {
	h := apitest.Start(t)
	populate(t, h)
	k := h.Kubectl(t, "alice", apitest.Admins)
	file := "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web}\n---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: web}\n" +
		"---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n---\n" + settings + "---\n" + web
	r := k.Try(file, "apply", "-f", "-")
	for _, want := range []string{`no matches for kind "ServiceAccount" in version "v1"`, `no matches for kind "ClusterRole"`, `no matches for kind "Deployment"`} {
		if !strings.Contains(r.Err, want) {
			t.Errorf("%q is not in\n%s", want, r.Err)
		}
	}
	if r.Code == 0 || strings.Contains(r.Err, "validate=false") || !strings.Contains(r.Out, "configmap/settings created") || !strings.Contains(r.Out, "daemonset.apps/web created") {
		t.Errorf("exit %d\n%s%s", r.Code, r.Out, r.Err)
	}
}
