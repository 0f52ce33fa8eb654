package daemonset

import "strconv"

// Code says why a host is not available or not up to date, in a form that fits into a status. A number is never given another
// meaning; a host that meets one it does not know says so.
type Code uint8

// The codes. The names of those from CodeContainerCreating on are Kubernetes' own.
const (
	CodeNone Code = 0

	// Not placed.
	CodeDeleted            Code = 1
	CodeNodeName           Code = 2
	CodeOS                 Code = 3
	CodeNodeSelector       Code = 4
	CodeAffinity           Code = 5
	CodeAffinityUnreadable Code = 6
	CodeTaint              Code = 7
	CodeEvicted            Code = 8

	// Placed and not available.
	CodeNoPod       Code = 16
	CodeTerminating Code = 17
	CodeFinished    Code = 18
	CodeNotReady    Code = 19 // nobody says why
	CodeOther       Code = 20 // the pod says why, and that has no code
	CodeMinReady    Code = 21
	CodeProbe       Code = 22

	// Not up to date; without a pod, why none is made.
	CodeReplacing  Code = 32
	CodePaused     Code = 33
	CodeOnDelete   Code = 34
	CodeSurging    Code = 35
	CodeOthersHere Code = 36
	CodeNoRevision Code = 37

	// What another host makes this one wait for, see Turn.
	CodeUnheard        Code = 40
	CodeFailed         Code = 41
	CodeQuiet          Code = 42
	CodeUnacknowledged Code = 43
	CodeUpdating       Code = 44
	CodeUnavailable    Code = 45
	CodeBefore         Code = 46
	CodeReturned       Code = 47
	CodeStranger       Code = 48
	CodeHalted         Code = 49

	// What keeps the host itself from starting.
	CodeRaising   Code = 56
	CodePreparing Code = 57
	CodeAside     Code = 58

	// What a container waits for.
	CodeContainerCreating          Code = 64
	CodePodInitializing            Code = 65
	CodeCrashLoopBackOff           Code = 66
	CodeErrImagePull               Code = 67
	CodeImagePullBackOff           Code = 68
	CodeErrImageNeverPull          Code = 69
	CodeInvalidImageName           Code = 70
	CodeCreateContainerConfigError Code = 71
	CodeCreateContainerError       Code = 72
	CodeRunContainerError          Code = 73
	CodePostStartHookError         Code = 74

	// How a container ended that was not started again.
	CodeCompleted     Code = 96
	CodeError         Code = 97
	CodeOOMKilled     Code = 98
	CodeStartError    Code = 99
	CodeUnknown       Code = 100
	CodeLogWriterLost Code = 101
)

// saying is how a code is told, here and wherever else it is heard.
type saying struct {
	name string
	text func(w words) string
}

