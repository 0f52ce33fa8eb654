package agent

import (
	"context"
	"fmt"
	"log/slog"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/agent/daemonset"
	"github.com/picketd/picket/agent/pod"
	"github.com/picketd/picket/cluster"
	"github.com/picketd/picket/runtime"
)

const (
	// tick bounds how long the loop sleeps; it also proves that the loop is alive.
	tick = 5 * time.Second
	// askWithin bounds what the loop itself asks of containerd, which may take a call and never answer.
	askWithin = 10 * time.Second
)

// containers is what the loop itself asks of package runtime; the pods' workers ask the rest (pod.Runtime).
type containers interface {
	pod.Runtime
	Containers(ctx context.Context) ([]runtime.ContainerStatus, error)
	PodUIDs(ctx context.Context) ([]string, error)
	Subscribe(ctx context.Context) <-chan runtime.Event
	Version(ctx context.Context) (string, error)
	ImportImages(ctx context.Context) error
	ImageUsage() (count int, bytes int64)
	ImageStore(ctx context.Context) (string, error)
	ImageRoomWanted() <-chan struct{}
	LayerUsage(ctx context.Context, id string) (int64, error)
	CollectImages(ctx context.Context, pinned []string) (runtime.ImageCollection, error)
	Close() error
}

// loop owns the agent's state: only run and what it calls touch the fields below the line.
type loop struct {
	log     *slog.Logger
	fleet   *fleet
	store   *cluster.Store // the fleet's
	state   *state
	cache   *api.Cache
	events  *recorder
	runtime containers
	pods    *podSet
	planned func(took time.Duration) // a DaemonSet, for metrics
	now     func() time.Time

	calls        chan func()
	ended        chan struct{} // closed when run has ended: nobody takes calls any more
	statuses     mailbox
	imports      chan struct{} // rings when containerd is back: imagesDir is to be looked at
	collect      chan struct{} // rings when images that nothing uses are to go
	turned       atomic.Int64  // unix seconds of the last turn
	containerdUp atomic.Bool   // connected, for those outside the loop

	// ---- touched by run only
	node       *node            // this host's own; it is in nodes too
	nodes      map[string]*node // all hosts that were ever heard of
	word       hostWord         // how this host is
	strain     strain           // what ran short here, and when
	members    map[string]cluster.Member
	met        map[string]bool // hosts that were heard since the start
	daemonSets map[types.NamespacedName]*daemonSet
	connected  bool                                    // containerd answers
	adopted    bool                                    // what ran when the agent started has been taken over
	adoptAt    time.Time                               // not tried before
	strays     map[types.UID][]runtime.ContainerStatus // what ran then without a record, until its DaemonSet claims it

	roster      map[string]daemonset.Entry // shared with the planner: never changed, but replaced
	rosterNames []string                   // sorted, shared too
	rosterSum   [32]byte
	foundEntry  uint64    // this host's in the roster when the agent started; 0 is none
	raisedAt    time.Time // it, last, by a rolling update

	leaving      bool      // picket leave
	out          string    // why this host is not in the fleet, "" when it is
	toTell       time.Time // when to compare what is stored of this host with what it is; zero is never
	toAdopt      time.Time // when to write anew what a deleted door wrote
	conflictSeen time.Time // since when the last conflict of names that was told lasts
}

