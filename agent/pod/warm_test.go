package pod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/picketd/picket/runtime"
)

// warmly runs a test of a pod that may not run yet.
func warmly(t *testing.T, pod *corev1.Pod, stage Stage, test func(b *bench)) {
	t.Helper()
	inBubble(t, pod, func(b *bench) {
		b.stage = stage
		test(b)
	})
}

// portPod publishes a port of the host.
func portPod() *corev1.Pod {
	pod := testPod("web")
	pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80, ContainerPort: 8080}}
	return pod
}

// told returns what OnPrepared said since the last time.
func (b *bench) told() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	told := b.prepared
	b.prepared = nil
	return told
}

func (b *bench) expectTold(want ...string) {
	b.t.Helper()
	if got := b.told(); !slices.Equal(got, want) {
		b.t.Errorf("told %q, want %q", got, want)
	}
}

func (b *bench) counts() (statuses, events, ended int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.statuses, len(b.events), b.ended
}

func TestWarmPodIsMadeButNotStarted(t *testing.T) {
	warmly(t, testPod("web", "log"), StagePrepared, func(b *bench) {
		b.start(nil)
		synctest.Wait()
		expectSorted(t, b.fake, "create log-0", "create web-0", "image busybox", "setup")
		b.expectTold("not prepared", "prepared")
		time.Sleep(time.Hour)
		expectSorted(t, b.fake)
		statuses, events, _ := b.counts()
		expect(t, "statuses and events of a pod that is none yet", fmt.Sprint(statuses, events), "0 0")
		expect(t, "its status is empty", equality.Semantic.DeepEqual(b.worker.Status(), corev1.PodStatus{}), true)

		b.worker.Release()
		synctest.Wait()
		expectCalls(t, b.fake, "start web-0", "start log-0")
		s := b.worker.Status()
		expect(t, "phase", s.Phase, corev1.PodRunning)
		expect(t, "start time", s.StartTime.Time.Equal(time.Now()), true)
		for _, c := range s.Conditions {
			expect(t, string(c.Type)+" since", c.LastTransitionTime.Time.Equal(time.Now()), true)
		}
		for reason, n := range map[string]int{"Pulled": 1, "Created": 2, "Started": 2} {
			expect(t, reason+" events", b.reported(reason), n)
		}
		expect(t, "restarts", b.container("web").RestartCount, 0)
		b.expectTold()
	})
}

func TestWarmPodTakesHostPortsWhenItIsReleased(t *testing.T) {
	warmly(t, portPod(), StagePrepared, func(b *bench) {
		b.start(nil)
		synctest.Wait()
		b.expectTold("not prepared", "prepared")
		expectSorted(t, b.fake, "create web-0", "image busybox", "setup")
		b.fake.SetFail("setup with ports", errors.New("host port 80 is taken"))
		b.worker.Release()
		synctest.Wait()
		expectCalls(t, b.fake, "setup with ports")
		expect(t, "why it does not run", b.worker.Status().Message, "cannot publish the pod's ports: host port 80 is taken")
		b.fake.SetFail("setup with ports", nil)
		time.Sleep(podDelayMin)
		synctest.Wait()
		expectCalls(t, b.fake, "setup with ports", "start web-0")
		expect(t, "phase", b.worker.Status().Phase, corev1.PodRunning)
	})
}

func TestReleasedBeforeItIsPreparedStartsLikeAnyOther(t *testing.T) {
	for _, slow := range []string{"image", "setup", "create"} {
		t.Run(slow, func(t *testing.T) {
			warmly(t, portPod(), StagePrepared, func(b *bench) {
				b.fake.SetFail(slow, errors.New("not yet"))
				b.start(nil)
				synctest.Wait()
				b.fake.SetFail(slow, nil)
				released := time.Now()
				b.worker.Release()
				synctest.Wait()
				expect(t, "phase", b.worker.Status().Phase, corev1.PodRunning)
				expect(t, "waited", b.fake.When(t, "start web-0").Sub(released), 0)
				calls := b.fake.Take()
				expect(t, "ports are published before it starts",
					slices.Index(calls, "setup with ports") >= 0 && slices.Index(calls, "setup with ports") < slices.Index(calls, "start web-0"), true)
			})
		})
	}
}

