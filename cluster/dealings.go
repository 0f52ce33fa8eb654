package cluster

import "time"

const (
	// doubtAfter is how long what was heard of another host's sets may differ from this one's: news are on their way. It doubles
	// while such doubts turn out to be idle.
	doubtAfter = time.Second
	// retryAfter is when a comparison that failed is tried again; it doubles up to compareEvery.
	retryAfter = 2 * time.Second
	// maxComparing bounds the comparisons at one time, maxRetrying those with hosts that did not answer well last time.
	maxComparing = 4
	maxRetrying  = 2
	// freeIdle is how many comparisons in a row may bring nothing: to give is also of use.
	freeIdle = 3
	// slow is how long a comparison may take in which nothing came.
	slow = 3 * time.Second
	// maxPatience is how many wrong signatures a host may send, patienceEach in which time it may send one more. Each costs as much as
	// a right one. Honest hosts relay them for a while when certificates have changed.
	maxPatience  = 512
	patienceEach = time.Second / 16
	warnEvery    = time.Minute
)

// dealings are what is going on with another host. Nothing in it is to be trusted: it must be bounded what a host that answers
// slowly, wrongly or in circles, or about which lies are told, can make this one do.
type dealings struct {
	due       time.Time // when to compare; zero: not
	doubt     doubt
	comparing bool
	last      time.Time // when the last comparison ended
	entry     uint64    // in the roster, when that was last looked at
	failures  int       // in a row
	idle      int       // comparisons in a row that found a difference and brought nothing

	patience   int // wrong signatures
	patienceAt time.Time
	warned     time.Time
}

// doubt is what another host was heard to have.
type doubt struct {
	digest [digestSize]byte
	at     time.Time // when to act on it; zero: there is none
}

func (d *dealings) doubted() bool { return !d.doubt.at.IsZero() }

func (d *dealings) dueBy(at time.Time) {
	if d.due.IsZero() || at.Before(d.due) {
		d.due = at
	}
}

// renewed is what a host gets that has become a neighbour, or has come back: a new beginning.
func (d *dealings) renewed(now time.Time) {
	d.failures, d.idle = 0, 0
	d.dueBy(later(now, d.last.Add(doubtAfter)))
}

// hinted makes a comparison due after a while, and not before the last one, or those that failed, are long enough ago.
func (d *dealings) hinted(now time.Time, after time.Duration) {
	d.dueBy(later(now.Add(after), d.last.Add(d.pause())))
}

// doubts notes that a host was heard to have something else. Whoever tells so again and again does not put it off.
func (d *dealings) doubts(digest [digestSize]byte, now time.Time) {
	if d.doubted() {
		d.doubt.digest = digest
		return
	}
	d.doubt = doubt{digest: digest, at: later(now.Add(doubtAfter), d.last.Add(d.pause()))}
}

// pause is how long nothing but the clock makes this host compare again.
func (d *dealings) pause() time.Duration {
	if d.failures > 0 {
		return min(retryAfter<<min(d.failures-1, 8), compareEvery)
	}
	if d.idle > freeIdle {
		return min(doubtAfter<<min(d.idle-freeIdle-1, 8), compareEvery)
	}
	return 0
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// outcome is how a comparison went.
type outcome struct {
	took     time.Duration
	differed bool
	gained   int
	err      error
}

func (d *dealings) ended(now time.Time, o outcome) {
	d.last = now
	if o.gained > 0 {
		d.idle = 0
	} else if o.differed {
		d.idle++
	}
	switch {
	case o.gained > 0 && o.err != nil: // it takes long, or it changes meanwhile
		d.failures = 0
		d.dueBy(now.Add(doubtAfter))
	case o.err != nil || o.gained == 0 && o.took > slow:
		d.failures++
		d.dueBy(now.Add(d.pause()))
	default:
		d.failures = 0
		if !o.differed {
			d.idle = 0
		}
	}
}

// spend takes off wrong signatures and returns how many more there may be now.
func (d *dealings) spend(now time.Time, forged int) int {
	if regained := int(now.Sub(d.patienceAt) / patienceEach); regained > 0 {
		d.patience, d.patienceAt = min(d.patience+regained, maxPatience), now
	}
	d.patience -= forged
	return max(d.patience, 0)
}