// newLoop reads the state and the pods' records; nothing runs yet.
func newLoop(cfg Config, log *slog.Logger, db *bbolt.DB, rt containers, f *fleet) (*loop, error) {
	l := &loop{
		log: log, fleet: f, store: f.store, runtime: rt, now: time.Now, planned: func(time.Duration) {}, calls: make(chan func()), ended: make(chan struct{}), statuses: newMailbox(), imports: make(chan struct{}, 1), collect: make(chan struct{}, 1),
		nodes: map[string]*node{}, members: map[string]cluster.Member{}, met: map[string]bool{},
		daemonSets: map[types.NamespacedName]*daemonSet{}, strays: map[types.UID][]runtime.ContainerStatus{},
	}
	var err error
	if l.state, err = openState(db, l.now()); err != nil {
		return nil, err
	}
	taints, err := parseTaints(cfg.Node.Taints)
	if err != nil {
		return nil, fmt.Errorf("node.taints: %w", err)
	}
	addresses, facts := hostAddresses(cfg.API.Advertise, cfg.Cluster.Join), readHostFacts(cfg.DataDir)
	l.node = l.nodeNamed(cfg.Node.Name)
	l.node.host = hostSection{
		Created: metav1.NewTime(l.state.born), ConfigFile: cfg.File, Labels: cfg.Node.Labels, Taints: taints,
		Addresses: hostAddressList(addresses, cfg.Node.Name), Capacity: facts.capacity, Info: facts.info(cfg.Version),
	}
	l.word = newHostWord(l.now())
	l.cache = api.NewCache(l.state.versions.Next)
	l.events = newRecorder(l.cache, l.node.name, l.now)
	host := pod.Host{NodeName: l.node.name, Hostname: hostname(), IPs: addresses, Allocatable: facts.capacity}
	l.pods = &podSet{dir: cfg.podsDir(), cache: l.cache, log: log, byUID: map[types.UID]*hostPod{}, config: &pod.Config{
		Runtime: rt, Objects: objects{l.cache}, Host: func() pod.Host { return host }, Dir: cfg.podsDir(), SeccompDir: cfg.seccompDir(),
		PodLogs: cfg.Runtime.PodLogs, ContainerLogs: cfg.Runtime.ContainerLogs, Log: log,
		OnStatus: func(uid string, s corev1.PodStatus) { l.statuses.status(types.UID(uid), s) },
		OnPrepared: func(uid string, prepared bool, trouble string) {
			l.statuses.prepared(types.UID(uid), preparedness{prepared, trouble})
		},
		OnEnded:  func(uid string) { l.statuses.hasEnded(types.UID(uid)) },
		OnGone:   func(uid string) { l.statuses.wentAway(types.UID(uid)) },
		Prefetch: make(chan struct{}, prefetchesAtOnce),
		Checks:   pod.NewChecks(),
		OnEvent: func(p *corev1.Pod, eventType, reason, message string) {
			if eventType == corev1.EventTypeWarning {
				log.Warn(message, "reason", reason, "pod", p.Namespace+"/"+p.Name)
			}
			l.events.record(referenceTo("v1", "Pod", p), eventType, reason, message)
		},
	}}
	for _, err := range append(l.store.Damaged(), l.pods.load(l.now())...) {
		l.trouble("StateDamaged", err)
	}
	l.readRoster()
	if s, ok := f.roster.Standing(l.node.name); ok {
		l.foundEntry = s.Entry
	}
	l.load()
	l.tellHost()
	l.turned.Store(l.now().Unix())
	return l, nil
}

// trouble tells of something wrong with this host, in the log and as an event of its Node. Safe for concurrent use.
func (l *loop) trouble(reason string, err error) {
	l.log.Warn("trouble", "reason", reason, "error", err)
	l.events.record(l.node.reference(), corev1.EventTypeWarning, reason, err.Error())
}

// run is the loop: it takes one thing that happened after the other and lets turn decide, until ctx ends.
func (l *loop) run(ctx context.Context) {
	defer close(l.ended)
	news := l.runtime.Subscribe(ctx)
	l.setWord(false) // until containerd has answered
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			l.pods.abandon()
			return
		case call := <-l.calls:
			call()
		case e, ok := <-news:
			if !ok {
				news = nil
				continue
			}
			l.heard(ctx, e)
		case <-l.statuses.ready:
			l.podsChanged()
		case <-l.store.News():
			l.objectsChanged()
		case <-l.fleet.statuses.News():
			l.wordsChanged()
		case <-l.fleet.changes():
			l.fleetChanged()
		case <-timer.C:
		}
		timer.Reset(l.turn(ctx))
		l.turned.Store(l.now().Unix())
	}
}

