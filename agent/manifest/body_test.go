package manifest

import (
	"bytes"
	"maps"
	"reflect"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"
)

var (
	word  = rapid.StringMatching(`[a-z]([a-z0-9]{0,8}[a-z0-9])?`)
	text  = rapid.StringOf(rapid.RuneFrom([]rune("ab: -#'\"{}[]\n\t\\é☃<>&*!|%@`0123456789")))
	words = rapid.MapOfN(word, word, 1, 4)
)

// objects draws valid objects of all kinds.
func objects() *rapid.Generator[Object] {
	return rapid.Custom(func(t *rapid.T) Object {
		k := rapid.SampledFrom(kinds).Draw(t, "kind")
		obj := k.new()
		obj.SetName(word.Draw(t, "name"))
		if k.namespaced {
			obj.SetNamespace(word.Draw(t, "namespace"))
		}
		obj.SetLabels(words.Draw(t, "labels"))
		obj.SetAnnotations(rapid.MapOfN(word, text, 1, 3).Draw(t, "annotations"))
		switch o := obj.(type) {
		case *appsv1.DaemonSet:
			o.Spec = daemonSetSpec(t)
		case *corev1.ConfigMap:
			o.Data = rapid.MapOfN(word, text, 1, 4).Draw(t, "data")
		case *corev1.Secret:
			o.Data = rapid.MapOfN(word, rapid.SliceOf(rapid.Byte()), 1, 4).Draw(t, "data")
		case *corev1.Node:
			o.Spec.Taints = []corev1.Taint{{Key: word.Draw(t, "key"), Effect: corev1.TaintEffectNoExecute}}
		}
		return obj
	})
}

func daemonSetSpec(t *rapid.T) appsv1.DaemonSetSpec {
	labels := words.Draw(t, "selector")
	spec := corev1.PodSpec{
		HostNetwork: rapid.Bool().Draw(t, "hostNetwork"),
		Containers: []corev1.Container{{
			Name: word.Draw(t, "container"), Image: word.Draw(t, "image"), Args: rapid.SliceOfN(text, 1, 3).Draw(t, "args"),
			Env:       []corev1.EnvVar{{Name: word.Draw(t, "env"), Value: text.Draw(t, "value")}},
			Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: *resource.NewQuantity(rapid.Int64Range(0, 1<<40).Draw(t, "memory"), resource.BinarySI)}},
		}},
		Volumes:                       []corev1.Volume{{Name: word.Draw(t, "volume")}},
		TerminationGracePeriodSeconds: rapid.Ptr(rapid.Int64Range(0, 100), true).Draw(t, "grace"),
	}
	return appsv1.DaemonSetSpec{
		MinReadySeconds: rapid.Int32Range(0, 100).Draw(t, "minReadySeconds"),
		Selector:        &metav1.LabelSelector{MatchLabels: labels},
		Template:        corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec},
		UpdateStrategy: appsv1.DaemonSetUpdateStrategy{RollingUpdate: &appsv1.RollingUpdateDaemonSet{
			MaxUnavailable: ptr.To(rapid.SampledFrom([]intstr.IntOrString{intstr.FromInt32(3), intstr.FromString("20%")}).Draw(t, "maxUnavailable")),
		}},
	}
}

func copyOf(obj Object) Object { return obj.DeepCopyObject().(Object) }

func mustEncode(t testing.TB, obj Object) []byte {
	body, err := Encode(obj)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestEncodedObjectsComeBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		obj := objects().Draw(rt, "object")
		body := mustEncode(t, obj)
		back, err := DecodeBody(body)
		if err != nil || !apiequality.Semantic.DeepEqual(back, obj) {
			rt.Fatalf("DecodeBody: %v\ngot  %+v\nwant %+v", err, back, obj)
		}
		if again := mustEncode(t, back); !bytes.Equal(again, body) {
			rt.Fatalf("encoded anew:\n%s\n%s", again, body)
		}
		file, err := Decode("x.json", body)
		if err != nil || len(file.Objects) != 1 {
			rt.Fatalf("Decode: %v %v", file, err)
		}
		decoded := file.Objects[0]
		annotations := maps.Clone(decoded.GetAnnotations())
		delete(annotations, corev1.LastAppliedConfigAnnotation)
		decoded.SetAnnotations(annotations)
		if !apiequality.Semantic.DeepEqual(decoded, obj) {
			rt.Fatalf("Decode: got %+v\nwant %+v", decoded, obj)
		}
	})
}

