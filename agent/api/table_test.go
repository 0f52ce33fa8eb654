package api

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) metav1.Time { return metav1.NewTime(noon.Add(-d)) }

func waiting(reason string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
}

func terminated(reason string, code, signal int32) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code, Signal: signal, FinishedAt: ago(time.Minute)}}
}

func run() corev1.ContainerState {
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
}

// The Status column names what holds a pod up, as Kubernetes' printer does.
func TestPodStatusColumn(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	yes := true
	initialized := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue}
	deleted := ago(time.Second)
	type statuses = []corev1.ContainerStatus
	tests := []struct {
		name string
		pod  corev1.Pod
		want string // Ready Status Restarts
	}{
		{"no status yet", corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodPending}}, "0/1 Pending 0"},
		{"reason of the pod", corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted"}}, "0/1 Evicted 0"},
		{"creating", corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: statuses{{Name: "c", State: waiting("ContainerCreating")}}}}, "0/1 ContainerCreating 0"},
		{"running", corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: statuses{{Name: "c", State: run(), Ready: true}}}}, "1/1 Running 0"},
		{"running, not ready", corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: statuses{{Name: "c", State: run()}}}}, "0/1 Running 0"},
		{
			"crash loop", corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: statuses{{
				Name: "c", State: waiting("CrashLoopBackOff"), RestartCount: 3, LastTerminationState: terminated("Error", 1, 0),
			}}}}, "0/1 CrashLoopBackOff 3 (60s ago)",
		},
		{"out of memory", corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: statuses{{Name: "c", State: terminated("OOMKilled", 137, 0)}}}}, "0/1 OOMKilled 0"},
		{"exit code only", corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: statuses{{Name: "c", State: terminated("", 3, 0)}}}}, "0/1 ExitCode:3 0"},
		{"signal only", corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: statuses{{Name: "c", State: terminated("", 0, 9)}}}}, "0/1 Signal:9 0"},
		{"terminating", corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &deleted}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}, "0/1 Terminating 0"},
		{"on a lost node", corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &deleted}, Status: corev1.PodStatus{Phase: corev1.PodRunning, Reason: "NodeLost"}}, "0/1 Unknown 0"},
		{"ended while deleted", corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &deleted}, Status: corev1.PodStatus{Phase: corev1.PodSucceeded}}, "0/1 Succeeded 0"},
		{
			"second init container", corev1.Pod{
				Spec:   corev1.PodSpec{InitContainers: []corev1.Container{{Name: "i1"}, {Name: "i2"}}},
				Status: corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: statuses{{Name: "i1", State: terminated("Completed", 0, 0)}, {Name: "i2", State: run()}}},
			}, "0/1 Init:1/2 0",
		},
		{
			"init container fails", corev1.Pod{
				Spec:   corev1.PodSpec{InitContainers: []corev1.Container{{Name: "i1"}}},
				Status: corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: statuses{{Name: "i1", State: waiting("CrashLoopBackOff"), RestartCount: 2}}},
			}, "0/1 Init:CrashLoopBackOff 2",
		},
		{
			"init container ended badly", corev1.Pod{
				Spec:   corev1.PodSpec{InitContainers: []corev1.Container{{Name: "i1"}}},
				Status: corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: statuses{{Name: "i1", State: terminated("", 7, 0)}}},
			}, "0/1 Init:ExitCode:7 0",
		},
		{
			"sidecar runs, restarts of init containers no longer count", corev1.Pod{
				Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "i1"}, {Name: "side", RestartPolicy: &always}}},
				Status: corev1.PodStatus{
					Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{initialized},
					InitContainerStatuses: statuses{
						{Name: "i1", State: terminated("Completed", 0, 0), RestartCount: 5},
						{Name: "side", State: run(), Started: &yes, Ready: true, RestartCount: 1},
					},
					ContainerStatuses: statuses{{Name: "c", State: run(), Ready: true}},
				},
			}, "2/2 Running 1",
		},
		{
			"one container completed", corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{ready}, ContainerStatuses: statuses{
				{Name: "c", State: terminated("Completed", 0, 0)}, {Name: "d", State: run(), Ready: true},
			}}}, "1/1 Running 0",
		},
		{
			"one container completed, not ready", corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: statuses{
				{Name: "c", State: terminated("Completed", 0, 0)}, {Name: "d", State: run(), Ready: true},
			}}}, "1/1 NotReady 0",
		},
	}
	for _, tt := range tests {
		tt.pod.Spec.Containers = []corev1.Container{{Name: "c"}}
		row := podTable.row(&tt.pod, noon)
		if got := fmt.Sprintf("%s %s %s", row[1], row[2], row[3]); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Every table has as many cells as columns, for an empty object too: bookmarks are such.
func TestTablesFitTheirColumns(t *testing.T) {
	for _, r := range resources {
		if r.Table == nil {
			continue
		}
		obj, err := codecs.newObject(r)
		if err != nil {
			t.Fatal(err)
		}
		cells := r.Table.row(obj, noon)
		if len(cells) != len(r.Table.columns) {
			t.Fatalf("%s: %d cells in %d columns", r.Name, len(cells), len(r.Table.columns))
		}
		for i, c := range r.Table.columns {
			_, isNumber := cells[i].(int64)
			if _, isText := cells[i].(string); isNumber != (c.Type == "integer") || !isNumber && !isText {
				t.Errorf("%s: the cell of %s is a %T", r.Name, c.Name, cells[i])
			}
		}
	}
}

func TestColumns(t *testing.T) {
	want := map[string]string{
		"daemonsets": "Name Desired Current Ready Up-to-date Available Node_Selector Age | Containers Images Selector",
		"pods":       "Name Ready Status Restarts Age | IP Node Nominated_Node Readiness_Gates",
		"nodes":      "Name Status Roles Age Version | Internal-IP External-IP OS-Image Kernel-Version Container-Runtime",
		"configmaps": "Name Data Age |", "secrets": "Name Type Data Age |", "namespaces": "Name Status Age |",
		"controllerrevisions": "Name Controller Revision Age |",
	}
	for name, columns := range want {
		for _, r := range resources {
			if r.Name != name {
				continue
			}
			normal, wider := "", ""
			for _, c := range r.Table.columns {
				if name := strings.ReplaceAll(c.Name, " ", "_"); c.Priority == 0 {
					normal += name + " "
				} else {
					wider += " " + name
				}
			}
			if got := normal + "|" + wider; got != columns {
				t.Errorf("%s: %s", name, got)
			}
		}
	}
}

func TestNodeCells(t *testing.T) {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{
			"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/edge": "", "kubernetes.io/role": "edge",
		}},
		Spec:   corev1.NodeSpec{Unschedulable: true},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown}}},
	}
	if row := nodeTable.row(n, noon); row[1] != "NotReady,SchedulingDisabled" || row[2] != "edge,worker" {
		t.Errorf("%v", row)
	}
	n.Status.Conditions = nil
	n.Spec.Unschedulable = false
	if row := nodeTable.row(n, noon); row[1] != "Unknown" {
		t.Errorf("%v", row)
	}
}

