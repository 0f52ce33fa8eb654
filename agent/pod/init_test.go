package pod

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/runtime"
)

// initContainers are init containers, and sidecars those whose names end in "+".
func initContainers(names ...string) []corev1.Container {
	always := corev1.ContainerRestartPolicyAlways
	var list []corev1.Container
	for _, name := range names {
		c := testPod(strings.TrimSuffix(name, "+")).Spec.Containers[0]
		if strings.HasSuffix(name, "+") {
			c.RestartPolicy = &always
		}
		list = append(list, c)
	}
	return list
}

func initPod(names ...string) *corev1.Pod {
	pod := testPod("web", "log")
	pod.Spec.InitContainers = initContainers(names...)
	return pod
}

// begun drops what comes before the containers.
func (b *bench) begun() []string {
	var calls []string
	for _, c := range b.fake.Take() {
		if !strings.HasPrefix(c, "image") && c != "setup" {
			calls = append(calls, c)
		}
	}
	return calls
}

func (b *bench) expectBegun(what string, want ...string) {
	b.t.Helper()
	synctest.Wait()
	if got := b.begun(); fmt.Sprint(got) != fmt.Sprint(want) {
		b.t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// shown is the pod as kubectl's columns and conditions tell it: phase, Initialized and its message, containers by state.
func (b *bench) shown() string {
	s := b.worker.Status()
	text := string(s.Phase)
	for _, c := range s.Conditions {
		if c.Type == corev1.PodInitialized || c.Type == corev1.PodReady {
			text += fmt.Sprintf(" %s=%s", c.Type, c.Status)
			if c.Message != "" {
				text += strings.TrimPrefix(c.Message, "containers with")
			}
		}
	}
	for _, list := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses} {
		for _, c := range list {
			text += "; " + c.Name + " " + stateOf(c)
			if c.Ready {
				text += " ready"
			}
		}
	}
	return text
}

func (b *bench) expectShown(want string) {
	b.t.Helper()
	synctest.Wait()
	if got := b.shown(); got != want {
		b.t.Errorf("status:\n got %s\nwant %s", got, want)
	}
}

// TestInitContainersRunInOrder: one at a time, each to its end; the sidecar opens the way when it runs; then the main ones, in order.
func TestInitContainersRunInOrder(t *testing.T) {
	inBubble(t, initPod("first", "proxy+", "second"), func(b *bench) {
		b.start(nil)
		b.expectBegun("at first", "create first-0", "start first-0")
		b.expectShown("Pending Initialized=False incomplete status: [first proxy second] Ready=False unready status: [proxy web log]" +
			"; first Running; proxy PodInitializing; second PodInitializing; web PodInitializing; log PodInitializing")
		b.fake.Exit(id("first", 0), 0)
		b.expectBegun("after the first", "create proxy-0", "start proxy-0", "create second-0", "start second-0")
		b.expectShown("Pending Initialized=False incomplete status: [second] Ready=False unready status: [web log]" +
			"; first Terminated Completed ready; proxy Running ready; second Running; web PodInitializing; log PodInitializing")
		b.fake.Exit(id("second", 0), 0)
		b.expectBegun("after the second", "create web-0", "start web-0", "create log-0", "start log-0")
		b.expectShown("Running Initialized=True Ready=True; first Terminated Completed ready; proxy Running ready" +
			"; second Terminated Completed ready; web Running ready; log Running ready")
	})
}

// TestInitContainerThatFailsIsStartedAgain with the back-off of every container, and nothing after it begins.
func TestInitContainerThatFailsIsStartedAgain(t *testing.T) {
	inBubble(t, initPod("first", "second"), func(b *bench) {
		b.start(nil)
		b.expectBegun("at first", "create first-0", "start first-0")
		b.fake.Exit(id("first", 0), 1)
		b.expectBegun("at once", "create first-1", "start first-1", "remove first-0")
		b.fake.Exit(id("first", 1), 1)
		b.expectBegun("the second time")
		b.expectShown("Pending Initialized=False incomplete status: [first second] Ready=False unready status: [web log]" +
			"; first CrashLoopBackOff; second PodInitializing; web PodInitializing; log PodInitializing")
		time.Sleep(10 * time.Second)
		b.expectBegun("after the back-off", "create first-2", "start first-2", "remove first-1")
		b.fake.Exit(id("first", 2), 0)
		b.expectBegun("when it succeeds", "create second-0", "start second-0")
	})
}

// TestSidecarIsRestartedAlone: it neither has the init containers run again nor the main ones stop.
func TestSidecarIsRestartedAlone(t *testing.T) {
	inBubble(t, initPod("first", "proxy+"), func(b *bench) {
		b.start(nil)
		synctest.Wait()
		b.fake.Exit(id("first", 0), 0)
		b.expectBegun("at first", "create first-0", "start first-0", "create proxy-0", "start proxy-0",
			"create web-0", "start web-0", "create log-0", "start log-0")
		b.fake.Exit(id("proxy", 0), 0)
		b.expectBegun("after its end", "create proxy-1", "start proxy-1", "remove proxy-0")
		b.fake.Exit(id("proxy", 1), 0)
		b.expectShown("Running Initialized=True Ready=False unready status: [proxy]; first Terminated Completed ready; proxy CrashLoopBackOff" +
			"; web Running ready; log Running ready")
	})
}

// TestSidecarsEndLast: after the main containers, in reverse order, and at the deadline together with what still runs.
func TestSidecarsEndLast(t *testing.T) {
	up := func(b *bench) {
		b.start(nil)
		synctest.Wait()
		b.begun()
	}
	stop := func(b *bench) { b.worker.Stop(Stop{Deadline: time.Now().Add(30 * time.Second)}) }
	t.Run("in reverse order", func(t *testing.T) {
		inBubble(t, initPod("a+", "b+"), func(b *bench) {
			up(b)
			stop(b)
			synctest.Wait()
			var signals []string
			for _, c := range b.begun() {
				if strings.HasPrefix(c, "signal") {
					signals = append(signals, c)
				}
			}
			if len(signals) != 4 || !strings.Contains(signals[2], "b-0") || !strings.Contains(signals[3], "a-0") {
				t.Errorf("signals %q", signals)
			}
			expect(t, "OnGone calls", b.goneCalls(), 1)
		})
	})
	t.Run("a main container uses up the grace period", func(t *testing.T) {
		inBubble(t, initPod("a+"), func(b *bench) {
			b.fake.SetDeaf("web-0")
			b.fake.SetDeaf("a-0")
			up(b)
			stop(b)
			synctest.Wait()
			expectSorted(t, b.fake, "signal log-0 ", "signal web-0 ")
			time.Sleep(30 * time.Second)
			synctest.Wait()
			expectSorted(t, b.fake, "signal a-0 ", "signal web-0 SIGKILL")
			time.Sleep(minimumGrace)
			synctest.Wait()
			if calls := b.fake.Take(); calls[0] != "signal a-0 SIGKILL" {
				t.Errorf("calls %q", calls)
			}
		})
	})
	t.Run("without a grace period nothing waits", func(t *testing.T) {
		inBubble(t, initPod("a+"), func(b *bench) {
			up(b)
			b.worker.Stop(Stop{Deadline: time.Now()})
			synctest.Wait()
			if calls := b.fake.Take(); len(calls) < 3 || !strings.HasSuffix(calls[0]+calls[1]+calls[2], "SIGKILL") {
				t.Errorf("calls %q", calls)
			}
		})
	})
	t.Run("a running init container ends at once", func(t *testing.T) {
		inBubble(t, initPod("a+", "init"), func(b *bench) {
			up(b)
			stop(b)
			synctest.Wait()
			if calls := b.fake.Take(); len(calls) < 2 || calls[0]+calls[1] != "signal a-0 signal init-0 " && calls[0]+calls[1] != "signal init-0 signal a-0 " {
				t.Errorf("calls %q", calls)
			}
		})
	})
}

// TestRestartedAgentGoesOnWithInitContainers: what was done is not done again, whether the agent remembers or only the containers tell.
func TestRestartedAgentGoesOnWithInitContainers(t *testing.T) {
	for _, remembered := range []bool{true, false} {
		t.Run(fmt.Sprintf("remembered %v", remembered), func(t *testing.T) {
			inBubble(t, initPod("first", "proxy+", "second"), func(b *bench) {
				again := func() {
					b.worker.Abandon()
					<-b.worker.Done()
					if !remembered {
						if err := os.Remove(filepath.Join(b.cfg.Dir, testUID, statusFile)); err != nil {
							b.t.Fatal(err)
						}
					}
					b.fake.Take()
					b.start(nil)
				}
				b.start(nil)
				synctest.Wait()
				b.fake.Exit(id("first", 0), 0)
				synctest.Wait()
				again()
				b.expectBegun("while the second runs")
				b.fake.Exit(id("second", 0), 0)
				synctest.Wait()
				b.begun()
				again()
				b.expectBegun("when all runs")
				b.expectShown("Running Initialized=True Ready=True; first Terminated Completed ready; proxy Running ready" +
					"; second Terminated Completed ready; web Running ready; log Running ready")
			})
		})
	}
}

// TestRebootRunsInitContainersAgain: what they made may be gone.
func TestRebootRunsInitContainersAgain(t *testing.T) {
	inBubble(t, initPod("first", "proxy+"), func(b *bench) {
		b.start(nil)
		synctest.Wait()
		b.fake.Exit(id("first", 0), 0)
		synctest.Wait()
		b.worker.Abandon()
		<-b.worker.Done()
		b.fake.Take()
		b.fake.Reboot()
		b.start(nil)
		synctest.Wait()
		if calls := b.begun(); fmt.Sprint(calls[:2]) != "[create first-1 start first-1]" || len(b.startedMains(calls)) > 0 {
			t.Errorf("calls %q", calls)
		}
		b.fake.Exit(id("first", 1), 0)
		synctest.Wait()
		if calls := b.begun(); fmt.Sprint(b.startedMains(calls)) != "[start web-1 start log-1]" {
			t.Errorf("calls %q", calls)
		}
	})
}

func (b *bench) startedMains(calls []string) []string {
	var list []string
	for _, c := range calls {
		if strings.HasPrefix(c, "start web") || strings.HasPrefix(c, "start log") {
			list = append(list, c)
		}
	}
	return list
}

// TestNumberOfAnAttemptIsNotGivenOutAgain after a reboot in which the newest attempt was not made yet.
func TestNumberOfAnAttemptIsNotGivenOutAgain(t *testing.T) {
	inBubble(t, testPod("web"), func(b *bench) {
		b.fake.SetFail("start web-1", runtime.ErrStart)
		b.start(nil)
		synctest.Wait()
		b.fake.Exit(id("web", 0), 1) // web-1 does not start, web-2 waits
		synctest.Wait()
		b.fake.SetHang("create web-2", true)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		b.worker.Abandon()
		<-b.worker.Done()
		b.fake.SetHang("create web-2", false)
		b.fake.Take()
		b.fake.Add(runtime.ContainerStatus{ID: id("web", 0), PodUID: testUID, Name: "web", State: runtime.ContainerUnknown}) // its removal failed
		b.start(nil)
		synctest.Wait()
		calls := b.begun()
		if len(calls) < 2 || calls[0] != "create web-2" && calls[1] != "create web-2" {
			t.Errorf("calls %q", calls)
		}
	})
}
