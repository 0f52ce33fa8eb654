package manifest

import (
	"encoding/json"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kubectlutil "k8s.io/kubectl/pkg/util"
	"sigs.k8s.io/yaml"
)

func mustApply(t *testing.T, current, modified Object) (Object, bool) {
	t.Helper()
	merged, changed, err := Apply(current, modified)
	if err != nil {
		t.Fatal(err)
	}
	return merged, changed
}

func TestApplyCreates(t *testing.T) {
	modified := decodeDaemonSet(t, strings.Replace(webYAML, "  name: web\n", "  name: web\n  uid: theirs\n  resourceVersion: \"5\"\n", 1))
	before := modified.DeepCopy()
	merged, changed := mustApply(t, nil, modified)
	ds := merged.(*appsv1.DaemonSet)
	if !changed || ds.UID != "" || ds.ResourceVersion != "" || ds.Spec.Template.Spec.SchedulerName != "default-scheduler" {
		t.Errorf("changed %v, got %+v", changed, ds)
	}
	if string(mustEncode(t, modified)) != string(mustEncode(t, before)) {
		t.Error("Apply changed its argument")
	}
}

// What kubectl apply keeps, replaces and removes.
func TestApplyMergesThreeWays(t *testing.T) {
	current, _ := mustApply(t, nil, decodeDaemonSet(t, strings.Replace(webYAML, "image: busybox\n",
		"image: busybox\n        env: [{name: A, value: a}, {name: B, value: b}]\n        args: [x]\n      nodeSelector: {disk: ssd}\n", 1)))
	stored := current.(*appsv1.DaemonSet)
	stored.UID, stored.ResourceVersion, stored.Generation, stored.Status.NumberReady = "u", "9", 3, 2
	stored.CreationTimestamp = metav1.Unix(1000, 0)
	stored.Labels = map[string]string{"set-by": "kubectl-label"}
	stored.Spec.Template.Annotations = map[string]string{"kubectl.kubernetes.io/restartedAt": "now"}
	stored.Spec.Template.Spec.Containers[0].Env = append(stored.Spec.Template.Spec.Containers[0].Env, corev1.EnvVar{Name: "C", Value: "theirs"})
	merged, changed := mustApply(t, stored, decodeDaemonSet(t, strings.Replace(webYAML, "image: busybox\n",
		"image: busybox:2\n        env: [{name: B, value: new}, {name: D, value: d}]\n", 1)))
	ds := merged.(*appsv1.DaemonSet)
	c := ds.Spec.Template.Spec.Containers[0]
	env := ""
	for _, e := range c.Env {
		env += e.Name + "=" + e.Value + " "
	}
	if !changed || c.Image != "busybox:2" || env != "B=new C=theirs D=d " || c.Args != nil || ds.Spec.Template.Spec.NodeSelector != nil {
		t.Errorf("changed %v, env %q, container %+v, node selector %v", changed, env, c, ds.Spec.Template.Spec.NodeSelector)
	}
	if ds.Labels["set-by"] == "" || ds.Spec.Template.Annotations["kubectl.kubernetes.io/restartedAt"] == "" {
		t.Error("what others have set is gone")
	}
	if ds.UID != "u" || ds.ResourceVersion != "9" || ds.Generation != 3 || ds.Status.NumberReady != 2 || ds.CreationTimestamp.Unix() != 1000 {
		t.Errorf("the server's fields: %+v", ds.ObjectMeta)
	}
}

func TestApplyOfTheSameFileChangesNothing(t *testing.T) {
	for _, row := range corpusIndex(t) {
		for _, obj := range parse("x", corpusFile(t, row["local file"])).file.Objects {
			current, _, _ := Apply(nil, obj) // also what validation refuses: only the merge counts here
			if current == nil {
				t.Fatalf("%s in %s was not merged", RefOf(obj), row["local file"])
			}
			again, changed, _ := Apply(current, obj)
			if changed {
				t.Errorf("%s in %s changes\nfrom %s\nto   %s", RefOf(obj), row["local file"], mustEncode(t, current), mustEncode(t, again))
			}
			if Hash(current) != Hash(obj) {
				t.Errorf("%s in %s: the hash of the file's object is not that of the stored one", RefOf(obj), row["local file"])
			}
		}
	}
}

func TestApplyOfAChangedFileEndsWithItsContent(t *testing.T) {
	first := decodeDaemonSet(t, webYAML)
	second := decodeDaemonSet(t, strings.Replace(webYAML, "image: busybox\n", "image: busybox:2\n        tty: true\n", 1)+"  updateStrategy: {type: OnDelete}\n")
	current, _ := mustApply(t, nil, first)
	current, changed := mustApply(t, current, second)
	if !changed || Hash(current) != Hash(second) {
		t.Errorf("changed %v\n%s", changed, mustEncode(t, current))
	}
	current, changed = mustApply(t, current, first)
	if !changed || Hash(current) != Hash(first) {
		t.Errorf("changed %v\n%s", changed, mustEncode(t, current))
	}
}

