package pod

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

// hook runs a hook of container web, attempt 0.
func hook(ctx context.Context, r Runtime, h corev1.LifecycleHandler, ip string) error {
	w := &Worker{cfg: &Config{Runtime: r}, log: slog.New(slog.DiscardHandler)}
	return w.runHook(ctx, h, id("web", 0), &corev1.Container{Name: "web"}, ip)
}

func checkError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("error: %v", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("error is %v, want %s", err, want)
	}
}

func TestExecHook(t *testing.T) {
	for name, test := range map[string]struct {
		code int
		err  error
		want string
	}{
		"ends well":     {0, nil, ""},
		"ends badly":    {3, nil, `Exec lifecycle hook ([drain -a]) for container "web" failed: command 'drain -a' exited with 3: no door`},
		"cannot be run": {0, errors.New("no such command"), `Exec lifecycle hook ([drain -a]) for container "web" failed: no such command`},
	} {
		t.Run(name, func(t *testing.T) {
			fake := runtimetest.NewFake()
			fake.SetExec(func(got string, e runtime.ExecConfig) (int, error) {
				expect(t, "command", got+" "+strings.Join(e.Command, " "), id("web", 0)+" drain -a")
				_, _ = io.WriteString(e.Stderr, "no door")
				return test.code, test.err
			})
			err := hook(t.Context(), fake, corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"drain", "-a"}}}, "")
			checkError(t, err, test.want)
		})
	}
}

// Whatever a server answers, it has been told. Without an answer the hook fails.
func TestHTTPHook(t *testing.T) {
	var heard []string
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		heard = append(heard, r.Header.Get("User-Agent")+" "+r.URL.Path+" "+r.Header.Get("Authorization"))
		statuses(w, r)
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer secure.Close()
	headers := []corev1.HTTPHeader{{Name: "Authorization", Value: "Bearer x"}}
	run := func(url string, scheme corev1.URIScheme, path string) error {
		heard = nil
		get := &corev1.HTTPGetAction{Port: intstr.FromInt(portOf(t, url)), Path: path, Scheme: scheme, HTTPHeaders: headers}
		return hook(t.Context(), nil, corev1.LifecycleHandler{HTTPGet: get}, "127.0.0.1")
	}
	checkError(t, run(plain.URL, "HTTP", "/200"), "")
	same(t, "heard", heard, "kube-lifecycle/picket /200 Bearer x")
	checkError(t, run(plain.URL, "HTTP", "/500"), "")
	checkError(t, run(secure.URL, "HTTPS", "/200"), "")
	same(t, "heard", heard, "kube-lifecycle/picket /200 Bearer x")
	checkError(t, run(plain.URL, "HTTPS", "/200"), "")
	same(t, "heard without HTTPS", heard, "kube-lifecycle/picket /200 ")
	plain.Close()
	checkError(t, run(plain.URL, "HTTP", "/200"), `HTTP lifecycle hook (/200) for container "web" failed: Get "`+plain.URL+`/200": dial tcp`)
}

func TestSleepHook(t *testing.T) {
	sleep := corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 7}}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		checkError(t, hook(t.Context(), nil, sleep, ""), "")
		expect(t, "slept", time.Since(began), 7*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		began = time.Now()
		checkError(t, hook(ctx, nil, sleep, ""), "container terminated before sleep hook finished")
		expect(t, "slept", time.Since(began), 2*time.Second)
	})
}

// The kubelet has never run a tcpSocket hook: it fails.
func TestTCPHook(t *testing.T) {
	for name, h := range map[string]corev1.LifecycleHandler{"tcp": {TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(80)}}, "none": {}} {
		t.Run(name, func(t *testing.T) { checkError(t, hook(t.Context(), nil, h, "127.0.0.1"), "invalid handler") })
	}
}
