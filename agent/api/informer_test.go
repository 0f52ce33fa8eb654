package api_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/agent/api/apitest"
)

// breakable is a listener whose connections can all be cut.
type breakable struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (b *breakable) Accept() (net.Conn, error) {
	conn, err := b.Listener.Accept()
	if err == nil {
		b.mu.Lock()
		b.conns = append(b.conns, conn)
		b.mu.Unlock()
	}
	return conn, err
}

func (b *breakable) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		c.Close()
	}
	b.conns = nil
}

func listen(t *testing.T, address string) *breakable {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return &breakable{Listener: l}
}

// eventually waits for what another goroutine or process brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come about", what)
		}
		<-tick.C
	}
}

// client-go's reflector, and with it every informer, sees every final state: over lost connections, a restart of the agent with
// an empty history whose versions begin anew, and a move to another agent whose versions mean nothing here.
func TestInformerReconnects(t *testing.T) {
	ca := apitest.NewAuthority(t)
	objects := api.NewCache(apitest.Versions(1))
	listener := listen(t, "127.0.0.1:0")
	h := apitest.StartOn(t, listener, ca, objects)
	client := kubernetes.NewForConfigOrDie(h.Config(t, "v", apitest.Viewers)).CoreV1().ConfigMaps("")
	store := cache.NewStore(cache.MetaNamespaceKeyFunc)
	// The reflector is all of an informer that talks to the server; its delays, up to 30 s, are of no interest here.
	reflector := cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return client.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return client.Watch(ctx, o)
		},
	}, nil), &corev1.ConfigMap{}, store, cache.ReflectorOptions{Backoff: &wait.Backoff{Duration: 10 * time.Millisecond, Steps: 1}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); reflector.RunWithContext(ctx) }()
	defer func() { cancel(); <-done }()
	change := func(round int) {
		for i := range 500 {
			name := fmt.Sprint("cm", (i+round)%40)
			if i%7 == 0 {
				objects.Delete(apitest.ConfigMaps, "default", name)
				continue
			}
			objects.Set(apitest.ConfigMaps, &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string]string{"v": fmt.Sprint(round, i)},
			})
			if i%100 == 50 {
				listener.cut()
			}
		}
	}
	same := func() bool {
		want := objects.List(apitest.ConfigMaps, "", nil, nil)
		if len(store.List()) != len(want) {
			return false
		}
		for _, w := range want {
			o, ok, _ := store.GetByKey("default/" + w.GetName())
			if !ok || o.(*corev1.ConfigMap).ResourceVersion != w.GetResourceVersion() {
				return false
			}
		}
		return true
	}
	for round := range 4 {
		change(round)
		eventually(t, fmt.Sprintf("the state after round %d", round), same)
	}
	for restart, agent := range []uint16{1, 9} {
		address := listener.Addr().String()
		h.Stop(t)
		fresh := api.NewCache(apitest.Versions(agent))
		for _, o := range objects.List(apitest.ConfigMaps, "", nil, nil)[1:] {
			fresh.Set(apitest.ConfigMaps, o.DeepCopyObject().(api.Object))
		}
		objects = fresh
		listener = listen(t, address)
		h = apitest.StartOn(t, listener, ca, objects)
		eventually(t, fmt.Sprintf("the state after restart %d", restart), same)
		change(10 + restart)
		eventually(t, fmt.Sprintf("the state after the changes after restart %d", restart), same)
	}
}
