package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/picketd/picket/agent"
)

// testLogger is a picket-logger that is there on every machine.
const testLogger = "/bin/true"

// wantDefaults is what comes out when nothing is set.
func wantDefaults(file string) agent.Config {
	c := agent.DefaultConfig()
	c.FillIn("host-01", func(string) bool { return false })
	c.File, c.Version, c.Runtime.LoggerPath = file, version, testLogger
	return c
}

// testSource is a source on a host called Host-01 where no other files are.
func testSource(t *testing.T, args ...string) *source {
	t.Helper()
	flags := pflag.NewFlagSet("picketd", pflag.ContinueOnError)
	s := newSource(flags)
	flags.SetNormalizeFunc(anyCase)
	s.hostname = func() (string, error) { return "Host-01", nil }
	s.exists = func(path string) bool { return path == testLogger }
	s.logger = func() string { return testLogger }
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return s
}

// write makes a configuration file and returns its path.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "picketd.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDecode(t *testing.T) {
	d := decode([]byte(`
node:
  name: host-01
  labels:
    topology.kubernetes.io/Zone: a   # case and dots stay
    version: 1.10
    on: yes
    empty:
  taints:
    - dedicated=gpu:NoSchedule
cluster: {join: [], gossipKeys: "", reapAfter: 1h30m}
api:
  listen:
runtime: &r
metrics: *r
log: {level: debug}
`))
	if len(d.problems) > 0 {
		t.Fatal(d.problems)
	}
	want := map[string]any{
		"node.name":   "host-01",
		"node.labels": map[string]string{"topology.kubernetes.io/Zone": "a", "version": "1.10", "on": "yes", "empty": ""},
		"node.taints": []string{"dedicated=gpu:NoSchedule"}, "cluster.join": []string(nil), "cluster.gossipKeys": "",
		"cluster.reapAfter": 90 * time.Minute, "log.level": "debug",
	}
	if !reflect.DeepEqual(d.values, want) {
		t.Errorf("values are %#v, want %#v", d.values, want)
	}
	for key, line := range map[string]int{"node.name": 3, "node.labels[version]": 6, "node.taints[0]": 10, "cluster.reapAfter": 11} {
		if d.lines[key] != line {
			t.Errorf("%s is in line %d, want %d", key, d.lines[key], line)
		}
	}
}

// badFiles are files and all that is said about them; FILE stands for the path.
var badFiles = []struct {
	name, text string
	want       []string
}{
	{"tabs", "node:\n\tname: a\n", []string{"FILE:2: is indented with a tab: YAML wants spaces"}},
	{"no YAML", "node: {name: a\n", []string{"FILE:1: is not YAML: did not find expected ',' or '}'"}},
	{"text", "hello\n", []string{`FILE:1: is "hello", not keys with values`}},
	{"a list", "- node\n", []string{"FILE:1: is a list, not keys with values"}},
	{"binary", "\x7fELF\x02\x01\x01\x00\x00\x00", []string{"FILE: is not YAML: control characters are not allowed"}},
	{"not UTF-8", "node: {name: \xff\xfe}", []string{"FILE: is not YAML: invalid leading UTF-8 octet"}},
	{"unknown keys", "node:\n  lables: {a: b}\n  colour: red\nlisten: x\nApi: {}\ndatadir: /d\n", []string{
		"FILE:2: node.lables: unknown key: did you mean node.labels?",
		"FILE:3: node.colour: unknown key; the keys here are name, labels, taints",
		"FILE:4: listen: unknown key: did you mean api.listen or metrics.listen?",
		"FILE:5: Api: unknown key: did you mean api?",
		"FILE:6: datadir: unknown key: did you mean dataDir?",
	}},
	{"duplicate keys", "log: {level: info}\nnode:\n  name: a\n  name: b\n  labels: {x: a, x: b}\nlog: {level: warn}\n", []string{
		"FILE:4: node.name: was given in line 3 already: keep one",
		"FILE:5: node.labels[x]: was given in line 5 already: keep one",
		"FILE:6: log: was given in line 1 already: keep one",
	}},
	{"wrong types", "node: [a]\ncluster:\n  join: 10.0.0.1:9745\n  reapAfter: 72\n  name: {a: b}\nruntime:\n  cniBin: {a: b}\n  podCIDR: []\nlog: info\n", []string{
		"FILE:1: node: is a list, not keys with values",
		`FILE:3: cluster.join: is "10.0.0.1:9745", not a list: write ["10.0.0.1:9745"]`,
		`FILE:4: cluster.reapAfter: "72" is not a duration: write numbers with units, such as 72h or 1h30m`,
		"FILE:5: cluster.name: is keys with values, not one value",
		"FILE:7: runtime.cniBin: is keys with values, not a list",
		"FILE:8: runtime.podCIDR: is a list, not one value",
		`FILE:9: log: is "info", not keys with values`,
	}},
	{"wrong elements", "node:\n  labels: [disktype=ssd]\n  taints:\n    - key: dedicated\n      effect: NoSchedule\n    -\n    - a=b:NoSchedule\n", []string{
		"FILE:2: node.labels: is a list, not keys with values, such as {disktype: ssd}",
		"FILE:4: node.taints[0]: is keys with values, not one value",
		"FILE:6: node.taints[1]: is empty",
	}},
	{"elements behind a wrong one, which would be counted wrongly", "node:\n  taints:\n  - [a]\n  - nonsense\n", []string{"FILE:3: node.taints[0]: is a list, not one value"}},
	{"a label with a list", "node: {labels: {a: [b]}}\n", []string{"FILE:1: node.labels[a]: is a list, not one value"}},
	{"a complex key", "? [a, b]\n: c\n", []string{"FILE:1: has a list for a key"}},
	{"two documents", "node: {name: a}\n---\nlog: {}\n", []string{"FILE:2: a second document begins here; a configuration is one"}},
	{"merge keys", "log: &l {level: info}\nnode:\n  <<: *l\n", []string{"FILE:3: node.<<: unknown key; the keys here are name, labels, taints"}},
	{"an alias of itself", "node: &a\n  labels: *a\n", []string{"FILE:1: node.labels[labels]: is keys with values, not one value"}},
	{"checks with their line", "node:\n  name: host_1\n  taints:\n    - a=b:NoSchedule\n    - nonsense\napi:\n\n  listen: here\n", []string{
		`FILE:5: node.taints[1]: taint "nonsense" is not key=value:Effect`,
		`FILE:8: api.listen: "here" is not IP:port, such as 127.0.0.1:9746`,
	}},
}

