package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/picketd/picket/agent"
)

// yamlOf writes one key of a file.
func yamlOf(k key, text string) string {
	section, name, nested := strings.Cut(k.name, ".")
	value := text
	switch k.kind.Kind() {
	case reflect.Slice:
		value = "[" + text + "]"
	case reflect.Map:
		value = "{" + strings.ReplaceAll(text, "=", ": ") + "}"
	}
	if !nested {
		return section + ": " + value + "\n"
	}
	return section + ":\n  " + name + ": " + value + "\n"
}

// Every key of agent.Config is taken from the flag, else the environment, else the file, else the default.
func TestPrecedence(t *testing.T) {
	samples := map[reflect.Kind][]string{
		reflect.String: {"a", "b", "c"}, reflect.Int64: {"1h", "2h", "3h"}, reflect.Slice: {"a,b", "c", "d,e"},
		reflect.Map: {"a.b/C=d", "e=f,g=h", "i="},
	}
	defaults := wantDefaults("")
	for _, k := range keys {
		sample, ok := samples[k.kind.Kind()]
		if !ok {
			t.Errorf("%s: nothing is known of keys that are %s", k.name, k.kind)
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			expect := func(from string, l loaded, want any) {
				t.Helper()
				if got := k.get(&l.config); !reflect.DeepEqual(got, want) {
					t.Errorf("%s: %#v, want %#v", from, got, want)
				}
			}
			parsed := func(text string) any {
				v, err := k.parse(text)
				if err != nil {
					t.Fatal(err)
				}
				return v
			}
			expect("default", testSource(t).resolve(content{}), k.get(&defaults))
			file := content{path: "/f", data: []byte(yamlOf(k, sample[0]))}
			expect("file", testSource(t).resolve(file), parsed(sample[0]))
			t.Setenv(k.env(), sample[1])
			expect("environment", testSource(t).resolve(file), parsed(sample[1]))
			expect("flag", testSource(t, "--"+k.name, sample[2]).resolve(file), parsed(sample[2]))
			expect("flag in lower case", testSource(t, "--"+strings.ToLower(k.name)+"="+sample[2]).resolve(file), parsed(sample[2]))
			t.Setenv(k.env(), "")
			expect("an empty variable is none", testSource(t).resolve(file), parsed(sample[0]))
		})
	}
}

// An empty value counts where it is said, so that gossip can be left unencrypted.
func TestEmptyIsNotUnset(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		text string
		want string
	}{
		"unset":   {nil, "cluster: {}", "/etc/picket/pki/gossip.keys"},
		"null":    {nil, "cluster: {gossipKeys: }", "/etc/picket/pki/gossip.keys"},
		"in file": {nil, `cluster: {gossipKeys: ""}`, ""},
		"flag":    {[]string{"--cluster.gossipKeys="}, "", ""},
		"list":    {[]string{"--cluster.join="}, "cluster: {join: [a:1]}", "/etc/picket/pki/gossip.keys"},
	} {
		l := testSource(t, c.args...).resolve(content{path: "/f", data: []byte(c.text)})
		if l.config.Cluster.GossipKeys != c.want || len(l.config.Cluster.Join) > 0 {
			t.Errorf("%s: %+v", name, l.config.Cluster)
		}
	}
}

