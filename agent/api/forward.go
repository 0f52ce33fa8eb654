package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// readRemote and removeRemote are how long another host may take to answer a question, and to take an order.
	readRemote   = 3 * time.Second
	removeRemote = 10 * time.Second
	// maxAnswer bounds what is read of another host's answer.
	maxAnswer = 8 << 20
)

// unreachable is why another host was not asked, or did not answer. The text goes on from "which ".
type unreachable struct {
	node string
	why  string
	code int
}

func (u *unreachable) Error() string { return u.node + " " + u.why }

// about makes it the answer to a request about a pod.
func (u *unreachable) about(pod string) error {
	reason := metav1.StatusReasonServiceUnavailable
	if u.code == http.StatusForbidden {
		reason = metav1.StatusReasonForbidden
	}
	return failure(u.code, reason, "pod %s is on %s, which %s", pod, u.node, u.why)
}

// elsewhere is the other host that a pod is on; "" when it is on this one.
func (s *Server) elsewhere(obj Object) string {
	pod, ok := obj.(*corev1.Pod)
	if !ok || s.fleet == nil || pod.Spec.NodeName == s.node {
		return ""
	}
	return pod.Spec.NodeName
}

// reach finds the way to another host, for a call that has not been forwarded yet: what goes on from host to host may never end.
func (s *Server) reach(c *call, node string) (http.RoundTripper, error) {
	if c.user.via != "" {
		return nil, failure(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable,
			"%s forwarded this to %s, which knows the pod on %s and does not forward it again: one of them has not heard the news yet; try again", c.user.via, s.node, node)
	}
	if !s.mayForward() {
		return nil, &unreachable{node, fmt.Sprintf("cannot be asked through %s, as that is no door: its certificate was made without --door", s.node), http.StatusForbidden}
	}
	transport, err := s.fleet.Transport(node)
	if err != nil {
		return nil, &unreachable{node, "cannot be reached: " + err.Error(), http.StatusServiceUnavailable}
	}
	return transport, nil
}

// forward lets the host that a pod is on answer: a log as it is written, an exec with its upgraded connection. Both end when the
// client goes. That host judges the user's role again.
func (s *Server) forward(w http.ResponseWriter, c *call, node string) error {
	transport, err := s.reach(c, node)
	if err == nil {
		s.log.With(c.user.attrs()...).Debug("forwarded", "to", node, "namespace", c.namespace, "pod", c.name, "subresource", c.sub.Name)
		err = s.proxy(w, c, node, transport)
	}
	var u *unreachable
	if errors.As(err, &u) {
		return u.about(c.name)
	}
	return err
}

func (s *Server) proxy(w http.ResponseWriter, c *call, node string, transport http.RoundTripper) (err error) {
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "https", node, ""
			s.sign(r.Out.Header, c.user)
		},
		ModifyResponse: func(res *http.Response) error {
			for name := range w.Header() {
				res.Header.Del(name) // this host has set it already
			}
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, failed error) {
			if c.Context().Err() == nil {
				err = &unreachable{node, "cannot be reached: " + failed.Error(), http.StatusServiceUnavailable}
			}
		},
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	proxy.ServeHTTP(prompt{w}, c.Request)
	return err
}

// prompt sends everything at once, and gives up a client that does not take it in time.
type prompt struct{ http.ResponseWriter }

func (p prompt) Unwrap() http.ResponseWriter { return p.ResponseWriter }

func (p prompt) Write(b []byte) (int, error) {
	if err := sendNow(p.ResponseWriter, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// question is a request to another host that is answered soon.
type question struct {
	method string
	path   string
	query  url.Values
	body   any // sent as JSON; nil: none
	within time.Duration
}

// ask puts a question to another host in the caller's name and returns the answer. A Status that is no success is an error as it is;
// *unreachable is one that never came.
func (s *Server) ask(c *call, node string, q question) ([]byte, error) {
	transport, err := s.reach(c, node)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.Context(), q.within)
	defer cancel()
	r, err := q.request(ctx, node)
	if err != nil {
		return nil, err
	}
	s.sign(r.Header, c.user)
	code, answer, err := exchange(transport, r)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, &unreachable{node, fmt.Sprintf("cannot be reached: it did not answer within %s", q.within), http.StatusServiceUnavailable}
	case err != nil:
		return nil, &unreachable{node, "cannot be reached: " + err.Error(), http.StatusServiceUnavailable}
	case len(answer) > maxAnswer:
		return nil, fmt.Errorf("%s answers more than %d bytes", node, maxAnswer)
	case code/100 == 2:
		return answer, nil
	}
	var status metav1.Status
	if json.Unmarshal(answer, &status) != nil || status.Kind != "Status" || status.Status != metav1.StatusFailure {
		return nil, fmt.Errorf("%s answers %d: %.200s", node, code, answer)
	}
	return nil, &apierrors.StatusError{ErrStatus: status}
}

func (q question) request(ctx context.Context, node string) (*http.Request, error) {
	var body io.Reader
	if q.body != nil {
		encoded, err := json.Marshal(q.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(encoded)
	}
	u := url.URL{Scheme: "https", Host: node, Path: q.path, RawQuery: q.query.Encode()}
	r, err := http.NewRequestWithContext(ctx, q.method, u.String(), body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", mediaJSON)
	if body != nil {
		r.Header.Set("Content-Type", mediaJSON)
	}
	return r, nil
}

func exchange(transport http.RoundTripper, r *http.Request) (code int, answer []byte, err error) {
	res, err := transport.RoundTrip(r)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	return res.StatusCode, answer, err
}
