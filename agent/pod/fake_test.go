package pod

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/picketd/picket/runtime"
)

// fakeRuntime keeps containers in memory. Every call is written down; fail makes the next ones fail.
type fakeRuntime struct {
	mu         sync.Mutex
	calls      []string
	at         []time.Time
	containers map[string]*runtime.ContainerStatus
	configs    map[string]runtime.ContainerConfig
	images     []runtime.ImageRequest
	// fail answers a call ("create web-0") by its prefix; nil succeeds.
	fail map[string]error
	// hang keeps calls with such a prefix until their context ends.
	hang map[string]bool
	// deaf containers do not end on their stop signal.
	deaf map[string]bool
	send func(runtime.Event)
}

func newFake() *fakeRuntime {
	return &fakeRuntime{
		containers: map[string]*runtime.ContainerStatus{}, configs: map[string]runtime.ContainerConfig{},
		fail: map[string]error{}, hang: map[string]bool{}, deaf: map[string]bool{},
	}
}

// short drops the pod's uid from an id.
func short(id string) string { return strings.TrimPrefix(id, testUID+"-") }

func (f *fakeRuntime) call(ctx context.Context, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	f.mu.Lock()
	f.calls = append(f.calls, text)
	f.at = append(f.at, time.Now())
	var err error
	hang := false
	for prefix, e := range f.fail {
		if strings.HasPrefix(text, prefix) {
			err = e
		}
	}
	for prefix := range f.hang {
		hang = hang || strings.HasPrefix(text, prefix)
	}
	f.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

func (f *fakeRuntime) EnsureImage(ctx context.Context, r runtime.ImageRequest) (runtime.Image, error) {
	f.mu.Lock()
	f.images = append(f.images, r)
	f.mu.Unlock()
	if err := f.call(ctx, "image %s", r.Ref); err != nil {
		return runtime.Image{}, err
	}
	return runtime.Image{Ref: "docker.io/library/" + r.Ref, Digest: "sha256:1", ID: r.Ref + "@sha256:1"}, nil
}

func (f *fakeRuntime) SetUpPod(ctx context.Context, p runtime.PodConfig) (runtime.PodStatus, error) {
	return runtime.PodStatus{UID: p.UID, IPs: []string{"10.88.0.2"}}, f.call(ctx, "setup")
}

func (f *fakeRuntime) TearDownPod(ctx context.Context, _ runtime.PodConfig) error {
	return f.call(ctx, "teardown")
}

func (f *fakeRuntime) CreateContainer(ctx context.Context, c runtime.ContainerConfig) error {
	if err := f.call(ctx, "create %s", short(c.ID)); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.configs[c.ID] = c
	f.containers[c.ID] = &runtime.ContainerStatus{
		ID: c.ID, PodUID: c.Pod.UID, Name: c.Name, Attempt: c.Attempt, Labels: c.Labels, ImageRef: c.Image,
		State: runtime.ContainerCreated, CreatedAt: time.Now(),
	}
	return nil
}

func (f *fakeRuntime) StartContainer(ctx context.Context, id string) error {
	if err := f.call(ctx, "start %s", short(id)); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.containers[id].State = runtime.ContainerRunning
	f.containers[id].StartedAt = time.Now()
	return nil
}

func (f *fakeRuntime) SignalContainer(ctx context.Context, id, signal string) error {
	if err := f.call(ctx, "signal %s %s", short(id), signal); err != nil {
		return err
	}
	switch {
	case signal == "SIGKILL":
		f.exit(id, 137)
	case !f.deaf[short(id)]:
		f.exit(id, 143)
	}
	return nil
}

func (f *fakeRuntime) RemoveContainer(ctx context.Context, id string) error {
	if err := f.call(ctx, "remove %s", short(id)); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.containers, id)
	return nil
}

func (f *fakeRuntime) ContainerStatus(ctx context.Context, id string) (runtime.ContainerStatus, error) {
	if err := f.call(ctx, "status %s", short(id)); err != nil {
		return runtime.ContainerStatus{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, ok := f.containers[id]; ok {
		return *c, nil
	}
	return runtime.ContainerStatus{}, runtime.ErrNotFound
}

func (f *fakeRuntime) Exec(context.Context, string, runtime.ExecConfig) (int, error) { return 0, nil }

// quietExit ends a container without telling anybody.
func (f *fakeRuntime) quietExit(id string, code int32) runtime.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.containers[id]
	c.State, c.ExitCode, c.FinishedAt = runtime.ContainerExited, code, time.Now()
	return runtime.Event{Kind: runtime.EventExit, ContainerID: id, ExitCode: code, At: c.FinishedAt}
}

func (f *fakeRuntime) exit(id string, code int32) {
	e := f.quietExit(id, code)
	f.mu.Lock()
	send := f.send
	f.mu.Unlock()
	send(e)
}

func (f *fakeRuntime) asked() []runtime.ImageRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.images)
}

func (f *fakeRuntime) config(id string) runtime.ContainerConfig {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.configs[id]
}

// forget loses a container.
func (f *fakeRuntime) forget(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.containers, id)
}

func (f *fakeRuntime) setSend(send func(runtime.Event)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.send = send
}

// reboot leaves containers without tasks.
func (f *fakeRuntime) reboot() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.containers {
		c.State, c.StartedAt, c.FinishedAt, c.ExitCode = runtime.ContainerUnknown, time.Time{}, time.Time{}, 0
	}
}

func (f *fakeRuntime) list() []runtime.ContainerStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []runtime.ContainerStatus
	for _, c := range f.containers {
		all = append(all, *c)
	}
	return all
}

func (f *fakeRuntime) setFail(prefix string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		delete(f.fail, prefix)
		return
	}
	f.fail[prefix] = err
}

// take returns the calls since the last time, without the ones that only look.
func (f *fakeRuntime) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls, f.at = nil, nil
	return calls
}

// when returns the time of the only call with that text.
func (f *fakeRuntime) when(t *testing.T, text string) time.Time {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.Index(f.calls, text)
	if i < 0 {
		t.Fatalf("no call %q in %q", text, f.calls)
	}
	return f.at[i]
}

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
	fake    *fakeRuntime
	objects *fakeObjects
	cfg     *Config
	pod     *corev1.Pod
	worker  *Worker

	mu     sync.Mutex
	events []string
	gone   int
}

func newBench(t *testing.T, pod *corev1.Pod) *bench {
	b := &bench{t: t, fake: newFake(), objects: &fakeObjects{}, pod: pod}
	dir := t.TempDir()
	t.Cleanup(func() {
		if err := removeTree(dir + "/pods"); err != nil {
			t.Error(err)
		}
	})
	b.cfg = &Config{
		Runtime: b.fake, Objects: b.objects, Host: testHost, Dir: dir + "/pods", PodLogs: dir + "/logs", ContainerLogs: dir + "/links",
		Log:      slog.New(slog.DiscardHandler),
		OnStatus: func(string, corev1.PodStatus) {},
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
	b.fake.setSend(func(e runtime.Event) {
		<-started
		b.worker.Event(e)
	})
	b.worker = Start(b.cfg, b.pod, b.fake.list(), stop)
	close(started)
}

// restart is an agent that goes and comes back.
func (b *bench) restart(stop *Stop) {
	b.worker.Abandon()
	<-b.worker.Done()
	b.fake.take()
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
	c := b.container(name)
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
