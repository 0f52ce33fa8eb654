package daemonset

import "time"

// The back-off of failed pods, as Kubernetes' DaemonSet controller has it.
const (
	firstBackoff = time.Second
	maxBackoff   = 15 * time.Minute
	// A failure this long ago is forgotten.
	forgetBackoff = 2 * maxBackoff
)

// current is f as it stands for this generation at now: a new generation and a long quiet time start over.
func (f Failures) current(generation int64, now time.Time) Failures {
	if f.Last.After(now) { // the clock was set back
		f.Last = now
	}
	if f.Count == 0 || f.Generation != generation || now.Sub(f.Last) > forgetBackoff {
		return Failures{}
	}
	return f
}

// until is when the next failed pod may be removed to make room for another attempt; zero: at once.
func (f Failures) until() time.Time {
	if f.Count == 0 {
		return time.Time{}
	}
	delay := firstBackoff
	for i := 1; i < f.Count && delay < maxBackoff; i++ {
		delay *= 2
	}
	return f.Last.Add(min(delay, maxBackoff))
}

// again counts one more failed pod of this generation at now.
func (f Failures) again(generation int64, now time.Time) Failures {
	return Failures{Generation: generation, Count: f.Count + 1, Last: now}
}
