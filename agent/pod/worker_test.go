package pod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

// inBubble runs a worker test in virtual time. A goroutine that outlives it fails the test (a bubble waits for all).
func inBubble(t *testing.T, pod *corev1.Pod, test func(b *bench)) {
	t.Helper()
	b := newBench(t, pod)
	synctest.Test(t, func(t *testing.T) {
		b.t = t
		test(b)
		if b.worker == nil {
			return
		}
		b.worker.Abandon()
		<-b.worker.Done()
	})
}

func expectCalls(t *testing.T, f *runtimetest.Fake, want ...string) {
	t.Helper()
	if got := f.Take(); !slices.Equal(got, want) {
		t.Errorf("calls:\n got %q\nwant %q", got, want)
	}
}

func expect[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestStartsContainersInOrder(t *testing.T) {
	inBubble(t, testPod("web", "log"), func(b *bench) {
		b.start(nil)
		expect(t, "state at once", b.state("web"), "ContainerCreating")
		expect(t, "phase at once", b.worker.Status().Phase, corev1.PodPending)
		synctest.Wait()
		calls := b.fake.Take()
		slices.Sort(calls[:2]) // they run side by side; one pull serves both containers
		want := []string{"image busybox", "setup", "create web-0", "start web-0", "create log-0", "start log-0"}
		if !slices.Equal(calls, want) {
			t.Errorf("calls %q, want %q", calls, want)
		}
		s := b.worker.Status()
		expect(t, "phase", s.Phase, corev1.PodRunning)
		expect(t, "podIP", s.PodIP, "10.88.0.2")
		expect(t, "hostIP", s.HostIP, "192.0.2.1")
		expect(t, "qos", s.QOSClass, corev1.PodQOSBestEffort)
		expect(t, "observedGeneration", s.ObservedGeneration, 3)
		for _, c := range s.Conditions {
			expect(t, string(c.Type), c.Status, corev1.ConditionTrue)
		}
		web := b.container("web")
		expect(t, "containerID", web.ContainerID, "containerd://"+id("web", 0))
		expect(t, "imageID", web.ImageID, "busybox@sha256:1")
		expect(t, "ready", web.Ready && *web.Started, true)
		expect(t, "Started events", b.reported("Started"), 2)
	})
}

func TestRestartBackoff(t *testing.T) {
	inBubble(t, testPod("web"), func(b *bench) {
		b.start(nil)
		synctest.Wait()
		// The first restart is immediate, then 10 s doubling to 300 s.
		for i, wait := range []time.Duration{0, 10, 20, 40, 80, 160, 300, 300} {
			exited := time.Now()
			b.fake.Exit(id("web", i), 1)
			synctest.Wait()
			if wait > 0 {
				expect(t, "state in back-off", b.state("web"), "CrashLoopBackOff")
				last := b.container("web").LastTerminationState.Terminated
				expect(t, "last reason", last.Reason, "Error")
			}
			time.Sleep(wait * time.Second)
			synctest.Wait()
			started := b.fake.When(t, fmt.Sprintf("start web-%d", i+1))
			expect(t, fmt.Sprintf("wait before restart %d", i+1), started.Sub(exited), wait*time.Second)
			expect(t, "restartCount", b.container("web").RestartCount, int32(i+1))
			time.Sleep(time.Second)
		}
		// 600 s up: all is forgotten.
		time.Sleep(600 * time.Second)
		b.fake.Exit(id("web", 8), 1)
		synctest.Wait()
		expect(t, "state after a long run", b.state("web"), "Running")
		expect(t, "restartCount", b.container("web").RestartCount, 9)
	})
}

func TestRestartRemovesWhatItReplacedAfterwards(t *testing.T) {
	inBubble(t, testPod("web"), func(b *bench) {
		b.start(nil)
		synctest.Wait()
		b.fake.Take()
		b.fake.Exit(id("web", 0), 0)
		synctest.Wait()
		expectCalls(t, b.fake, "create web-1", "start web-1", "remove web-0")
		last := b.container("web").LastTerminationState.Terminated
		expect(t, "last reason", last.Reason, "Completed")
		expect(t, "last id", last.ContainerID, "containerd://"+id("web", 0))
	})
}

func TestRestartWaitsForNoOtherContainer(t *testing.T) {
	inBubble(t, testPod("web", "log"), func(b *bench) {
		b.start(nil)
		synctest.Wait()
		b.fake.Exit(id("web", 0), 1)
		synctest.Wait()
		b.fake.Exit(id("web", 1), 1) // now in back-off
		synctest.Wait()
		b.fake.Take()
		b.fake.Exit(id("log", 0), 1)
		synctest.Wait()
		expectCalls(t, b.fake, "create log-1", "start log-1", "remove log-0")
	})
}

func TestPullBackoff(t *testing.T) {
	inBubble(t, testPod("web"), func(b *bench) {
		b.fake.SetFail("image", errors.New("connection refused"))
		b.start(nil)
		synctest.Wait()
		expect(t, "state", b.state("web"), "ErrImagePull")
		expect(t, "message", b.container("web").State.Waiting.Message, "connection refused")
		time.Sleep(failureShown)
		synctest.Wait()
		expect(t, "state later", b.state("web"), "ImagePullBackOff")
		time.Sleep(10*time.Second - failureShown)
		synctest.Wait()
		expect(t, "tries after 10 s", len(b.fake.Asked()), 2)
		b.fake.SetFail("image", nil)
		time.Sleep(19 * time.Second)
		synctest.Wait()
		expect(t, "tries after 29 s", len(b.fake.Asked()), 2)
		time.Sleep(time.Second)
		synctest.Wait()
		expect(t, "state in the end", b.state("web"), "Running")
	})
}

func TestFailureReasons(t *testing.T) {
	for _, test := range []struct {
		call, reason string
		err          error
	}{
		{"image", "InvalidImageName", runtime.ErrInvalidImageName},
		{"image", "ErrImageNeverPull", runtime.ErrImageNeverPull},
		{"create", "CreateContainerConfigError", fmt.Errorf("runAsNonRoot: %w", runtime.ErrConfig)},
		{"create", "CreateContainerError", errors.New("snapshot")},
		{"start", "CrashLoopBackOff", fmt.Errorf("exec: %w", runtime.ErrStart)},
		{"create", "CrashLoopBackOff", fmt.Errorf("exec: %w", runtime.ErrStart)},
	} {
		t.Run(test.reason+" "+test.call, func(t *testing.T) {
			inBubble(t, testPod("web", "log"), func(b *bench) {
				b.pod.Spec.Containers[1].Image = "other"
				b.fake.SetFail(test.call+" web", test.err)
				b.fake.SetFail(test.call+" busybox", test.err)
				b.start(nil)
				synctest.Wait()
				if test.reason == "CrashLoopBackOff" {
					expect(t, "state at first", b.state("web"), "RunContainerError")
					time.Sleep(failureShown)
					synctest.Wait()
					last := b.container("web").LastTerminationState.Terminated
					expect(t, "last", fmt.Sprint(last.Reason, last.ExitCode), "StartError128")
				}
				expect(t, "state", b.state("web"), test.reason)
				expect(t, "the other container", b.state("log"), "Running")
				expect(t, "phase", b.worker.Status().Phase == corev1.PodRunning, test.reason == "CrashLoopBackOff")
				b.fake.SetFail(test.call+" web", nil)
				b.fake.SetFail(test.call+" busybox", nil)
				if test.reason == "InvalidImageName" {
					return // nothing can make it valid
				}
				time.Sleep(15 * time.Second)
				synctest.Wait()
				expect(t, "state when it works", b.state("web"), "Running")
			})
		})
	}
}

func TestMissingObjectStartsWhenItComes(t *testing.T) {
	pod := testPod("web")
	pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{
		ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "x"}, Key: "k"},
	}}}
	inBubble(t, pod, func(b *bench) {
		b.start(nil)
		synctest.Wait()
		waits := b.container("web").State.Waiting
		expect(t, "reason", waits.Reason, "CreateContainerConfigError")
		expect(t, "message", waits.Message, `configmap "x" not found`)
		b.objects.setConfig("x", map[string]string{"k": "v"})
		b.worker.ObjectsChanged()
		synctest.Wait()
		expect(t, "state", b.state("web"), "Running")
		if env := b.fake.Config(id("web", 0)).Env; !slices.Contains(env, "A=v") {
			t.Errorf("env %q has no A=v", env)
		}
	})
}

