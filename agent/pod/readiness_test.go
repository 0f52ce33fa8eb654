package pod

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/runtime"
)

// commands answers what is run in the containers: each command's last answer stays, and every run is written down.
type commands struct {
	mu      sync.Mutex
	answers map[string]int // exit codes; 0 unless set
	runs    []string
}

func (c *commands) exec(_ string, e runtime.ExecConfig) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := strings.Join(e.Command, " ")
	c.runs = append(c.runs, name)
	return c.answers[name], nil
}

func (c *commands) answer(name string, code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers[name] = code
}

func (c *commands) count(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(c.runs), func(r string) bool { return r != name }))
}

func (b *bench) commands() *commands {
	c := &commands{answers: map[string]int{}}
	b.fake.SetExec(c.exec)
	return c
}

// probe runs a command, named for what it is for, with the API's defaults but for the period.
func probe(name string, set ...func(*corev1.Probe)) *corev1.Probe {
	p := &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{name}}},
		PeriodSeconds: 10, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 3,
	}
	for _, s := range set {
		s(p)
	}
	return p
}

func execHook(name string) *corev1.LifecycleHandler {
	return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{name}}}
}

func sleepHook(seconds int64) *corev1.LifecycleHandler {
	return &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: seconds}}
}

func (b *bench) ready() bool {
	synctest.Wait()
	for _, c := range b.worker.Status().Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// after lets time pass.
func (b *bench) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// TestReadiness: a container is not ready before its probe says so, and not any more after so many failures; it is not restarted.
func TestReadiness(t *testing.T) {
	pod := testPod("web")
	pod.Spec.Containers[0].ReadinessProbe = probe("ready", func(p *corev1.Probe) { p.InitialDelaySeconds = 5 })
	inBubble(t, pod, func(b *bench) {
		c := b.commands()
		b.start(nil)
		b.after(4 * time.Second)
		expect(t, "ready before the first check", b.ready(), false)
		expect(t, "checks before the delay", c.count("ready"), 0)
		b.after(time.Second)
		expect(t, "ready after the first check", b.ready(), true)
		c.answer("ready", 1)
		b.after(20 * time.Second)
		expect(t, "ready after two failures", b.ready(), true)
		b.after(10 * time.Second)
		expect(t, "ready after three", b.ready(), false)
		expect(t, "message", b.worker.Status().Message, "readiness probe failed: container web: it says nothing")
		expect(t, "events", b.reported("Unhealthy"), 3)
		c.answer("ready", 0)
		b.after(10 * time.Second)
		expect(t, "ready again", b.ready(), true)
		expect(t, "restarts", b.container("web").RestartCount, 0)
	})
}

// TestLiveness: so many failures end the container, within the probe's own grace period, and it is started again.
func TestLiveness(t *testing.T) {
	grace := int64(3)
	pod := testPod("web")
	pod.Spec.Containers[0].LivenessProbe = probe("alive", func(p *corev1.Probe) { p.TerminationGracePeriodSeconds = &grace })
	inBubble(t, pod, func(b *bench) {
		c := b.commands()
		b.fake.SetDeaf("web-0")
		b.start(nil)
		expect(t, "ready without a readiness probe", b.ready(), true)
		c.answer("alive", 1)
		b.begun()
		b.after(20 * time.Second)
		b.expectBegun("after the second failure")
		b.after(10 * time.Second)
		b.expectBegun("after the third", "signal web-0 ")
		expect(t, "told", strings.Contains(strings.Join(b.events, "\n"), "Killing: Container web failed liveness probe, will be restarted"), true)
		c.answer("alive", 0)
		b.after(3 * time.Second)
		b.expectBegun("after the probe's grace period", "signal web-0 SIGKILL", "create web-1", "start web-1", "remove web-0")
		expect(t, "restarts", b.container("web").RestartCount, 1)
		checks := c.count("alive")
		b.after(30 * time.Second)
		expect(t, "checks of the next one", c.count("alive")-checks, 3)
	})
}

// TestStartup: until it has succeeded the other probes wait, and the container is neither started nor ready; its failure ends it.
func TestStartup(t *testing.T) {
	pod := testPod("web")
	spec := &pod.Spec.Containers[0]
	spec.StartupProbe = probe("up", func(p *corev1.Probe) { p.PeriodSeconds = 1 })
	spec.LivenessProbe, spec.ReadinessProbe = probe("alive"), probe("ready")
	inBubble(t, pod, func(b *bench) {
		c := b.commands()
		c.answer("up", 1)
		b.start(nil)
		b.after(time.Second)
		expect(t, "started", *b.container("web").Started, false)
		expect(t, "other checks", c.count("alive")+c.count("ready"), 0)
		c.answer("up", 0)
		b.after(time.Second)
		expect(t, "started", *b.container("web").Started, true)
		expect(t, "ready", b.ready(), true)
		ups := c.count("up")
		b.after(time.Minute)
		expect(t, "further startup checks", c.count("up"), ups)
		c.answer("up", 1)
		b.fake.Exit(id("web", 0), 1)
		b.after(13 * time.Second) // three checks and the back-off
		expect(t, "restarts, one of them the startup probe's", b.container("web").RestartCount, 2)
	})
}

// TestSidecarsProbesHoldTheOthersBack: the next container begins when its startup probe has succeeded; the pod is ready when it is.
func TestSidecarsProbesHoldTheOthersBack(t *testing.T) {
	pod := initPod("proxy+")
	pod.Spec.InitContainers[0].StartupProbe = probe("up", func(p *corev1.Probe) { p.PeriodSeconds = 1; p.FailureThreshold = 100 })
	pod.Spec.InitContainers[0].ReadinessProbe = probe("ready")
	inBubble(t, pod, func(b *bench) {
		c := b.commands()
		c.answer("up", 1)
		c.answer("ready", 1)
		b.start(nil)
		b.after(10 * time.Second)
		b.expectBegun("while it starts", "create proxy-0", "start proxy-0")
		c.answer("up", 0)
		b.after(time.Second)
		b.expectBegun("when it has", "create web-0", "start web-0", "create log-0", "start log-0")
		expect(t, "ready", b.ready(), false)
		c.answer("ready", 0)
		b.after(10 * time.Second)
		expect(t, "ready", b.ready(), true)
	})
}

// TestRestartedAgentKeepsReady: what ran goes on being ready and started while its probes have not answered the new agent.
func TestRestartedAgentKeepsReady(t *testing.T) {
	pod := testPod("web")
	pod.Spec.Containers[0].StartupProbe, pod.Spec.Containers[0].ReadinessProbe = probe("up"), probe("ready")
	inBubble(t, pod, func(b *bench) {
		c := b.commands()
		b.start(nil)
		expect(t, "ready", b.ready(), true)
		b.after(time.Minute)
		c.answer("ready", 1)
		ups := c.count("up")
		b.restart(nil)
		expect(t, "ready at once", b.ready(), true)
		b.after(time.Minute)
		expect(t, "ready after three failures", b.ready(), false)
		expect(t, "startup checks", c.count("up"), ups)
	})
}

// TestPostStart: the next container waits for the hook, and the pod is not ready; its failure ends the container, with the kubelet's
// reason, and the next attempt comes with the back-off.
func TestPostStart(t *testing.T) {
	pod := testPod("web", "log")
	pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: sleepHook(5)}
	inBubble(t, pod, func(b *bench) {
		b.start(nil)
		b.after(4 * time.Second)
		b.expectBegun("while the hook runs", "create web-0", "start web-0")
		expect(t, "state", b.state("web"), "Running")
		expect(t, "ready", b.container("web").Ready, false)
		b.after(time.Second)
		b.expectBegun("after the hook", "create log-0", "start log-0")
		expect(t, "ready", b.ready(), true)
	})
	pod = testPod("web")
	pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: execHook("prepare")}
	inBubble(t, pod, func(b *bench) {
		c := b.commands()
		c.answer("prepare", 1)
		b.start(nil)
		synctest.Wait()
		b.fake.When(t, "signal web-0 ")
		b.fake.When(t, "signal web-1 ") // then comes the back-off
		expect(t, "state", b.state("web"), "PostStartHookError")
		expect(t, "events", b.reported("FailedPostStartHook"), 2)
		b.after(failureShown)
		expect(t, "state later", b.state("web"), "CrashLoopBackOff")
		c.answer("prepare", 0)
		b.after(restartDelayMin)
		expect(t, "state in the end", b.state("web"), "Running")
		expect(t, "hooks", c.count("prepare"), 3)
	})
}

