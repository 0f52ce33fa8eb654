package daemonset

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// maxDetail is how much of a reason's detail travels, in bytes.
const maxDetail = 24

// because is a reason and what it is about. Code and detail travel, the detail cut to maxDetail; more is for this host's own words.
type because struct {
	code   Code
	detail string
	more   string
}

// words is what a reason is told with. Only the host itself knows because.more, so every text has to read well without.
type words struct {
	because
	status Status
	pod    string // its name
}

func (w words) text() string {
	switch {
	case w.code == CodeNone:
		return ""
	case w.code.known():
		return sayings[w.code].text(w)
	}
	return "for a reason this version of picketd does not know (" + w.code.String() + following(": ", w.detail) + ")"
}

// Explain is why the host is not available or not up to date, for people; "" when it is both. Of another host's word only code and
// detail are known, and the pod's name follows from the DaemonSet's.
func (s Status) Explain(daemonSet string) string {
	if s.Reason != "" {
		return s.Reason
	}
	return words{because: because{code: s.Code, detail: s.Detail}, status: s, pod: PodName(daemonSet, s.PodUID)}.text()
}

// plainly, of and held are the forms most reasons are told in.
func plainly(text string) func(words) string { return func(words) string { return text } }

func of(before, after string) func(words) string {
	return func(w words) string { return before + w.detail + after }
}

func held(why string) func(words) string { return func(w words) string { return w.held(why) } }

// waits is a reason that is about other hosts: detail names the first, and how many more there are.
func waits(name, which string) saying {
	return saying{name, func(w words) string {
		return w.held("waiting for " + w.detail + ", " + which + w.aside("", ""))
	}}
}

// held is why the pod stays of an older revision, or why there is none.
func (w words) held(why string) string {
	if !w.status.HasPod {
		return "no pod runs yet: " + why
	}
	return "pod " + w.pod + " runs the older revision " + w.status.Revision + ": " + why
}

// container is a code whose name says it all to whoever knows kubectl.
func container(name string) saying {
	return saying{name, func(w words) string { return w.notReady(name, w.detail+w.more) }} // one of the two at most, see notReadyBecause
}

// notReady is why, how often, and what more is known of it.
func (w words) notReady(why, more string) string {
	text := "pod " + w.pod + " is not ready"
	if w.status.Phase == corev1.PodPending {
		text = "pod " + w.pod + " is pending"
	}
	text += following(": ", why)
	switch n := w.status.Restarts; {
	case n == 1:
		text += ", 1 restart"
	case n > 1:
		text += ", " + strconv.Itoa(int(n)) + " restarts"
	}
	return text + following(": ", more)
}

// aside is what the host itself adds, in parentheses.
func (w words) aside(before, after string) string {
	if w.more == "" {
		return ""
	}
	return " (" + before + w.more + after + ")"
}

func following(before, text string) string {
	if text == "" {
		return ""
	}
	return before + text
}

// notReadyBecause reads a pod's own reason, "CrashLoopBackOff: back-off 10s ...". Of what follows the word only what names an object
// that is missing says something in 24 bytes.
func notReadyBecause(reason string) because {
	word, message, _ := strings.Cut(reason, ": ")
	code, ok := codeOf(word)
	switch {
	case reason == "":
		return because{code: CodeNotReady}
	case word == "readiness probe failed": // see package pod
		return because{code: CodeProbe, more: message}
	case !ok:
		return because{code: CodeOther, detail: reason}
	case code == CodeCreateContainerConfigError:
		return because{code: code, detail: message}
	}
	return because{code: code, more: message}
}

// brief is a text as it travels: at most size bytes, one line, nothing that a terminal takes for a command. What is cut is marked,
// and of a label's or taint's key its domain goes first. What is brief already stays as it is.
func brief(text string, size int) string {
	text = strings.Map(func(r rune) rune {
		if r == '\uFFFD' || !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
	if len(text) <= size {
		return text
	}
	const mark = "…"
	if slash := strings.IndexByte(text, '/'); slash > 0 && strings.IndexByte(text[:slash], ' ') < 0 {
		if text = mark + text[slash:]; len(text) <= size {
			return text
		}
	}
	return strings.ToValidUTF8(text[:size-len(mark)], "") + mark // without the half of a rune
}
