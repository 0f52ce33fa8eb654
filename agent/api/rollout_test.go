package api_test

import (
	"bufio"
	"io"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/picketd/picket/agent/api/apitest"
)

// webAs is the DaemonSet web with an image and a change cause.
func webAs(image, cause string) string {
	return strings.NewReplacer("busybox:1.36", image, "labels: {app: web}\nspec:", "annotations: {kubernetes.io/change-cause: "+cause+"}\n  labels: {app: web}\nspec:").Replace(web)
}

// The history of a DaemonSet, with kubectl's own texts, as it is looked at and gone back in.
func TestKubectlRolloutHistoryAndUndo(t *testing.T) {
	h := apitest.Start(t)
	populate(t, h)
	k := h.Kubectl(t, "alice", apitest.Admins)
	for _, step := range []struct{ stdin, args, want string }{
		{webAs("busybox:1", "first"), "apply -f -", "created"},
		{"", "rollout history ds/web", "daemonset.apps/web \nREVISION CHANGE-CAUSE\n1 first\n\n"},
		{"", "rollout undo ds/web", "no last revision to roll back to"},
		{webAs("busybox:2", "second"), "apply -f -", "configured"},
		{"", "annotate ds web note=x", "annotated"}, // an equal template is no revision
		{webAs("busybox:3", "third"), "apply -f -", "configured"},
		{"", "rollout history ds/web", "daemonset.apps/web \nREVISION CHANGE-CAUSE\n1 first\n2 second\n3 third\n\n"},
		{"", "rollout history ds/web --revision=2", "daemonset.apps/web with revision #2\nPod Template:\n Labels:\tapp=web\n Containers:\n main:\n Image:\tbusybox:2\n"},
		{"", "rollout history ds/web --revision=7", "unable to find the specified revision"},
		{"", "rollout undo ds/web --to-revision=7", "unable to find specified revision 7 in history"},
		{"", "rollout undo ds/web --to-revision=3", "daemonset.apps/web skipped rollback (current template already matches revision 3)"},
		{"", "rollout undo ds/web --dry-run=client", "Image: busybox:2"},
		{"", "rollout undo ds/web", "daemonset.apps/web rolled back"},
		{"", "get ds web -o jsonpath={.spec.template.spec.containers[0].image}", "busybox:2"},
		// The revision that was gone back to is the same one under the next number, with its own cause.
		{"", "rollout history ds/web", "REVISION CHANGE-CAUSE\n1 first\n3 third\n4 second\n\n"},
		{"", "rollout undo ds/web --to-revision=1", "daemonset.apps/web rolled back"},
		{"", "rollout history ds/web", "REVISION CHANGE-CAUSE\n3 third\n4 second\n5 first\n\n"},
		{"", "rollout restart ds/web", "daemonset.apps/web restarted"},
		{"", "rollout history ds/web --revision=6", "kubectl.kubernetes.io/restartedAt"},
		{webAs("busybox:3", "third"), "apply -f - --dry-run=server", "configured (server dry run)"},
		{"", "rollout history ds/web -o jsonpath={.metadata.name}", "web"},
	} {
		r := k.Try(step.stdin, strings.Split(step.args, " ")...)
		if got := collapse(r.Out + r.Err); !strings.Contains(got, collapse(step.want)) {
			t.Errorf("kubectl %s: %q is missing in:\n%s", step.args, step.want, got)
		}
	}
}

// collapse makes runs of blanks one, and keeps the lines.
func collapse(text string) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}

// rolledOut sets the status of web, of three hosts.
func rolledOut(t *testing.T, h *apitest.Host, observed int64, updated, available int32, conditions ...appsv1.DaemonSetCondition) {
	t.Helper()
	obj, ok := h.Cache.Get(apitest.DaemonSets, "default", "web")
	if !ok {
		t.Fatal("there is no DaemonSet web")
	}
	ds := obj.DeepCopyObject().(*appsv1.DaemonSet)
	ds.Status = appsv1.DaemonSetStatus{
		ObservedGeneration: observed, DesiredNumberScheduled: 3, CurrentNumberScheduled: 3, UpdatedNumberScheduled: updated, NumberAvailable: available,
		Conditions: conditions,
	}
	h.Cache.Set(apitest.DaemonSets, ds)
}

