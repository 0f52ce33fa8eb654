package api

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
)

// selectableFields is what a resource offers to field selectors besides its name and namespace.
type selectableFields struct {
	names []string
	of    func(Object) fields.Set
}

var podFields = selectableFields{
	names: []string{
		"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
		"status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName",
	},
	of: func(obj Object) fields.Set {
		pod := obj.(*corev1.Pod)
		set := fields.Set{
			"spec.nodeName":            pod.Spec.NodeName,
			"spec.restartPolicy":       string(pod.Spec.RestartPolicy),
			"spec.schedulerName":       pod.Spec.SchedulerName,
			"spec.serviceAccountName":  pod.Spec.ServiceAccountName,
			"spec.hostNetwork":         strconv.FormatBool(pod.Spec.HostNetwork),
			"status.phase":             string(pod.Status.Phase),
			"status.podIP":             pod.Status.PodIP,
			"status.podIPs":            pod.Status.PodIP,
			"status.nominatedNodeName": pod.Status.NominatedNodeName,
		}
		return set
	},
}

var nodeFields = selectableFields{
	names: []string{"spec.unschedulable"},
	of: func(obj Object) fields.Set {
		return fields.Set{"spec.unschedulable": strconv.FormatBool(obj.(*corev1.Node).Spec.Unschedulable)}
	},
}

var namespaceFields = selectableFields{
	names: []string{"status.phase"},
	of: func(obj Object) fields.Set {
		return fields.Set{"status.phase": string(obj.(*corev1.Namespace).Status.Phase)}
	},
}

var secretFields = selectableFields{
	names: []string{"type"},
	of:    func(obj Object) fields.Set { return fields.Set{"type": string(obj.(*corev1.Secret).Type)} },
}

var eventFields = selectableFields{
	names: []string{
		"involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid", "involvedObject.apiVersion",
		"involvedObject.resourceVersion", "involvedObject.fieldPath", "reason", "reportingComponent", "source", "type",
	},
	of: func(obj Object) fields.Set {
		event := obj.(*corev1.Event)
		source := event.Source.Component
		if source == "" {
			source = event.ReportingController
		}
		return fields.Set{
			"involvedObject.kind":            event.InvolvedObject.Kind,
			"involvedObject.namespace":       event.InvolvedObject.Namespace,
			"involvedObject.name":            event.InvolvedObject.Name,
			"involvedObject.uid":             string(event.InvolvedObject.UID),
			"involvedObject.apiVersion":      event.InvolvedObject.APIVersion,
			"involvedObject.resourceVersion": event.InvolvedObject.ResourceVersion,
			"involvedObject.fieldPath":       event.InvolvedObject.FieldPath,
			"reason":                         event.Reason,
			"reportingComponent":             event.ReportingController,
			"source":                         source,
			"type":                           event.Type,
		}
	},
}

// selection says which objects of a resource a request is about. The zero value is all of them.
type selection struct {
	resource  *resource
	namespace string // "": all
	labels    labels.Selector
	fields    fields.Selector
	// name, when not empty, is the only name the field selector can match: most watches of kubectl are for one object.
	name string
}

// newSelection parses the selectors of a list or watch. Unknown fields are refused: ignoring one would select too much.
func newSelection(r *resource, namespace, labelSelector, fieldSelector string) (selection, error) {
	s := selection{resource: r, namespace: namespace}
	var err error
	if s.labels, err = labels.Parse(labelSelector); err != nil {
		return s, apierrors.NewBadRequest("unable to parse requirement: " + err.Error())
	}
	if s.fields, err = fields.ParseSelector(fieldSelector); err != nil {
		return s, apierrors.NewBadRequest(err.Error())
	}
	for _, requirement := range s.fields.Requirements() {
		if !r.Fields.knows(requirement.Field, r.Namespaced) {
			return s, apierrors.NewBadRequest("field label not supported: " + requirement.Field)
		}
	}
	s.name, _ = s.fields.RequiresExactMatch("metadata.name")
	return s, nil
}

func (f selectableFields) knows(field string, namespaced bool) bool {
	if field == "metadata.name" || field == "metadata.namespace" && namespaced {
		return true
	}
	for _, name := range f.names {
		if name == field {
			return true
		}
	}
	return false
}

// everything reports whether no selector narrows the resource within its namespace.
func (s selection) everything() bool {
	return (s.labels == nil || s.labels.Empty()) && (s.fields == nil || s.fields.Empty())
}

// matches tells whether the object is selected. It is called for every object of every list and event of every watch:
// the field set is built only when it is needed.
func (s selection) matches(obj Object) bool {
	if obj == nil || s.namespace != "" && obj.GetNamespace() != s.namespace || s.name != "" && obj.GetName() != s.name {
		return false
	}
	if s.labels != nil && !s.labels.Empty() && !s.labels.Matches(labels.Set(obj.GetLabels())) {
		return false
	}
	return s.fields == nil || s.fields.Empty() || s.fields.Matches(s.fieldSet(obj))
}

func (s selection) fieldSet(obj Object) fields.Set {
	set := fields.Set{}
	if s.resource.Fields.of != nil {
		set = s.resource.Fields.of(obj)
	}
	set["metadata.name"] = obj.GetName()
	set["metadata.namespace"] = obj.GetNamespace()
	return set
}
