package manifest

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

const webYAML = `apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: web
spec:
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: web
        image: busybox
`

func cmYAML(name string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: " + name + "\n"
}

func mustDecode(t testing.TB, text string) File {
	t.Helper()
	file, err := Decode("web.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\nin:\n%s", err, text)
	}
	return file
}

func decodeDaemonSet(t testing.TB, text string) *appsv1.DaemonSet {
	t.Helper()
	found := daemonSets(mustDecode(t, text))
	if len(found) != 1 {
		t.Fatalf("%d DaemonSets", len(found))
	}
	return found[0]
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  ") + "\n"
}

// All the ways in which people and tools write several documents into one file.
func TestDecodeFindsEveryDocument(t *testing.T) {
	a, b := cmYAML("a"), cmYAML("b")
	const aJSON = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}`
	const bJSON = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"}}`
	list := "apiVersion: v1\nkind: List\nitems:\n"
	item := func(text string) string { return "- " + strings.TrimPrefix(indent(text), "  ") }
	for name, text := range map[string]string{
		"plain":                     a + "---\n" + b,
		"leading separator":         "---\n" + a + "---\n" + b,
		"trailing separator":        a + "---\n" + b + "---\n",
		"many separators":           "---\n---\n" + a + "---\n\n---\n# nothing\n---\n" + b + "---\n---",
		"separator with a comment":  "--- # first\n" + a + "--- # second\n" + b,
		"separator with spaces":     "---   \n" + a + "---\t\n" + b,
		"comments around":           "# a\n\n" + a + "# between\n---\n# b\n" + b + "# end\n",
		"byte order mark":           "\ufeff" + a + "---\n" + b,
		"CRLF":                      strings.ReplaceAll("---\n"+a+"---\n"+b, "\n", "\r\n"),
		"no newline at the end":     a + "---\n" + strings.TrimSpace(b),
		"indented":                  indent(a) + "---\n" + indent(b),
		"document end":              a + "...\n---\n" + b + "...\n",
		"document end, no start":    a + "...\n" + b,
		"directive":                 "%YAML 1.1\n---\n" + a + "---\n" + b,
		"object after the marker":   "--- " + aJSON + "\n--- " + bJSON + "\n",
		"separator inside a string": a + "data:\n  x: |\n    ---\n    y\n---\n" + b,
		"JSON":                      aJSON + bJSON,
		"JSON lines":                aJSON + "\n" + bJSON + "\n",
		"JSON documents in YAML":    aJSON + "\n---\n" + bJSON + "\n",
		"list":                      list + item(a) + item(b),
		"list of lists":             list + item(list+item(a)) + item(b),
		"JSON list":                 `{"apiVersion":"v1","kind":"List","metadata":{"resourceVersion":""},"items":[` + aJSON + "," + bJSON + "]}",
		"typed list":                `{"apiVersion":"v1","kind":"ConfigMapList","metadata":{},"items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}]}`,
		"aliases":                   "apiVersion: v1\nkind: List\nitems:\n- &x {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n- <<: *x\n  metadata: {name: b}\n",
	} {
		t.Run(name, func(t *testing.T) {
			file := mustDecode(t, text)
			var got []string
			for _, obj := range file.Objects {
				got = append(got, RefOf(obj).String())
			}
			if fmt.Sprint(got) != "[configmap/default/a configmap/default/b]" {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestDecodeOfNothing(t *testing.T) {
	for _, text := range []string{"", "\n", "---\n", "# only a comment\n", "---\n...\n---\n# x\n", "\ufeff", "null\n", " \r\n---\r\n"} {
		if file := mustDecode(t, text); len(file.Objects)+len(file.Skipped) > 0 {
			t.Errorf("%q: got %+v", text, file)
		}
	}
}

func TestDecodeSkipsForeignKinds(t *testing.T) {
	file := mustDecode(t, "# rbac\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: fluentd}\nrules: []\n---\n"+webYAML+
		"---\napiVersion: apps.kruise.io/v1alpha1\nkind: DaemonSet\nmetadata: {name: other}\nwhat: ever\n")
	if len(file.Objects) != 1 || len(file.Skipped) != 2 {
		t.Fatalf("got %+v", file)
	}
	if got, want := file.Skipped[0].String(), "document 1 (line 2): ClusterRole fluentd (rbac.authorization.k8s.io/v1)"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if s := file.Skipped[1]; s.Document != 3 || s.Line != 22 || s.APIVersion != "apps.kruise.io/v1alpha1" {
		t.Errorf("got %+v", s)
	}
}

func TestDecodeFillsInTheNamespace(t *testing.T) {
	file := mustDecode(t, webYAML+"---\napiVersion: v1\nkind: Namespace\nmetadata: {name: prod}\n---\n"+cmYAML("x")+"  namespace: prod\n")
	for i, want := range []string{"daemonset/default/web", "namespace/prod", "configmap/prod/x"} {
		if got := RefOf(file.Objects[i]).String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// Every error names file, line and field, and all of them are told at once.
func TestDecodeErrors(t *testing.T) {
	broken := func(old, text string) string { return strings.Replace(webYAML, old, text, 1) }
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'm'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 10), ","))
	}
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"unknown fields", broken("        image: busybox", "        image: busybox\n        imagee: x\n      hostNetwrk: true"), []string{
			`web.yaml:15: daemonset/default/web: spec.template.spec.containers[0].imagee: unknown field`,
			`web.yaml:16: daemonset/default/web: spec.template.spec.hostNetwrk: unknown field`,
		}},
		{"wrong case", broken("metadata:\n  name", "Metadata:\n  name"), []string{`web.yaml:3: daemonset/default/: Metadata: unknown field`}},
		{"duplicate field", broken("      labels: {app: web}", "      labels: {app: web}\n      labels: {app: x}"), []string{
			`web.yaml:11: daemonset/default/web: spec.template.metadata.labels: duplicate field, first given in line 10`,
		}},
		{"duplicate label", broken("{app: web}\n  template", "{app: web, app: web}\n  template"), []string{
			`web.yaml:7: daemonset/default/web: spec.selector.matchLabels.app: duplicate field, first given in line 7`,
		}},
		{"duplicate in the second document", cmYAML("a") + "---\n" + broken("  name: web", "  name: web\n  name: web"), []string{
			`web.yaml:10: daemonset/default/web: metadata.name: duplicate field, first given in line 9`,
		}},
		{"duplicate in JSON", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},` + "\n" + `"data":{"x":"1","x":"2"}}`, []string{
			`web.yaml:2: configmap/default/a: data.x: duplicate field`,
		}},
		{"wrong types, all of them", broken("        image: busybox", "        image: 5\n        env: {a: b}\n        resources: {limits: {memory: 300Mx}}\n      hostNetwork: \"yes\""), []string{
			`web.yaml:15: daemonset/default/web: spec.template.spec.containers[0].env: must be a list, not an object`,
			`web.yaml:14: daemonset/default/web: spec.template.spec.containers[0].image: must be a string, not the number 5; write it in quotes`,
			`web.yaml:16: daemonset/default/web: spec.template.spec.containers[0].resources.limits[memory]: Invalid value: "300Mx": ` +
				`quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'`,
			`web.yaml:17: daemonset/default/web: spec.template.spec.hostNetwork: must be true or false, not the string "yes"`,
		}},
		{"an unquoted yes is a boolean", broken("        image: busybox", "        image: busybox\n        env: [{name: A, value: yes}]"), []string{
			`web.yaml:15: daemonset/default/web: spec.template.spec.containers[0].env[0].value: must be a string, not the boolean true; write it in quotes ` +
				`(in YAML also y, yes, on, n, no and off are booleans)`,
		}},
		{"secrets are not shown", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: hunter2!}\nstringData: {b: 12345}", []string{
			`web.yaml:4: secret/default/s: data[a]: illegal base64 data at input byte 7`,
			`web.yaml:5: secret/default/s: stringData[b]: must be a string`,
		}},
		{"validation", broken("  selector:\n    matchLabels: {app: web}\n", ""), []string{
			`web.yaml:5: daemonset/default/web: spec.selector: Required value`,
		}},
		{"no name", broken("  name: web\n", "  labels: {}\n"), []string{
			`web.yaml:3: daemonset/default/: metadata.name: Required value: name or generateName is required`,
		}},
		{"no kind", "apiVersion: v1\nmetadata: {name: x}\n", []string{`web.yaml:1: kind: Required value`}},
		{"no apiVersion", "\n---\n\nkind: ConfigMap\nmetadata: {name: x}\n", []string{`web.yaml:4: configmap/x: apiVersion: Required value`}},
		{"no object", "a string\n", []string{`web.yaml:1: the document is not an object with apiVersion and kind: must be an object, not the string "a string"`}},
		{"kind is a list", "apiVersion: v1\nkind: [ConfigMap]\n", []string{`web.yaml:1: kind: must be a string, not a list; write it in quotes`}},
		{"old DaemonSet", broken("apps/v1", "extensions/v1beta1"), []string{
			`web.yaml:1: daemonset/web: apiVersion: "extensions/v1beta1" is not served: write apiVersion: apps/v1 for a DaemonSet (there spec.selector is required)`,
		}},
		{"ConfigMap of another version", "apiVersion: v2\nkind: ConfigMap\nmetadata: {name: x}\n", []string{
			`web.yaml:1: configmap/x: apiVersion: "v2" is not served: write apiVersion: v1 for a ConfigMap`,
		}},
		{"malformed YAML", cmYAML("a") + "---\n" + broken("  selector:", " selector:\n   -"), []string{`web.yaml:13: yaml: did not find expected key`}},
		{"unclosed", "{apiVersion: v1", []string{`web.yaml:1: yaml: did not find expected ',' or '}'`}},
		{"tabs", "apiVersion: v1\n\tkind: ConfigMap\n", []string{`web.yaml:2: yaml: found a tab character that violates indentation`}},
		{"same object twice", cmYAML("a") + "---\n" + cmYAML("a"), []string{`web.yaml:6: configmap/default/a: is also in document 1 of this file; keep one`}},
		{"alias bomb", bomb, []string{"web.yaml:1: with its aliases written out the document is larger than 3 MiB"}},
		{"deep nesting", strings.Repeat("[", 100000), []string{"web.yaml:1: yaml: exceeded max depth of 10000"}},
		{"not text", "apiVersion: \xff", []string{"web.yaml: is not UTF-8 text"}},
		{"UTF-16", "\xff\xfea\x00", []string{"web.yaml: is UTF-16; save it as UTF-8"}},
		{"large document", cmYAML("a") + "data:\n  x: " + strings.Repeat("x", 4<<20), []string{"web.yaml:1: the document has 4.0 MiB; at most 3 MiB are read"}},
		{"large file", strings.Repeat(cmYAML("a")+"---\n", 200_000), []string{"web.yaml: the file has 10.5 MiB; at most 8 MiB are read"}},
		{"error in a list", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: a}\n  dada: {}\nsurplus: 1\n", []string{
			"web.yaml:8: list/: surplus: unknown field", "web.yaml:7: configmap/default/a: dada: unknown field",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Decode("web.yaml", []byte(c.text))
			if want := strings.Join(c.want, "\n"); err == nil || err.Error() != want {
				t.Errorf("got\n%v\nwant\n%s", err, want)
			}
		})
	}
}

