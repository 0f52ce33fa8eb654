package pod

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

const testUID = "5b0c2c6e-0000-4000-8000-000000000001"

// fakeObjects are ConfigMaps and Secrets of namespace default.
type fakeObjects struct {
	mu      sync.Mutex
	configs map[string]*corev1.ConfigMap
	secrets map[string]*corev1.Secret
}

func (o *fakeObjects) ConfigMap(_, name string) (*corev1.ConfigMap, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c, ok := o.configs[name]
	return c, ok
}

func (o *fakeObjects) Secret(_, name string) (*corev1.Secret, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, ok := o.secrets[name]
	return s, ok
}

func (o *fakeObjects) setConfig(name string, data map[string]string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.configs == nil {
		o.configs = map[string]*corev1.ConfigMap{}
	}
	o.configs[name] = &corev1.ConfigMap{Data: data}
}

func testHost() Host {
	return Host{
		NodeName: "host-01", Hostname: "host-01.lan", IPs: []string{"192.0.2.1"},
		Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("1000Mi"),
		},
	}
}

func testPod(containers ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web-abcde", Namespace: "default", UID: testUID, Generation: 3,
			Labels:          map[string]string{"controller-revision-hash": "6f7d"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "DaemonSet", Name: "web"}},
		},
		Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, DNSPolicy: corev1.DNSDefault},
	}
	for _, name := range containers {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{
			Name: name, Image: "busybox", ImagePullPolicy: corev1.PullIfNotPresent,
			TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: corev1.TerminationMessageReadFile,
		})
	}
	return p
}

// bench is a worker with everything around it faked.
type bench struct {
	t       *testing.T
	fake    *runtimetest.Fake
	objects *fakeObjects
	cfg     *Config
	pod     *corev1.Pod
	worker  *Worker
	stage   Stage // that it begins with

	mu       sync.Mutex
	events   []string
	ended    int
	gone     int
	statuses int
	prepared []string // what OnPrepared said: "prepared", "not prepared" or the trouble
}

func newBench(t *testing.T, pod *corev1.Pod) *bench {
	b := &bench{t: t, fake: runtimetest.NewFake(), objects: &fakeObjects{}, pod: pod}
	dir := t.TempDir()
	t.Cleanup(func() {
		if err := removeTree(dir + "/pods"); err != nil {
			t.Error(err)
		}
	})
	b.cfg = &Config{
		Runtime: b.fake, Objects: b.objects, Host: testHost, Dir: dir + "/pods", PodLogs: dir + "/logs", ContainerLogs: dir + "/links",
		Log: slog.New(slog.DiscardHandler),
		OnStatus: func(string, corev1.PodStatus) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.statuses++
		},
		OnPrepared: func(_ string, prepared bool, trouble string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			switch {
			case prepared:
				trouble = "prepared"
			case trouble == "":
				trouble = "not prepared"
			}
			b.prepared = append(b.prepared, trouble)
		},
		OnEnded: func(string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.ended++
		},
		OnEvent: func(_ *corev1.Pod, _, reason, message string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.events = append(b.events, reason+": "+message)
		},
		OnGone: func(string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.gone++
		},
	}
	return b
}

func (b *bench) start(stop *Stop) {
	started := make(chan struct{})
	b.fake.SetSend(func(e runtime.Event) {
		<-started
		b.worker.Event(e)
	})
	b.worker = Start(b.cfg, b.pod, Begin{Adopted: b.fake.List(), Stop: stop, Stage: b.stage})
	close(started)
}

// restart is an agent that goes and comes back.
func (b *bench) restart(stop *Stop) {
	b.worker.Abandon()
	<-b.worker.Done()
	b.fake.Take()
	b.start(stop)
}

func (b *bench) reported(reason string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, e := range b.events {
		if strings.HasPrefix(e, reason+": ") {
			n++
		}
	}
	return n
}

func (b *bench) goneCalls() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.gone
}

func (b *bench) container(name string) corev1.ContainerStatus {
	b.t.Helper()
	for _, c := range b.worker.Status().ContainerStatuses {
		if c.Name == name {
			return c
		}
	}
	b.t.Fatalf("no status of container %s", name)
	return corev1.ContainerStatus{}
}

// state names a container's state in one word.
func (b *bench) state(name string) string {
	b.t.Helper()
	return stateOf(b.container(name))
}

func stateOf(c corev1.ContainerStatus) string {
	switch {
	case c.State.Running != nil:
		return "Running"
	case c.State.Terminated != nil:
		return "Terminated " + c.State.Terminated.Reason
	case c.State.Waiting != nil:
		return c.State.Waiting.Reason
	}
	return ""
}

func id(name string, attempt int) string { return fmt.Sprintf("%s-%s-%d", testUID, name, attempt) }

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
