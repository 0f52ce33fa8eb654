package daemonset

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// evictions is what the NoExecute taints that are tolerated for a while only come to.
type evictions struct {
	timers map[string]Eviction // to be kept; nil when there are none
	reason because             // why the pod must go or stay away; zero when it may run
	next   time.Time           // when the next timer runs out; zero: none runs
}

// evict runs the timers (SEMANTICS.md 3). Each taint is timed from when it was first seen and by the first toleration that
// matches it, as the taint manager does; the earliest end counts. A timer that ran out stays so, whatever the pods do
// meanwhile, until its taint is gone or is tolerated without limit. Where the DaemonSet is not placed no timer starts.
func evict(placed bool, taints []corev1.Taint, tolerations []corev1.Toleration, before map[string]Eviction, now time.Time) evictions {
	var out evictions
	for i := range taints {
		taint := &taints[i]
		limit, limited := toleratedFor(taint, tolerations)
		if !limited {
			continue
		}
		key := taint.ToString()
		timer, known := before[key]
		if !known && !placed {
			continue
		}
		if !known || timer.Since.After(now) { // the clock was set back: an hour's jump must not add an hour
			timer.Since = now
		}
		if end := timer.Since.Add(limit); now.Before(end) && !timer.Evicted {
			out.next = earliest(out.next, end)
		} else {
			timer.Evicted = true
			if out.reason.code == CodeNone {
				out.reason = because{code: CodeEvicted, detail: key, more: limit.String()}
			}
		}
		if out.timers == nil {
			out.timers = map[string]Eviction{}
		}
		out.timers[key] = timer
	}
	return out
}

// toleratedFor is how long a NoExecute taint is tolerated; limited is false when for ever, or not at all (then Place refuses).
func toleratedFor(taint *corev1.Taint, tolerations []corev1.Toleration) (limit time.Duration, limited bool) {
	if taint.Effect != corev1.TaintEffectNoExecute {
		return 0, false
	}
	used := slices.IndexFunc(tolerations, func(t corev1.Toleration) bool { return t.ToleratesTaint(silent, taint, true) })
	if used < 0 || tolerations[used].TolerationSeconds == nil {
		return 0, false
	}
	return seconds(*tolerations[used].TolerationSeconds), true
}

// maxSeconds is what fits into a time.Duration.
const maxSeconds = int64(1<<63-1) / int64(time.Second)

// seconds converts a count of seconds from a manifest: negative is none, and too many do not wrap around.
func seconds(n int64) time.Duration {
	return time.Duration(min(max(n, 0), maxSeconds)) * time.Second
}

// earliest is the earlier of two times of which zero means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
