package api

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/duration"
)

// tablePrinter prints objects of one kind as kubectl shows them. Columns and cells are those of Kubernetes' own printers.
type tablePrinter struct {
	columns []metav1.TableColumnDefinition
	row     func(obj Object, now time.Time) []any
}

// column declares a string column; wide ones are seen only with -o wide.
func column(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "string", Description: description}
}

func number(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "integer", Description: description}
}

func wide(c metav1.TableColumnDefinition) metav1.TableColumnDefinition {
	c.Priority = 1
	return c
}

var (
	nameColumn = metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Description: "Name must be unique within a namespace."}
	ageColumn  = column("Age", "Time since the object was created.")
)

// table prints objects. The rows carry what include asks for: None, Metadata (the default) or Object.
func (p *tablePrinter) table(objects []Object, include metav1.IncludeObjectPolicy, now time.Time) *metav1.Table {
	t := &metav1.Table{ColumnDefinitions: p.columns, Rows: make([]metav1.TableRow, 0, len(objects))}
	for _, obj := range objects {
		row := metav1.TableRow{Cells: p.row(obj, now)}
		switch include {
		case metav1.IncludeNone:
		case metav1.IncludeObject:
			row.Object.Object = obj
		default:
			row.Object.Object = partialMetadata(obj)
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// partialMetadata is the object without spec, data and status.
func partialMetadata(obj Object) *metav1.PartialObjectMetadata {
	m := metav1.PartialObjectMetadata{
		TypeMeta: metav1.TypeMeta{APIVersion: metav1.SchemeGroupVersion.String(), Kind: "PartialObjectMetadata"},
	}
	if accessor, ok := obj.(metav1.ObjectMetaAccessor); ok {
		if meta, ok := accessor.GetObjectMeta().(*metav1.ObjectMeta); ok {
			m.ObjectMeta = *meta
		}
	}
	return &m
}

// age is the time since t in the short form of kubectl ("5m", "3d").
func age(t metav1.Time, now time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(t.Time))
}

// orNone is how an empty cell is printed.
func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

// containerCells are the wide columns Containers and Images.
func containerCells(containers []corev1.Container) (names, images string) {
	var n, i []string
	for _, c := range containers {
		n, i = append(n, c.Name), append(i, c.Image)
	}
	return strings.Join(n, ","), strings.Join(i, ",")
}

var configMapTable = tablePrinter{
	columns: []metav1.TableColumnDefinition{nameColumn, number("Data", "Number of keys."), ageColumn},
	row: func(obj Object, now time.Time) []any {
		cm := obj.(*corev1.ConfigMap)
		return []any{cm.Name, int64(len(cm.Data) + len(cm.BinaryData)), age(cm.CreationTimestamp, now)}
	},
}

var secretTable = tablePrinter{
	columns: []metav1.TableColumnDefinition{nameColumn, column("Type", "What the secret is for."), number("Data", "Number of keys."), ageColumn},
	row: func(obj Object, now time.Time) []any {
		s := obj.(*corev1.Secret)
		return []any{s.Name, string(s.Type), int64(len(s.Data)), age(s.CreationTimestamp, now)}
	},
}

var namespaceTable = tablePrinter{
	columns: []metav1.TableColumnDefinition{nameColumn, column("Status", "Active or Terminating."), ageColumn},
	row: func(obj Object, now time.Time) []any {
		ns := obj.(*corev1.Namespace)
		return []any{ns.Name, string(ns.Status.Phase), age(ns.CreationTimestamp, now)}
	},
}

var nodeTable = tablePrinter{
	columns: []metav1.TableColumnDefinition{
		nameColumn,
		column("Status", "Whether the host runs pods."),
		column("Roles", "Roles, from labels."),
		ageColumn,
		column("Version", "Version of the agent."),
		wide(column("Internal-IP", "Address within the fleet.")),
		wide(column("External-IP", "Address from outside.")),
		wide(column("OS-Image", "Operating system.")),
		wide(column("Kernel-Version", "Kernel.")),
		wide(column("Container-Runtime", "Runtime and its version.")),
	},
	row: func(obj Object, now time.Time) []any {
		n := obj.(*corev1.Node)
		info := n.Status.NodeInfo
		return []any{
			n.Name, nodeStatus(n), nodeRoles(n), age(n.CreationTimestamp, now), info.KubeletVersion,
			nodeAddress(n, corev1.NodeInternalIP), nodeAddress(n, corev1.NodeExternalIP),
			orUnknown(info.OSImage), orUnknown(info.KernelVersion), orUnknown(info.ContainerRuntimeVersion),
		}
	},
}

func orUnknown(s string) string {
	if s == "" {
		return "<unknown>"
	}
	return s
}

func nodeStatus(n *corev1.Node) string {
	status := "Unknown"
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		status = "NotReady"
		if c.Status == corev1.ConditionTrue {
			status = "Ready"
		}
	}
	if n.Spec.Unschedulable {
		status += ",SchedulingDisabled"
	}
	return status
}

func nodeRoles(n *corev1.Node) string {
	var roles []string
	for key, value := range n.Labels {
		if role, ok := strings.CutPrefix(key, "node-role.kubernetes.io/"); ok && role != "" {
			roles = append(roles, role)
		} else if key == "kubernetes.io/role" && value != "" {
			roles = append(roles, value)
		}
	}
	sort.Strings(roles)
	return orNone(strings.Join(slices.Compact(roles), ","))
}

func nodeAddress(n *corev1.Node, kind corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == kind {
			return a.Address
		}
	}
	return "<none>"
}

