package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"pgregory.net/rapid"
)

var configMaps = schema.GroupResource{Resource: "configmaps"}

// counter gives the resourceVersions of one agent.
func counter(agent uint64) func() uint64 {
	v := agent << 48
	return func() uint64 { v++; return v }
}

func configMap(namespace, name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string]string{"v": value}}
}

func selectAll(t testing.TB) selection {
	t.Helper()
	sel, err := newSelection(lookupGroupResource(configMaps), "", "", "")
	if err != nil {
		t.Fatal(err)
	}
	return sel
}

func TestCacheSetAndDelete(t *testing.T) {
	c := NewCache(counter(7))
	first := c.Set(configMaps, configMap("default", "a", "1"))
	if first.GetResourceVersion() != fmt.Sprint(7<<48+2) {
		t.Errorf("the first object has version %s", first.GetResourceVersion())
	}
	if gvk := first.GetObjectKind().GroupVersionKind(); gvk.Kind != "ConfigMap" || gvk.Version != "v1" {
		t.Errorf("the object says it is a %v", gvk)
	}
	if same := c.Set(configMaps, configMap("default", "a", "1")); same != first {
		t.Error("an equal object replaced the old one")
	}
	second := c.Set(configMaps, configMap("default", "a", "2"))
	if second == first || second.GetResourceVersion() == first.GetResourceVersion() {
		t.Error("a changed object was not taken")
	}
	if got := first.(*corev1.ConfigMap).Data["v"]; got != "1" {
		t.Errorf("the old object was changed to %q", got)
	}
	last := c.Delete(configMaps, "default", "a")
	if last.GetResourceVersion() <= second.GetResourceVersion() || second.GetResourceVersion() == last.GetResourceVersion() {
		t.Errorf("the deletion has version %s after %s", last.GetResourceVersion(), second.GetResourceVersion())
	}
	if _, ok := c.Get(configMaps, "default", "a"); ok {
		t.Error("the deleted object is still there")
	}
	if c.Delete(configMaps, "default", "a") != nil {
		t.Error("a missing object was deleted")
	}
}

