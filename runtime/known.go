package runtime

import (
	"sync"
	"time"
)

// known is what is remembered of containers besides containerd's record, by containerd's id for them.
type known struct {
	mu   sync.Mutex
	list map[string]knownContainer
}

type knownContainer struct {
	id, podUID string
	startedAt  time.Time // zero: by an earlier agent
	oomKilled  bool
	logged     bool // a picket-logger writes its output
	reaper     bool // of a shared process namespace, and no container of the pod's
}

func newKnown() *known { return &known{list: map[string]knownContainer{}} }

// get returns what is known; of a container nobody told about, that is only its id.
func (k *known) get(key string) knownContainer {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c, ok := k.list[key]; ok {
		return c
	}
	return knownContainer{id: key}
}

// add keeps what is known already.
func (k *known) add(key, id, podUID string, logged bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.list[key]
	c.id, c.podUID, c.logged = id, podUID, c.logged || logged
	k.list[key] = c
}

func (k *known) addReaper(key, podUID string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.list[key] = knownContainer{id: key, podUID: podUID, reaper: true}
}

// reapers lists the pods that have one.
func (k *known) reapers() (podUIDs []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.list {
		if c.reaper {
			podUIDs = append(podUIDs, c.podUID)
		}
	}
	return podUIDs
}

func (k *known) started(key string, at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c, ok := k.list[key]; ok && c.startedAt.IsZero() {
		c.startedAt = at
		k.list[key] = c
	}
}

// oom notes a kill and reports whether it was known.
func (k *known) oom(key string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, ok := k.list[key]
	if !ok || c.oomKilled {
		return ok
	}
	c.oomKilled = true
	k.list[key] = c
	return false
}

func (k *known) remove(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.list, key)
}

// podLocks serialises, per pod, what containerd cannot do at the same time in one shim.
type podLocks struct {
	mu   sync.Mutex
	pods map[string]*podLock
}

type podLock struct {
	sync.Mutex
	users int
}

// lock waits for a pod's lock and returns what gives it back.
func (l *podLocks) lock(uid string) (unlock func()) {
	l.mu.Lock()
	if l.pods == nil {
		l.pods = map[string]*podLock{}
	}
	p := l.pods[uid]
	if p == nil {
		p = &podLock{}
		l.pods[uid] = p
	}
	p.users++
	l.mu.Unlock()
	p.Lock()
	return func() {
		p.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if p.users--; p.users == 0 {
			delete(l.pods, uid)
		}
	}
}
