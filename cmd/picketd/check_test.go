package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goodManifest = `apiVersion: apps/v1
kind: DaemonSet
metadata: {name: hello}
spec:
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      containers:
      - {name: hello, image: busybox}
`

// checked runs picketd check on a configuration and manifests, and returns what it wrote with DIR for the directory.
func checked(t *testing.T, config string, manifests map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	dir := t.TempDir()
	file, manifestsDir := filepath.Join(dir, "picketd.yaml"), filepath.Join(dir, "manifests.d")
	if err := os.Mkdir(manifestsDir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range manifests {
		if err := os.WriteFile(filepath.Join(manifestsDir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(config, "DIR", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs output
	code = run(append([]string{"check", "--config", file, "--node.name", "host-01", "--runtime.podLogs", "/var/log/pods", "--runtime.loggerPath", testLogger}, args...), process{stdout: &out, stderr: &errs})
	return code, strings.ReplaceAll(out.String(), dir, "DIR"), strings.ReplaceAll(errs.String(), dir, "DIR")
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name, config   string
		manifests      map[string]string
		args           []string
		code           int
		stdout, stderr string
	}{
		{
			name: "all is well", config: "manifests: DIR/manifests.d\n", manifests: map[string]string{"hello.yaml": goodManifest, "notes.txt": "{"},
			stdout: "ok: DIR/picketd.yaml, node host-01; 1 manifest with 1 object in DIR/manifests.d; 0 warnings\n",
		},
		{
			name: "no directory", config: "manifests: DIR/none\n",
			stdout: "ok: DIR/picketd.yaml, node host-01; no manifests directory DIR/none; 0 warnings\n",
		},
		{
			name: "no directory but a file", config: "manifests: DIR/picketd.yaml\n", code: 1,
			stderr: "manifests directory DIR/picketd.yaml: cannot be read: not a directory\n",
		},
		{
			name: "warnings are no errors", config: "manifests: DIR/manifests.d\n",
			manifests: map[string]string{"a.yaml": goodManifest + "      priorityClassName: high\n---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\n"},
			stdout:    "ok: DIR/picketd.yaml, node host-01; 1 manifest with 1 object in DIR/manifests.d; 2 warnings\n",
			stderr: "DIR/manifests.d/a.yaml:11: daemonset/default/hello: spec.template.spec.priorityClassName: warning: TEXT\n" +
				"DIR/manifests.d/a.yaml:13: warning: Service s is left out: picket does not serve this kind\n",
		},
		{
			name: "everything at once", config: "manifests: DIR/manifests.d\nlog: {level: loud}\n", code: 1,
			manifests: map[string]string{
				"a.yaml": strings.Replace(goodManifest, "image: busybox", "imagee: busybox", 1),
				"b.yaml": "apiVersion: v1\nkind: Node\nmetadata: {name: host-01}\n",
				"c.yaml": goodManifest, "d.yaml": goodManifest,
			},
			stderr: `DIR/picketd.yaml:2: log.level: "loud" is not one of debug, info, warn, error
DIR/manifests.d/a.yaml:10: daemonset/default/hello: spec.template.spec.containers[0].imagee: unknown field
DIR/manifests.d/b.yaml: node/host-01: a Node is configured in its own picketd.yaml, or with picket label and picket taint, not by a manifest
DIR/manifests.d/d.yaml: daemonset/default/hello: is also in c.yaml; keep one
`,
		},
		{
			name: "a bad directory is not looked into", config: "manifests: manifests.d\n", manifests: map[string]string{"a.yaml": "kind: ["}, code: 1,
			stderr: "DIR/picketd.yaml:1: manifests: \"manifests.d\" is not an absolute path, such as /etc/picket/manifests.d\n",
		},
		{
			name: "flags count here too", config: "manifests: DIR/manifests.d\n", args: []string{"--metrics.listen", "x"}, code: 1,
			stderr: "flag --metrics.listen: metrics.listen: \"x\" is not IP:port, such as 0.0.0.0:9747\n",
		},
	} {
		code, stdout, stderr := checked(t, c.config, c.manifests, c.args...)
		if head, _, ok := strings.Cut(c.stderr, "TEXT"); ok && strings.HasPrefix(stderr, head) { // the manifests' own words may change
			rest, _, _ := strings.Cut(stderr[len(head):], "\n")
			stderr = strings.Replace(stderr, rest, "TEXT", 1)
		}
		if code != c.code || stdout != c.stdout || stderr != c.stderr {
			t.Errorf("%s: code %d\n%s%s\nwant code %d\n%s%s", c.name, code, stdout, stderr, c.code, c.stdout, c.stderr)
		}
	}
}
