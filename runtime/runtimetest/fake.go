package runtimetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/picketd/picket/runtime"
)

// Fake is a runtime that keeps its containers in memory, for the tests of what drives one. Every call that changes something
// is written down as text without the pods' uids ("create web-0"); SetFail and SetHang answer for it. Safe for concurrent use.
type Fake struct {
	mu          sync.Mutex
	calls       []string
	at          []time.Time
	containers  map[string]*runtime.ContainerStatus
	configs     map[string]runtime.ContainerConfig
	pods        map[string]runtime.PodConfig
	images      []runtime.ImageRequest
	fail        map[string]error
	hang        map[string]bool
	deaf        map[string]bool
	exec        func(id string, e runtime.ExecConfig) (int, error)
	send        func(runtime.Event)
	collection  runtime.ImageCollection
	layers      map[string]int64
	down        bool
	subscribers map[*subscriber]bool
}

// NewFake returns a fake without containers, whose containerd answers.
func NewFake() *Fake {
	return &Fake{
		containers: map[string]*runtime.ContainerStatus{}, configs: map[string]runtime.ContainerConfig{}, pods: map[string]runtime.PodConfig{},
		fail: map[string]error{}, hang: map[string]bool{}, deaf: map[string]bool{}, subscribers: map[*subscriber]bool{},
		send: func(runtime.Event) {}, layers: map[string]int64{},
	}
}

// ShortID drops the pod's uid from a container's id: "web-0".
func ShortID(id string) string {
	const uid = 36
	if len(id) > uid && id[uid] == '-' {
		return id[uid+1:]
	}
	return id
}

// call writes a call down and answers for it as it was told to.
func (f *Fake) call(ctx context.Context, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	f.mu.Lock()
	f.calls = append(f.calls, text)
	f.at = append(f.at, time.Now())
	f.mu.Unlock()
	return f.answer(ctx, text)
}

