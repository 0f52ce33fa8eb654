package daemonset

import (
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// updater is host-01 of a fleet, with an available pod of the older revision and the next one prepared.
type updater struct {
	t    *testing.T
	view View
	o    Observed
	now  time.Time
}

// newUpdater is in a fleet with others, which all have told what there is to know: their pods are of the older revision, and available.
func newUpdater(t *testing.T, ds *appsv1.DaemonSet, others ...string) *updater {
	u := &updater{t: t, view: viewOf(ds), now: t0, o: Observed{Pods: []Pod{makePod(1, revA, ready)}, Warm: warmed}}
	u.view.Others = map[string]Word{}
	for _, node := range others {
		u.view.Common.Roster[node] = Entry{Number: 1}
	}
	u.view.Digest = u.view.Common.Digest()
	for _, node := range others {
		u.view.Others[node] = Word{Told: true, Status: Status{
			Node: node, View: u.view.Digest, Generation: 1, Placed: true, HasPod: true, Ready: true, Available: true, Revision: revA,
		}}
	}
	return u
}

// hear changes what another host says.
func (u *updater) hear(node string, change func(*Word)) {
	w := u.view.Others[node]
	change(&w)
	u.view.Others[node] = w
}

func done(w *Word) { w.Status.Revision, w.Status.Updated = revB, true }
func unavailable(w *Word) {
	w.Status.Ready, w.Status.Available, w.Status.Code = false, false, CodeCrashLoopBackOff
}
func lost(w *Word)                      { w.Failed = true }
func tells(c func(*Status)) func(*Word) { return func(w *Word) { c(&w.Status) } }

// plan decides and keeps what is to be kept.
func (u *updater) plan() Decision {
	d := Plan(u.view, Self{Node: makeNode(nil)}, u.o, u.now)
	u.o.Memory, u.o.Said = d.Memory, d.Said
	return d
}

func (u *updater) expect(why string, want ...string) Decision {
	u.t.Helper()
	d := u.plan()
	if got := said(d); !slices.Equal(got, want) {
		u.t.Errorf("got %q, want %q; %s", got, want, d.Status.Reason)
	}
	if !strings.Contains(d.Status.Reason, why) {
		u.t.Errorf("reason %q, want %q", d.Status.Reason, why)
	}
	return d
}

const takeDown = "delete uid-1 RollingUpdate"

func TestTheFirstByNameStarts(t *testing.T) {
	u := newUpdater(t, makeDS(), "host-02", "host-03")
	d := u.expect("", takeDown)
	if !d.Memory.Updating || !d.Status.Updating || d.Memory.Since != t0 || d.Status.View != u.view.Digest {
		t.Errorf("it does not say that it updates: %+v %+v", d.Memory, d.Status)
	}
}

func TestAHostUpdatesUntilANewPodIsAvailable(t *testing.T) {
	u := newUpdater(t, makeDS(), "host-02")
	u.expect("", takeDown)
	u.o.Pods[0].Terminating = true
	u.expect("terminating")
	u.o.Pods[0].Ended = true
	if d := u.expect("", "create bbbb SuccessfulCreate"); d.Actions[0].Message != "it takes the place of pod web-1 of revision aaaa, which has ended" {
		t.Errorf("it says %q", d.Actions[0].Message)
	}
	u.o.Pods = nil
	if d := u.expect("", "create bbbb SuccessfulCreate"); d.Actions[0].Message != "it takes the place of the one that the update stopped" {
		t.Errorf("it says %q", d.Actions[0].Message)
	}
	u.o.Pods = []Pod{makePod(2, revB)}
	if d := u.expect("not ready"); !d.Status.Updating {
		t.Error("it says that it does not update any more while its pod is not ready")
	}
	u.o.Pods[0].Ready, u.o.Pods[0].ReadySince, u.o.Pods[0].Created = true, t0, t0.Add(-20*time.Millisecond)
	if d := u.expect("counts as available"); !d.Status.Updating || !d.WakeUp.Equal(t0.Add(settleFor)) {
		t.Errorf("a pod that has been ready for no time is available: %+v", d.Status)
	}
	u.o.Pods[0].Restarts = 1
	if d := u.plan(); !d.WakeUp.Equal(t0.Add(trialFor)) {
		t.Errorf("one that has failed once is trusted at %v", d.WakeUp)
	}
	u.o.Pods[0].Restarts, u.o.Pods[0].Created = 0, t0.Add(-200*time.Millisecond)
	if d := u.plan(); !d.WakeUp.Equal(t0.Add(settlePart * 200 * time.Millisecond)) {
		t.Errorf("one that started slowly is trusted at %v", d.WakeUp)
	}
	u.o.Pods[0].Created = t0.Add(-20 * time.Millisecond)
	u.now = t0.Add(settleFor)
	if d := u.expect(""); d.Status.Updating || !d.Status.Available {
		t.Errorf("it updates for ever: %+v", d.Status)
	}
	u.now = t0.Add(trialFor)
	if d := u.expect(""); !d.Memory.Since.IsZero() {
		t.Errorf("its turn is never forgotten: %+v", d.Memory)
	}
}

// What a person reads when a host does not start, here and, in 120 bytes, elsewhere.
func TestWhyNot(t *testing.T) {
	const old = "pod web-1 runs the older revision aaaa: "
	first := func(w *Word) { w.Status.Node = "host-00" }
	for _, c := range []struct {
		code   Code
		ds     *appsv1.DaemonSet
		change func(u *updater)
		here   string
	}{
		{CodeUnheard, nil, func(u *updater) { u.view.Others["host-00"] = Word{} }, "waiting for host-00, which has not said anything of the DaemonSet"},
		{CodeFailed, nil, func(u *updater) { u.hear("host-00", lost) }, "waiting for host-00, which is not heard any more; if it does not come back: kubectl delete node"},
		{CodeQuiet, nil, func(u *updater) { u.hear("host-00", func(w *Word) { w.Quiet = true }) }, "waiting for host-00, which has not been heard for a moment"},
		{CodeUnacknowledged, nil, func(u *updater) {
			u.plan()
			u.view.Common.Configs = []byte("new")
			u.view.Digest = u.view.Common.Digest()
		}, "waiting for host-00 +1, which has not told what this host knows"},
		{CodeUpdating, nil, func(u *updater) { u.hear("host-00", tells(func(s *Status) { s.Updating = true })) }, "waiting for host-00, which is being updated"},
		{CodeUnavailable, nil, func(u *updater) { u.hear("host-00", unavailable) }, "waiting for host-00, which has no available pod (pod  is not ready: CrashLoopBackOff)"},
		{CodeBefore, nil, func(*updater) {}, "waiting for host-00, whose turn is before"},
		{CodeReturned, nil, func(u *updater) { u.view.Common.Exclusions = map[string]Exclusion{"host-00": {Entry: 1}} }, "waiting for host-00, which the update was to go on without: it is heard again, or had taken up the new version"},
		{CodeStranger, makeDS(func(ds *appsv1.DaemonSet) { ds.Spec.UpdateStrategy = rolling(intstr.FromInt32(2), intstr.FromInt32(0)) }), func(u *updater) {
			u.hear("host-02", tells(func(s *Status) { s.View, s.Placed = Digest{9}, false }))
			u.hear("host-00", done)
			u.view.Common.Exclusions = map[string]Exclusion{"host-02": {}}
		}, "waiting for host-02, which"},
		{CodeHalted, makeDS(func(ds *appsv1.DaemonSet) { ds.Spec.UpdateStrategy = rolling(intstr.FromInt32(3), intstr.FromInt32(0)) }), func(u *updater) {
			u.hear("host-02", unavailable)
			u.hear("host-02", tells(func(s *Status) { s.Stuck, s.Updating = true, true }))
		}, "waiting for host-02, which is stuck in its turn: the update is halted (pod  is not ready: CrashLoopBackOff)"},
		{CodeRaising, nil, func(u *updater) { u.view.Common.Exclusions = map[string]Exclusion{"host-01": {Entry: 1}} }, "all hosts agree about this one anew first"},
		{CodePreparing, nil, func(u *updater) { u.o.Warm = []Warm{{UID: "warm", Since: t0, Revision: revB}} }, "the next pod is being prepared"},
		{CodeAside, nil, func(u *updater) {
			u.o.Warm = []Warm{{UID: "warm", Since: t0, Revision: revB, Trouble: "ErrImagePull: not found"}}
		}, "the next pod cannot be made: ErrImagePull: not found"},
	} {
		t.Run(c.code.String(), func(t *testing.T) {
			if c.ds == nil {
				c.ds = makeDS()
			}
			u := newUpdater(t, c.ds, "host-00", "host-02")
			u.hear("host-00", first)
			u.o.Pods[0].UID = podUID
			c.change(u)
			d := u.expect(old + c.here)
			if d.Status.Code != c.code && c.code != CodeStranger {
				t.Errorf("code %v", d.Status.Code)
			}
			if heard(t, d.Status).Code != d.Status.Code {
				t.Error("others hear something else")
			}
		})
	}
}

func TestNothingIsStoppedBeforeTheNextPodIsPrepared(t *testing.T) {
	u := newUpdater(t, makeDS(), "host-02")
	u.o.Warm = nil
	u.expect("being prepared", "prepare bbbb Preparing")
	u.o.Warm = []Warm{{UID: "warm", Since: t0, Revision: revB}}
	u.expect("being prepared")
	u.o.Warm[0].Prepared = true
	u.expect("", takeDown)
}

func TestFarFromItsTurnAHostPullsImagesOnly(t *testing.T) {
	u := newUpdater(t, makeDS(), "host-00", "host-00a", "host-00b", "host-00c")
	u.o.Warm = nil
	u.expect("", "prefetch bbbb Preparing")
	images := Warm{UID: "images", Revision: revB, ImagesOnly: true, Prepared: true}
	u.o.Warm = []Warm{images}
	u.expect("")
	u.view.Revision = "cccc"
	u.expect("", "prefetch cccc Preparing", "discard images Preparing")
	u.view.Revision = revB
	u.hear("host-00", done)
	u.expect("", "prepare bbbb Preparing")
	u.o.Warm = append(u.o.Warm, Warm{UID: "warm", Revision: revB})
	u.expect("", "discard images Preparing")
}

// Images are pulled ahead for a turn that is to come, and no longer.
func TestPullingAheadStops(t *testing.T) {
	for name, c := range map[string]func(u *updater){
		"when the update is paused":         func(u *updater) { pausing(u.view.DaemonSet) },
		"when the pod is not placed":        func(u *updater) { selecting("disktype", "hdd")(u.view.DaemonSet) },
		"when the host is up to date":       func(u *updater) { u.o.Pods[0].Revision = revB },
		"when pods wait for their deletion": func(u *updater) { deleting(u.view.DaemonSet) },
		"with the DaemonSet":                func(u *updater) { u.view.DaemonSet = nil },
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpdater(t, makeDS(), "host-00", "host-00a", "host-00b", "host-00c")
			u.o.Warm = []Warm{{UID: "images", Revision: revB, ImagesOnly: true}}
			u.expect("")
			c(u)
			if got := said(u.plan()); !slices.Contains(got, "discard images Preparing") {
				t.Errorf("it goes on: %q", got)
			}
		})
	}
}

