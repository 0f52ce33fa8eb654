package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// unitHost is the unit of a host's word on itself; the others are DaemonSets.
const unitHost = ""

// hostWord is what a host says of itself as it is now.
type hostWord struct {
	containerdUp bool
	goingDown    bool      // the machine is: pods stop
	since        time.Time // when one of these two last changed
	pressures    [pressureKinds]pressureState
}

// pressureState is one pressure condition, and when it became so.
type pressureState struct {
	on    bool
	since time.Time
}

// Encoded it is: format 2 | flags: 1 containerd answers, 2 going down, 4 << n pressure n | since, then each pressure's: Unix seconds.
const (
	hostWordFormat = 2
	flagContainerd = 1
	flagGoingDown  = 2
	flagPressure   = 4
)

// newHostWord is what a host says that has begun at now and knows nothing yet.
func newHostWord(now time.Time) hostWord {
	w := hostWord{since: now}
	for i := range w.pressures {
		w.pressures[i].since = now
	}
	return w
}

func (w hostWord) encode() []byte {
	flags := byte(0)
	if w.containerdUp {
		flags |= flagContainerd
	}
	if w.goingDown {
		flags |= flagGoingDown
	}
	times := binary.AppendVarint(nil, w.since.Unix())
	for i, p := range w.pressures {
		if p.on {
			flags |= flagPressure << i
		}
		times = binary.AppendVarint(times, p.since.Unix())
	}
	return append([]byte{hostWordFormat, flags}, times...)
}

func decodeHostWord(b []byte) (hostWord, error) {
	if len(b) < 2 || b[0] != hostWordFormat || b[1] >= flagPressure<<pressureKinds {
		return hostWord{}, errors.New("it is of another version of picketd")
	}
	flags, rest := b[1], b[2:]
	w := hostWord{containerdUp: flags&flagContainerd != 0, goingDown: flags&flagGoingDown != 0}
	times := []*time.Time{&w.since}
	for i := range w.pressures {
		w.pressures[i].on = flags&(flagPressure<<i) != 0
		times = append(times, &w.pressures[i].since)
	}
	for _, at := range times {
		seconds, n := binary.Varint(rest)
		if n <= 0 {
			return hostWord{}, errors.New("its times cannot be read")
		}
		*at, rest = time.Unix(seconds, 0), rest[n:]
	}
	if len(rest) > 0 {
		return hostWord{}, errors.New("it is longer than it should be")
	}
	return w, nil
}

// conditions are the Node's, as a kubelet tells them and in its order.
func (w hostWord) conditions() []corev1.NodeCondition {
	var list []corev1.NodeCondition
	for i, p := range w.pressures {
		names := pressureNames[i]
		if p.on {
			list = append(list, condition(names.condition, corev1.ConditionTrue, names.short, p.since))
		} else {
			list = append(list, condition(names.condition, corev1.ConditionFalse, names.enough, p.since))
		}
	}
	return append(list, w.ready())
}

func (w hostWord) ready() corev1.NodeCondition {
	switch {
	case w.goingDown:
		return condition(corev1.NodeReady, corev1.ConditionFalse, reasonText{"NodeShutdown", "node is shutting down"}, w.since)
	case !w.containerdUp:
		return condition(corev1.NodeReady, corev1.ConditionFalse,
			reasonText{"ContainerdUnreachable", "containerd does not answer; what runs goes on running"}, w.since)
	}
	return condition(corev1.NodeReady, corev1.ConditionTrue, reasonText{"PicketReady", "picketd runs and containerd answers"}, w.since)
}

// unheardConditions are those of a host that nothing is known of but why.
func unheardConditions(reason, message string, since time.Time) []corev1.NodeCondition {
	var list []corev1.NodeCondition
	for _, names := range pressureNames {
		list = append(list, condition(names.condition, corev1.ConditionUnknown, reasonText{reason, message}, since))
	}
	return append(list, condition(corev1.NodeReady, corev1.ConditionUnknown, reasonText{reason, message}, since))
}

func condition(kind corev1.NodeConditionType, status corev1.ConditionStatus, text reasonText, since time.Time) corev1.NodeCondition {
	return corev1.NodeCondition{
		Type: kind, Status: status, Reason: text.reason, Message: text.message,
		LastHeartbeatTime: metav1.NewTime(since), LastTransitionTime: metav1.NewTime(since),
	}
}

// pressureTaints keep what does not tolerate them from being placed anew; DaemonSets' pods tolerate them.
func pressureTaints(conditions []corev1.NodeCondition) []corev1.Taint {
	var taints []corev1.Taint
	for _, c := range conditions {
		for _, names := range pressureNames {
			if c.Type == names.condition && c.Status == corev1.ConditionTrue {
				taints = append(taints, corev1.Taint{Key: names.taint, Effect: corev1.TaintEffectNoSchedule})
			}
		}
	}
	return taints
}

// madeByCondition says whether a taint stands for a condition or for spec.unschedulable: nobody writes it.
func madeByCondition(t corev1.Taint) bool {
	for _, names := range pressureNames {
		if t.Key == names.taint {
			return true
		}
	}
	return t.Key == corev1.TaintNodeUnschedulable
}

// setWord notes whether containerd answers, and tells.
func (l *loop) setWord(up bool) {
	l.changeWord(func(w *hostWord) { w.containerdUp = up })
}

// changeWord notes how this host is, and tells.
func (l *loop) changeWord(change func(*hostWord)) {
	before, now := l.word, l.now()
	change(&l.word)
	if l.word.containerdUp != before.containerdUp || l.word.goingDown != before.goingDown {
		l.word.since = now
	}
	for i := range l.word.pressures {
		if p := &l.word.pressures[i]; p.on != before.pressures[i].on {
			p.since = now
		}
	}
	_ = l.fleet.say(unitHost, l.word.encode())
	l.publishNode(l.node)
}

// pressed takes in a look at this host. Under disk pressure the images that nothing uses go first.
func (l *loop) pressed(r reading) {
	short, why := r.short()
	changed := l.word
	for i, on := range l.strain.take(short, l.now()) {
		if p := &changed.pressures[i]; p.on != on {
			p.on = on
			l.tellPressure(pressure(i), on, why)
		}
	}
	if changed == l.word {
		return
	}
	if changed.pressures[diskPressure].on && !l.word.pressures[diskPressure].on {
		ring(l.collect)
	}
	l.changeWord(func(w *hostWord) { w.pressures = changed.pressures })
}

func (l *loop) tellPressure(p pressure, on bool, why string) {
	names, event := pressureNames[p], pressureNames[p].enoughEvent
	if on {
		event = names.shortEvent
	}
	l.log.Warn("a condition of this host has changed", "condition", names.condition, "status", on, "why", strings.TrimSuffix(why, "; "))
	l.events.record(l.node.reference(), corev1.EventTypeNormal, event, fmt.Sprintf("Node %s status is now: %s", l.node.name, event))
}