func TestWarmPodIsDropped(t *testing.T) {
	for _, at := range []string{"when it is prepared", "create", "image"} {
		t.Run(at, func(t *testing.T) {
			warmly(t, testPod("web"), StagePrepared, func(b *bench) {
				b.fake.SetHang(at, true)
				b.start(nil)
				synctest.Wait()
				told := time.Now()
				b.worker.Stop(Stop{Deadline: told, Reason: "not wanted any more"})
				b.worker.Release() // too late
				<-b.worker.Done()
				expect(t, "time it took", time.Since(told), 0)
				expect(t, "containers left", len(b.fake.List()), 0)
				expect(t, "OnGone calls", b.goneCalls(), 1)
				statuses, events, ended := b.counts()
				expect(t, "statuses, events and ends of a pod that never was", fmt.Sprint(statuses, events, ended), "0 0 0")
				if slices.ContainsFunc(b.fake.Take(), func(c string) bool { return c == "start web-0" || c == "signal web-0 " }) {
					t.Error("it was started, or told to end")
				}
				if _, err := os.Stat(filepath.Join(b.cfg.Dir, testUID)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the pod's directory is left: %v", err)
				}
			})
		})
	}
}

func TestRestartedAgentAdoptsAWarmPod(t *testing.T) {
	for _, kept := range []bool{true, false} {
		t.Run(fmt.Sprint("status.json kept: ", kept), func(t *testing.T) {
			warmly(t, testPod("web", "log"), StagePrepared, func(b *bench) {
				b.start(nil)
				synctest.Wait()
				b.worker.Abandon()
				<-b.worker.Done()
				if !kept {
					if err := os.Remove(filepath.Join(b.cfg.Dir, testUID, statusFile)); err != nil {
						t.Fatal(err)
					}
				}
				b.fake.Take()
				b.told()
				b.start(nil)
				synctest.Wait()
				if kept {
					expectCalls(t, b.fake, "setup")
				} else { // what they were made of is not known
					expectSorted(t, b.fake, "create log-0", "create web-0", "remove log-0", "remove web-0", "setup")
				}
				b.expectTold("not prepared", "prepared")
				b.worker.Release()
				synctest.Wait()
				expectCalls(t, b.fake, "start web-0", "start log-0")
				expect(t, "restarts", b.container("web").RestartCount, 0)
				expect(t, "start time", b.worker.Status().StartTime.Time.Equal(time.Now()), true)
			})
		})
	}
}

func TestWarmPodWhoseTaskIsGoneIsMadeAnew(t *testing.T) {
	forget := func(b *bench) {
		if err := os.Remove(filepath.Join(b.cfg.Dir, testUID, statusFile)); err != nil {
			b.t.Fatal(err)
		}
	}
	for what, happens := range map[string]func(b *bench){
		"a reboot":                               func(b *bench) { b.fake.Reboot() },
		"a reboot, and status.json is lost":      func(b *bench) { b.fake.Reboot(); forget(b) },
		"it was killed while no agent ran":       func(b *bench) { b.fake.QuietExit(id("web", 0), 137) },
		"it was killed, and status.json is lost": func(b *bench) { b.fake.QuietExit(id("web", 0), 137); forget(b) },
	} {
		t.Run(what, func(t *testing.T) {
			warmly(t, testPod("web"), StagePrepared, func(b *bench) {
				b.start(nil)
				synctest.Wait()
				b.worker.Abandon()
				<-b.worker.Done()
				happens(b)
				b.fake.Take()
				b.start(nil)
				synctest.Wait()
				expectSorted(t, b.fake, "create web-0", "remove web-0", "setup")
				b.worker.Release()
				synctest.Wait()
				expect(t, "restarts", b.container("web").RestartCount, 0)
				expect(t, "state", b.state("web"), "Running")
			})
		})
	}
}

