package manifest

import (
	"bytes"
	"strings"
	"testing"
)

// FuzzDecode: whatever a file holds, decoding ends without a panic, every error can be printed on a line of its own, and what is
// accepted survives being stored and being applied to itself.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		webYAML, cmYAML("a") + "---\n" + cmYAML("b"), "apiVersion: v1\nkind: List\nitems:\n- " + strings.TrimPrefix(indent(cmYAML("a")), "  "),
		`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"data":{"a":"YQ=="}}`,
		"a: &a [1]\nb: [*a, *a]\n", "--- # x\n...\n%YAML 1.1\n---\n", "\ufeffkind: Node\napiVersion: v1\nmetadata: {name: n}\nspec: {taints: [{key: a, effect: NoSchedule}]}\n",
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: prod, labels: {a: \"b\"}}\n", "x: *x", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {\"0\"}}", "<<: {kind: ConfigMap}\napiVersion: v1\n", "? [a]\n: b\n",
		strings.Replace(webYAML, "image: busybox\n", "image: busybox\n        resources: {limits: {cpu: 1e3, memory: 1Gi}}\n        volumeMounts: [{name: v, mountPath: /v}]\n      volumes: [{name: v, hostPath: {path: /}}]\n", 1),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Decode("x.yaml", data)
		if err != nil {
			for _, e := range err.(Errors) {
				if e.Line < 0 || e.Line > lines(data) {
					t.Errorf("line %d of %d: %v", e.Line, lines(data), e)
				}
				if strings.ContainsAny(e.Error(), "\n\r\x1b") {
					t.Errorf("forged: %q", e.Error())
				}
			}
			return
		}
		for _, obj := range file.Objects {
			back, err := DecodeBody(mustEncode(t, obj))
			if err != nil || !bytes.Equal(mustEncode(t, back), mustEncode(t, obj)) {
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

// lines counts every character that ends a line in YAML, and one more: an error may be about the end of the text.
func lines(data []byte) int {
	n := 2
	for _, r := range string(data) {
		if strings.ContainsRune("\n\r\u0085\u2028\u2029", r) {
			n++
		}
	}
	return n
}