// What the next pod waits for may never answer: by the deadline of a turn its host stands aside.
func TestAPodThatIsNeverPrepared(t *testing.T) {
	u := newUpdater(t, makeDS(func(ds *appsv1.DaemonSet) { ds.Annotations = map[string]string{AnnotationDeadline: "20"} }), "host-02")
	u.o.Warm = []Warm{{UID: "warm", Since: t0, Revision: revB}}
	if d := u.expect("being prepared"); d.Status.Aside || !d.WakeUp.Equal(t0.Add(20*time.Second)) {
		t.Errorf("it looks again at %v", d.WakeUp)
	}
	u.now = t0.Add(20 * time.Second)
	if d := u.expect("the next pod cannot be made: DeadlineExceeded: it is being made since " + clock(t0)); !d.Status.Aside {
		t.Error("it does not stand aside")
	}
	u.o.Warm[0].Prepared = true
	if d := u.expect("agree about this one anew"); d.Status.Aside || !d.Raise {
		t.Error("it stays aside")
	}
}

func TestWhatWasPreparedOfAnotherRevisionIsDropped(t *testing.T) {
	u := newUpdater(t, makeDS(), "host-02")
	u.o.Warm = []Warm{{UID: "warm", Since: t0, Revision: "cccc", Prepared: true}}
	u.expect("", "discard warm Preparing", "prepare bbbb Preparing")
	u.o.Pods = []Pod{makePod(1, revB, ready)}
	u.expect("", "discard warm Preparing")
}