func TestGracefulStop(t *testing.T) {
	inBubble(t, testPod("web", "log"), func(b *bench) {
		b.fake.SetDeaf("log-0")
		b.start(nil)
		synctest.Wait()
		b.fake.Take()
		told := time.Now()
		b.worker.Stop(Stop{Deadline: told.Add(30 * time.Second), Reason: "deleted"})
		synctest.Wait()
		expectSorted(t, b.fake, "signal log-0 ", "signal web-0 ")
		expect(t, "the one that heard", b.state("web"), "Terminated Error")
		expect(t, "the one that did not", b.state("log"), "Running")
		<-b.worker.Done()
		expect(t, "time it took", time.Since(told), 30*time.Second)
		calls := b.fake.Take()
		expect(t, "kill", calls[0], "signal log-0 SIGKILL")
		expect(t, "last", calls[len(calls)-1], "teardown")
		expect(t, "containers left", len(b.fake.List()), 0)
		expect(t, "OnGone calls", b.goneCalls(), 1)
		if _, err := os.Stat(filepath.Join(b.cfg.Dir, testUID)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the pod's directory is left: %v", err)
		}
	})
}

func expectSorted(t *testing.T, f *runtimetest.Fake, want ...string) {
	t.Helper()
	got := f.Take()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
}