func TestEventCells(t *testing.T) {
	old := &corev1.Event{
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "p"}, FirstTimestamp: ago(time.Hour), LastTimestamp: ago(time.Minute), Count: 4,
		Source: corev1.EventSource{Component: "picketd", Host: "h"}, Message: "text\n",
	}
	if row := eventTable.row(old, noon); row[0] != "60s" || row[3] != "pod/p" || row[5] != "picketd, h" || row[6] != "text" || row[7] != "60m" || row[8] != int64(4) {
		t.Errorf("%v", row)
	}
	series := &corev1.Event{
		EventTime: metav1.NewMicroTime(noon.Add(-time.Hour)), ReportingController: "picketd",
		Series: &corev1.EventSeries{Count: 9, LastObservedTime: metav1.NewMicroTime(noon.Add(-2 * time.Minute))},
	}
	if row := eventTable.row(series, noon); row[0] != "2m" || row[5] != "picketd" || row[7] != "60m" || row[8] != int64(9) {
		t.Errorf("%v", row)
	}
}

func TestControllerRevisionCells(t *testing.T) {
	yes := true
	rev := &appsv1.ControllerRevision{Revision: 3, ObjectMeta: metav1.ObjectMeta{
		Name: "web-1", OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "web", Controller: &yes}},
	}}
	if row := controllerRevisionTable.row(rev, noon); row[1] != "daemonset.apps/web" || row[2] != int64(3) {
		t.Errorf("%v", row)
	}
}
