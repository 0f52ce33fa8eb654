package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// silent is a fleet whose other hosts take requests and never answer.
type silent struct{ Fleet }

func (s silent) Transport(string) (http.RoundTripper, error) { return s, nil }

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// noBackend takes no writes.
type noBackend struct{ Backend }

// A host that is connected and silent holds nobody up for long.
func TestAHostThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := NewCache(counter(1))
		cache.Set(corev1.Resource("pods"), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.PodSpec{NodeName: "host-02"}})
		s, err := New(Options{Cache: cache, Backend: noBackend{}, NodeName: "host-01", Fleet: silent{}})
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			method, path string
			code         int
			warning      string
		}{
			{"GET", "/api/v1/namespaces/default/pods/web", 200, "it did not answer within 3s; it is shown as host-01 last heard of it"},
			{"GET", "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dweb", 200, "events that host-02 keeps are not shown"},
			{"DELETE", "/api/v1/namespaces/default/pods/web", 503, ""},
		} {
			r := httptest.NewRequestWithContext(context.WithValue(t.Context(), socketKey{}, true), tt.method, tt.path, nil)
			w := httptest.NewRecorder()
			s.serve(w, r)
			if w.Code != tt.code || !strings.Contains(w.Header().Get("Warning"), tt.warning) {
				t.Errorf("%s %s: %d %s %v", tt.method, tt.path, w.Code, w.Body, w.Header())
			}
			if tt.code == 503 && !strings.Contains(w.Body.String(), "pod web is on host-02, which cannot be reached: it did not answer within 10s") {
				t.Errorf("%s", w.Body)
			}
		}
	})
}

// Only the answers of agents are taken for answers.
func TestAnswersThatAreNone(t *testing.T) {
	cache := NewCache(counter(1))
	cache.Set(corev1.Resource("pods"), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.PodSpec{NodeName: "host-02"}})
	for _, tt := range []struct {
		code       int
		body, want string
	}{
		{200, "<html>", "cannot read what host-02 answers"},
		{200, `{"kind":"Secret"}`, `host-02 answers with a "Secret" instead of a pod`},
		{200, `{"kind":"Status","status":"Success"}`, "host-02 answers without the pod"},
		{200, `{"kind":"Pod","spec":7}`, "cannot read what host-02 answers"},
		{502, "<html>", "host-02 answers 502: <html>"},
		{200, `{"kind":"Pod"}` + strings.Repeat(" ", maxAnswer), "host-02 answers more than"},
	} {
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tt.code)
			_, _ = w.Write([]byte(tt.body))
		}))
		s, err := New(Options{Cache: cache, Backend: noBackend{}, NodeName: "host-01", Fleet: to{url: other.Listener.Addr().String()}})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		s.serve(w, httptest.NewRequestWithContext(context.WithValue(t.Context(), socketKey{}, true), "GET", "/api/v1/namespaces/default/pods/web", nil))
		var status metav1.Status
		if err := json.Unmarshal(w.Body.Bytes(), &status); err != nil || status.Code != 500 || !strings.Contains(status.Message, tt.want) {
			t.Errorf("%d %.40q: %d %s", tt.code, tt.body, w.Code, w.Body)
		}
		other.Close()
	}
}

// to is a fleet whose other hosts are one plain HTTP server.
type to struct {
	Fleet
	url string
}

func (f to) Transport(string) (http.RoundTripper, error) { return f, nil }

func (f to) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = "http", f.url
	return http.DefaultTransport.RoundTrip(r)
}

// A certificate of a host gives no role, whatever else it says.
func TestHostsHaveNoRole(t *testing.T) {
	cert := &x509.Certificate{Subject: pkix.Name{CommonName: "host-02", Organization: []string{groupHosts, groupAdmins}}}
	r := httptest.NewRequest("GET", "/api/v1/pods", nil)
	r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}}
	if id := connected(r); id.role != nobody || !id.host {
		t.Errorf("%+v", id)
	}
	cert.Subject.Organization = []string{groupAdmins}
	if id := connected(r); id.role != admin || id.host {
		t.Errorf("%+v", id)
	}
}