// rollout status prints a line whenever something changes, and ends with the rollout.
func TestKubectlRolloutStatusFollows(t *testing.T) {
	h, k := start(t)
	rolledOut(t, h, 0, 0, 3)
	in, out := io.Pipe()
	var errOut strings.Builder
	code := make(chan int, 1)
	go func() {
		defer out.Close()
		code <- k.Stream(strings.NewReader(""), out, &errOut, "rollout", "status", "ds/web", "--timeout=1m")
	}()
	lines := bufio.NewScanner(in)
	for _, step := range []struct {
		want string
		next func()
	}{
		{"Waiting for daemon set spec update to be observed...", func() { rolledOut(t, h, 1, 0, 3) }},
		{`Waiting for daemon set "web" rollout to finish: 0 out of 3 new pods have been updated...`, func() { rolledOut(t, h, 1, 1, 2) }},
		{`Waiting for daemon set "web" rollout to finish: 1 out of 3 new pods have been updated...`, func() { rolledOut(t, h, 1, 3, 2) }},
		{`Waiting for daemon set "web" rollout to finish: 2 of 3 updated pods are available...`, func() { rolledOut(t, h, 1, 3, 3) }},
		{`daemon set "web" successfully rolled out`, func() {}},
	} {
		if !lines.Scan() || lines.Text() != step.want {
			t.Fatalf("got %q, want %q", lines.Text(), step.want)
		}
		step.next()
	}
	if got := <-code; got != 0 || errOut.String() != "" {
		t.Errorf("exit %d, %s", got, errOut.String())
	}
}

// A rollout that stands still says so to whoever follows it, though kubectl knows no such thing of a DaemonSet.
func TestKubectlRolloutStatusTellsWhatHoldsIt(t *testing.T) {
	h, k := start(t)
	for _, tt := range []struct {
		condition appsv1.DaemonSetCondition
		want      string
	}{
		{appsv1.DaemonSetCondition{Type: "Progressing", Status: "True", Reason: "RolloutInProgress"}, ""},
		{
			appsv1.DaemonSetCondition{Type: "Progressing", Status: "Unknown", Reason: "RolloutPaused", Message: "1 of 3 pods are updated"},
			"Warning: the rollout of daemon set \"web\" is paused, 1 of 3 pods are updated: picket rollout resume ds/web lets it go on\n",
		},
		{appsv1.DaemonSetCondition{Type: "RolloutBlocked", Status: "False", Message: "nothing"}, ""},
		{
			appsv1.DaemonSetCondition{Type: "RolloutBlocked", Status: "True", Message: "host-02 is stuck"},
			"Warning: the rollout of daemon set \"web\" is blocked: host-02 is stuck\n",
		},
	} {
		rolledOut(t, h, 1, 1, 3, tt.condition)
		r := k.Try("", "rollout", "status", "ds/web", "--watch=false", "--timeout=1m")
		if r.Code != 0 || r.Err != tt.want || !strings.Contains(r.Out, "1 out of 3 new pods have been updated") {
			t.Errorf("%s %s: exit %d\n%s%s", tt.condition.Type, tt.condition.Status, r.Code, r.Out, r.Err)
		}
	}
	// Whoever reads the object sees the condition itself.
	if r := k.Try("", "get", "ds", "web"); r.Err != "" {
		t.Errorf("get: %s", r.Err)
	}
}

// Revisions that kubectl finds by the template's labels belong to the DaemonSet by their owner alone.
func TestKubectlHistoryIsOfOneDaemonSet(t *testing.T) {
	h, k := start(t)
	h.Cache.Set(apitest.ControllerRevisions, &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "other", Labels: map[string]string{"app": "web"}}, Revision: 9,
	})
	if out := collapse(k.Run("", "rollout", "history", "ds/web")); !strings.HasSuffix(out, "CHANGE-CAUSE\n1 <none>\n\n") {
		t.Errorf("%q", out)
	}
}