func TestErrorsAreBounded(t *testing.T) {
	_, err := Decode("web.yaml", []byte(strings.Repeat("---\nkind: x\n", 100_000)))
	errs := err.(Errors)
	if len(errs) != maxErrors+1 || errs[maxErrors].Error() != "web.yaml: there is more; the first 100 errors are shown" {
		t.Errorf("%d errors, last %v", len(errs), errs[len(errs)-1])
	}
}

func TestJSONFileIsJudgedAsJSON(t *testing.T) {
	_, err := Decode("web.json", []byte("{\"apiVersion\": \"v1\",\n\"kind\": ConfigMap}"))
	if err == nil || err.Error() != "web.json: line 2: invalid character 'C' looking for beginning of value" {
		t.Errorf("got %v", err)
	}
}

func TestMessagesCannotBeForged(t *testing.T) {
	_, err := Decode("x.yaml\nERROR everything is lost\x1b[2J", []byte("kind: \"a\\nb\"\napiVersion: v1\nmetadata: []"))
	if err == nil || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("got %q", err)
	}
}

func TestWarningsHaveLines(t *testing.T) {
	file := mustDecode(t, cmYAML("a")+"---\n"+webYAML+"        stdinOnce: true\n      serviceAccount: robot\n")
	var got []string
	for _, w := range file.Warnings {
		got = append(got, fmt.Sprintf("%d %s %s", w.Line, w.Ref, w.Field))
	}
	want := "[20 daemonset/default/web spec.template.spec.containers[0].stdinOnce 21 daemonset/default/web spec.template.spec.serviceAccount]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v", got)
	}
}

