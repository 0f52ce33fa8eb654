package api

import (
	"net/http"
	"slices"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (s *Server) delete(w http.ResponseWriter, c *call) error {
	body, err := c.body(w)
	if err != nil {
		return err
	}
	opts, err := codecs.deleteOptions(c.URL.Query(), body, c.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	last, lives, err := s.remove(c, opts)
	if err != nil {
		return err
	}
	// A pod lives on until it has stopped: then the client gets the pod, else a Status. kubectl waits by the uid.
	if lives {
		return c.writeObject(w, http.StatusOK, last)
	}
	writeJSON(w, http.StatusOK, c.success(c.name, last))
	return nil
}

// remove deletes the object of the request. lives tells that it is there until it has come to its end.
func (s *Server) remove(c *call, opts metav1.DeleteOptions) (last Object, lives bool, err error) {
	before, err := s.current(c)
	if err != nil {
		return nil, false, err
	}
	if node := s.elsewhere(before); node != "" {
		return s.removeElsewhere(c, node, before, opts)
	}
	write := Write{Name: c.name, GracePeriodSeconds: opts.GracePeriodSeconds, DryRun: len(opts.DryRun) > 0}
	if p := opts.Preconditions; p != nil {
		if p.UID != nil {
			write.UID = *p.UID
		}
		if p.ResourceVersion != nil {
			write.ResourceVersion = *p.ResourceVersion
		}
	}
	if err := orphans(c, opts); err != nil {
		return nil, false, err
	}
	last, err = s.write(c, write)
	if err != nil {
		return nil, false, err
	}
	if last == nil {
		last = before
	}
	if still, ok := s.cache.Get(c.resource.GroupResource(), c.namespace, c.name); ok && !write.DryRun && still.GetUID() == last.GetUID() {
		return still, true, nil
	}
	return last, false, nil
}

// orphans refuses to let a DaemonSet's pods outlive it: nothing would look after them, and deleting them after all is not what
// the user asked for.
func orphans(c *call, opts metav1.DeleteOptions) error {
	orphan := opts.PropagationPolicy != nil && *opts.PropagationPolicy == metav1.DeletePropagationOrphan ||
		opts.OrphanDependents != nil && *opts.OrphanDependents
	if !orphan || c.resource.GroupVersionKind() != appsv1.SchemeGroupVersion.WithKind("DaemonSet") {
		return nil
	}
	supported := []string{string(metav1.DeletePropagationBackground), string(metav1.DeletePropagationForeground)}
	return invalidOptions("DeleteOptions", field.ErrorList{
		field.NotSupported(field.NewPath("propagationPolicy"), string(metav1.DeletePropagationOrphan), supported),
	})
}

func (s *Server) deleteCollection(w http.ResponseWriter, c *call) error {
	body, err := c.body(w)
	if err != nil {
		return err
	}
	q := c.URL.Query()
	opts, err := codecs.deleteOptions(q, body, c.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	which, err := listOptions(q)
	if err != nil {
		return err
	}
	sel, err := newSelection(c.resource, c.namespace, which.LabelSelector, which.FieldSelector)
	if err != nil {
		return err
	}
	l := list{kind: c.resource.Kind + "List", apiVersion: c.resource.GroupVersion.String()}
	if l.items, err = s.removeAll(c, sel, opts); err != nil {
		return err
	}
	l.ResourceVersion = formatVersion(s.cache.version())
	return c.writeList(w, l)
}

// removeAtOnce is how many objects of a collection are deleted at one time: other hosts' pods wait for the network.
const removeAtOnce = 8

// removeAll deletes what is selected. One that cannot be deleted, because its host is down, keeps none of the others.
func (s *Server) removeAll(c *call, sel selection, opts metav1.DeleteOptions) ([]Object, error) {
	objects, _ := s.cache.snapshot(sel)
	removed := make([]Object, len(objects))
	var group errgroup.Group
	group.SetLimit(removeAtOnce)
	for i, obj := range objects {
		group.Go(func() error {
			one := *c
			one.namespace, one.name = obj.GetNamespace(), obj.GetName()
			last, _, err := s.remove(&one, opts)
			if apierrors.IsNotFound(err) {
				return nil
			}
			removed[i] = last
			return err
		})
	}
	err := group.Wait()
	return slices.DeleteFunc(removed, func(obj Object) bool { return obj == nil }), err
}

// evict deletes a pod the way `kubectl drain` does. There are no disruption budgets here that could speak against it.
func (s *Server) evict(w http.ResponseWriter, c *call) error {
	body, err := c.body(w)
	if err != nil {
		return err
	}
	var eviction policyv1.Eviction
	if _, err := codecs.decode(body, c.Header.Get("Content-Type"), &eviction); err != nil {
		return err
	}
	if eviction.Name != "" && eviction.Name != c.name {
		return apierrors.NewBadRequest("name in URL does not match name in Eviction object: " + c.name + " != " + eviction.Name)
	}
	var opts metav1.DeleteOptions
	if eviction.DeleteOptions != nil {
		opts = *eviction.DeleteOptions
	}
	opts.DryRun = append(opts.DryRun, c.URL.Query()["dryRun"]...)
	if err := invalidOptions("DeleteOptions", metavalidation.ValidateDeleteOptions(&opts)); err != nil {
		return err
	}
	if _, _, err := s.remove(c, opts); err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess})
	return nil
}
