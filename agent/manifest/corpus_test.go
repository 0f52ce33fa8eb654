package manifest

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The corpus lies beside the repository: manifests as their own projects publish them.
const corpus = "../../../shared/corpus"

func corpusFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(corpus, name))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("the corpus of real manifests (%s) is not here", corpus)
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func corpusIndex(t *testing.T) (rows []map[string]string) {
	lines := strings.Split(strings.TrimSpace(string(corpusFile(t, "INDEX.tsv"))), "\n")
	names := strings.Split(lines[0], "\t")
	for _, line := range lines[1:] {
		row := map[string]string{}
		for i, value := range strings.Split(line, "\t") {
			row[names[i]] = value
		}
		rows = append(rows, row)
	}
	return rows
}

func daemonSets(f File) (found []*appsv1.DaemonSet) {
	for _, obj := range f.Objects {
		if ds, ok := obj.(*appsv1.DaemonSet); ok {
			found = append(found, ds)
		}
	}
	return found
}

// Strict decoding says what the index says; what is wrong then is wrong by validation, and names a field.
func TestCorpus(t *testing.T) {
	rows := corpusIndex(t)
	decoded, runnable := 0, 0
	for _, row := range rows {
		name := row["local file"]
		t.Run(name, func(t *testing.T) {
			data := corpusFile(t, name)
			strict := parse(name, data)
			if row["strict_decode"] != "ok" {
				wantDuplicate(t, strict.errs)
				return
			}
			if len(strict.errs) > 0 {
				t.Fatalf("strict decoding:\n%v", strict.errs)
			}
			if len(daemonSets(strict.file)) != 1 {
				t.Fatalf("%d DaemonSets", len(daemonSets(strict.file)))
			}
			decoded++
			file, err := Decode(name, data)
			refusedPaths, ok := paths(t, err)
			if !ok {
				runnable++
			}
			t.Logf("refused %v", refusedPaths)
			for _, w := range file.Warnings {
				if w.Field == "" || w.Line == 0 || w.Text == "" {
					t.Errorf("warning without field, line or text: %+v", w)
				}
				t.Logf("warned  %s: %s", w.Field, w.Text)
			}
			for _, s := range file.Skipped {
				t.Logf("skipped %s", s)
			}
			wantRefusals(t, name, refusedPaths)
		})
	}
	t.Logf("%d files: %d decode strictly, %d are accepted", len(rows), decoded, runnable)
}

func paths(t *testing.T, err error) (found []string, failed bool) {
	if err == nil {
		return nil, false
	}
	for _, e := range err.(Errors) {
		if e.Field == "" || e.Line == 0 {
			t.Errorf("error without field or line: %v", e)
		}
		found = append(found, e.Field)
	}
	return found, true
}

func wantDuplicate(t *testing.T, errs Errors) {
	if len(errs) != 1 || errs[0].Field != "spec.template.spec.hostNetwork" || errs[0].Line != 46 ||
		errs[0].Text != "duplicate field, first given in line 39" {
		t.Errorf("got %v", errs)
	}
}

// wantRefusals: only volumes that need a driver, devices that need a plugin, and what no API server would take are refused.
func wantRefusals(t *testing.T, name string, refused []string) {
	if strings.Contains(name, "xpumanager") {
		want := []string{"spec.selector", "spec.template.spec.containers[0].image", "spec.template.spec.containers[1].image"}
		if !slices.Contains(refused, "spec.selector") {
			t.Errorf("refused %v, want %v", refused, want)
		}
		return
	}
	for _, path := range refused {
		if !strings.HasSuffix(path, "resources.limits[sgx.intel.com/epc]") {
			t.Errorf("refused for %s", path)
		}
	}
}

