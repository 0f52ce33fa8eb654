package pod

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/runtime"
)

// credentials are the logins of the pod's imagePullSecrets. As with the kubelet a missing or broken secret fails no pull:
// the registry may not ask for one.
func (w *Worker) credentials() []runtime.Credential {
	var all []runtime.Credential
	for _, ref := range w.pod.Spec.ImagePullSecrets {
		secret, ok := w.cfg.Objects.Secret(w.pod.Namespace, ref.Name)
		if !ok {
			w.noLogin(ref.Name, "it does not exist")
			continue
		}
		found, err := parseCredentials(secret)
		if err != nil {
			w.noLogin(ref.Name, err.Error())
			continue
		}
		all = append(all, found...)
	}
	return all
}

// noLogin tells, as the kubelet does, that a pull is tried without a secret.
func (w *Worker) noLogin(secret, why string) {
	w.post(func(m *machine, _ time.Time) {
		m.report(corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret",
			"Unable to retrieve image pull secret %s (%s); attempting to pull the image may not succeed.", secret, why)
	})
}

// dockerLogin is one entry of a docker config's auths.
type dockerLogin struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
}

// parseCredentials reads a Secret of type kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg, sorted by registry,
// longest first, so that a path's own login comes before its host's.
func parseCredentials(secret *corev1.Secret) ([]runtime.Credential, error) {
	logins := map[string]dockerLogin{}
	var err error
	switch data, old := secret.Data[corev1.DockerConfigJsonKey], secret.Data[corev1.DockerConfigKey]; {
	case data != nil:
		err = json.Unmarshal(data, &struct {
			Auths *map[string]dockerLogin `json:"auths"`
		}{&logins})
	case old != nil:
		err = json.Unmarshal(old, &logins)
	default:
		err = fmt.Errorf("it has no key %s", corev1.DockerConfigJsonKey)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read registry logins: %w", err)
	}
	var all []runtime.Credential
	for _, registry := range slices.Sorted(maps.Keys(logins)) {
		c, err := logins[registry].credential(registry)
		if err != nil {
			return nil, fmt.Errorf("cannot read the login for %s: %w", registry, err)
		}
		all = append(all, c)
	}
	slices.SortStableFunc(all, func(a, b runtime.Credential) int { return len(b.Registry) - len(a.Registry) })
	return all, nil
}

func (l dockerLogin) credential(registry string) (runtime.Credential, error) {
	c := runtime.Credential{
		Registry: registryHost(registry), Username: l.Username, Password: l.Password, IdentityToken: l.IdentityToken,
	}
	if l.Auth == "" {
		return c, nil
	}
	plain, err := base64.StdEncoding.DecodeString(l.Auth)
	if err != nil {
		if plain, err = base64.RawStdEncoding.DecodeString(l.Auth); err != nil {
			return c, fmt.Errorf("auth is not base64: %w", err)
		}
	}
	user, password, ok := strings.Cut(string(plain), ":")
	if !ok {
		return c, fmt.Errorf("auth is not user:password")
	}
	c.Username, c.Password = user, password
	return c, nil
}

// registryHost strips what docker login writes around a registry: https://index.docker.io/v1/ is docker.io.
func registryHost(registry string) string {
	for _, scheme := range []string{"https://", "http://"} {
		registry = strings.TrimPrefix(registry, scheme)
	}
	registry = strings.TrimSuffix(registry, "/")
	for _, version := range []string{"/v1", "/v2"} {
		registry = strings.TrimSuffix(registry, version)
	}
	if registry == "index.docker.io" || registry == "registry-1.docker.io" {
		return "docker.io"
	}
	return registry
}