func TestTroubleOfAWarmPod(t *testing.T) {
	for _, test := range []struct {
		call, trouble string
		err           error
	}{
		{"image busybox", "ErrImagePull: disk is full", errors.New("disk is full")},
		{"image busybox", "ErrImageNeverPull: " + runtime.ErrImageNeverPull.Error(), runtime.ErrImageNeverPull},
		{"setup", "FailedCreatePodSandBox: no address is free", errors.New("no address is free")},
		{"create web", "CreateContainerError: snapshot", errors.New("snapshot")},
		{"create web", "RunContainerError: " + fmt.Errorf("exec: %w", runtime.ErrStart).Error(), fmt.Errorf("exec: %w", runtime.ErrStart)},
		{"create web", "ContainerdUnavailable: containerd does not answer", runtime.ErrUnavailable},
		{"image busybox", "ContainerdUnavailable: containerd does not answer", runtime.ErrUnavailable},
	} {
		t.Run(test.call+" "+test.trouble, func(t *testing.T) {
			warmly(t, testPod("web", "log"), StagePrepared, func(b *bench) {
				b.fake.SetFail(test.call, test.err)
				b.start(nil)
				synctest.Wait()
				b.expectTold("not prepared", test.trouble)
				time.Sleep(25 * time.Second) // the retry says the same
				b.expectTold()
				b.fake.SetFail(test.call, nil)
				time.Sleep(time.Minute)
				told := slices.DeleteFunc(b.told(), func(s string) bool { return s == "not prepared" })
				expect(t, "told when it works", strings.Join(told, ", "), "prepared")
				_, events, _ := b.counts()
				expect(t, "events", events, 0)
				b.worker.Release()
				synctest.Wait()
				expect(t, "phase", b.worker.Status().Phase, corev1.PodRunning)
				expect(t, "restarts", b.container("web").RestartCount, 0)
				expect(t, "Failed events", b.reported("Failed"), 0)
			})
		})
	}
}

func TestPreparedPodLosesWhatWasMade(t *testing.T) {
	lose := func(b *bench) { b.fake.Exit(id("web", 0), 137) } // its shim was killed
	t.Run("while it waits", func(t *testing.T) {
		warmly(t, testPod("web"), StagePrepared, func(b *bench) {
			b.start(nil)
			synctest.Wait()
			b.fake.Take()
			b.told()
			lose(b)
			synctest.Wait()
			expectCalls(t, b.fake, "remove web-0", "create web-0")
			b.expectTold("not prepared", "prepared")
		})
	})
	t.Run("while containerd is away", func(t *testing.T) {
		warmly(t, testPod("web"), StagePrepared, func(b *bench) {
			b.start(nil)
			synctest.Wait()
			b.fake.Take()
			b.told()
			b.fake.SetDown(true)
			synctest.Wait()
			b.expectTold("ContainerdUnavailable: containerd does not answer")
			b.fake.QuietExit(id("web", 0), 137)
			b.fake.SetDown(false)
			synctest.Wait()
			expectCalls(t, b.fake, "status web-0", "remove web-0", "create web-0")
			b.expectTold("not prepared", "prepared")
		})
	})
	t.Run("unheard", func(t *testing.T) {
		warmly(t, testPod("web"), StagePrepared, func(b *bench) {
			b.start(nil)
			synctest.Wait()
			b.fake.Take()
			b.fake.SetFail("start", runtime.ErrNotFound)
			b.worker.Release()
			synctest.Wait()
			b.fake.SetFail("start", nil)
			time.Sleep(createDelay)
			synctest.Wait()
			expectCalls(t, b.fake, "start web-0", "remove web-0", "create web-0", "start web-0",
				"remove web-0", "create web-0", "start web-0") // the second time in a row waits
		})
	})
}

func TestWarmPodFollowsItsConfigMaps(t *testing.T) {
	pod := testPod("web", "log")
	pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{
		ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "x"}, Key: "k"},
	}}}
	warmly(t, pod, StagePrepared, func(b *bench) {
		b.objects.setConfig("x", map[string]string{"k": "old"})
		b.start(nil)
		synctest.Wait()
		b.fake.Take()
		b.objects.setConfig("other", map[string]string{"k": "v"})
		b.worker.ObjectsChanged()
		synctest.Wait()
		expectCalls(t, b.fake)

		b.worker.Abandon()
		<-b.worker.Done()
		b.objects.setConfig("x", map[string]string{"k": "new"}) // while no agent runs
		b.start(nil)
		synctest.Wait()
		expectSorted(t, b.fake, "create web-0", "remove web-0", "setup")
		if env := b.fake.Config(id("web", 0)).Env; !slices.Contains(env, "A=new") {
			t.Errorf("env %q has no A=new", env)
		}
		b.worker.Release()
		synctest.Wait()
		b.fake.Take()
		b.objects.setConfig("x", map[string]string{"k": "newer"})
		b.worker.ObjectsChanged()
		synctest.Wait()
		expectCalls(t, b.fake) // what runs is left alone
	})
}