// Without its logger the agent would run containers whose output is lost.
func TestNoLogger(t *testing.T) {
	s := testSource(t)
	s.logger = func() string { return "" }
	want := []string{"/f: runtime.loggerPath: picket-logger is neither beside picketd nor in $PATH: install it, or name it here"}
	if got := texts(s.resolve(content{path: "/f"}).problems); !slices.Equal(got, want) {
		t.Errorf("problems are %q", got)
	}
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if got := logger(); got != "" {
		t.Errorf("found %q where none is", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "picket-logger"), nil, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := logger(); got != filepath.Join(dir, "picket-logger") {
		t.Errorf("found %q, not the one in $PATH", got)
	}
}

func TestRepeatedFlags(t *testing.T) {
	l := testSource(t, "--cluster.join=a:1", "--cluster.join=b:2,c:3", "--node.labels=a=b", "--node.labels=c=d=e", "--node.name=x", "--node.name=y").resolve(content{})
	if got := l.config.Cluster.Join; !reflect.DeepEqual(got, []string{"a:1", "b:2", "c:3"}) {
		t.Errorf("join is %q", got)
	}
	if got := l.config.Node; !reflect.DeepEqual(got.Labels, map[string]string{"a": "b", "c": "d=e"}) || got.Name != "y" {
		t.Errorf("node is %+v", got)
	}
}

// A problem is told where it was made.
func TestWhere(t *testing.T) {
	t.Setenv("PICKET_LOG_LEVEL", "loud")
	t.Setenv("PICKET_CLUSTER_REAPAFTER", "soon")
	t.Setenv("PICKET_API_LISEN", "x")
	t.Setenv("PICKET_NODE_COLOUR", "x")
	t.Setenv("PICKET_SOCKET", "of another program")
	s := testSource(t, "--node.labels=novalue", "--node.taints=x", "--metrics.listen=9747")
	l := s.resolve(content{path: "/f", data: []byte("log: {level: info}\napi: {advertise: nowhere}\nruntime:\n  cniBin:\n  - /a\n  - b\n")})
	want := []string{
		`flag --node.labels: node.labels: "novalue" is not key=value`,
		`environment PICKET_CLUSTER_REAPAFTER: cluster.reapAfter: "soon" is not a duration: write numbers with units, such as 72h or 1h30m`,
		`flag --node.taints: node.taints[0]: taint "x" is not key=value:Effect`,
		`flag --metrics.listen: metrics.listen: "9747" is not IP:port, such as 0.0.0.0:9747`,
		`environment PICKET_LOG_LEVEL: log.level: "loud" is not one of debug, info, warn, error`,
		`/f:2: api.advertise: "nowhere" is not host:port, such as host-01.lan:9746`,
		`/f:6: runtime.cniBin[1]: "b" is not an absolute path, such as /opt/cni/bin`,
	}
	if got := texts(l.problems); !reflect.DeepEqual(got, want) {
		t.Errorf("problems are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	warnings := []string{
		"environment variable PICKET_API_LISEN is no key of the configuration: did you mean PICKET_API_LISTEN?",
		"environment variable PICKET_NODE_COLOUR is no key of the configuration",
	}
	if got := slices.Sorted(slices.Values(l.warnings)); !slices.Equal(got, warnings) {
		t.Errorf("warnings are %q", got)
	}
}

func TestTrust(t *testing.T) {
	s := testSource(t)
	l := s.resolve(content{path: "/f", data: []byte("api: {listen: \"127.0.0.1:9746\"}\ncluster:\n  join: [\"10.0.0.1:9745\"]\n")})
	want := []string{
		"/f: api.pki: cluster.join is set, but this host has no certificate /etc/picket/pki/host.crt: make one with picket pki and copy it there, or remove cluster.join",
		`/f: cluster.gossipKeys: cluster.join is set, but there is no /etc/picket/pki/gossip.keys: copy the fleet's gossip keys there, or set cluster.gossipKeys to "" to leave gossip unencrypted`,
		"/f:1: api.listen: cluster.join is set, but other hosts cannot reach 127.0.0.1:9746: remove api.listen or give an address of the network, or remove cluster.join",
	}
	if got := texts(l.problems); !reflect.DeepEqual(got, want) {
		t.Errorf("problems are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path, want string }{
		{"missing", filepath.Join(dir, "none"), "cannot be read: no such file or directory"},
		{"a directory", dir, "is a directory, not a configuration file"},
		{"a FIFO nobody writes to", fifo, "is not a regular file"},
		{"a device", "/dev/zero", "is not a regular file"},
		{"huge", write(t, strings.Repeat("# 0123456789\n", maxFile/10)), "is larger than 1 MiB, which no configuration is"},
		{"below a file", filepath.Join(write(t, ""), "x"), "cannot be read: not a directory"},
	} {
		_, err := testSource(t, "--config", c.path).read()
		if err == nil || err.Error() != c.path+": "+c.want {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestWhichFile(t *testing.T) {
	a, b := write(t, "log: {level: warn}"), write(t, "log: {level: error}")
	if path, named, err := testSource(t).file(); path != defaultFile || named || err != nil {
		t.Errorf("by default %q, %v, %v", path, named, err)
	}
	t.Setenv(configEnv, a)
	if path, named, _ := testSource(t).file(); path != a || !named {
		t.Errorf("by environment %q, %v", path, named)
	}
	if path, named, _ := testSource(t, "--config", b).file(); path != b || !named {
		t.Errorf("by flag %q, %v", path, named)
	}
	t.Chdir(filepath.Dir(b))
	if path, _, _ := testSource(t, "--config", "picketd.yaml").file(); path != b {
		t.Errorf("relative: %q, want %q", path, b)
	}
}

var commentedKey = regexp.MustCompile(`(?m)^(\s*)#(\S)`)

// uncommented takes the "#" from every key of the example.
func uncommented(example []byte) []byte { return commentedKey.ReplaceAll(example, []byte("$1$2")) }

// configs/picketd.yaml names every key with its default, and installing it changes nothing.
func TestExample(t *testing.T) {
	example, err := os.ReadFile("../../configs/picketd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := wantDefaults("/f")
	for name, data := range map[string][]byte{"as it is": example, "with every key": uncommented(example)} {
		l := testSource(t).resolve(content{path: "/f", data: data})
		if len(l.problems) > 0 {
			t.Errorf("%s: %s", name, strings.Join(texts(l.problems), "\n"))
		}
		if !reflect.DeepEqual(l.config, want) {
			t.Errorf("%s: %+v, want %+v", name, l.config, want)
		}
	}
	values := decode(uncommented(example)).values
	for _, k := range keys {
		if _, ok := values[k.name]; !ok {
			t.Errorf("the example does not have %s", k.name)
		}
	}
}

// --help shows every key, with the default that it has in agent.DefaultConfig.
func TestHelp(t *testing.T) {
	var out strings.Builder
	if code := run([]string{"--help"}, process{stdout: &out, stderr: &out}); code != 0 {
		t.Fatalf("code %d: %s", code, out.String())
	}
	defaults := agent.DefaultConfig()
	for line := range strings.Lines(out.String()) {
		for _, k := range keys {
			if !strings.HasPrefix(strings.TrimSpace(line), "--"+k.name+" ") {
				continue
			}
			if text := k.text(k.get(&defaults)); !strings.Contains(line, k.help) || text != "" && !strings.Contains(strings.ReplaceAll(line, `"`, ""), "(default "+text+")") {
				t.Errorf("%s: %s does not say %q and %q", k.name, line, k.help, text)
			}
			k.help = ""
			break
		}
	}
	for _, k := range keys {
		if !strings.Contains(out.String(), "--"+k.name+" ") {
			t.Errorf("%s is not in --help", k.name)
		}
	}
}

func TestNearest(t *testing.T) {
	candidates := []string{"name", "labels", "taints", "listen"}
	for word, want := range map[string]string{
		"lables": "labels", "Labels": "labels", "taint": "taints", "nam": "name", "x": "", "nmea": "name", "colour": "", "": "", "listn": "listen",
		strings.Repeat("labels", 100): "",
	} {
		got, ok := nearest(word, candidates)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%q is taken for %q, want %q", word, got, want)
		}
	}
}

func TestShortDuration(t *testing.T) {
	for _, text := range []string{"72h", "1h30m", "90s", "1m", "10m", "20h", "1.5s", "0s", "1h0m5s"} {
		d, err := parseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseDuration(shortDuration(d)); again != d || err != nil {
			t.Errorf("%s became %s", text, shortDuration(d))
		}
	}
	if got := shortDuration(72 * 3600e9); got != "72h" {
		t.Errorf("72h is %q", got)
	}
}
