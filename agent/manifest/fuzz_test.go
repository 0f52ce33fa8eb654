package manifest

import (
	"bytes"
	"strings"
	"testing"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
)

// FuzzDecode: whatever a file holds, decoding ends without a panic, every error can be printed on a line of its own, and what is
// accepted survives being stored and being applied to itself.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		webYAML, cmYAML("a") + "---\n" + cmYAML("b"), "apiVersion: v1\nkind: List\nitems:\n- " + strings.TrimPrefix(indent(cmYAML("a")), "  "),
		`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"data":{"a":"YQ=="}}`,
		"a: &a [1]\nb: [*a, *a]\n", "--- # x\n...\n%YAML 1.1\n---\n", "\ufeffkind: Node\napiVersion: v1\nmetadata: {name: n}\nspec: {taints: [{key: a, effect: NoSchedule}]}\n",
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: prod, labels: {a: \"b\"}}\n", "x: *x", "<<: {kind: ConfigMap}\napiVersion: v1\n", "? [a]\n: b\n",
		strings.Replace(webYAML, "image: busybox\n", "image: busybox\n        resources: {limits: {cpu: 1e3, memory: 1Gi}}\n        volumeMounts: [{name: v, mountPath: /v}]\n      volumes: [{name: v, hostPath: {path: /}}]\n", 1),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Decode("x.yaml", data)
		if err != nil {
			for _, e := range err.(Errors) {
				if e.Line < 0 || e.Line > bytes.Count(data, []byte("\n"))+2 {
					t.Errorf("line %d of %d: %v", e.Line, bytes.Count(data, []byte("\n"))+1, e)
				}
			}
			return
		}
		for _, obj := range file.Objects {
			back, err := DecodeBody(mustEncode(t, obj))
			if err != nil || !apiequality.Semantic.DeepEqual(mustEncode(t, back), mustEncode(t, obj)) {
				t.Fatalf("%v\n%s\n%s", err, mustEncode(t, back), mustEncode(t, obj))
			}
			current, _, err := Apply(nil, obj)
			if err != nil {
				t.Fatal(err)
			}
			if again, changed, err := Apply(current, obj); err != nil || changed {
				t.Fatalf("%v\n%s\n%s", err, mustEncode(t, current), mustEncode(t, again))
			}
		}
	})
}