func TestCacheList(t *testing.T) {
	c := NewCache(counter(1))
	for _, name := range []string{"b/x", "a/y", "a/x"} {
		ns, n, _ := strings.Cut(name, "/")
		cm := configMap(ns, n, "")
		cm.Labels = map[string]string{"n": n}
		c.Set(configMaps, cm)
	}
	names := func(objects []Object) (out []string) {
		for _, o := range objects {
			out = append(out, o.GetNamespace()+"/"+o.GetName())
		}
		return out
	}
	tests := []struct {
		namespace, label, field string
		want                    []string
	}{
		{"", "", "", []string{"a/x", "a/y", "b/x"}},
		{"a", "", "", []string{"a/x", "a/y"}},
		{"", "n=x", "", []string{"a/x", "b/x"}},
		{"", "n!=x", "metadata.namespace=a", []string{"a/y"}},
		{"", "", "metadata.name!=x", []string{"a/y"}},
		{"", "", "metadata.name=x,metadata.namespace=b", []string{"b/x"}},
	}
	for _, tt := range tests {
		label, _ := labels.Parse(tt.label)
		got := names(c.List(configMaps, tt.namespace, label, fields.ParseSelectorOrDie(tt.field)))
		if !slices.Equal(got, tt.want) {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

// The history keeps the newest changes within its bounds; a reader from before it is told to start over.
func TestHistoryIsBounded(t *testing.T) {
	c := NewCache(counter(1))
	start := c.version()
	c.Set(configMaps, configMap("", "a", "0"))
	if changes, _, _, err := c.changesSince(configMaps, start); err != nil || len(changes) != 1 {
		t.Fatalf("%d changes, %v", len(changes), err)
	}
	for i := range maxChanges {
		c.Set(configMaps, configMap("", "a", fmt.Sprint("v", i)))
	}
	if _, _, _, err := c.changesSince(configMaps, start); !apierrors.IsResourceExpired(err) {
		t.Errorf("a reader from before the history got %v", err)
	}
	if changes, _, _, err := c.changesSince(configMaps, start+1); err != nil || len(changes) != maxChanges {
		t.Errorf("the whole history: %d changes, %v", len(changes), err)
	}
	big := strings.Repeat("x", 1<<20)
	for i := range 8 {
		c.Set(configMaps, configMap("", "a", big+fmt.Sprint(i)))
	}
	h := c.kinds[configMaps].history
	if len(h.changes) > 4 || h.bytes > maxHistoryBytes {
		t.Errorf("the history holds %d changes of %d bytes", len(h.changes), h.bytes)
	}
	c.Set(configMaps, configMap("", "a", strings.Repeat("x", 2*maxHistoryBytes)))
	if n := len(c.kinds[configMaps].history.changes); n != 1 {
		t.Errorf("of changes that are too large the newest is kept, not %d", n)
	}
}

func TestForeignVersions(t *testing.T) {
	c := NewCache(counter(2))
	for _, version := range []uint64{5, 1<<48 + 1, 3<<48 + 1} {
		if _, _, _, err := c.changesSince(configMaps, version); !apierrors.IsResourceExpired(err) {
			t.Errorf("version %d of another agent: %v", version, err)
		}
		if _, err := c.snapshotAt(selectAll(t), version); !apierrors.IsResourceExpired(err) {
			t.Errorf("version %d of another agent: %v", version, err)
		}
	}
}

// At every version that the history reaches, the past can be listed, and the changes from there lead to the present.
func TestSnapshotAt(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := NewCache(counter(1))
		type state = map[string]string
		then := map[uint64]state{c.version(): {}}
		now := state{}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "name")
			if rapid.Bool().Draw(rt, "set") {
				now[name] = rapid.SampledFrom([]string{"1", "2"}).Draw(rt, "value")
				c.Set(configMaps, configMap("", name, now[name]))
			} else {
				delete(now, name)
				c.Delete(configMaps, "", name)
			}
			copied := state{}
			for k, v := range now {
				copied[k] = v
			}
			then[c.version()] = copied
		}
		for version, want := range then {
			objects, err := c.snapshotAt(selectAll(t), version)
			if err != nil {
				rt.Fatal(err)
			}
			got := state{}
			for _, o := range objects {
				got[o.GetName()] = o.(*corev1.ConfigMap).Data["v"]
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				rt.Fatalf("at %d: %v, want %v", version, got, want)
			}
			changes, _, _, err := c.changesSince(configMaps, version)
			if err != nil {
				rt.Fatal(err)
			}
			for _, ch := range changes {
				if ch.kind == watch.Deleted {
					delete(got, ch.object.GetName())
				} else {
					got[ch.object.GetName()] = ch.object.(*corev1.ConfigMap).Data["v"]
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(now) {
				rt.Fatalf("from %d: %v, want %v", version, got, now)
			}
		}
	})
}

func TestUnknownFieldsAreRefused(t *testing.T) {
	for _, r := range resources {
		if r.Table == nil {
			continue
		}
		obj, err := codecs.newObject(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range r.Fields.names {
			sel, err := newSelection(r, "", "", name+"!=x")
			if err != nil {
				t.Errorf("%s: %v", r.Name, err)
				continue
			}
			if _, ok := sel.fieldSet(obj)[name]; !ok {
				t.Errorf("%s: %s is accepted but has no value", r.Name, name)
			}
		}
		for name := range (selection{resource: r}).fieldSet(obj) {
			if !r.Fields.knows(name, true) {
				t.Errorf("%s: %s has a value but is refused", r.Name, name)
			}
		}
		if _, err := newSelection(r, "", "", "spec.nonsense=1"); err == nil {
			t.Errorf("%s: an unknown field was accepted", r.Name)
		}
	}
}
