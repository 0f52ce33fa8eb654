package agent

import (
	"context"
	"fmt"
	"reflect"
	"runtime/debug"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/daemonset"
)

// turn plans every DaemonSet that something happened to, or whose time has come, and carries the decisions out. It returns how
// long the loop may sleep.
func (l *loop) turn(ctx context.Context) time.Duration {
	now := l.now()
	sleep := tick
	l.takeOver(ctx)
	for _, at := range []struct {
		due time.Time
		do  func()
	}{{l.toTell, l.tellHost}, {l.toAdopt, l.adoptOrphans}} {
		if !at.due.IsZero() && !now.Before(at.due) {
			at.do()
		}
	}
	for name, d := range l.daemonSets {
		if d.dirty || (!d.wakeUp.IsZero() && !now.Before(d.wakeUp)) {
			began := l.now()
			l.planSafely(ctx, name, d, now)
			l.planned(l.now().Sub(began))
		}
		if d.unsummed {
			l.sum(d)
		}
		if !d.wakeUp.IsZero() {
			sleep = min(sleep, max(d.wakeUp.Sub(now), 0))
		}
	}
	return sleep
}

func (l *loop) planAll() {
	for _, d := range l.daemonSets {
		d.dirty = true
	}
}

// planSafely keeps a DaemonSet that the planner panics over from taking the others' agent down, the less so again and again.
func (l *loop) planSafely(ctx context.Context, name types.NamespacedName, d *daemonSet, now time.Time) {
	defer func() {
		if r := recover(); r != nil {
			l.trouble("Panic", fmt.Errorf("picketd has a bug; nothing is decided for DaemonSet %s: %v", name, r))
			l.log.Error("panic", "stack", string(debug.Stack()))
			d.wakeUpBy(now.Add(time.Minute))
		}
	}()
	l.plan(ctx, name, d, now)
}

// plan asks the pure core about one DaemonSet and does what it says, in that order: remember, act, publish.
func (l *loop) plan(ctx context.Context, name types.NamespacedName, d *daemonSet, now time.Time) {
	d.dirty, d.wakeUp = false, time.Time{}
	if !l.adopted {
		return // what runs here is not known yet: decide nothing
	}
	if l.out != "" {
		l.stopAll(name, d, now)
		return
	}
	if !d.known || l.word.goingDown && l.pods.live(name) {
		return // nor whose it is; or it ends in a moment
	}
	if d.object != nil {
		if err := l.claim(name, d, now); err != nil {
			l.log.Error("nothing is decided", "daemonset", name, "error", err)
			l.events.record(referenceTo("apps/v1", "DaemonSet", d.object), corev1.EventTypeWarning, "FailedCreate", err.Error())
			d.wakeUpBy(now.Add(tick))
			return
		}
	}
	view := l.view(name, d)
	observed := l.pods.observed(name)
	observed.Failures, observed.Evictions, observed.Memory, observed.Said = d.memory.Failures, d.memory.Evictions, d.memory.Rollout, d.said
	observed.Found = daemonset.Found{Version: d.loaded, Entry: l.foundEntry}
	decision := daemonset.Plan(view, daemonset.Self{Node: l.node.current}, observed, now)
	if l.word.goingDown {
		decision = onlyTold(decision, d.memory)
	}
	l.carryOut(ctx, name, d, decision, now)
}

// carryOut does what was decided, in that order: remember, act, tell.
func (l *loop) carryOut(ctx context.Context, name types.NamespacedName, d *daemonSet, decision daemonset.Decision, now time.Time) {
	if !decision.WakeUp.IsZero() {
		d.wakeUpBy(decision.WakeUp)
	}
	m := memory{Failures: decision.Failures, Evictions: decision.Evictions, Rollout: decision.Memory, Said: d.memory.Said}
	if err := l.remember(name, d, m); err != nil {
		d.wakeUpBy(now.Add(tick))
		if !d.memory.saysNoMoreThan(m) {
			l.trouble("NotRemembered", fmt.Errorf("nothing is done for DaemonSet %s: %w", name, err))
			return
		}
		d.memory, d.unkept = m, true
	}
	d.said = decision.Said
	for _, action := range decision.Actions {
		l.act(ctx, name, d, action, now) // one that fails brings the time forward
	}
	if d.object == nil {
		d.own = decision.Status
		l.forgetWhenGone(name, d)
		return
	}
	l.tellRollout(d, d.own, decision.Status)
	d.own, d.unsummed = decision.Status, true
	if err := l.fleet.say(name.String(), decision.Status.Encode(), decision.Next...); err != nil {
		d.wakeUpBy(now.Add(tick))
	}
	l.rememberSaid(name, d)
	l.ask(ctx, d, decision.Blockers)
	if decision.Raise {
		l.raise(d, now)
	}
	l.exclude(name, d, decision.Exclude)
	l.lift(name, d, decision.Returned, now)
	if decision.Rollback {
		l.rollBack(name, d)
	}
}

