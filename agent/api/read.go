package api

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// current is the object of the request.
func (s *Server) current(c *call) (Object, error) {
	obj, ok := s.cache.Get(c.resource.GroupResource(), c.namespace, c.name)
	if !ok {
		return nil, apierrors.NewNotFound(c.resource.GroupResource(), c.name)
	}
	return obj, nil
}

func (s *Server) get(w http.ResponseWriter, c *call) error {
	obj, err := s.current(c)
	if err != nil {
		return err
	}
	if node := s.elsewhere(obj); node != "" {
		if obj, err = s.fresh(w, c, obj, node); err != nil {
			return err
		}
	}
	return c.writeObject(w, http.StatusOK, obj)
}

// parseVersion reads a resourceVersion parameter; 0 is "any".
func parseVersion(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, invalidOptions("ListOptions", field.ErrorList{field.Invalid(field.NewPath("resourceVersion"), s, "must be a number as this API gave it out")})
	}
	return v, nil
}

// position is a continue token: the list as it was at a resourceVersion goes on after an object.
type position struct {
	APIVersion string `json:"v"`
	Version    uint64 `json:"rv"`
	Start      string `json:"start"` // the last object sent, "namespace/name"
}

func (p position) token() string {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func parsePosition(token string) (position, error) {
	var p position
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err == nil && p.APIVersion != "meta.k8s.io/v1" {
		err = fmt.Errorf("server does not recognize this encoded version %q", p.APIVersion)
	}
	if err != nil {
		return p, apierrors.NewBadRequest("continue key is not valid: " + err.Error())
	}
	return p, nil
}

func (s *Server) list(w http.ResponseWriter, c *call) error {
	opts, err := listOptions(c.URL.Query())
	if err != nil {
		return err
	}
	sel, err := newSelection(c.resource, c.namespace, opts.LabelSelector, opts.FieldSelector)
	if err != nil {
		return err
	}
	objects, version, err := s.objectsFor(sel, opts)
	if err != nil {
		return err
	}
	if node := s.witness(c, sel); node != "" && opts.Continue == "" {
		objects = s.eventsFrom(w, c, node, objects, version)
		opts.Limit = 0 // a second page would know this host's own only
	}
	l := list{kind: c.resource.Kind + "List", apiVersion: c.resource.GroupVersion.String(), items: objects}
	l.ResourceVersion = formatVersion(version)
	if limit := int(opts.Limit); limit > 0 && len(objects) > limit {
		last := objects[limit-1]
		l.items = objects[:limit]
		l.Continue = position{APIVersion: "meta.k8s.io/v1", Version: version, Start: last.GetNamespace() + "/" + last.GetName()}.token()
		if sel.everything() {
			remaining := int64(len(objects) - limit)
			l.RemainingItemCount = &remaining
		}
	}
	return c.writeList(w, l)
}

// objectsFor finds what a list is about. All pages of a list show the state of its first page: a client that watches from the
// list's resourceVersion misses nothing.
func (s *Server) objectsFor(sel selection, opts metav1.ListOptions) ([]Object, uint64, error) {
	wanted, err := parseVersion(opts.ResourceVersion)
	if err != nil {
		return nil, 0, err
	}
	if opts.Continue != "" {
		if wanted != 0 {
			return nil, 0, apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
		}
		return s.continued(sel, opts.Continue)
	}
	if wanted != 0 {
		if err := s.cache.checkVersion(wanted); err != nil {
			return nil, 0, err
		}
		if current := s.cache.version(); wanted > current {
			return nil, 0, errTooNew(wanted, current)
		}
		if opts.ResourceVersionMatch == metav1.ResourceVersionMatchExact {
			objects, err := s.cache.snapshotAt(sel, wanted)
			return objects, wanted, err
		}
	}
	objects, version := s.cache.snapshot(sel)
	return objects, version, nil
}

func (s *Server) continued(sel selection, token string) ([]Object, uint64, error) {
	p, err := parsePosition(token)
	if err != nil {
		return nil, 0, err
	}
	objects, err := s.cache.snapshotAt(sel, p.Version)
	if err != nil {
		return nil, 0, apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. " +
			"You must start a new list without the continue parameter.")
	}
	namespace, name, _ := strings.Cut(p.Start, "/")
	after := 0
	for after < len(objects) {
		ns := objects[after].GetNamespace()
		if ns > namespace || ns == namespace && objects[after].GetName() > name {
			break
		}
		after++
	}
	return objects[after:], p.Version, nil
}