// A host that cannot make the next pod says so and holds nobody up; when it can after all, all agree about it anew before it starts.
func TestAHostThatStandsAside(t *testing.T) {
	u := newUpdater(t, makeDS(), "host-02")
	u.o.Warm = []Warm{{UID: "warm", Since: t0, Revision: revB, Trouble: "DiskFull: 3 MB left", TroubleSince: t0}}
	if d := u.expect("being prepared"); d.Status.Aside || !d.WakeUp.Equal(t0.Add(asideAfter)) {
		t.Errorf("it stands aside at once: %+v", d.Status)
	}
	u.now = t0.Add(asideAfter)
	if d := u.expect("cannot be made: DiskFull: 3 MB left"); !d.Status.Aside || d.Status.View != u.view.Digest || d.Memory.Away != u.view.Digest {
		t.Errorf("it does not stand aside: %+v", d.Status)
	}
	u.o.Warm = []Warm{{UID: "warm", Since: t0, Revision: revB, Prepared: true}}
	if d := u.expect("agree about this one anew"); !d.Raise {
		t.Error("its entry is not raised")
	}
	u.view.Common.Roster["host-01"] = Entry{Number: 2}
	u.view.Digest = u.view.Common.Digest()
	u.hear("host-02", tells(func(s *Status) { s.View = u.view.Digest }))
	u.expect("", takeDown)
}

