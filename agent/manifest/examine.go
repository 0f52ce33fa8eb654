package manifest

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Warnings lists the fields that are set and will not be honoured. It takes the object as its author wrote it, or defaulted.
func Warnings(obj Object) []Warning {
	ds, ok := obj.(*appsv1.DaemonSet)
	if !ok {
		return nil
	}
	_, warnings := examine(ds)
	return warnings
}

// examine holds every field that is set against the rules of support.go.
func examine(ds *appsv1.DaemonSet) (field.ErrorList, []Warning) {
	e := examination{pod: &ds.Spec.Template.Spec, ref: RefOf(ds)}
	e.structure(reflect.ValueOf(*ds), "", nil)
	return e.refused, e.warnings
}

type examination struct {
	pod      *corev1.PodSpec
	ref      Ref
	refused  field.ErrorList
	warnings []Warning
}

// structure looks at the fields of a struct. pattern is the path with "[]" for indexes, as in the rules.
func (e *examination) structure(v reflect.Value, pattern string, path *field.Path) {
	t := v.Type()
	for i := range t.NumField() {
		name, inline := jsonName(t.Field(i))
		switch {
		case inline:
			e.structure(v.Field(i), pattern, path)
		case name != "" && !v.Field(i).IsZero():
			e.field(v, v.Field(i), join(pattern, name), below(path, name))
		}
	}
}

func below(path *field.Path, name string) *field.Path {
	if path == nil {
		return field.NewPath(name)
	}
	return path.Child(name)
}

// jsonName is a field's name in a manifest; inline is for embedded structs.
func jsonName(f reflect.StructField) (name string, inline bool) {
	name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
	if name == "-" {
		return "", false
	}
	return name, f.Anonymous && (name == "" || strings.Contains(opts, "inline"))
}

// field applies the rules to a field that is set, and looks below it when they leave that open.
func (e *examination) field(parent, v reflect.Value, pattern string, path *field.Path) {
	v = reflect.Indirect(v)
	if v.Kind() == reflect.Slice && v.Len() == 0 || v.Kind() == reflect.Map && v.Len() == 0 {
		return
	}
	for _, r := range rules[pattern] {
		if r.below || r.verdict == forbidden {
			return
		}
		if r.verdict == honoured || r.when != nil && !r.when(set{v.Interface(), parent.Interface(), e.pod}) {
			continue
		}
		if r.key == nil {
			e.report(r, path)
			return
		}
		for _, key := range stringKeys(v) {
			if r.key(key) {
				e.report(r, path.Key(key))
			}
		}
	}
	switch {
	case v.Kind() == reflect.Struct && !isLeaf(v.Type()):
		e.structure(v, pattern, path)
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		for i := range v.Len() {
			e.structure(v.Index(i), pattern+"[]", path.Index(i))
		}
	}
}

func stringKeys(m reflect.Value) []string {
	keys := make([]string, 0, m.Len())
	for _, key := range m.MapKeys() {
		keys = append(keys, key.String())
	}
	slices.Sort(keys)
	return keys
}

// isLeaf is for structs that a manifest writes as one value: quantities, times, IntOrString.
func isLeaf(t reflect.Type) bool { return reflect.PointerTo(t).Implements(unmarshaler) }

func (e *examination) report(r rule, path *field.Path) {
	if r.verdict == refused {
		e.refused = append(e.refused, field.Forbidden(path, fmt.Sprintf("picket cannot do this: %s", r.text)))
		return
	}
	e.warnings = append(e.warnings, Warning{Ref: e.ref, Field: path.String(), Text: r.text})
}