func TestHashIsOfWhatTheUserWrote(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		obj := objects().Draw(rt, "object")
		want := Hash(obj)
		same := copyOf(obj)
		same.SetUID("x")
		same.SetResourceVersion("5")
		same.SetGeneration(7)
		same.SetCreationTimestamp(metav1.Now())
		same.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "m"}})
		annotations := maps.Clone(same.GetAnnotations())
		annotations[corev1.LastAppliedConfigAnnotation] = "{}"
		same.SetAnnotations(annotations)
		if ds, ok := same.(*appsv1.DaemonSet); ok {
			ds.Status.NumberReady = 3
		}
		Default(same)
		if Hash(same) != want {
			rt.Fatal("the server's fields and defaults count")
		}
		other := copyOf(obj)
		labels := maps.Clone(other.GetLabels())
		labels["one"] = "more"
		other.SetLabels(labels)
		if Hash(other) == want {
			rt.Fatal("a label does not count")
		}
		if before := mustEncode(t, obj); !bytes.Equal(before, mustEncode(t, obj)) {
			rt.Fatal("Hash changed its argument")
		}
	})
}

func TestHashDoesNotDependOnTheOrderOfKeys(t *testing.T) {
	a := mustDecode(t, webYAML).Objects[0]
	b := mustDecode(t, `{"spec":{"template":{"spec":{"containers":[{"image":"busybox","name":"web"}],"restartPolicy":"Always"},"metadata":{"creationTimestamp":null,`+
		`"labels":{"app":"web"}}},"selector":{"matchLabels":{"app":"web"}}},"status":{},"metadata":{"namespace":"default","name":"web"},"kind":"DaemonSet","apiVersion":"apps/v1"}`).Objects[0]
	if Hash(a) != Hash(b) {
		t.Errorf("\n%s\n%s", mustEncode(t, a), mustEncode(t, b))
	}
}

func TestEncodeLeavesOutWhatTheStoreAdds(t *testing.T) {
	ds := decodeDaemonSet(t, webYAML)
	ds.UID, ds.ResourceVersion, ds.Generation, ds.Status.NumberReady = "u", "1", 4, 3
	ds.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	ds.CreationTimestamp = metav1.Unix(1000, 0)
	body := string(mustEncode(t, ds))
	for _, gone := range []string{"uid", "resourceVersion", "generation", "status", "numberReady"} {
		if strings.Contains(body, `"`+gone+`"`) {
			t.Errorf("%s is in %s", gone, body)
		}
	}
	for _, kept := range []string{"managedFields", "creationTimestamp", corev1.LastAppliedConfigAnnotation} {
		if !strings.Contains(body, `"`+kept+`"`) {
			t.Errorf("%s is not in %s", kept, body)
		}
	}
}

func TestDecodeBodyErrors(t *testing.T) {
	for _, body := range []string{"", "{", "[]", `{"kind":"Pod","apiVersion":"v1"}`, `{"kind":"ConfigMap","apiVersion":"v1","data":5}`} {
		if obj, err := DecodeBody([]byte(body)); err == nil {
			t.Errorf("%q: got %v", body, obj)
		}
	}
}

func TestRefOf(t *testing.T) {
	for _, k := range kinds {
		obj := k.create()
		obj.SetName("x")
		if ref := RefOf(obj); ref != (Ref{Kind: k.name, Name: "x"}) || reflect.TypeOf(obj).Elem().Name() != k.name {
			t.Errorf("got %v", ref)
		}
	}
}