// forgetWhenGone drops a deleted DaemonSet once its last pod has gone, here and elsewhere.
func (l *loop) forgetWhenGone(name types.NamespacedName, d *daemonSet) {
	if l.pods.any(name) {
		_ = l.fleet.say(name.String(), d.own.Encode())
		return
	}
	_ = l.fleet.say(name.String(), nil)
	if len(d.others) == 0 {
		delete(l.daemonSets, name)
		if err := l.remember(name, d, memory{}); err != nil {
			l.log.Warn("a deleted DaemonSet is not forgotten", "daemonset", name, "error", err)
		}
	}
}

// stopAll ends the pods of a DaemonSet on a host that is not in the fleet any more.
func (l *loop) stopAll(name types.NamespacedName, d *daemonSet, now time.Time) {
	l.pods.discardAll(name, l.out)
	for _, h := range l.pods.of(name) {
		if err := l.pods.stop(h.Pod.UID, nil, l.out, now); err != nil {
			l.log.Error("cannot carry out", "daemonset", name, "reason", daemonset.ReasonDelete, "error", err)
			d.wakeUpBy(now.Add(tick))
		}
	}
	d.own, d.unsummed = daemonset.Status{Node: l.node.name}, true
	d.memory.Rollout = daemonset.Memory{Away: d.memory.Rollout.Away}
	_ = l.fleet.say(name.String(), nil)
}

// remember makes the planner's memory durable when it changed.
func (l *loop) remember(name types.NamespacedName, d *daemonSet, m memory) error {
	if reflect.DeepEqual(m, d.memory) && !d.unkept {
		return nil
	}
	kept := &m
	if reflect.DeepEqual(m, memory{}) {
		kept = nil
	}
	if err := l.state.remember(name.String(), kept); err != nil {
		return fmt.Errorf("cannot keep the planner's memory: %w", err)
	}
	d.memory, d.unkept = m, false
	return nil
}

// saysNoMoreThan says whether all that is new now is what this host says: that it shall not start. A host whose disk is full has to be
// able to say so. The agent goes by what it said as long as it runs, and the next one takes it that something was said (daemonset.Found).
func (m memory) saysNoMoreThan(now memory) bool {
	m.Rollout.Away = now.Rollout.Away
	return reflect.DeepEqual(m, now)
}

// rememberSaid keeps what this host has acknowledged, once it has: a restarted agent that has forgotten it takes a host that died since
// for a stranger.
func (l *loop) rememberSaid(name types.NamespacedName, d *daemonSet) {
	m := d.memory
	m.Said = d.said
	if err := l.remember(name, d, m); err != nil {
		l.log.Warn("what was acknowledged is not kept", "daemonset", name, "error", err)
	}
}

// act carries out one action. Its reason goes to the log and to the events of the DaemonSet (or of the node, when it is gone).
func (l *loop) act(ctx context.Context, name types.NamespacedName, d *daemonSet, action daemonset.Action, now time.Time) {
	about := l.node.reference()
	if d.object != nil {
		about = referenceTo("apps/v1", "DaemonSet", d.object)
	}
	message, failed := action.Message, "FailedCreate" // Kubernetes' own reasons
	var err error
	switch action.Kind {
	case daemonset.Create:
		var pod string
		pod, err = l.createPod(d, action, now)
		message = "Created pod: " + pod + " (" + message + ")"
	case daemonset.Prepare:
		err = l.preparePod(name, d, action.Revision, false, now)
	case daemonset.Prefetch:
		err = l.preparePod(name, d, action.Revision, true, now)
	case daemonset.Discard:
		l.pods.discard(types.UID(action.UID), action.Message)
	case daemonset.Delete:
		failed = "FailedDelete"
		err = l.pods.stop(types.UID(action.UID), nil, action.Message, now)
	}
	if err != nil {
		l.log.Error("cannot carry out", "daemonset", name, "reason", action.Reason, "error", err)
		l.events.record(about, corev1.EventTypeWarning, failed, err.Error())
		d.wakeUpBy(now.Add(tick))
		return
	}
	l.log.Info(message, "reason", action.Reason, "daemonset", name)
	if action.Reason != daemonset.ReasonPrepare {
		l.events.record(about, action.EventType(), action.Reason, message)
	}
}

func (d *daemonSet) wakeUpBy(t time.Time) {
	if d.wakeUp.IsZero() || t.Before(d.wakeUp) {
		d.wakeUp = t
	}
}

// podsChanged takes in what the workers reported since the last time.
func (l *loop) podsChanged() {
	news := l.statuses.take()
	for uid := range news.ended {
		if name, ok := l.pods.setEnded(uid); ok {
			l.daemonSet(name).dirty = true
		}
	}
	for uid, p := range news.warm {
		if name, ok := l.pods.setPrepared(uid, p, l.now()); ok {
			l.daemonSet(name).dirty = true
		}
	}
	for uid, status := range news.statuses {
		if name, ok := l.pods.setStatus(uid, status); ok {
			l.daemonSet(name).dirty = true
		}
	}
	for uid := range news.gone {
		if name, ok := l.pods.remove(uid); ok {
			l.daemonSet(name).dirty = true
		}
	}
}

// currentRevision is the hash of the newest revision; NextHistory keeps it last.
func currentRevision(list []*appsv1.ControllerRevision) string {
	if len(list) == 0 {
		return ""
	}
	return list[len(list)-1].Labels[appsv1.ControllerRevisionHashLabelKey]
}
