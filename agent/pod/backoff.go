package pod

import (
	"errors"
	"time"

	"github.com/picketd/picket/runtime"
)

// The kubelet's numbers.
const (
	restartDelayMin   = 10 * time.Second
	restartDelayMax   = 300 * time.Second
	restartDelayReset = 2 * restartDelayMax // up for so long: the next restart is immediate again
	pullDelayMin      = 10 * time.Second
	pullDelayMax      = 300 * time.Second
	createDelay       = 10 * time.Second
	mountDelayMin     = time.Second
	mountDelayMax     = 122 * time.Second
	podDelayMin       = time.Second
	podDelayMax       = 60 * time.Second
)

const (
	// failureShown is how long ErrImagePull and RunContainerError are shown before the back-off's own reason replaces them.
	failureShown = 5 * time.Second
	// unavailableDelay bounds the wait for EventConnected, should it have come before the failure did.
	unavailableDelay = 5 * time.Second
	// stuckDelay is how often SIGKILL is repeated on a process that does not end.
	stuckDelay = 10 * time.Second
)

// delays is an exponential back-off between two bounds.
type delays struct{ min, max time.Duration }

var (
	pullDelays   = delays{pullDelayMin, pullDelayMax}
	createDelays = delays{createDelay, createDelay}
	mountDelays  = delays{mountDelayMin, mountDelayMax}
	podDelays    = delays{podDelayMin, podDelayMax}
)

// after returns the wait after the nth failure in a row, counted from 1.
func (d delays) after(failures int) time.Duration {
	wait := d.min
	for range failures - 1 {
		if wait *= 2; wait >= d.max {
			return d.max
		}
	}
	return min(wait, d.max)
}

// retry is when something that failed may be tried again.
type retry struct {
	failures int
	at       time.Time // not before; zero: now
	failedAt time.Time
	// held: containerd was away, so nothing is known to be wrong; EventConnected ends the wait.
	held bool
}

// failed notes a failure at now.
func (r *retry) failed(now time.Time, d delays, err error) {
	if errors.Is(err, runtime.ErrUnavailable) {
		r.held = true
		r.at = now.Add(unavailableDelay)
		return
	}
	r.failures++
	r.held = false
	r.failedAt = now
	r.at = now.Add(d.after(r.failures))
}

// release ends a wait for containerd.
func (r *retry) release() {
	if r.held {
		r.held, r.at = false, time.Time{}
	}
}

// restartBackoff spaces a container's restarts: the first is immediate, then 10 s doubling to 300 s from the end of the
// attempt, until one has run for 600 s.
type restartBackoff struct {
	// Delay is what the next exit is answered with.
	Delay time.Duration
}

// exited returns when the next attempt may start, given when the last one ran.
func (b *restartBackoff) exited(startedAt, finishedAt time.Time) time.Time {
	if !startedAt.IsZero() && finishedAt.Sub(startedAt) >= restartDelayReset {
		b.Delay = 0
	}
	at := finishedAt.Add(b.Delay)
	b.Delay = min(max(2*b.Delay, restartDelayMin), restartDelayMax)
	return at
}
