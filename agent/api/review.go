package api

import (
	"fmt"
	"net/http"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
)

// review answers what a caller asks about itself: `kubectl auth whoami` and `kubectl auth can-i`.
func (s *Server) review(w http.ResponseWriter, c *call) error {
	body, err := c.body(w)
	if err != nil {
		return err
	}
	obj, err := codecs.scheme.New(c.resource.GroupVersionKind())
	if err != nil {
		return err
	}
	if _, err := codecs.decode(body, c.Header.Get("Content-Type"), obj); err != nil {
		return err
	}
	switch r := obj.(type) {
	case *authenticationv1.SelfSubjectReview:
		r.Status.UserInfo = authenticationv1.UserInfo{Username: c.user.name, Groups: c.user.groups}
	case *authorizationv1.SelfSubjectAccessReview:
		r.Status.Allowed, r.Status.Reason = c.user.may(r.Spec)
	case *authorizationv1.SelfSubjectRulesReview:
		r.Status = c.user.rules()
	}
	writeJSON(w, http.StatusCreated, obj)
	return nil
}

// may answers one access review.
func (u identity) may(spec authorizationv1.SelfSubjectAccessReviewSpec) (bool, string) {
	if spec.ResourceAttributes == nil {
		return u.role >= viewer, "paths outside of the resources are open to every role"
	}
	a := spec.ResourceAttributes
	need := admin // for wildcards: what allows everything
	if a.Resource != "*" && a.Verb != "*" {
		var reason string
		if need, reason = needFor(a); reason != "" {
			return false, reason
		}
	}
	if u.role < need {
		return false, fmt.Sprintf("it needs the role %s, the certificate gives %s", need, u.role)
	}
	if u.role == operator && need == operator && (a.Verb == verbPatch || a.Verb == verbUpdate) {
		return true, "as far as operators may change it: labels, annotations, cordon, restart, undo"
	}
	return true, ""
}

// needFor is the role for a named resource, or why there is none.
func needFor(a *authorizationv1.ResourceAttributes) (role, string) {
	for _, r := range resources {
		if r.Name != a.Resource || r.Group != a.Group && a.Group != "*" {
			continue
		}
		verbs, sub := r.Verbs, (*subresource)(nil)
		if a.Subresource != "" {
			if sub = r.subresource(a.Subresource); sub == nil {
				break
			}
			verbs = sub.Verbs
		}
		if !slices.Contains(verbs, a.Verb) {
			return nobody, fmt.Sprintf("%s is not supported on %s", a.Verb, a.Resource)
		}
		return needed(a.Verb, r, sub), ""
	}
	return nobody, "the resource is not served here"
}

// rules lists all that the caller may do.
func (u identity) rules() authorizationv1.SubjectRulesReviewStatus {
	status := authorizationv1.SubjectRulesReviewStatus{ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{}}
	add := func(group, name string, verbs []string, need func(verb string) role) {
		var may []string
		for _, verb := range verbs {
			if u.role >= need(verb) {
				may = append(may, verb)
			}
		}
		if len(may) > 0 {
			status.ResourceRules = append(status.ResourceRules, authorizationv1.ResourceRule{
				APIGroups: []string{group}, Resources: []string{name}, Verbs: may,
			})
		}
	}
	for _, r := range resources {
		add(r.Group, r.Name, r.Verbs, func(verb string) role { return needed(verb, r, nil) })
		for i := range r.Subresources {
			if sub := &r.Subresources[i]; sub.Unsupported == "" {
				add(r.Group, r.Name+"/"+sub.Name, sub.Verbs, func(verb string) role { return needed(verb, r, sub) })
			}
		}
	}
	if u.role >= viewer {
		status.NonResourceRules = append(status.NonResourceRules, authorizationv1.NonResourceRule{
			Verbs: []string{verbGet}, NonResourceURLs: []string{"/api", "/api/*", "/apis", "/apis/*", "/openapi/*", "/healthz", "/readyz", "/version"},
		})
	}
	return status
}
