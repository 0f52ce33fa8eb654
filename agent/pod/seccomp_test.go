package pod

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/runtime"
)

// A profile of the host is read below its directory, in OCI's and in Docker's form; what is wrong with it names the file.
func TestLocalhostSeccomp(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"audit.json": `{"defaultAction": "SCMP_ACT_LOG", "architectures": ["SCMP_ARCH_X86_64"]}`,
		"profiles/docker.json": `{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "archMap": [{"architecture": "SCMP_ARCH_X86_64"}], "syscalls": [
			{"names": ["mount"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}], "includes": {"caps": ["CAP_SYS_ADMIN"]}}]}`,
		"text.json":   `none`,
		"empty.json":  `{}`,
		"action.json": `{"defaultAction": "ALLOW"}`,
		"notify.json": `{"defaultAction": "SCMP_ACT_NOTIFY"}`,
		"call.json":   `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "no"}]}`,
		"arch.json":   `{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["amd64"]}`,
		"op.json":     `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG", "args": [{"op": "=="}]}]}`,
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	pod := testPod("web")
	read := func(name string) (runtime.Security, error) {
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &name},
		}
		return security(pod, &pod.Spec.Containers[0], dir)
	}
	got, err := read("audit.json")
	if err != nil || got.Seccomp.DefaultAction != "SCMP_ACT_LOG" || len(got.Seccomp.Architectures) != 1 {
		t.Errorf("audit: %+v, %v", got.Seccomp, err)
	}
	got, err = read("profiles/docker.json")
	if err != nil || len(got.Seccomp.Syscalls) != 1 || got.Seccomp.Syscalls[0].Args[0].Value != 1 || *got.Seccomp.DefaultErrnoRet != 1 {
		t.Errorf("docker: %+v, %v", got.Seccomp, err)
	}
	for name, says := range map[string]string{
		"none.json": "no such file", "text.json": "invalid character", "empty.json": "no defaultAction", "action.json": "ALLOW is not supported",
		"notify.json": "NOTIFY is not supported", "call.json": `"no" of [read]`, "arch.json": "amd64", "op.json": `"==" of [read]`,
		"../" + filepath.Base(dir) + "/audit.json": "must be below", "profiles": "is a directory",
	} {
		_, err := read(name)
		if !errors.Is(err, runtime.ErrConfig) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	yes := true
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: &yes}
	if got, err := read("none.json"); err != nil || got.Seccomp != nil {
		t.Errorf("privileged: %+v, %v", got.Seccomp, err)
	}
}