func TestApplyValidates(t *testing.T) {
	current, _ := mustApply(t, nil, decodeDaemonSet(t, webYAML))
	_, _, err := Apply(current, decodeDaemonSet(t, strings.ReplaceAll(webYAML, "{app: web}", "{app: other}")))
	if err == nil || !strings.HasSuffix(err.Error(), "field is immutable") || err.(Errors)[0].Field != "spec.selector" {
		t.Errorf("got %v", err)
	}
	if _, _, err := Apply(current, mustDecode(t, cmYAML("web")).Objects[0]); err == nil {
		t.Error("a ConfigMap was applied to a DaemonSet")
	}
}

// The annotation is kubectl's to the letter, so that a user's kubectl apply or diff of the same file finds nothing to do.
func TestLastAppliedIsKubectls(t *testing.T) {
	for _, row := range corpusIndex(t) {
		name := row["local file"]
		for _, obj := range parse(name, corpusFile(t, name)).file.Objects {
			got := obj.GetAnnotations()[corev1.LastAppliedConfigAnnotation]
			var u unstructured.Unstructured
			if err := json.Unmarshal([]byte(got), &u.Object); err != nil {
				t.Fatal(err)
			}
			want, err := kubectlutil.GetModifiedConfiguration(&u, false, unstructured.UnstructuredJSONScheme)
			if err != nil || string(want) != got {
				t.Errorf("%s: %v\ngot  %s\nwant %s", name, err, got, want)
			}
		}
	}
	got := decodeDaemonSet(t, webYAML+"      tolerations: null\n      affinity: {}\n").Annotations[corev1.LastAppliedConfigAnnotation]
	want := `{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"annotations":{},"name":"web","namespace":"default"},` +
		`"spec":{"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},` +
		`"spec":{"affinity":{},"containers":[{"image":"busybox","name":"web"}],"tolerations":null}}}}` + "\n"
	if got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

func TestApplyTakesObjectsThatWereNotDecoded(t *testing.T) {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default"}, Data: map[string]string{"x": "1", "y": "2"}}
	current, _ := mustApply(t, nil, cm)
	merged, changed := mustApply(t, current, &corev1.ConfigMap{ObjectMeta: cm.ObjectMeta, Data: map[string]string{"x": "1"}})
	if data := merged.(*corev1.ConfigMap).Data; !changed || len(data) != 1 {
		t.Errorf("changed %v, data %v", changed, data)
	}
	if cm.Annotations != nil {
		t.Error("Apply changed its argument")
	}
}

func TestApplyFoldsStringData(t *testing.T) {
	var decode struct{ Data map[string]string }
	const text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: one}\n"
	current, _ := mustApply(t, nil, mustDecode(t, text).Objects[0])
	if _, changed := mustApply(t, current, mustDecode(t, text).Objects[0]); changed {
		t.Error("the same stringData is a change")
	}
	merged, changed := mustApply(t, current, mustDecode(t, strings.Replace(text, "one", "two", 1)).Objects[0])
	if err := yaml.Unmarshal(mustEncode(t, merged), &decode); err != nil || !changed || decode.Data["a"] != "dHdv" {
		t.Errorf("changed %v, data %v, %v", changed, decode.Data, err)
	}
}

// kubectl apply refuses objects that do not fit into the annotation; a file of that size replaces what is there.
func TestApplyReplacesWhatIsTooLargeForTheAnnotation(t *testing.T) {
	large := func(keys string) Object {
		return mustDecode(t, cmYAML("a")+"data:\n  large: "+strings.Repeat("x", 300<<10)+"\n"+keys).Objects[0]
	}
	current, _ := mustApply(t, nil, large("  a: \"1\"\n  b: \"2\"\n"))
	current.SetUID("u")
	merged, changed := mustApply(t, current, large("  b: \"3\"\n"))
	if data := merged.(*corev1.ConfigMap).Data; !changed || len(data) != 2 || data["b"] != "3" || merged.GetUID() != "u" {
		t.Errorf("changed %v, keys %d", changed, len(data))
	}
	if _, changed := mustApply(t, merged, large("  b: \"3\"\n")); changed {
		t.Error("the same file is a change")
	}
}

// kubectl creates these with empty values and removes them the next time.
func TestApplyOfNullsChangesNothing(t *testing.T) {
	for _, text := range []string{
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, labels: {x: }}\ndata:\n  key:\nbinaryData: {b: }\n",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: a, annotations: {x: }}\ndata:\n  key:\nstringData: {s: }\n",
		with("        resources: {limits: {cpu: }}\n        env:\n        args:\n      nodeSelector: {x: }\n      tolerations:\n"),
	} {
		obj := mustDecode(t, text).Objects[0]
		current, _ := mustApply(t, nil, obj)
		if again, changed := mustApply(t, current, obj); changed {
			t.Errorf("changed from %s\nto %s", mustEncode(t, current), mustEncode(t, again))
		}
	}
}