var eventTable = tablePrinter{
	columns: []metav1.TableColumnDefinition{
		column("Last Seen", "Time since it last happened."),
		column("Type", "Normal or Warning."),
		column("Reason", "A short, machine understandable reason."),
		column("Object", "What it happened to."),
		wide(column("Subobject", "The field or container it happened to.")),
		wide(column("Source", "Who reported it.")),
		column("Message", "What happened."),
		wide(column("First Seen", "Time since it first happened.")),
		wide(number("Count", "How often it happened.")),
		wide(nameColumn),
	},
	row: func(obj Object, now time.Time) []any {
		e := obj.(*corev1.Event)
		first, last, count := eventTimes(e)
		object := strings.ToLower(e.InvolvedObject.Kind)
		if e.InvolvedObject.Name != "" {
			object += "/" + e.InvolvedObject.Name
		}
		return []any{
			age(last, now), e.Type, e.Reason, object, e.InvolvedObject.FieldPath, eventSource(e),
			strings.TrimSpace(e.Message), age(first, now), int64(count), e.Name,
		}
	},
}

// eventTimes reads both generations of the event API: first and last timestamp, or event time and series.
func eventTimes(e *corev1.Event) (first, last metav1.Time, count int32) {
	first, last, count = e.FirstTimestamp, e.LastTimestamp, e.Count
	if first.IsZero() {
		first = metav1.Time{Time: e.EventTime.Time}
	}
	if e.Series != nil {
		last, count = metav1.Time{Time: e.Series.LastObservedTime.Time}, e.Series.Count
	} else if last.IsZero() {
		last = first
	}
	return first, last, max(count, 1)
}

func eventSource(e *corev1.Event) string {
	component, host := e.Source.Component, e.Source.Host
	if component == "" {
		component, host = e.ReportingController, e.ReportingInstance
	}
	if host != "" {
		return fmt.Sprintf("%s, %s", component, host)
	}
	return component
}

// selectorText prints a label selector as kubectl does.
func selectorText(s *metav1.LabelSelector) string {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return "<error>"
	}
	return orNone(selector.String())
}

// nodeSelectorText prints a pod's node selector as kubectl does.
func nodeSelectorText(set map[string]string) string { return labels.FormatLabels(set) }