func TestBadFiles(t *testing.T) {
	for _, c := range badFiles {
		path := write(t, c.text)
		s := testSource(t, "--config="+path)
		file, err := s.read()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := strings.ReplaceAll(strings.Join(texts(s.resolve(file).problems), "\n"), path, "FILE")
		if c.name == "checks with their line" { // Kubernetes' own text is long
			got = got[strings.Index(got, "\n")+1:]
		}
		if want := strings.Join(c.want, "\n"); got != want {
			t.Errorf("%s:\n%s\nwant:\n%s", c.name, got, want)
		}
	}
}

func TestGoodFiles(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "comments": "# nothing\n", "an empty document": "---\n...\n", "null": "~\n", "empty sections": "node:\napi: {}\n", "a byte order mark": "\ufefflog: {level: info}\n",
	} {
		l := testSource(t).resolve(content{path: "/f", data: []byte(text)})
		if len(l.problems) > 0 {
			t.Errorf("%s: %v", name, l.problems)
		}
		if !reflect.DeepEqual(l.config, wantDefaults("/f")) {
			t.Errorf("%s: %+v, want the defaults", name, l.config)
		}
	}
}

func TestProblemsAreBounded(t *testing.T) {
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "\"k%d%s\u202e\": 1\n", i, strings.Repeat("ü", maxLine*9/10))
	}
	l := testSource(t).resolve(content{path: "/f", data: []byte(text.String())})
	if len(l.problems) != maxProblems+1 {
		t.Errorf("%d problems are told", len(l.problems))
	}
	for _, text := range texts(l.problems) {
		if len(text) > maxLine+10 || strings.ContainsRune(text, '\u202e') {
			t.Fatalf("a line of %d bytes: %.100q", len(text), text)
		}
	}
}

// FuzzConfig: nothing makes the reader panic, what it takes is what Check takes, and it finds the same the second time.
func FuzzConfig(f *testing.F) {
	for _, c := range badFiles {
		f.Add([]byte(c.text))
	}
	example, err := os.ReadFile("../../configs/picketd.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	f.Add(uncommented(example))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := testSource(t)
		l := s.resolve(content{path: "/f", data: data})
		if len(l.problems) == 0 && len(l.config.Check()) > 0 {
			t.Errorf("taken, though %v", l.config.Check())
		}
		if again := s.resolve(content{path: "/f", data: bytes.Clone(data)}); !slices.Equal(texts(l.problems), texts(again.problems)) || !reflect.DeepEqual(l.config, again.config) {
			t.Errorf("read twice: %v, then %v", l, again)
		}
		for _, text := range texts(l.problems) {
			if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) {
				t.Errorf("control characters in %q", text)
			}
		}
	})
}