func TestStopCanBeShortened(t *testing.T) {
	inBubble(t, testPod("web"), func(b *bench) {
		b.fake.SetDeaf("web-0")
		b.start(nil)
		synctest.Wait()
		told := time.Now()
		b.worker.Stop(Stop{Deadline: told.Add(time.Hour)})
		time.Sleep(5 * time.Second)
		b.worker.Stop(Stop{Deadline: told.Add(7 * time.Second)})
		b.worker.Stop(Stop{Deadline: told.Add(time.Minute)}) // not longer
		<-b.worker.Done()
		expect(t, "time it took", time.Since(told), 7*time.Second)
	})
}

func TestStopWaitsForNothingThatIsSlow(t *testing.T) {
	for _, slow := range []string{"image", "setup", "create"} {
		t.Run(slow, func(t *testing.T) {
			inBubble(t, testPod("web"), func(b *bench) {
				b.fake.SetHang(slow, true)
				b.start(nil)
				synctest.Wait()
				told := time.Now()
				b.worker.Stop(Stop{Deadline: told.Add(30 * time.Second)})
				<-b.worker.Done()
				expect(t, "time it took", time.Since(told), 0)
				expect(t, "OnGone calls", b.goneCalls(), 1)
				expect(t, "failures reported", b.reported("Failed"), 0)
			})
		})
	}
}