var sayings = [...]saying{
	CodeDeleted:  {"Deleted", plainly("the DaemonSet was deleted")},
	CodeNodeName: {"NodeName", of("spec.nodeName asks for ", "")},
	CodeOS: {"OS", func(w words) string {
		return "spec.os.name asks for " + w.detail + following(", the host runs ", w.more)
	}},
	CodeNodeSelector:       {"NodeSelector", of("node selector ", " does not match")},
	CodeAffinity:           {"NodeAffinity", of("required node affinity does not match: ", "")},
	CodeAffinityUnreadable: {"NodeAffinityUnreadable", of("required node affinity cannot be read: ", "")},
	CodeTaint:              {"Taint", of("taint ", " is not tolerated")},
	CodeEvicted: {"Evicted", func(w words) string {
		limit := w.more
		if limit == "" {
			limit = "a limited time"
		}
		return "taint " + w.detail + " is tolerated for " + limit + " only; the pod stays away until the taint is removed"
	}},

	CodeNoPod:       {"NoPod", plainly("no pod runs yet")},
	CodeTerminating: {"Terminating", func(w words) string { return "pod " + w.pod + " is terminating" }},
	CodeFinished: {"Finished", func(w words) string {
		return "pod " + w.pod + " is " + string(w.status.Phase) + ", the next attempt" + w.aside("", " so far") + " is at " + w.detail
	}},
	CodeNotReady: {"NotReady", func(w words) string { return w.notReady("", "") }},
	CodeOther:    {"Other", func(w words) string { return w.notReady(w.detail, "") }},
	CodeMinReady: {"MinReadySeconds", func(w words) string {
		return "pod " + w.pod + " is ready and counts as available at " + w.detail + w.aside("minReadySeconds ", "")
	}},

	CodeProbe: {"ReadinessProbe", func(w words) string { return w.notReady("its readiness probe fails", w.more) }},

	CodeReplacing: {"Replacing", func(w words) string {
		return "pod " + w.pod + " of the older revision " + w.status.Revision + " is being replaced"
	}},
	CodePaused:   {"Paused", held("the update is paused by the annotation " + AnnotationPaused)},
	CodeOnDelete: {"OnDelete", held("the update strategy is OnDelete: the pod is replaced when it is deleted")},
	CodeSurging: {"Surging", func(w words) string {
		return w.held("waiting for pod" + following(" ", w.more) + " of revision " + w.detail + " to become available")
	}},
	CodeOthersHere: {"OthersHere", held("waiting for the other pods of this host to be gone")},
	CodeNoRevision: {"NoRevision", held("the DaemonSet has no revision history")},

	CodeUnheard:        waits("Unheard", "which has not said anything of the DaemonSet"),
	CodeFailed:         waits("Failed", "which is not heard any more; if it does not come back: kubectl delete node"),
	CodeQuiet:          waits("Quiet", "which has not been heard for a moment"),
	CodeUnacknowledged: waits("Unacknowledged", "which has not told what this host knows"),
	CodeUpdating:       waits("Updating", "which is being updated"),
	CodeUnavailable:    waits("Unavailable", "which has no available pod"),
	CodeBefore:         waits("Before", "whose turn is before"),
	CodeReturned:       waits("Returned", "which the update was to go on without: it is heard again, or had taken up the new version"),
	CodeStranger:       waits("Stranger", "which does not know this host yet"),
	CodeHalted:         waits("Halted", "which is stuck in its turn: the update is halted"),

	CodeRaising:   {"Raising", held("all hosts agree about this one anew first")},
	CodePreparing: {"Preparing", held("the next pod is being prepared")},
	CodeAside: {"Aside", func(w words) string {
		return w.held("the next pod cannot be made" + following(": ", w.detail) + following(": ", w.more))
	}},

	CodeContainerCreating:          container("ContainerCreating"),
	CodePodInitializing:            container("PodInitializing"),
	CodeCrashLoopBackOff:           container("CrashLoopBackOff"),
	CodeErrImagePull:               container("ErrImagePull"),
	CodeImagePullBackOff:           container("ImagePullBackOff"),
	CodeErrImageNeverPull:          container("ErrImageNeverPull"),
	CodeInvalidImageName:           container("InvalidImageName"),
	CodeCreateContainerConfigError: container("CreateContainerConfigError"),
	CodeCreateContainerError:       container("CreateContainerError"),
	CodeRunContainerError:          container("RunContainerError"),
	CodePostStartHookError:         container("PostStartHookError"),

	CodeCompleted:     container("Completed"),
	CodeError:         container("Error"),
	CodeOOMKilled:     container("OOMKilled"),
	CodeStartError:    container("StartError"),
	CodeUnknown:       container("Unknown"),
	CodeLogWriterLost: container("LogWriterLost"),
}

// String is the code's name, in one word.
func (c Code) String() string {
	switch {
	case c == CodeNone:
		return "None"
	case c.known():
		return sayings[c].name
	}
	return "Code" + strconv.Itoa(int(c))
}

func (c Code) known() bool { return int(c) < len(sayings) && sayings[c].text != nil }

// ofContainer is whether the code's name is the reason of a container's state, as kubectl shows it.
func (c Code) ofContainer() bool { return c >= CodeContainerCreating && c.known() }

// codeOf finds the code of a container's reason.
func codeOf(reason string) (Code, bool) {
	for c := CodeContainerCreating; int(c) < len(sayings); c++ {
		if c.known() && sayings[c].name == reason {
			return c, true
		}
	}
	return CodeOther, false
}
