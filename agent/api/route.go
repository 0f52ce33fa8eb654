package api

import (
	"errors"
	"io"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// call is one request about a resource, with what its path and connection say.
type call struct {
	*http.Request
	user      identity
	verb      string
	resource  *resource
	sub       *subresource
	namespace string
	name      string
	form      form
}

// parsePath reads a path of the API. The resource is nil when the path names none that is served.
//
//	/api/v1/nodes/host-01                  /api/v1/namespaces/default/pods/web-x2z4k/log
//	/apis/apps/v1/daemonsets               /apis/apps/v1/namespaces/default/daemonsets/web
func (c *call) parsePath() {
	parts := strings.Split(strings.Trim(c.URL.Path, "/"), "/")
	var gv schema.GroupVersion
	switch {
	case len(parts) > 2 && parts[0] == "api":
		gv, parts = schema.GroupVersion{Version: parts[1]}, parts[2:]
	case len(parts) > 3 && parts[0] == "apis":
		gv, parts = schema.GroupVersion{Group: parts[1], Version: parts[2]}, parts[3:]
	default:
		return
	}
	namespaced := false
	if len(parts) > 2 && parts[0] == "namespaces" && lookupNamespaces().subresource(parts[2]) == nil {
		namespaced = true
		c.namespace, parts = parts[1], parts[2:]
	}
	r := lookupResource(gv, parts[0])
	if r == nil || len(parts) > 3 || namespaced && (!r.Namespaced || c.namespace == "") {
		return
	}
	if len(parts) > 1 {
		if c.name = parts[1]; c.name == "" || r.Namespaced && !namespaced {
			return
		}
	}
	if len(parts) > 2 {
		if c.sub = r.subresource(parts[2]); c.sub == nil {
			return
		}
	}
	c.resource = r
}

func lookupNamespaces() *resource {
	return lookupResource(schema.GroupVersion{Version: "v1"}, "namespaces")
}

// setVerb says what the method asks for, as RBAC counts.
func (c *call) setVerb() {
	collection := c.name == ""
	switch c.Method {
	case http.MethodGet, http.MethodHead:
		c.verb = verbGet
		if collection {
			c.verb = verbList
			if watch := c.URL.Query().Get("watch"); watch != "" && watch != "false" && watch != "0" {
				c.verb = verbWatch
			}
		}
	case http.MethodPost:
		c.verb = verbCreate
	case http.MethodPut:
		c.verb = verbUpdate
	case http.MethodPatch:
		c.verb = verbPatch
	case http.MethodDelete:
		c.verb = verbDelete
		if collection {
			c.verb = verbDeleteCollection
		}
	default:
		c.verb = strings.ToLower(c.Method)
	}
	if c.sub != nil && (c.sub.Name == "exec" || c.sub.Name == "attach" || c.sub.Name == "portforward") && c.verb == verbGet {
		c.verb = verbCreate // the WebSocket handshake is a GET
	}
}

// served refuses methods that the path does not have: 405.
func (c *call) served() error {
	verbs := c.resource.Verbs
	if c.sub != nil {
		verbs = c.sub.Verbs
	}
	known := false
	for _, verb := range verbs {
		known = known || verb == c.verb
	}
	// A collection takes no update, an object no creation, and nothing is created without a namespace.
	onCollection := c.name == "" && c.sub == nil
	switch c.verb {
	case verbUpdate, verbPatch:
		known = known && !onCollection
	case verbCreate:
		known = known && (c.sub != nil || onCollection && (c.namespace != "" || !c.resource.Namespaced))
	case verbDeleteCollection:
		known = known && (c.namespace != "" || !c.resource.Namespaced)
	}
	if known {
		return nil
	}
	return apierrors.NewMethodNotSupported(c.resource.GroupResource(), c.verb)
}

// longRunning tells requests that may last: they have a limit of their own.
func (c *call) longRunning() bool {
	return c.verb == verbWatch || c.sub != nil && c.sub.Name != "status" && c.sub.Name != "eviction"
}

// handle answers a request about a resource.
func (s *Server) handle(w http.ResponseWriter, c *call) error {
	if c.sub != nil {
		return s.handleSubresource(w, c)
	}
	if c.resource.Table == nil {
		return s.review(w, c)
	}
	switch c.verb {
	case verbGet:
		return s.get(w, c)
	case verbList:
		return s.list(w, c)
	case verbWatch:
		return s.watch(w, c)
	case verbCreate:
		return s.create(w, c)
	case verbUpdate:
		return s.update(w, c)
	case verbPatch:
		return s.patch(w, c)
	case verbDelete:
		return s.delete(w, c)
	case verbDeleteCollection:
		return s.deleteCollection(w, c)
	}
	return apierrors.NewMethodNotSupported(c.resource.GroupResource(), c.verb)
}

func (s *Server) handleSubresource(w http.ResponseWriter, c *call) error {
	if c.sub.Unsupported != "" {
		return errNotImplemented(c.resource.GroupResource(), c.name, c.sub.Unsupported)
	}
	switch c.sub.Name {
	case "status":
		return s.get(w, c)
	case "log":
		return s.logs(w, c)
	case "exec":
		return s.exec(w, c)
	case "eviction":
		return s.evict(w, c)
	}
	return errNoSuchPath()
}

// maxBody is Kubernetes' own limit of a request's body.
const maxBody = 3 << 20

// body reads the request's body.
func (c *call) body(w http.ResponseWriter) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, c.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, apierrors.NewRequestEntityTooLargeError("limit is 3145728")
	case err != nil:
		return nil, apierrors.NewBadRequest("cannot read the body: " + err.Error())
	}
	return body, nil
}
