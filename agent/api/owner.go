package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What the host that a pod is on knows better than this one: all of the pod, how it ends, and its events. Objects that come from
// there get this host's resourceVersions: clients watch from them here.

// fresh is a pod as the host that it is on knows it. When that cannot be reached it is what was heard of it last, with a warning.
func (s *Server) fresh(w http.ResponseWriter, c *call, known Object, node string) (Object, error) {
	answer, err := s.ask(c, node, question{method: http.MethodGet, path: podPath(c), within: readRemote})
	var u *unreachable
	if errors.As(err, &u) {
		warn(w, []string{fmt.Sprintf("%v; it is shown as %s last heard of it", u.about(c.name), s.node)})
		return known, nil
	}
	if err != nil {
		return nil, err
	}
	pod, err := podIn(answer, known, node)
	if err == nil && pod == nil {
		err = fmt.Errorf("%s answers without the pod", node)
	}
	return pod, err
}

func podPath(c *call) string {
	return "/api/v1/namespaces/" + c.namespace + "/pods/" + c.name
}

// podIn reads a pod out of another host's answer; nil when it is a Status.
func podIn(answer []byte, known Object, node string) (Object, error) {
	var of metav1.TypeMeta
	if err := json.Unmarshal(answer, &of); err != nil {
		return nil, fmt.Errorf("cannot read what %s answers: %w", node, err)
	}
	switch of.Kind {
	case "Status":
		return nil, nil
	case "Pod":
	default:
		return nil, fmt.Errorf("%s answers with a %q instead of a pod", node, of.Kind)
	}
	var pod corev1.Pod
	if err := json.Unmarshal(answer, &pod); err != nil {
		return nil, fmt.Errorf("cannot read what %s answers: %w", node, err)
	}
	pod.ResourceVersion = known.GetResourceVersion()
	return &pod, nil
}

// removeElsewhere deletes a pod through the host that it is on. lives tells that it has yet to stop.
func (s *Server) removeElsewhere(c *call, node string, known Object, opts metav1.DeleteOptions) (last Object, lives bool, err error) {
	if p := opts.Preconditions; p != nil && p.ResourceVersion != nil {
		if *p.ResourceVersion != known.GetResourceVersion() {
			return nil, false, errModified(c.resource.GroupResource(), c.name)
		}
		opts.Preconditions = &metav1.Preconditions{UID: p.UID} // that host counts versions of its own
	}
	opts.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"}
	answer, err := s.ask(c, node, question{method: http.MethodDelete, path: podPath(c), body: opts, within: removeRemote})
	var u *unreachable
	if errors.As(err, &u) {
		return nil, false, u.about(c.name)
	}
	if err != nil {
		return nil, false, err
	}
	switch pod, err := podIn(answer, known, node); {
	case err != nil:
		return nil, false, err
	case pod != nil:
		return pod, true, nil
	}
	return known, false, nil
}

// witness is the other host that knows of what happened to the one pod or node that a list of events is about; "" when that is
// no other, or the list is about more.
func (s *Server) witness(c *call, sel selection) string {
	name, one := sel.fields.RequiresExactMatch("involvedObject.name")
	if s.fleet == nil || c.user.via != "" || !one || sel.resource.GroupResource() != corev1.Resource("events") {
		return ""
	}
	switch kind, _ := sel.fields.RequiresExactMatch("involvedObject.kind"); kind {
	case "Node":
		if _, known := s.cache.Get(corev1.Resource("nodes"), "", name); known && name != s.node {
			return name
		}
	case "Pod", "":
		namespace, ok := sel.fields.RequiresExactMatch("involvedObject.namespace")
		if !ok {
			namespace = sel.namespace
		}
		if pod, known := s.cache.Get(corev1.Resource("pods"), namespace, name); known {
			return s.elsewhere(pod)
		}
	}
	return ""
}

// eventsFrom adds the selected events of another host to those of this one. When they cannot be had, a warning says so.
func (s *Server) eventsFrom(w http.ResponseWriter, c *call, node string, own []Object, version uint64) []Object {
	query := url.Values{}
	for _, name := range []string{"fieldSelector", "labelSelector"} {
		if v := c.URL.Query().Get(name); v != "" {
			query.Set(name, v)
		}
	}
	var events corev1.EventList
	answer, err := s.ask(c, node, question{method: http.MethodGet, path: c.URL.Path, query: query, within: readRemote})
	if err == nil {
		err = json.Unmarshal(answer, &events)
	}
	if err != nil {
		warn(w, []string{fmt.Sprintf("events that %s keeps are not shown: %v", node, err)})
		return own
	}
	all := slices.Clone(own)
	for i := range events.Items {
		event := &events.Items[i]
		event.ResourceVersion = formatVersion(version)
		all = append(all, event)
	}
	sortObjects(all)
	return all
}