func TestDecodeObject(t *testing.T) {
	const body = `{"kind":"DaemonSet","apiVersion":"apps/v1","metadata":{"name":"x","name":"x"},"spec":{"foo":1}}`
	const unknown, twice = `unknown field "spec.foo"`, `duplicate field "metadata.name"`
	if _, _, err := DecodeObject("request body", KindDaemonSet, []byte(body), Strict); err == nil || err.Error() != "strict decoding error: "+twice+", "+unknown {
		t.Errorf("Strict: got %v", err)
	}
	obj, warnings, err := DecodeObject("request body", KindDaemonSet, []byte(body), Warn)
	if err != nil || fmt.Sprint(warnings) != "["+twice+" "+unknown+"]" || obj.GetName() != "x" || obj.GetNamespace() != "" {
		t.Errorf("Warn: got %v %v %v", obj, warnings, err)
	}
	if _, warnings, err := DecodeObject("request body", KindDaemonSet, []byte(body), Ignore); err != nil || warnings != nil {
		t.Errorf("Ignore: got %v %v", warnings, err)
	}
	if _, _, err := DecodeObject("request body", KindSecret, []byte(body), Ignore); err == nil || !strings.Contains(err.Error(), "Kind=DaemonSet, not") {
		t.Errorf("other kind: got %v", err)
	}
	_, _, err = DecodeObject("request body", KindConfigMap, []byte(`{"data":5}`), Ignore)
	if err == nil || !strings.HasPrefix(err.Error(), `ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into`) {
		t.Errorf("wrong type: got %v", err)
	}
	obj, _, err = DecodeObject("request body", KindConfigMap, []byte(`{"metadata":{"name":"bare"}}`), Strict)
	if _, ok := obj.(*corev1.ConfigMap); err != nil || !ok || obj.GetObjectKind().GroupVersionKind().Kind != KindConfigMap {
		t.Errorf("body without kind: got %v %v", obj, err)
	}
}
