package daemonset

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation"
)

func image(name string) func(*appsv1.DaemonSet) {
	return func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = name }
}

// after applies the images one after the other.
func after(images ...string) []*appsv1.ControllerRevision {
	var history []*appsv1.ControllerRevision
	for _, i := range images {
		history = NextHistory(history, makeDS(image(i)), nil)
	}
	return history
}

// shown is a history in short: "1=busybox:1 2=busybox:2".
func shown(t *testing.T, history []*appsv1.ControllerRevision) string {
	t.Helper()
	var out []string
	for _, r := range history {
		template, err := Template(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%d=%s", r.Revision, template.Spec.Containers[0].Image))
	}
	return strings.Join(out, " ")
}

func TestNextHistory(t *testing.T) {
	for _, c := range []struct {
		name   string
		images []string
		want   string
	}{
		{"first", []string{"a"}, "1=a"},
		{"same again", []string{"a", "a"}, "1=a"},
		{"another", []string{"a", "b"}, "1=a 2=b"},
		{"back: renumbered", []string{"a", "b", "a"}, "2=b 3=a"},
		{"back and forth", []string{"a", "b", "a", "b", "c", "a"}, "4=b 5=c 6=a"},
	} {
		if got := shown(t, after(c.images...)); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func TestRenumberedRevisionKeepsItsIdentity(t *testing.T) {
	before := after("a", "b")
	first := before[0].DeepCopy()
	again := NextHistory(before, makeDS(image("a"), func(ds *appsv1.DaemonSet) { ds.Annotations = map[string]string{"kubernetes.io/change-cause": "back"} }), nil)
	current := again[len(again)-1]
	if current.Name != first.Name || RevisionHash(current) != RevisionHash(first) || current.UID != first.UID || current.Revision != 3 {
		t.Errorf("got %s %s revision %d, want %s %s revision 3", current.Name, current.UID, current.Revision, first.Name, first.UID)
	}
	if before[0].Revision != 1 {
		t.Error("the old history was changed")
	}
}

// TestRevisionData pins the bytes that Kubernetes would write for the same template: rollout undo compares and sends them.
func TestRevisionData(t *testing.T) {
	ds := makeDS(func(ds *appsv1.DaemonSet) {
		ds.Spec.Template.Spec.Containers[0].Args = []string{"a<b && c"}
		ds.Spec.Template.Spec.Containers[0].LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(8080)}}}
		ds.Spec.Template.Spec.TerminationGracePeriodSeconds = new(int64(30))
	})
	got := string(NextHistory(nil, ds, nil)[0].Data.Raw)
	want := `{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"app":"web"}},` +
		`"spec":{"containers":[{"args":["a\u003cb \u0026\u0026 c"],"image":"busybox:1","livenessProbe":{"httpGet":{"port":8080}},"name":"c","resources":{}}],` +
		`"terminationGracePeriodSeconds":30}}}}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestRevisionGoesThroughKubectlUndo does what kubectl rollout undo does: it merges the data into the DaemonSet.
func TestRevisionGoesThroughKubectlUndo(t *testing.T) {
	old := makeDS(image("a"), tolerating(toleration("")))
	history := NextHistory(nil, old, nil)
	history = NextHistory(history, makeDS(image("b"), selecting("disktype", "ssd")), nil)

	current, err := revisionJSON(makeDS(image("b"), selecting("disktype", "ssd")))
	if err != nil {
		t.Fatal(err)
	}
	patched, err := strategicpatch.StrategicMergePatch(current, history[0].Data.Raw, &appsv1.DaemonSet{})
	if err != nil {
		t.Fatal(err)
	}
	undone := &appsv1.DaemonSet{}
	if err := readJSON(patched, undone); err != nil {
		t.Fatal(err)
	}
	assertEqual(t, undone.Spec.Template, old.Spec.Template)
	if got := shown(t, NextHistory(history, undone, nil)); got != "2=b 3=a" {
		t.Errorf("got %s", got)
	}
}

func TestTemplateRoundTrip(t *testing.T) {
	ds := makeDS(tolerating(toleration("", 5)), affinity(term("zone", corev1.NodeSelectorOpIn, "a")))
	got, err := Template(NextHistory(nil, ds, nil)[0])
	if err != nil {
		t.Fatal(err)
	}
	assertEqual(t, *got, ds.Spec.Template)
}

func TestTemplateOfDamagedRevision(t *testing.T) {
	for data, want := range map[string]string{
		``:                            "cannot read the pod template of revision web-x: ",
		`{"spec":{}}`:                 "cannot read the pod template of revision web-x: its data has no spec.template",
		`{"spec":{"template":"all"}}`: "cannot read the pod template of revision web-x: ",
	} {
		rev := &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Name: "web-x"}}
		rev.Data.Raw = []byte(data)
		if _, err := Template(rev); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", data, err, want)
		}
		if _, err := NewPod(makeDS(), rev, makeNode(nil), 1); err == nil {
			t.Errorf("%q: a pod was made of it", data)
		}
	}
}

func TestRevisionObject(t *testing.T) {
	ds := makeDS(func(ds *appsv1.DaemonSet) {
		ds.Annotations = map[string]string{"kubernetes.io/change-cause": "first", corev1.LastAppliedConfigAnnotation: "{}"}
	})
	rev := NextHistory(nil, ds, nil)[0]
	hash := RevisionHash(rev)
	if rev.Name != "web-"+hash || rev.Namespace != "default" || hash == "" || rev.UID == "" {
		t.Errorf("got %s/%s, hash %q, uid %q", rev.Namespace, rev.Name, hash, rev.UID)
	}
	if strings.Trim(hash, "bcdfghjklmnpqrstvwxz2456789") != "" || len(validation.IsValidLabelValue(hash)) > 0 {
		t.Errorf("hash %q is not in Kubernetes' style", hash)
	}
	selector, err := metav1.LabelSelectorAsSelector(ds.Spec.Selector)
	if err != nil {
		t.Fatal(err)
	}
	if !selector.Matches(labelSet(rev.Labels)) || !metav1.IsControlledBy(rev, ds) {
		t.Errorf("kubectl would not find it: labels %v, owners %v", rev.Labels, rev.OwnerReferences)
	}
	if len(rev.Annotations) != 1 || rev.Annotations["kubernetes.io/change-cause"] != "first" {
		t.Errorf("annotations: got %v, want the change cause only", rev.Annotations)
	}
	if len(ds.Spec.Template.Labels) != 1 || len(ds.Annotations) != 2 {
		t.Errorf("the DaemonSet was changed: %v, %v", ds.Spec.Template.Labels, ds.Annotations)
	}
}

// TestHashCollision: another template has taken the hash; the new one gets another name, and keeps it.
func TestHashCollision(t *testing.T) {
	ds := makeDS(image("b"))
	hash := RevisionHash(NextHistory(nil, ds, nil)[0])
	squatter := after("a")[0].DeepCopy()
	squatter.Name, squatter.Labels[appsv1.ControllerRevisionHashLabelKey] = "web-"+hash, hash
	history := NextHistory([]*appsv1.ControllerRevision{squatter}, ds, nil)
	if got := shown(t, history); got != "1=a 2=b" {
		t.Fatalf("got %s", got)
	}
	other := RevisionHash(history[1])
	if other == hash || history[1].Name != "web-"+other {
		t.Errorf("got %s with hash %s; %s is taken", history[1].Name, other, hash)
	}
	again := NextHistory(history[1:], ds, nil) // the squatter has been dropped
	if RevisionHash(again[0]) != other {
		t.Errorf("the stored identity changed from %s to %s", other, RevisionHash(again[0]))
	}
}

func TestHistoryLimit(t *testing.T) {
	limited := func(n int32) func(*appsv1.DaemonSet) {
		return func(ds *appsv1.DaemonSet) { ds.Spec.RevisionHistoryLimit = &n }
	}
	history := after("a", "b", "c", "d", "e")
	for _, c := range []struct {
		name  string
		limit func(*appsv1.DaemonSet)
		live  []string
		want  string
	}{
		{"within", limited(5), nil, "1=a 2=b 3=c 4=d 5=e 6=f"},
		{"oldest first", limited(2), nil, "4=d 5=e 6=f"},
		{"none but the current", limited(0), nil, "6=f"},
		{"one that runs stays, by hash", limited(2), []string{RevisionHash(history[0])}, "1=a 5=e 6=f"},
		{"by name", limited(2), []string{history[1].Name, "web-gone"}, "2=b 5=e 6=f"},
		{"more run than are kept", limited(1), []string{history[0].Name, history[1].Name, history[2].Name}, "1=a 2=b 3=c 6=f"},
		{"default 10", func(ds *appsv1.DaemonSet) { ds.Spec.RevisionHistoryLimit = nil }, nil, "1=a 2=b 3=c 4=d 5=e 6=f"},
	} {
		if got := shown(t, NextHistory(history, makeDS(image("f"), c.limit), c.live)); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

// TestTwinsOfTheCurrentRevision: two revisions with the same bytes (two hosts wrote at once) become one; a twin that still
// runs waits until its pods are gone.
func TestTwinsOfTheCurrentRevision(t *testing.T) {
	twin := after("a")[0].DeepCopy()
	twin.Name, twin.Labels[appsv1.ControllerRevisionHashLabelKey], twin.Revision = "web-twin", "twin", 2
	history := []*appsv1.ControllerRevision{twin, after("a")[0]}
	got := NextHistory(history, makeDS(image("a")), nil)
	if len(got) != 1 || got[0].Name != "web-twin" {
		t.Errorf("got %s, want the one with the higher number only", shown(t, got))
	}
	got = NextHistory(history, makeDS(image("a")), []string{RevisionHash(history[1])})
	if shown(t, got) != "1=a 2=a" || history[0] != twin {
		t.Errorf("got %s, want both", shown(t, got))
	}
}

func TestImpossibleTemplateLeavesTheHistory(t *testing.T) {
	ds := makeDS(func(ds *appsv1.DaemonSet) {
		ds.Spec.Template.Spec.Containers[0].Ports = []corev1.ContainerPort{{}}
		ds.Spec.Template.Spec.Containers[0].LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.IntOrString{Type: 7}}}}
	})
	history := after("a", "b")
	if got := NextHistory(history, ds, nil); !slices.Equal(got, history) {
		t.Errorf("got %s", shown(t, got))
	}
}