func (f *Fake) answer(ctx context.Context, text string) error {
	f.mu.Lock()
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
	if f.down {
		err = runtime.ErrUnavailable
	}
	f.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

func (f *Fake) EnsureImage(ctx context.Context, r runtime.ImageRequest) (runtime.Image, error) {
	f.mu.Lock()
	f.images = append(f.images, r)
	f.mu.Unlock()
	if err := f.call(ctx, "image %s", r.Ref); err != nil {
		return runtime.Image{}, err
	}
	return runtime.Image{Ref: "docker.io/library/" + r.Ref, Digest: "sha256:1", ID: r.Ref + "@sha256:1"}, nil
}

func (f *Fake) SetUpPod(ctx context.Context, p runtime.PodConfig) (runtime.PodStatus, error) {
	text := "setup"
	if len(p.Ports) > 0 {
		text = "setup with ports"
	}
	if err := f.call(ctx, "%s", text); err != nil {
		return runtime.PodStatus{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for uid, other := range f.pods {
		for _, port := range p.Ports {
			if uid != p.UID && slices.ContainsFunc(other.Ports, func(o runtime.PortMapping) bool { return o.HostPort == port.HostPort }) {
				return runtime.PodStatus{}, fmt.Errorf("host port %d is taken by another pod of this host (uid %s)", port.HostPort, uid)
			}
		}
	}
	if known, ok := f.pods[p.UID]; ok && len(p.Ports) == 0 {
		p.Ports = known.Ports // what was published stays
	}
	f.pods[p.UID] = p
	return runtime.PodStatus{UID: p.UID, IPs: []string{"10.88.0.2"}}, nil
}

// UnpublishPorts makes a pod's host ports free.
func (f *Fake) UnpublishPorts(ctx context.Context, p runtime.PodConfig) error {
	if err := f.call(ctx, "unpublish"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if known, ok := f.pods[p.UID]; ok {
		known.Ports = nil
		f.pods[p.UID] = known
	}
	return nil
}

func (f *Fake) TearDownPod(ctx context.Context, p runtime.PodConfig) error {
	if err := f.call(ctx, "teardown"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pods, p.UID)
	return nil
}

func (f *Fake) CreateContainer(ctx context.Context, c runtime.ContainerConfig) error {
	if err := f.call(ctx, "create %s", ShortID(c.ID)); err != nil {
		return err
	}
	f.mu.Lock()
	f.configs[c.ID] = c
	f.mu.Unlock()
	f.Add(runtime.ContainerStatus{
		ID: c.ID, PodUID: c.Pod.UID, Name: c.Name, Attempt: c.Attempt, Labels: c.Labels, ImageRef: c.Image,
		State: runtime.ContainerCreated, CreatedAt: time.Now(),
	})
	return nil
}

func (f *Fake) StartContainer(ctx context.Context, id string) error {
	if err := f.call(ctx, "start %s", ShortID(id)); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.containers[id]
	if !ok {
		return runtime.ErrNotFound
	}
	c.State, c.StartedAt = runtime.ContainerRunning, time.Now()
	return nil
}

// SignalContainer ends the container: 143, or 137 for SIGKILL, which alone ends a deaf one.
func (f *Fake) SignalContainer(ctx context.Context, id, signal string) error {
	if err := f.call(ctx, "signal %s %s", ShortID(id), signal); err != nil {
		return err
	}
	f.mu.Lock()
	c, ok := f.containers[id]
	runs := ok && c.State == runtime.ContainerRunning
	deaf := f.deaf[ShortID(id)]
	f.mu.Unlock()
	switch {
	case !runs:
		return runtime.ErrNotFound
	case signal == "SIGKILL":
		f.Exit(id, 137)
	case !deaf:
		f.Exit(id, 143)
	}
	return nil
}

func (f *Fake) RemoveContainer(ctx context.Context, id string) error {
	if err := f.call(ctx, "remove %s", ShortID(id)); err != nil {
		return err
	}
	f.Forget(id)
	return nil
}

func (f *Fake) ContainerStatus(ctx context.Context, id string) (runtime.ContainerStatus, error) {
	if err := f.call(ctx, "status %s", ShortID(id)); err != nil {
		return runtime.ContainerStatus{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, ok := f.containers[id]; ok {
		return *c, nil
	}
	return runtime.ContainerStatus{}, runtime.ErrNotFound
}

func (f *Fake) Exec(ctx context.Context, id string, e runtime.ExecConfig) (int, error) {
	if err := f.answer(ctx, "exec "+ShortID(id)); err != nil {
		return 0, err
	}
	f.mu.Lock()
	exec := f.exec
	f.mu.Unlock()
	if exec == nil {
		return 0, nil
	}
	return exec(id, e)
}

// Stats of a container that is there are all zero.
func (f *Fake) Stats(ctx context.Context, id string) (runtime.Stats, error) {
	if err := f.answer(ctx, "stats "+ShortID(id)); err != nil {
		return runtime.Stats{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.containers[id]; !ok {
		return runtime.Stats{}, runtime.ErrNotFound
	}
	return runtime.Stats{At: time.Now()}, nil
}

func (f *Fake) Containers(ctx context.Context) ([]runtime.ContainerStatus, error) {
	if err := f.answer(ctx, "containers"); err != nil {
		return nil, err
	}
	return f.List(), nil
}

func (f *Fake) PodUIDs(ctx context.Context) ([]string, error) {
	if err := f.answer(ctx, "pods"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var uids []string
	for uid := range f.pods {
		uids = append(uids, uid)
	}
	slices.Sort(uids)
	return uids, nil
}

func (f *Fake) Version(ctx context.Context) (string, error) {
	return "1.6.20", f.answer(ctx, "version")
}

func (f *Fake) ImportImages(ctx context.Context) error { return f.answer(ctx, "import") }

// ImageUsage is one image of 1 MiB.
func (f *Fake) ImageUsage() (count int, bytes int64) { return 1, 1 << 20 }

// LayerUsage is what SetLayer says, else nothing.
func (f *Fake) LayerUsage(ctx context.Context, id string) (int64, error) {
	if err := f.answer(ctx, "usage "+ShortID(id)); err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.layers[ShortID(id)], nil
}

// ImageStore is nowhere.
func (f *Fake) ImageStore(ctx context.Context) (string, error) { return "", f.answer(ctx, "store") }

// ImageRoomWanted never rings.
func (f *Fake) ImageRoomWanted() <-chan struct{} { return nil }

// CollectImages removes what SetCollection says.
func (f *Fake) CollectImages(ctx context.Context, pinned []string) (runtime.ImageCollection, error) {
	if err := f.call(ctx, "collect images but %s", strings.Join(pinned, " ")); err != nil {
		return runtime.ImageCollection{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.collection, nil
}

// Close does nothing.
func (f *Fake) Close() error { return nil }
