package daemonset

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxHostsNamed bounds how many hosts one sentence names.
const maxHostsNamed = 3

// rollout says in one sentence how far the rollout has come, and which command would move one on that does not move.
func (q question) rollout() WhyRollout {
	s := q.ds.Status
	r := WhyRollout{Desired: s.DesiredNumberScheduled, Updated: s.UpdatedNumberScheduled, Available: s.NumberAvailable}
	r.RevisionHash, r.Revision = q.current()
	counted := fmt.Sprintf("%d of %d pods are updated", r.Updated, r.Desired)
	why, command := q.obstacle()
	switch reason := reasonOf(s, ConditionProgressing); {
	case reason == "RolloutComplete" && r.Desired == 0:
		r.State, r.Message = RolloutComplete, "complete: no host is to run it"
	case reason == "RolloutComplete":
		r.State, r.Message = RolloutComplete, fmt.Sprintf("complete: %s to revision %d and available", counted, r.Revision)
	case reason == "RolloutPaused":
		r.State, r.Message, r.Command = RolloutPaused, "paused: "+counted, q.command("resume")
	case why != "":
		r.State, r.Message, r.Command = RolloutBlocked, "blocked: "+counted+"; "+why, command
	case reason == "WaitingForDelete":
		r.State, r.Message, r.Command = RolloutOnDelete, counted+"; the others are replaced when they are deleted (OnDelete)", q.deleteOldPod()
	default:
		r.State, r.Message = RolloutProgressing, counted+q.underway()
	}
	r.Message += q.rolledBack()
	return r
}

// rolledBack says that the current revision was gone back to without a person.
func (q question) rolledBack() string {
	from, to, _ := strings.Cut(q.ds.Annotations[AnnotationRolledBack], ">")
	if current, _ := q.current(); to == "" || to != current {
		return ""
	}
	return fmt.Sprintf("; it was rolled back from revision %d, which was not available in time", q.number(from))
}

// notRolledBack says why a rollback that was asked for does not come.
func (q question) notRolledBack() string {
	if !rollsBack(q.ds) {
		return ""
	}
	if _, _, whyNot := Rollback(q.ds, q.history); whyNot != "" {
		return ", and it is not rolled back: " + whyNot
	}
	return ""
}

func reasonOf(s appsv1.DaemonSetStatus, condition appsv1.DaemonSetConditionType) string {
	for _, c := range s.Conditions {
		if c.Type == condition {
			return c.Reason
		}
	}
	return ""
}

// obstacle says what keeps the rollout from going on by itself, "" when nothing does or it goes on elsewhere, and the command that helps:
// a revision that cannot run is taken back, a host that was lost in its turn is given up.
func (q question) obstacle() (why, command string) {
	switch reason := reasonOf(q.ds.Status, ConditionBlocked); {
	case reason == BlockedByStuckHost:
		return named(q.hosts(func(w Status) bool { return stuck(q.ds, w) })) + " did not become available in time" + q.notRolledBack(), q.command("undo")
	case len(q.updating()) > 0:
	case reason == BlockedByLostHost:
		lost := q.hosts(func(w Status) bool { return lostInTurn(q.ds, w) })
		return named(lost) + ", lost in the update, may come back", "picket delete node " + lost[0]
	case reason == BlockedByAsideHosts:
		if q.ds.Status.UpdatedNumberScheduled == 0 { // else it is the host, not the revision
			command = q.command("undo")
		}
		return named(q.hosts(func(w Status) bool { return w.Aside && w.Placed && !w.Updated })) + " cannot make the next pod", command
	}
	return "", ""
}

// updating are the hosts whose turn it is, as far as they are heard.
func (q question) updating() []string {
	return q.hosts(func(w Status) bool { return w.Updating && w.Silent == "" })
}

// underway names the hosts that the rollout is at, or what it waits for.
func (q question) underway() string {
	unheard := q.hosts(func(w Status) bool { return behind(q.ds, w) && w.Silent == "" })
	missing := q.hosts(func(w Status) bool { return w.Placed && (!w.Available || w.Silent != "") })
	switch updating := q.updating(); {
	case len(updating) == 1:
		return "; " + updating[0] + " is updating"
	case len(updating) > 1:
		return "; " + named(updating) + " are updating"
	case len(unheard) > 0:
		return fmt.Sprintf("; %s not told of generation %d yet", have(unheard), q.ds.Generation)
	case len(missing) > 0:
		return fmt.Sprintf(", %d available; not available: %s", q.ds.Status.NumberAvailable, named(missing))
	}
	return ""
}

// have is for sentences about one host or several.
func have(names []string) string {
	if len(names) == 1 {
		return names[0] + " has"
	}
	return named(names) + " have"
}

// deleteOldPod is what OnDelete waits for, for the first host.
func (q question) deleteOldPod() string {
	for _, w := range q.words {
		if w.HasPod && !w.Updated && w.Silent == "" {
			return "picket delete pod " + PodName(q.ds.Name, w.PodUID) + inNamespace(q.ds)
		}
	}
	return ""
}

func (q question) command(verb string) string {
	return "picket rollout " + verb + " ds/" + q.ds.Name + inNamespace(q.ds)
}

func inNamespace(ds *appsv1.DaemonSet) string {
	if ds.Namespace == metav1.NamespaceDefault {
		return ""
	}
	return " -n " + ds.Namespace
}

func (q question) hosts(match func(Status) bool) []string {
	var names []string
	for _, w := range q.words {
		if match(w) {
			names = append(names, w.Node)
		}
	}
	return names
}

// named lists hosts, the first few by name.
func named(names []string) string {
	text := strings.Join(names[:min(len(names), maxHostsNamed)], ", ")
	if more := len(names) - maxHostsNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