func TestRestartedAgentAdoptsWithoutTouching(t *testing.T) {
	inBubble(t, testPod("web", "log"), func(b *bench) {
		b.start(nil)
		synctest.Wait()
		for i := range 2 {
			b.fake.Exit(id("web", i), 3)
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		before := b.worker.Status()
		time.Sleep(time.Minute)
		b.restart(nil)
		if now := b.worker.Status(); !reflect.DeepEqual(jsonOf(t, before), jsonOf(t, now)) {
			t.Errorf("status right after the restart:\n%s\nbefore:\n%s", jsonOf(t, now), jsonOf(t, before))
		}
		synctest.Wait()
		expectCalls(t, b.fake, "setup")
		if now := b.worker.Status(); jsonOf(t, before) != jsonOf(t, now) {
			t.Errorf("status later:\n%s\nbefore:\n%s", jsonOf(t, now), jsonOf(t, before))
		}
		// The back-off goes on where it was.
		exited := time.Now()
		b.fake.Exit(id("web", 2), 3)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		expect(t, "wait", b.fake.When(t, "start web-3").Sub(exited), 20*time.Second)
	})
}

func TestRestartedAgentFindsWhatExitedMeanwhile(t *testing.T) {
	inBubble(t, testPod("web"), func(b *bench) {
		b.start(nil)
		synctest.Wait()
		b.worker.Abandon()
		<-b.worker.Done()
		b.fake.QuietExit(id("web", 0), 7)
		b.fake.Take()
		b.start(nil)
		synctest.Wait()
		expectSorted(t, b.fake, "create web-1", "remove web-0", "setup", "start web-1")
		expect(t, "exit code", b.container("web").LastTerminationState.Terminated.ExitCode, 7)
	})
}

func TestCorruptStateIsRebuiltFromContainers(t *testing.T) {
	inBubble(t, testPod("web"), func(b *bench) {
		b.start(nil)
		synctest.Wait()
		b.fake.Exit(id("web", 0), 1)
		synctest.Wait()
		started := b.container("web").State.Running.StartedAt
		b.worker.Abandon()
		<-b.worker.Done()
		path := filepath.Join(b.cfg.Dir, testUID, statusFile)
		if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		b.fake.Take()
		time.Sleep(time.Minute)
		b.start(nil)
		synctest.Wait()
		expectCalls(t, b.fake, "setup")
		web := b.container("web")
		expect(t, "restartCount", web.RestartCount, 1)
		expect(t, "startedAt", web.State.Running.StartedAt.Equal(&started), true)
		expect(t, "reported", b.reported("StateRebuilt"), 1)
		if _, err := os.Stat(path + ".corrupt"); err != nil {
			t.Error(err)
		}
	})
}

func TestRebootStartsTheNextAttemptAndAsksNobody(t *testing.T) {
	for _, kept := range []bool{true, false} {
		t.Run(fmt.Sprint("status.json kept: ", kept), func(t *testing.T) {
			inBubble(t, testPod("web"), func(b *bench) {
				b.start(nil)
				synctest.Wait()
				b.worker.Abandon()
				<-b.worker.Done()
				b.fake.Reboot()
				if !kept {
					if err := os.Remove(filepath.Join(b.cfg.Dir, testUID, statusFile)); err != nil {
						t.Fatal(err)
					}
				}
				b.fake.Take()
				b.start(nil)
				synctest.Wait()
				expectSorted(t, b.fake, "create web-1", "remove web-0", "setup", "start web-1")
				web := b.container("web")
				expect(t, "restartCount", web.RestartCount, 1)
				last := web.LastTerminationState.Terminated
				expect(t, "last", fmt.Sprint(last.Reason, last.ExitCode), "Unknown255")
			})
		})
	}
}

func TestHalfMadeContainerIsMadeAgain(t *testing.T) {
	inBubble(t, testPod("web"), func(b *bench) {
		b.fake.SetHang("create web-0", true)
		b.start(nil)
		synctest.Wait()
		b.worker.Abandon()
		<-b.worker.Done()
		b.fake.SetHang("create web-0", false)
		b.fake.Add(runtime.ContainerStatus{ID: id("web", 0), Name: "web", ImageRef: "busybox", State: runtime.ContainerUnknown})
		b.fake.Take()
		b.start(nil)
		synctest.Wait()
		expectSorted(t, b.fake, "create web-0", "remove web-0", "setup", "start web-0")
		expect(t, "restartCount", b.container("web").RestartCount, 0)
	})
}

func TestRestartedAgentResumesAStop(t *testing.T) {
	inBubble(t, testPod("web"), func(b *bench) {
		b.fake.SetDeaf("web-0")
		b.start(nil)
		synctest.Wait()
		stop := Stop{Deadline: time.Now().Add(30 * time.Second)}
		b.worker.Stop(stop)
		time.Sleep(10 * time.Second)
		b.restart(&stop)
		<-b.worker.Done()
		expect(t, "deadline kept", time.Now(), stop.Deadline)
		expectCalls(t, b.fake, "signal web-0 ", "signal web-0 SIGKILL", "remove web-0", "teardown")
		expect(t, "OnGone calls", b.goneCalls(), 1)
	})
}

func TestContainerdAway(t *testing.T) {
	inBubble(t, testPod("web", "log"), func(b *bench) {
		b.start(nil)
		synctest.Wait()
		b.fake.SetFail("", runtime.ErrUnavailable)
		b.worker.Event(runtime.Event{Kind: runtime.EventDisconnected})
		lost := b.fake.QuietExit(id("log", 0), 9)
		b.fake.Exit(id("web", 0), 1) // heard at the last moment
		synctest.Wait()
		expect(t, "web, its restart waiting", b.state("web"), "Terminated Error")
		expect(t, "log, nothing known", b.state("log"), "Running")
		expect(t, "failures reported", b.reported("Failed"), 0)
		b.fake.SetFail("", nil)
		back := time.Now()
		b.worker.Event(runtime.Event{Kind: runtime.EventConnected})
		synctest.Wait()
		expect(t, "waited", time.Since(back), 0)
		expect(t, "web", b.state("web"), "Running")
		expect(t, "log", b.state("log"), "Running")
		expect(t, "log's code", b.container("log").LastTerminationState.Terminated.ExitCode, 9)
		b.worker.Event(lost) // late: nothing happens
		synctest.Wait()
		expect(t, "log's restarts", b.container("log").RestartCount, 1)
	})
}

func TestLostExitIsUnknown(t *testing.T) {
	for what, lose := range map[string]func(*runtimetest.Fake){
		"the shim died":         (*runtimetest.Fake).Reboot,
		"the container is gone": func(f *runtimetest.Fake) { f.Forget(id("web", 0)) },
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, testPod("web"), func(b *bench) {
				b.start(nil)
				synctest.Wait()
				lose(b.fake)
				b.worker.Event(runtime.Event{Kind: runtime.EventConnected})
				synctest.Wait()
				last := b.container("web").LastTerminationState.Terminated
				expect(t, "last", fmt.Sprint(last.Reason, last.ExitCode), "Unknown255")
				expect(t, "state", b.state("web"), "Running")
			})
		})
	}
}

