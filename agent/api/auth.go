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

// The organizations of certificates, as `picket pki` writes them. A host is no user, whatever else its certificate says.
const (
	groupHosts     = "picket:hosts"
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
	// socket callers came through the unix socket.
	socket bool
	// host callers are agents of other hosts.
	host bool
	// via is the door that forwarded the call; "" for one that came from the user.
	via string
}

// attrs say in a log who calls.
func (u identity) attrs() []any {
	attrs := []any{"user", u.name}
	if u.via != "" {
		attrs = append(attrs, "via", u.via)
	}
	return attrs
}

type socketKey struct{}

// markSocket is the http.Server's ConnContext: who can open the socket is admin, its file mode says who that is.
func markSocket(ctx context.Context, conn net.Conn) context.Context {
	if conn.LocalAddr().Network() == "unix" {
		return context.WithValue(ctx, socketKey{}, true)
	}
	return ctx
}

// identify finds out who calls: whose the connection is, or the user that a door forwards.
func (s *Server) identify(r *http.Request) (identity, error) {
	caller := connected(r)
	if claims(r.Header) && !caller.anonymous {
		return s.claimed(r, caller)
	}
	return caller, nil
}

// connected reads the caller from the connection.
func connected(r *http.Request) identity {
	if r.Context().Value(socketKey{}) != nil {
		id := identityOf(SocketUser, []string{groupAdmins})
		id.socket = true
		return id
	}
	if cert := clientCertificate(r); cert != nil && cert.Subject.CommonName != "" {
		id := identityOf(cert.Subject.CommonName, cert.Subject.Organization)
		if slices.Contains(cert.Subject.Organization, groupHosts) {
			id.host, id.role = true, nobody
		}
		return id
	}
	return identity{name: "system:anonymous", groups: []string{"system:unauthenticated"}, anonymous: true}
}

// clientCertificate is the caller's; nil when there is none. Only verified ones count: the TLS layer also hands over others.
func clientCertificate(r *http.Request) *x509.Certificate {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.VerifiedChains[0]) == 0 {
		return nil
	}
	return r.TLS.VerifiedChains[0][0]
}

// roles are what the groups give.
var roles = map[string]role{groupViewers: viewer, groupOperators: operator, groupAdmins: admin}

func identityOf(name string, groups []string) identity {
	id := identity{name: name, groups: append(slices.Clone(groups), "system:authenticated")}
	for _, group := range groups {
		id.role = max(id.role, roles[group])
	}
	return id
}

// rolesIn are those of the groups that give a role.
func rolesIn(groups []string) []string {
	return slices.DeleteFunc(slices.Clone(groups), func(group string) bool { return roles[group] == nobody })
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
