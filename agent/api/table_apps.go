package api

import (
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var daemonSetTable = tablePrinter{
	columns: []metav1.TableColumnDefinition{
		nameColumn,
		number("Desired", "Hosts that should run the pod."),
		number("Current", "Of those, hosts that have a pod."),
		number("Ready", "Of those, hosts whose pod is ready."),
		number("Up-to-date", "Of those, hosts whose pod is of the current revision."),
		number("Available", "Of those, hosts whose pod has been ready for minReadySeconds."),
		column("Node Selector", "Labels a host must have."),
		ageColumn,
		wide(column("Containers", "Names of the containers.")),
		wide(column("Images", "Images of the containers.")),
		wide(column("Selector", "Label selector of the pods.")),
	},
	row: func(obj Object, now time.Time) []any {
		ds := obj.(*appsv1.DaemonSet)
		names, images := containerCells(ds.Spec.Template.Spec.Containers)
		return []any{
			ds.Name,
			int64(ds.Status.DesiredNumberScheduled), int64(ds.Status.CurrentNumberScheduled), int64(ds.Status.NumberReady),
			int64(ds.Status.UpdatedNumberScheduled), int64(ds.Status.NumberAvailable),
			nodeSelectorText(ds.Spec.Template.Spec.NodeSelector), age(ds.CreationTimestamp, now),
			names, images, selectorText(ds.Spec.Selector),
		}
	},
}

var controllerRevisionTable = tablePrinter{
	columns: []metav1.TableColumnDefinition{nameColumn, column("Controller", "What it is a revision of."), number("Revision", "Its number."), ageColumn},
	row: func(obj Object, now time.Time) []any {
		rev := obj.(*appsv1.ControllerRevision)
		controller := "<none>"
		if owner := metav1.GetControllerOf(rev); owner != nil {
			group, _, _ := strings.Cut(owner.APIVersion, "/")
			controller = strings.ToLower(owner.Kind) + "." + group + "/" + owner.Name
		}
		return []any{rev.Name, controller, rev.Revision, age(rev.CreationTimestamp, now)}
	},
}