func TestLogWriterLost(t *testing.T) {
	inBubble(t, testPod("web"), func(b *bench) {
		b.start(nil)
		synctest.Wait()
		b.fake.Take()
		b.worker.Event(runtime.Event{Kind: runtime.EventLogWriterLost, ContainerID: id("web", 0)})
		synctest.Wait()
		expectCalls(t, b.fake, "signal web-0 ", "create web-1", "start web-1", "remove web-0")
		expect(t, "reason", b.container("web").LastTerminationState.Terminated.Reason, "LogWriterLost")
	})
}

func TestOOMKilled(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprint("heard after the exit: ", late), func(t *testing.T) {
			inBubble(t, testPod("web"), func(b *bench) {
				b.start(nil)
				synctest.Wait()
				oom := runtime.Event{Kind: runtime.EventOOM, ContainerID: id("web", 0)}
				if !late {
					b.worker.Event(oom)
				}
				b.fake.Exit(id("web", 0), 137)
				if late {
					b.worker.Event(oom)
				}
				synctest.Wait()
				expect(t, "reason", b.container("web").LastTerminationState.Terminated.Reason, "OOMKilled")
			})
		})
	}
}

func TestTerminationMessage(t *testing.T) {
	pod := testPod("web")
	pod.Spec.Containers[0].TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	inBubble(t, pod, func(b *bench) {
		b.start(nil)
		synctest.Wait()
		write := func(path, text string) {
			t.Helper()
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		message := func() string { return b.container("web").LastTerminationState.Terminated.Message }
		write(b.worker.messagePath("web", 0), "out of cheese")
		b.fake.Exit(id("web", 0), 1)
		synctest.Wait()
		expect(t, "from the file", message(), "out of cheese")
		time.Sleep(10 * time.Second)

		log := b.fake.Config(id("web", 1)).LogPath
		write(log, "2026-01-02T15:04:05.1Z stdout F first\n2026-01-02T15:04:05.2Z stderr P sec\n2026-01-02T15:04:05.2Z stderr F ond\n")
		b.fake.Exit(id("web", 1), 1)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		expect(t, "from the log", message(), "first\nsecond\n")
	})
}

func TestExitBeforeTheStartHasAnswered(t *testing.T) {
	m := newMachine(testPod("web"), time.Unix(0, 0))
	c := m.containers[0]
	c.state = starting
	m.exited(c.id, exit{code: 4, at: time.Unix(1, 0)})
	expect(t, "state", c.state, starting)
	m.containerStarted(c.id, nil, time.Unix(1, 0))
	expect(t, "state", c.state, exited)
	expect(t, "code", c.terminated.ExitCode, 4)
}

func TestImageRemovedUnderThePodIsFetchedAgain(t *testing.T) {
	inBubble(t, testPod("web"), func(b *bench) {
		b.start(nil)
		synctest.Wait()
		b.fake.Take()
		b.fake.SetFail("create web-1", fmt.Errorf("image: %w", runtime.ErrNotFound))
		b.fake.Exit(id("web", 0), 1)
		synctest.Wait()
		b.fake.SetFail("create web-1", nil)
		creates := func(call string) bool { return call != "create web-1" }
		if calls := b.fake.Take(); !slices.Contains(calls, "image busybox") || len(slices.DeleteFunc(calls, creates)) != 2 {
			t.Errorf("calls %q, want a second try at once", calls)
		}
		time.Sleep(createDelay)
		synctest.Wait()
		expect(t, "state", b.state("web"), "Running")
	})
}

func TestStuckProcessIsKilledAgain(t *testing.T) {
	inBubble(t, testPod("web"), func(b *bench) {
		b.start(nil)
		synctest.Wait()
		b.fake.Take()
		b.fake.SetSend(func(runtime.Event) {}) // the exit gets lost
		b.worker.Stop(Stop{Deadline: time.Now()})
		<-b.worker.Done()
		calls := b.fake.Take()
		expect(t, "first", calls[0], "signal web-0 SIGKILL")
		expect(t, "gone", b.goneCalls(), 1)
	})
}

func TestStopOfAProcessWhoseExitWasMissed(t *testing.T) {
	inBubble(t, testPod("web"), func(b *bench) {
		b.start(nil)
		synctest.Wait()
		b.fake.QuietExit(id("web", 0), 1)
		b.fake.SetFail("signal", runtime.ErrNotFound)
		told := time.Now()
		b.worker.Stop(Stop{Deadline: told.Add(30 * time.Second)})
		<-b.worker.Done()
		expect(t, "time it took", time.Since(told), 0)
	})
}

func TestStartWhoseAnswerGotLost(t *testing.T) {
	inBubble(t, testPod("web"), func(b *bench) {
		b.fake.SetFail("start", runtime.ErrUnavailable)
		b.start(nil)
		synctest.Wait()
		b.fake.SetFail("start", nil)
		time.Sleep(unavailableDelay)
		synctest.Wait()
		expect(t, "in containerd", b.fake.List()[0].State, runtime.ContainerRunning)
		expect(t, "state", b.state("web"), "Running")
		expect(t, "restarts", b.container("web").RestartCount, 0)
	})
}