func TestAStuckHost(t *testing.T) {
	ds := makeDS(func(ds *appsv1.DaemonSet) { ds.Annotations = map[string]string{AnnotationDeadline: "20"} })
	u := newUpdater(t, ds, "host-02")
	u.plan()
	u.o.Pods = []Pod{makePod(2, revB)}
	if d := u.plan(); !d.WakeUp.Equal(t0.Add(20*time.Second)) || d.Status.Stuck {
		t.Errorf("the deadline is at %v", d.WakeUp)
	}
	u.now = t0.Add(20 * time.Second)
	if d := u.plan(); !d.Status.Stuck || d.Rollback {
		t.Errorf("it is not stuck, or rolls back without being asked to: %+v", d.Status)
	}
	ds.Annotations[AnnotationOnFailure] = "Rollback"
	if d := u.plan(); !d.Rollback {
		t.Error("it does not roll back")
	}
	// The next version is another attempt.
	u.view.Revision, u.view.Common.Generation = "cccc", 2
	u.now = u.now.Add(time.Hour)
	d := u.expect("", "delete uid-2 RollingUpdate")
	if d.Memory.Since != u.now || d.Rollback || d.Status.Stuck {
		t.Errorf("its deadline counts from %v, or the fix is rolled back", d.Memory.Since)
	}
}

// A pod that was available for a moment, and crashes ever since, is what the host's turn has come to.
func TestAPodThatCrashesOnTrial(t *testing.T) {
	u := newUpdater(t, makeDS(func(ds *appsv1.DaemonSet) {
		ds.Annotations = map[string]string{AnnotationDeadline: "20", AnnotationOnFailure: "Rollback"}
	}), "host-02")
	u.plan()
	u.o.Pods = []Pod{makePod(2, revB, readySince(t0))}
	u.now = t0.Add(settleMost)
	if d := u.plan(); !d.Status.Available || d.Status.Updating {
		t.Fatalf("it is not available: %+v", d.Status)
	}
	u.o.Pods = []Pod{makePod(2, revB)}
	if d := u.plan(); d.Status.Stuck {
		t.Error("it is stuck at once")
	}
	u.now = t0.Add(20 * time.Second)
	if d := u.plan(); !d.Status.Stuck || !d.Rollback {
		t.Errorf("it is not stuck: %+v", d.Status)
	}
}

func TestAnotherDoorRollsBackLater(t *testing.T) {
	ds := makeDS(func(ds *appsv1.DaemonSet) { ds.Annotations = map[string]string{AnnotationOnFailure: "rollback"} })
	u := newUpdater(t, ds, "host-00")
	u.hear("host-00", tells(func(s *Status) { s.Stuck, s.Updating, s.Available, s.Since = true, true, false, t0 }))
	if d := u.plan(); d.Rollback || !d.WakeUp.Equal(t0.Add(rollbackPause)) {
		t.Errorf("at once, or never: %v", d.WakeUp)
	}
	u.now = t0.Add(rollbackPause)
	if d := u.plan(); !d.Rollback {
		t.Error("it does not roll back")
	}
}

func TestAnUpdateGoesOnWithoutALostHost(t *testing.T) {
	u := newUpdater(t, makeDS(), "host-00", "host-02")
	u.hear("host-00", func(w *Word) { w.Failed, w.Status.Generation, w.Status.View = true, 0, Digest{} })
	if d := u.expect("waiting for host-00"); len(d.Exclude) != 1 || d.Exclude["host-00"] != 1 {
		t.Errorf("excluded are %v", d.Exclude)
	}
	u.view.DaemonSet.Annotations = map[string]string{AnnotationUnreachable: "Count"}
	if d := u.plan(); len(d.Exclude) > 0 {
		t.Errorf("excluded are %v", d.Exclude)
	}
	u.view.DaemonSet.Annotations = nil
	u.hear("host-00", func(w *Word) { w.Status.Generation = 1 }) // it may have died of it
	if d := u.plan(); len(d.Exclude) > 0 {
		t.Errorf("excluded are %v", d.Exclude)
	}
}

