package pod

import (
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/picketd/picket/runtime"
)

func TestExpand(t *testing.T) {
	values := map[string]string{"A": "1", "EMPTY": "", "NESTED": "$(A)"}
	lookup := func(name string) (string, bool) { v, ok := values[name]; return v, ok }
	for in, want := range map[string]string{
		"":                 "",
		"plain":            "plain",
		"$(A)":             "1",
		"x$(A)y$(A)":       "x1y1",
		"$(EMPTY)":         "",
		"$(MISSING)":       "$(MISSING)",
		"$$(A)":            "$(A)",
		"$$$(A)":           "$1",
		"$A":               "$A",
		"$":                "$",
		"a$":               "a$",
		"$(A":              "$(A",
		"$(A$(A)":          "$(A$(A)",
		"$()":              "$()",
		"$(NESTED)":        "$(A)",
		"$((A))":           "$((A))",
		"100% $5 and $(A)": "100% $5 and 1",
	} {
		expect(t, in, expand(in, lookup), want)
	}
}

func testFacts() facts {
	return facts{
		pod: testPod("web"), host: testHost(), ips: []string{"10.88.0.2", "fd00::2"},
		objects: &fakeObjects{
			configs: map[string]*corev1.ConfigMap{"conf": {Data: map[string]string{"one": "1", "two": "2", "bad=name": "x"}}},
			secrets: map[string]*corev1.Secret{"sec": {Data: map[string][]byte{"pass": []byte("word")}}},
		},
	}
}

func fieldEnv(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
}

func configEnv(name, object, key string, optional bool) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: object}, Key: key, Optional: &optional,
	}}}
}

func secretEnv(name, object, key string, optional bool) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: object}, Key: key, Optional: &optional,
	}}}
}

func resourceEnv(name, what, divisor string) corev1.EnvVar {
	ref := &corev1.ResourceFieldSelector{Resource: what}
	if divisor != "" {
		ref.Divisor = resource.MustParse(divisor)
	}
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: ref}}
}

func TestEnvironment(t *testing.T) {
	yes := true
	c := corev1.Container{
		Name: "web",
		EnvFrom: []corev1.EnvFromSource{
			{Prefix: "C_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "sec"}}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Optional: &yes}},
		},
		Env: []corev1.EnvVar{
			{Name: "GREETING", Value: "$(pass) $(LATER) $$(pass)"},
			{Name: "LATER", Value: "x"},
			{Name: "C_two", Value: "$(C_one)+1"},
			fieldEnv("NODE", "spec.nodeName"),
			fieldEnv("IP", "status.podIP"),
			fieldEnv("IPS", "status.podIPs"),
			fieldEnv("HOST", "status.hostIP"),
			fieldEnv("UID", "metadata.uid"),
			fieldEnv("REVISION", "metadata.labels['controller-revision-hash']"),
			configEnv("ONE", "conf", "one", false),
			configEnv("NOKEY", "conf", "nine", true),
			configEnv("NOMAP", "none", "nine", true),
			secretEnv("PASS", "sec", "pass", false),
			resourceEnv("CPU", "limits.cpu", ""),
			resourceEnv("MEMORY", "limits.memory", "1Mi"),
			resourceEnv("REQUEST", "requests.cpu", "1m"),
		},
		Resources: corev1.ResourceRequirements{
			Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1500m")},
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m")},
		},
	}
	env, err := testFacts().environment(&c)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"C_one=1", "C_two=1+1", "pass=word", "GREETING=word $(LATER) $(pass)", "LATER=x", "NODE=host-01", "IP=10.88.0.2",
		"IPS=10.88.0.2,fd00::2", "HOST=192.0.2.1", "UID=" + testUID, "REVISION=6f7d", "ONE=1", "PASS=word", "CPU=2", "MEMORY=1000",
		"REQUEST=250",
	}
	if got := env.list(); !slices.Equal(got, want) {
		t.Errorf("env:\n got %q\nwant %q", got, want)
	}
}

func TestEnvironmentErrors(t *testing.T) {
	for want, v := range map[string]corev1.EnvVar{
		`configmap "none" not found`:                         configEnv("A", "none", "k", false),
		`couldn't find key k in ConfigMap default/conf`:      configEnv("A", "conf", "k", false),
		`secret "none" not found`:                            secretEnv("A", "none", "k", false),
		`couldn't find key k in Secret default/sec`:          secretEnv("A", "sec", "k", false),
		`fieldRef spec.x: unsupported fieldPath: spec.x`:     fieldEnv("A", "spec.x"),
		`resourceFieldRef limits.gpu: Unsupported container`: resourceEnv("A", "limits.gpu", ""),
	} {
		_, err := testFacts().environment(&corev1.Container{Name: "web", Env: []corev1.EnvVar{v}})
		if err == nil || !strings.HasPrefix(err.Error(), want) || !errors.Is(err, runtime.ErrConfig) {
			t.Errorf("got error %v, want %s and ErrConfig", err, want)
		}
	}
}

func TestParseCredentials(t *testing.T) {
	secret := &corev1.Secret{Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths": {
		"https://index.docker.io/v1/": {"auth": "dXNlcjpwYTpzcw=="},
		"registry.example.com/team": {"username": "u", "password": "p"},
		"registry.example.com": {"identitytoken": "t"}}}`)}}
	got, err := parseCredentials(secret)
	if err != nil {
		t.Fatal(err)
	}
	want := []runtime.Credential{
		{Registry: "registry.example.com/team", Username: "u", Password: "p"},
		{Registry: "registry.example.com", IdentityToken: "t"},
		{Registry: "docker.io", Username: "user", Password: "pa:ss"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	old := &corev1.Secret{Data: map[string][]byte{corev1.DockerConfigKey: []byte(`{"r.io": {"username": "u", "password": "p"}}`)}}
	if got, err := parseCredentials(old); err != nil || len(got) != 1 || got[0].Username != "u" {
		t.Errorf("dockercfg: %+v, %v", got, err)
	}
	for _, bad := range []string{`{`, `{"auths": {"a": {"auth": "!"}}}`, `{"auths": {"a": {"auth": "dXNlcg=="}}}`} {
		if _, err := parseCredentials(&corev1.Secret{Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(bad)}}); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

func TestPullSecretsReachTheRuntime(t *testing.T) {
	pod := testPod("web")
	pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "missing"}, {Name: "login"}}
	b := newBench(t, pod)
	b.objects.secrets = map[string]*corev1.Secret{"login": {Data: map[string][]byte{
		corev1.DockerConfigJsonKey: []byte(`{"auths":{"r.io":{"username":"u","password":"p"}}}`),
	}}}
	w := &Worker{cfg: b.cfg, pod: pod, log: b.cfg.Log}
	if _, err := w.ensureImage(t.Context(), action{image: imageKey{"r.io/x", corev1.PullAlways}}); err != nil {
		t.Fatal(err)
	}
	got := b.fake.Asked()[0]
	expect(t, "policy", got.Policy, runtime.PullAlways)
	if want := []runtime.Credential{{Registry: "r.io", Username: "u", Password: "p"}}; !slices.Equal(got.Credentials, want) {
		t.Errorf("credentials %+v", got.Credentials)
	}
}
