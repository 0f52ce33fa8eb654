package api

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Fleet is the other hosts.
type Fleet interface {
	// Peer tells which host of the fleet a verified client certificate is of, and whether it is a door; an error when it is
	// refused (deleted host, not a host's certificate).
	Peer(cert *x509.Certificate) (node string, door bool, err error)
	// Transport reaches another host's API over mTLS, authenticated as that node; the scheme and host of requests given to it do
	// not matter. HTTP/1.1, so that connections can be upgraded. An error when the node is unknown or not reachable now, with a
	// reason a person understands, which goes on from "which cannot be reached: ".
	Transport(node string) (http.RoundTripper, error)
	// Admit takes a deleted host back.
	Admit(ctx context.Context, node string) error
	// Leave takes this host out of the fleet: its pods stop, then the agent ends. When ctx ends first, that goes on.
	Leave(ctx context.Context) error
}

// Headers of a call that a door forwards for a user. They make it that user's, and say that it was forwarded once already.
const (
	headerPrefix = "X-Picket-"
	headerUser   = headerPrefix + "User"  // the name, escaped as in a path
	headerGroup  = headerPrefix + "Group" // one of the roles' groups; may be repeated
)

// Paths beside Kubernetes' own.
const (
	pathPeers = "/picket/v1/" // what agents ask each other
	pathLeave = "/picket.io/v1/leave"
	pathAdmit = "/picket.io/v1/admit/" // and the name of a node
)

// claims tells requests that say whose call they are.
func claims(h http.Header) bool {
	return len(h[headerUser]) > 0 || len(h[headerGroup]) > 0
}

// claimed is the user that a door forwards a call of. Nobody else's word counts for anything.
func (s *Server) claimed(r *http.Request, caller identity) (identity, error) {
	refuse := func(because string) (identity, error) {
		return identity{}, failure(http.StatusForbidden, metav1.StatusReasonForbidden, "forbidden: %q may not call in the name of another user: %s", caller.name, because)
	}
	cert := clientCertificate(r)
	if cert == nil || s.fleet == nil || !caller.host {
		return refuse("only doors of the fleet do")
	}
	node, door, err := s.fleet.Peer(cert)
	switch {
	case err != nil:
		return refuse(err.Error())
	case !door:
		return refuse(node + " is no door: its certificate was made without --door")
	case len(r.Header[headerUser]) != 1:
		return refuse("a call is one user's")
	}
	name, err := url.PathUnescape(r.Header.Get(headerUser))
	if err != nil || name == "" {
		return refuse("the user's name cannot be read")
	}
	id := identityOf(name, rolesIn(r.Header[headerGroup]))
	id.via = node
	return id, nil
}

// sign puts a user's name on a request to another host, and takes off what is between the user and this host alone.
func (s *Server) sign(h http.Header, u identity) {
	for name := range h {
		if strings.HasPrefix(name, headerPrefix) {
			delete(h, name)
		}
	}
	h.Del("Authorization")
	h.Del("Cookie")
	name := u.name
	if u.socket {
		name += "@" + s.node
	}
	h.Set(headerUser, url.PathEscape(name))
	for _, group := range rolesIn(u.groups) {
		h.Add(headerGroup, group)
	}
}

// mayForward tells whether this host may call others for its users.
func (s *Server) mayForward() bool { return s.door == nil || s.door() }

// mayWrite refuses to change what is the fleet's on a host that is no door. A pod is its host's own.
func (s *Server) mayWrite(gr schema.GroupResource, name string) error {
	if gr == corev1.Resource("pods") || s.mayForward() {
		return nil
	}
	return apierrors.NewForbidden(gr, name, fmt.Errorf("%s is no door: its certificate was made without --door; apply through another host", s.node))
}

// servePeer answers other hosts' agents, and nobody else.
func (s *Server) servePeer(w http.ResponseWriter, r *http.Request) error {
	cert := clientCertificate(r)
	if cert == nil {
		return apierrors.NewUnauthorized("Unauthorized: " + errLogin.Error())
	}
	if s.fleet == nil || s.peers == nil || !slices.Contains(cert.Subject.Organization, groupHosts) {
		return failure(http.StatusForbidden, metav1.StatusReasonForbidden, "forbidden: %s is for other hosts' agents", r.URL.Path)
	}
	if _, _, err := s.fleet.Peer(cert); err != nil {
		return failure(http.StatusForbidden, metav1.StatusReasonForbidden, "forbidden: %v", err)
	}
	s.peers.ServeHTTP(w, r)
	return nil
}

// action is something that is asked of the fleet and is no object's change. do returns what was done, in words.
type action struct {
	do func(ctx context.Context) (string, error)
	// plan says what do would do; "" when it cannot be tried.
	plan string
}

// actionOf finds the action of a path; nil when there is none.
func (s *Server) actionOf(path string) *action {
	if s.fleet == nil {
		return nil
	}
	if path == pathLeave {
		return &action{
			do:   func(ctx context.Context) (string, error) { return s.node + " has left the fleet", s.fleet.Leave(ctx) },
			plan: s.node + " leaves: its pods stop, then picketd ends; start picketd to bring it back",
		}
	}
	node, ok := strings.CutPrefix(path, pathAdmit)
	if !ok || node == "" || strings.Contains(node, "/") {
		return nil
	}
	return &action{do: func(ctx context.Context) (string, error) {
		if err := s.mayWrite(corev1.Resource("nodes"), node); err != nil {
			return "", err
		}
		return node + " is admitted", s.fleet.Admit(ctx, node)
	}}
}

// act carries out an action for an admin. The stop of a host's pods may take long.
func (s *Server) act(w http.ResponseWriter, c *call, a *action) error {
	if c.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return apierrors.NewMethodNotSupported(schema.GroupResource{Resource: c.URL.Path}, strings.ToLower(c.Method))
	}
	if c.user.role < admin {
		return failure(http.StatusForbidden, metav1.StatusReasonForbidden, "forbidden: User %q cannot %s path %q: it needs the role %s, the certificate gives %s",
			c.user.name, c.verb, c.URL.Path, admin, c.user.role)
	}
	opts, err := createOptions(c.URL.Query())
	if err != nil {
		return err
	}
	done := a.plan
	switch {
	case opts.dryRun && done == "":
		return apierrors.NewBadRequest("dryRun is not served here")
	case !opts.dryRun:
		setDeadlines(w, time.Time{}, time.Time{})
		done, err = a.do(c.Context())
		log := s.log.With(c.user.attrs()...)
		if err != nil {
			log = log.With("error", err)
		}
		log.Info("asked of the fleet", "path", c.URL.Path)
	}
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess, Message: done, Code: http.StatusOK,
	})
	return nil
}
