package api

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// role is what a caller may do; each includes the ones before it.
type role int

const (
	nobody role = iota
	viewer
	operator
	admin
)

func (r role) String() string { return [...]string{"nobody", "viewer", "operator", "admin"}[r] }

// The organizations of certificates, as `picket pki` writes them. Those of hosts give no role here: a host is no user.
const (
	groupViewers   = "picket:viewers"
	groupOperators = "picket:operators"
	groupAdmins    = "picket:admins"
)

// SocketUser is the author of writes that came through the unix socket.
const SocketUser = "unix-socket"

// identity is who calls.
type identity struct {
	name   string
	groups []string
	role   role
	// anonymous callers have shown no certificate of this fleet.
	anonymous bool
}

type socketKey struct{}

// markSocket is the http.Server's ConnContext: who can open the socket is admin, its file mode says who that is.
func markSocket(ctx context.Context, conn net.Conn) context.Context {
	if conn.LocalAddr().Network() == "unix" {
		return context.WithValue(ctx, socketKey{}, true)
	}
	return ctx
}

// identify reads the caller from the connection. Only verified certificates count: the TLS layer also hands over unverified ones.
func identify(r *http.Request) identity {
	if r.Context().Value(socketKey{}) != nil {
		return identity{name: SocketUser, groups: []string{groupAdmins, "system:authenticated"}, role: admin}
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 && len(r.TLS.VerifiedChains[0]) > 0 {
		if cert := r.TLS.VerifiedChains[0][0]; cert.Subject.CommonName != "" {
			return certificateIdentity(cert)
		}
	}
	return identity{name: "system:anonymous", groups: []string{"system:unauthenticated"}, anonymous: true}
}

func certificateIdentity(cert *x509.Certificate) identity {
	id := identity{name: cert.Subject.CommonName, groups: append(slices.Clone(cert.Subject.Organization), "system:authenticated")}
	for group, role := range map[string]role{groupViewers: viewer, groupOperators: operator, groupAdmins: admin} {
		if slices.Contains(cert.Subject.Organization, group) {
			id.role = max(id.role, role)
		}
	}
	return id
}

// needed is the least role that may use a verb of a resource, or a subresource.
func needed(verb string, r *resource, sub *subresource) role {
	switch {
	case sub != nil:
		return sub.Role
	case r.Table == nil: // reviews: a caller asks about itself
		return viewer
	case slices.Contains(readVerbs, verb):
		return viewer
	case slices.Contains(r.Operator, verb):
		return operator
	default:
		return admin
	}
}

var errLogin = errors.New("a client certificate of this fleet is needed")

// authorize refuses callers whose role is too low, in the words of Kubernetes' RBAC.
func (c *call) authorize() error {
	if c.user.anonymous {
		return apierrors.NewUnauthorized("Unauthorized: " + errLogin.Error())
	}
	need := viewer
	if c.resource != nil {
		need = needed(c.verb, c.resource, c.sub)
	}
	if c.user.role >= need {
		return nil
	}
	if c.resource == nil {
		return failure(http.StatusForbidden, "Forbidden", "forbidden: User %q cannot %s path %q", c.user.name, c.verb, c.URL.Path)
	}
	return c.forbidden(fmt.Sprintf("it needs the role %s, the certificate gives %s", need, c.user.role))
}

// forbidden words a refusal; because says what would have been needed.
func (c *call) forbidden(because string) error {
	what := c.resource.Name
	if c.sub != nil {
		what += "/" + c.sub.Name
	}
	where := "at the cluster scope"
	if c.namespace != "" {
		where = fmt.Sprintf("in the namespace %q", c.namespace)
	}
	return apierrors.NewForbidden(c.resource.GroupResource(), c.name,
		fmt.Errorf("User %q cannot %s resource %q in API group %q %s: %s", c.user.name, c.verb, what, c.resource.Group, where, because))
}