func TestInitContainersWaitForTheOtherPodToBeGone(t *testing.T) {
	pod := testPod("web")
	pod.Spec.InitContainers = testPod("first", "second").Spec.Containers
	warmly(t, pod, StagePrepared, func(b *bench) {
		b.start(nil)
		synctest.Wait()
		expectSorted(t, b.fake, "create first-0", "image busybox", "setup")
		b.expectTold("not prepared", "prepared")
		b.worker.Release()
		synctest.Wait()
		expectCalls(t, b.fake, "start first-0")
	})
}

func TestImagesAhead(t *testing.T) {
	pod := testPod("web", "log")
	pod.Spec.Containers[1].Image = "other"
	warmly(t, pod, StageImages, func(b *bench) {
		b.cfg.Prefetch = make(chan struct{}, 1)
		b.fake.SetHang("image busybox", true)
		b.fake.SetHang("image other", true)
		b.start(nil)
		synctest.Wait()
		expect(t, "pulls at once", len(b.fake.Take()), 1)
		b.worker.Prepare() // now they are needed
		synctest.Wait()
		expect(t, "the other one does not wait any more", len(b.fake.Asked()), 2)
		b.worker.Stop(Stop{Deadline: time.Now()})
		<-b.worker.Done()
		expect(t, "turns taken", len(b.cfg.Prefetch), 0)
	})
	warmly(t, pod, StageImages, func(b *bench) {
		b.start(nil)
		synctest.Wait()
		expectSorted(t, b.fake, "image busybox", "image other")
		b.expectTold("not prepared", "prepared")
		if _, err := os.Stat(filepath.Join(b.cfg.Dir, testUID)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it has a directory: %v", err)
		}
		b.worker.Prepare()
		synctest.Wait()
		expectCalls(t, b.fake, "setup", "create web-0", "create log-0")
		b.expectTold("not prepared", "prepared")
	})
}

func TestEndIsToldBeforeAnythingIsRemoved(t *testing.T) {
	inBubble(t, portPod(), func(b *bench) {
		b.fake.SetDeaf("web-0")
		b.start(nil)
		synctest.Wait()
		b.fake.Take()
		b.worker.Stop(Stop{Deadline: time.Now().Add(10 * time.Second), Linger: time.Second})
		time.Sleep(9 * time.Second)
		_, _, ended := b.counts()
		expect(t, "ends while it runs", ended, 0)
		b.fake.SetFail("unpublish", errors.New("busy"))
		time.Sleep(time.Second)
		synctest.Wait()
		_, _, ended = b.counts()
		expect(t, "ends while it holds its ports", ended, 0)
		b.fake.SetFail("unpublish", nil)
		time.Sleep(podDelayMin)
		synctest.Wait()
		_, _, ended = b.counts()
		expect(t, "ends", ended, 1)
		expectCalls(t, b.fake, "signal web-0 ", "signal web-0 SIGKILL", "unpublish", "unpublish")
		at := time.Now()
		<-b.worker.Done()
		expectCalls(t, b.fake, "remove web-0", "teardown")
		expect(t, "lingered", time.Since(at), time.Second)
		_, _, ended = b.counts()
		expect(t, "ends in the end", ended, 1)
	})
}

// An earlier attempt that still runs, which nobody expects, is not over.
func TestPodWithAnUnknownProcessHasNotEnded(t *testing.T) {
	inBubble(t, testPod("web"), func(b *bench) {
		b.start(nil)
		synctest.Wait()
		b.worker.Abandon()
		<-b.worker.Done()
		b.fake.Add(runtime.ContainerStatus{ID: id("gone", 0), Name: "gone", PodUID: testUID, State: runtime.ContainerRunning})
		b.fake.SetFail("remove gone-0", errors.New("busy"))
		stop := &Stop{Deadline: time.Now()}
		b.start(stop)
		synctest.Wait()
		_, _, ended := b.counts()
		expect(t, "ends", ended, 0)
		b.fake.SetFail("remove gone-0", nil)
		<-b.worker.Done()
		_, _, ended = b.counts()
		expect(t, "ends at last", ended, 1)
	})
}
