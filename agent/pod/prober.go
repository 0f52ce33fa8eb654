package pod

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/picketd/picket/runtime"
)

// beat is what checks are rounded up to, but for a probe's first: those of many pods then share one wake-up, which on a host that has
// little else to do costs more than a check.
const beat = 100 * time.Millisecond

// prober runs the probes of one pod's containers, each in a loop of its own, as the kubelet does (pkg/kubelet/prober/worker.go).
// want and stop are called on the worker's goroutine only.
type prober struct {
	cfg *Config
	// report is called from the loops; it must not block.
	report func(probed)
	// jitter is in [0, 1).
	jitter func() float64

	began   time.Time
	loops   map[loopKey]context.CancelFunc // ended ones too, as long as they are wanted
	running sync.WaitGroup
}

// loopKey tells one loop from another. A pod whose IP has changed is asked anew.
type loopKey struct {
	id   string
	kind probeKind
	ip   string
}

func (p *probing) key() loopKey { return loopKey{p.id, p.kind, p.ip} }

func newProber(cfg *Config, report func(probed)) *prober {
	return &prober{cfg: cfg, report: report, jitter: rand.Float64, began: time.Now(), loops: map[loopKey]context.CancelFunc{}}
}

// want has exactly these probes run: it starts those that are new and ends those that are not in the list any more. What an ended
// one has found may still be reported.
func (p *prober) want(list []probing) {
	maps.DeleteFunc(p.loops, func(key loopKey, cancel context.CancelFunc) bool {
		wanted := slices.ContainsFunc(list, func(x probing) bool { return x.key() == key })
		if !wanted {
			cancel()
		}
		return !wanted
	})
	for _, x := range list {
		if p.loops[x.key()] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		p.loops[x.key()] = cancel
		p.running.Go(func() { p.run(ctx, x) })
	}
}

// stop ends all probes; the channel is closed when the last goroutine has ended.
func (p *prober) stop() <-chan struct{} {
	p.want(nil)
	ended := make(chan struct{})
	go func() {
		p.running.Wait()
		close(ended)
	}()
	return ended
}

// run is the loop of one probe.
func (p *prober) run(ctx context.Context, x probing) {
	now := time.Now()
	due := now.Add(p.delay(x, now))
	t := newThresholds(x)
	for pause(ctx, time.Until(due)) && p.once(ctx, x, &t) {
		due = nextCheck(due, time.Now(), seconds(x.probe.PeriodSeconds, 10))
	}
}

// nextCheck is a period after the last check was due, on the beat. Of those that are past by now only the newest is made up for.
func nextCheck(due, now time.Time, period time.Duration) time.Time {
	due = due.Add(period * max(1, now.Sub(due)/period))
	if after := due.Sub(due.Truncate(beat)); after > 0 {
		due = due.Add(beat - after)
	}
	return due
}

// delay is how long the first check waits. After the agent's restart those that are due are spread over their period.
func (p *prober) delay(x probing, now time.Time) time.Duration {
	first := x.startedAt.Add(seconds(x.probe.InitialDelaySeconds, 0))
	period := seconds(x.probe.PeriodSeconds, 10)
	adopted := x.startedAt.Before(p.began) && now.Sub(p.began) < period
	if adopted && !first.After(now) {
		return time.Duration(p.jitter() * float64(period))
	}
	return max(0, min(first.Sub(now), first.Sub(x.startedAt))) // the clock may have been set back
}

// once makes one check and reports what is new; false ends the loop.
func (p *prober) once(ctx context.Context, x probing, t *thresholds) bool {
	a, err := p.check(ctx, x)
	if ctx.Err() != nil {
		return false
	}
	found := probed{id: x.id, kind: x.kind, failed: a.failed, warned: a.warned, output: a.output}
	changed := false
	switch {
	case errors.Is(err, runtime.ErrUnavailable), errors.Is(err, runtime.ErrNotFound):
		return true // it is known otherwise that the container does not run, or that containerd is away
	case err != nil:
		found.errored, found.output = true, err.Error()
	default:
		changed = t.count(!a.failed)
		found.gaveUp = changed && a.failed
	}
	found.passing = t.passing
	if changed || found.failed || found.warned || found.errored {
		p.report(found)
	}
	final := x.kind == startupProbe || x.kind == livenessProbe && !t.passing
	return !changed || !final
}

// thresholds make one result of many checks: so many alike in a row change it, as the probe asks for.
type thresholds struct {
	success, failure int32

	passing bool // the result
	unknown bool // there is none yet: either is a change
	last    bool // the last check passed
	row     int32
}

// newThresholds begins as the kubelet does: a startup probe without a result, the others with what holds.
func newThresholds(x probing) thresholds {
	unknown := x.kind == startupProbe
	return thresholds{
		success: x.probe.SuccessThreshold, failure: x.probe.FailureThreshold, passing: x.passing && !unknown, unknown: unknown,
	}
}

// count takes one check in and tells whether the result is another now.
func (t *thresholds) count(passed bool) (changed bool) {
	if passed != t.last {
		t.row = 0
	}
	t.last = passed
	t.row++
	need := t.failure
	if passed {
		need = t.success
	}
	if t.row < need || passed == t.passing && !t.unknown {
		return false
	}
	t.passing, t.unknown = passed, false
	return true
}

// seconds is a probe's time, with Kubernetes' default for one that was never defaulted.
func seconds(n, otherwise int32) time.Duration {
	if n <= 0 {
		n = otherwise
	}
	return time.Duration(n) * time.Second
}

// pause waits; false: ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