// do runs f in the loop, waits for it and returns its error. When ctx ends first, f may still run. What panics in f is an error
// of f: one bad request or manifest must not take the agent down, the less so again and again.
func (l *loop) do(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	call := func() {
		defer func() {
			if r := recover(); r != nil {
				stack := make([]byte, 8<<10)
				l.log.Error("panic", "panic", r, "stack", string(stack[:goruntime.Stack(stack, false)]))
				done <- fmt.Errorf("picketd has a bug: %v", r)
			}
		}()
		done <- f()
	}
	select {
	case l.calls <- call:
	case <-l.ended:
		return apierrors.NewServiceUnavailable("picketd is shutting down")
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// heard takes news from containerd: about itself, or about one container, which its pod's worker wants to know.
func (l *loop) heard(ctx context.Context, e runtime.Event) {
	switch e.Kind {
	case runtime.EventConnected:
		l.adoptAt = time.Time{}
		l.setConnected(ctx, true) // the turn that follows adopts what runs, if that has not been done
		l.pods.broadcast(e)
	case runtime.EventDisconnected:
		l.setConnected(ctx, false)
		l.pods.broadcast(e)
	default:
		l.pods.deliver(e)
	}
}

// takeOver adopts what runs, until that has succeeded once. A containerd that takes the question and never answers must not keep
// the loop from everything else: between two tries there is a tick.
func (l *loop) takeOver(ctx context.Context) {
	if !l.connected || l.adopted || l.now().Before(l.adoptAt) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	l.adopted = l.adopt(ctx)
	l.adoptAt = l.now().Add(tick)
}

func (l *loop) setConnected(ctx context.Context, up bool) {
	if up {
		ctx, cancel := context.WithTimeout(ctx, askWithin)
		defer cancel()
		if v, err := l.runtime.Version(ctx); err == nil {
			l.node.host.Info.ContainerRuntimeVersion = containerdName(v)
			l.tellHost()
		}
		ring(l.imports)
	}
	if l.connected != up {
		l.log.Info("containerd", "connected", up, "version", l.node.host.Info.ContainerRuntimeVersion)
	}
	l.connected = up
	l.containerdUp.Store(up)
	l.setWord(up)
}

// mailbox holds the latest of each pod that changed since the loop last looked: bounded by the number of pods, never blocking the
// workers.
type mailbox struct {
	mu    sync.Mutex
	mail  podNews
	ready chan struct{}
}

// podNews is what the workers reported of their pods.
type podNews struct {
	statuses map[types.UID]corev1.PodStatus
	warm     map[types.UID]preparedness
	ended    map[types.UID]bool
	gone     map[types.UID]bool
}

// preparedness is how far a warm pod is.
type preparedness struct {
	prepared bool
	trouble  string
}

func newPodNews() podNews {
	return podNews{
		statuses: map[types.UID]corev1.PodStatus{}, warm: map[types.UID]preparedness{}, ended: map[types.UID]bool{}, gone: map[types.UID]bool{},
	}
}

func newMailbox() mailbox { return mailbox{mail: newPodNews(), ready: make(chan struct{}, 1)} }

func (m *mailbox) status(uid types.UID, s corev1.PodStatus) {
	m.put(func() { m.mail.statuses[uid] = s })
}

func (m *mailbox) prepared(uid types.UID, p preparedness) { m.put(func() { m.mail.warm[uid] = p }) }

func (m *mailbox) hasEnded(uid types.UID) { m.put(func() { m.mail.ended[uid] = true }) }

func (m *mailbox) wentAway(uid types.UID) { m.put(func() { m.mail.gone[uid] = true }) }

func (m *mailbox) put(report func()) {
	m.mu.Lock()
	report()
	m.mu.Unlock()
	m.ring()
}

func (m *mailbox) ring() { ring(m.ready) }

// ring rings a bell, a channel of one place, that may be ringing already.
func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

// take empties the mailbox.
func (m *mailbox) take() podNews {
	m.mu.Lock()
	defer m.mu.Unlock()
	mail := m.mail
	m.mail = newPodNews()
	return mail
}