// While nothing is to be updated, a host that joins does not make all the others speak.
func TestTheRosterIsAcknowledgedWhileSomethingIsToBeUpdated(t *testing.T) {
	u := newUpdater(t, makeDS(), "host-02")
	u.o.Pods = []Pod{makePod(1, revB, ready)}
	u.hear("host-02", done)
	before := u.plan().Status.View
	u.view.Common.Roster["host-03"] = Entry{Number: 1}
	u.view.Digest = u.view.Common.Digest()
	if now := u.plan().Status.View; now != before || now == (Digest{}) {
		t.Errorf("%x is told after %x", now, before)
	}
	u.hear("host-02", tells(func(s *Status) { s.Revision, s.Updated = revA, false }))
	if now := u.plan().Status.View; now != u.view.Digest {
		t.Errorf("%x is told while there is something to do", now)
	}
}

func TestBlocked(t *testing.T) {
	good := Status{Generation: 1, Placed: true, HasPod: true, Ready: true, Available: true, Updated: true, Revision: revB}
	with := func(node string, change func(*Status)) Status {
		s := good
		s.Node = node
		change(&s)
		return s
	}
	old := with("a", func(s *Status) { s.Updated, s.Revision = false, revA })
	for name, c := range map[string]struct {
		ds    *appsv1.DaemonSet
		words []Status
		want  string
	}{
		"done":           {makeDS(), []Status{good}, "NotBlocked: nothing is in the way"},
		"under way":      {makeDS(), []Status{old, with("b", func(s *Status) { s.Updating, s.Available = true, false })}, "NotBlocked: nothing is in the way"},
		"stuck":          {makeDS(), []Status{old, with("b", func(s *Status) { s.Stuck, s.Updating, s.Available, s.Reason = true, true, false, "it crashes" })}, "HostStuck: halted: not available within the progress deadline; apply a version that works, or kubectl rollout undo (b: it crashes)"},
		"lost in turn":   {makeDS(), []Status{old, with("b", func(s *Status) { s.Updating, s.Available, s.Silent = true, false, "no word of it" })}, "HostLost: waiting for hosts that were lost in the update; kubectl delete node gives one up (b: no word of it)"},
		"lost before":    {makeDS(), []Status{old, with("b", func(s *Status) { s.Generation, s.Silent = 0, "no word of it" })}, "NotBlocked: nothing is in the way"},
		"lost when done": {makeDS(), []Status{good, with("b", func(s *Status) { s.Silent = "no word of it" })}, "NotBlocked: nothing is in the way"},
		"aside":          {makeDS(), []Status{with("b", func(s *Status) { s.Aside, s.Updated, s.Reason = true, false, "no image" })}, "CannotMakePod: hosts cannot make the next pod and keep the one they have (b: no image)"},
		"paused":         {makeDS(pausing), []Status{old}, "Paused: the update is paused; picket rollout resume goes on (a: pod  runs the older revision aaaa: the update is paused"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "paused" {
				c.words[0].Code = CodePaused
			}
			var got string
			for _, condition := range Sum(c.ds, c.words).Conditions {
				if condition.Type == ConditionBlocked {
					got = condition.Reason + ": " + condition.Message
				}
				if condition.Type == ConditionProgressing && (condition.Reason == "ProgressDeadlineExceeded") != (name == "stuck") {
					t.Errorf("progressing is %s", condition.Reason)
				}
			}
			if !strings.HasPrefix(got, c.want) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// A side of a cut that thought all others lost excludes them: each raises its entry, though the others are not back yet either.
func TestAllAreExcludedAtOnce(t *testing.T) {
	u := newUpdater(t, makeDS(), "host-00", "host-02")
	u.view.Common.Exclusions = map[string]Exclusion{"host-00": {Entry: 1}, "host-01": {Entry: 1}}
	if d := u.plan(); !d.Raise || d.Status.View != (Digest{}) {
		t.Errorf("it does not raise its entry: %s", d.Status.Reason)
	}
}

// After the clock was set back a healthy pod has been ready since a time to come: it is not replaced without leave.
func TestTheClockIsSetBack(t *testing.T) {
	u := newUpdater(t, makeDS(), "host-00")
	u.o.Pods[0].ReadySince = t0.Add(time.Hour)
	u.expect("waiting for host-00")
}