// TestPreStop: the hook comes before the stop signal, within the grace period, of which two seconds are left in any case.
func TestPreStop(t *testing.T) {
	for name, c := range map[string]struct {
		hook, grace time.Duration
		term, kill  time.Duration // when the signals come; the container is deaf
	}{
		"it ends in time":                 {5 * time.Second, 30 * time.Second, 5 * time.Second, 30 * time.Second},
		"it leaves less than two seconds": {29 * time.Second, 30 * time.Second, 29 * time.Second, 31 * time.Second},
		"it uses up the grace period":     {time.Minute, 30 * time.Second, 30 * time.Second, 32 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			pod := testPod("web")
			pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: sleepHook(int64(c.hook / time.Second))}
			inBubble(t, pod, func(b *bench) {
				b.fake.SetDeaf("web-0")
				b.start(nil)
				synctest.Wait()
				began := time.Now()
				b.worker.Stop(Stop{Deadline: began.Add(c.grace)})
				b.after(2 * time.Minute)
				expect(t, "SIGTERM", b.fake.When(t, "signal web-0 ").Sub(began), c.term)
				expect(t, "SIGKILL", b.fake.When(t, "signal web-0 SIGKILL").Sub(began), c.kill)
				expect(t, "OnGone calls", b.goneCalls(), 1)
			})
		})
	}
	t.Run("a failing hook stops nothing", func(t *testing.T) {
		pod := testPod("web")
		pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: execHook("drain")}
		inBubble(t, pod, func(b *bench) {
			b.commands().answer("drain", 1)
			b.start(nil)
			synctest.Wait()
			b.worker.Stop(Stop{Deadline: time.Now().Add(time.Minute)})
			synctest.Wait()
			expect(t, "OnGone calls", b.goneCalls(), 1)
			expect(t, "events", b.reported("FailedPreStopHook"), 1)
		})
	})
	t.Run("without a grace period there is no hook", func(t *testing.T) {
		pod := testPod("web")
		pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: execHook("drain")}
		inBubble(t, pod, func(b *bench) {
			c := b.commands()
			b.start(nil)
			synctest.Wait()
			b.worker.Stop(Stop{Deadline: time.Now()})
			synctest.Wait()
			expect(t, "OnGone calls", b.goneCalls(), 1)
			expect(t, "hooks", c.count("drain"), 0)
		})
	})
	t.Run("a shorter stop ends the wait for the hook", func(t *testing.T) {
		pod := testPod("web")
		pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: sleepHook(60)}
		inBubble(t, pod, func(b *bench) {
			b.start(nil)
			synctest.Wait()
			b.worker.Stop(Stop{Deadline: time.Now().Add(time.Minute)})
			b.after(time.Second)
			b.worker.Stop(Stop{Deadline: time.Now()})
			synctest.Wait()
			expect(t, "OnGone calls", b.goneCalls(), 1)
		})
	})
}

// TestProbesEndWithThePod: nothing asks a pod that is gone, and nothing but its readiness one that is ending.
func TestProbesEndWithThePod(t *testing.T) {
	pod := testPod("web")
	pod.Spec.Containers[0].LivenessProbe, pod.Spec.Containers[0].ReadinessProbe = probe("alive"), probe("ready")
	pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: sleepHook(25)}
	inBubble(t, pod, func(b *bench) {
		c := b.commands()
		b.start(nil)
		b.after(time.Second)
		b.worker.Stop(Stop{Deadline: time.Now().Add(time.Minute)})
		alive, ready := c.count("alive"), c.count("ready")
		b.after(24 * time.Second)
		expect(t, "liveness checks while it ends", c.count("alive"), alive)
		expect(t, "readiness checks while it ends", c.count("ready")-ready, 2)
		b.after(time.Second)
		expect(t, "OnGone calls", b.goneCalls(), 1)
		b.after(time.Minute)
		expect(t, "readiness checks", c.count("ready")-ready, 2)
	})
}