// Nothing in the manifest that has every field of the API is ignored in silence.
func TestReferenceManifestIsNeverIgnoredInSilence(t *testing.T) {
	p := parse("reference", corpusFile(t, "reference/kubernetes__api__testdata__HEAD__apps.v1.DaemonSet.yaml"))
	if len(p.errs) > 0 {
		t.Fatal(p.errs)
	}
	ds := p.file.Objects[0].(*appsv1.DaemonSet)
	told := map[string]bool{}
	for _, w := range Warnings(ds) {
		told[w.Field] = true
	}
	for _, e := range Validate(defaulted(ds), nil) {
		told[e.Field] = true
	}
	checked := 0
	walkSet(reflect.ValueOf(*ds), "", nil, func(pattern string, path *field.Path) (descend bool) {
		verdictOf := rules[pattern]
		if len(verdictOf) == 0 {
			return true
		}
		for _, r := range verdictOf {
			if r.verdict == honoured || r.key != nil {
				return !r.below
			}
		}
		checked++
		if !told[path.String()] && !quiet[path.String()] {
			t.Errorf("%s is set and not honoured, and nothing said so", path)
		}
		return false
	})
	if checked < 60 {
		t.Errorf("only %d fields that are not honoured were found", checked)
	}
}

func defaulted[T Object](obj T) T {
	o := obj.DeepCopyObject().(T)
	Default(o)
	return o
}

// quiet are fields whose value in the reference manifest happens to be one that is honoured.
var quiet = map[string]bool{
	"spec.template.spec.hostUsers": true, // true
}

func walkSet(v reflect.Value, pattern string, path *field.Path, visit func(string, *field.Path) bool) {
	v = reflect.Indirect(v)
	for i := range v.NumField() {
		name, inline := jsonName(v.Type().Field(i))
		value := reflect.Indirect(v.Field(i))
		if inline {
			walkSet(value, pattern, path, visit)
			continue
		}
		if !value.IsValid() || value.IsZero() || !visit(join(pattern, name), below(path, name)) {
			continue
		}
		switch {
		case value.Kind() == reflect.Struct && !isLeaf(value.Type()):
			walkSet(value, join(pattern, name), below(path, name), visit)
		case value.Kind() == reflect.Slice && value.Type().Elem().Kind() == reflect.Struct:
			for j := range value.Len() {
				walkSet(value.Index(j), join(pattern, name)+"[]", below(path, name).Index(j), visit)
			}
		}
	}
}

// Every field of the API's types has a verdict; a new field of a new version of Kubernetes fails here until it gets one.
func TestEveryFieldHasAVerdict(t *testing.T) {
	used := map[string]bool{}
	walkTypes(reflect.TypeFor[appsv1.DaemonSet](), "", func(pattern string, leaf bool) (descend bool) {
		for _, r := range rules[pattern] {
			used[pattern] = true
			if r.verdict != honoured && r.text == "" && r.verdict != forbidden {
				t.Errorf("%s: the rule does not say what happens instead", pattern)
			}
			if r.below || leaf || r.verdict == forbidden || r.verdict != honoured && r.when == nil && r.key == nil {
				return false
			}
		}
		if leaf {
			t.Errorf("no rule says what becomes of %s", pattern)
		}
		return true
	})
	for pattern := range rules {
		if !used[pattern] {
			t.Errorf("the rule for %s is about no field of the API", pattern)
		}
	}
}

func walkTypes(typ reflect.Type, pattern string, visit func(string, bool) bool) {
	for i := range typ.NumField() {
		name, inline := jsonName(typ.Field(i))
		t := typ.Field(i).Type
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if inline {
			walkTypes(t, pattern, visit)
			continue
		}
		at, elem := join(pattern, name), t
		if t.Kind() == reflect.Slice {
			elem = t.Elem()
		}
		leaf := elem.Kind() != reflect.Struct || isLeaf(elem)
		if !visit(at, leaf) || leaf {
			continue
		}
		if t.Kind() == reflect.Slice {
			at += "[]"
		}
		walkTypes(elem, at, visit)
	}
}
