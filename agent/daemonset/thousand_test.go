package daemonset

import (
	"container/heap"
	"fmt"
	"testing"
	"time"
)

// A rollout of a large fleet in virtual time: every host runs the rule on what it alone knows, and the network is an event queue. What
// it is for is the time between one host's turn and the next, and how much is said for it.

const (
	hop       = 200 * time.Microsecond // from one host to another, with what both do with a message
	batch     = 5 * time.Millisecond   // how long a host gathers news before it passes them on in the tree
	diskWrite = time.Millisecond       // Memory, before a pod is stopped
	exchange  = 30 * time.Millisecond  // from the old container's stop to the new one that is available
	handOn    = 8                      // so many of the latest news go along with a direct message: they may not have come through the tree

	sizeHeader = 80   // of a message, with the TLS record
	sizeWord   = 220  // of a status of at most 120 bytes, with the host's name, sequence and signature
	sizeObject = 2048 // of the DaemonSet

	treeFanOut = 8 // as in cluster/overlay.go
)

// stage is a host's last word.
type stage uint8

const (
	stageBefore  stage = iota // it acknowledged the version before
	stageWaiting              // it acknowledges this one and runs the older revision
	stageUpdating
	stageDone
)

type news struct {
	about int
	stage stage
}

type largeHost struct {
	stage   stage
	known   []stage // by host
	memory  Memory
	said    Said
	pending []news // to pass on in the tree
	queued  bool
	young   []news // to hand on directly
	// The rule is asked again once need of those that it waits for have said something that may let it go. It reads all hosts: asked
	// for every message it would be the square of their number.
	waits map[int]bool
	need  int
}

// event is something that happens at a host.
type event struct {
	at    time.Duration
	order int
	host  int
	do    func()
}

type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(e any)   { *q = append(*q, e.(event)) }
func (q *eventQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

type largeFleet struct {
	now    time.Duration
	queue  eventQueue
	order  int
	hosts  []*largeHost
	names  []string
	number map[string]int
	budget int
	old    Common
	view   Common
	digest Digest // of view
	peers  map[string]Peer

	down, worst, asked    int
	messages, bytes, told int // told: messages through the tree
	finished              time.Duration
}

func newLargeFleet(n, budget int) *largeFleet {
	f := &largeFleet{budget: budget, number: map[string]int{}, peers: map[string]Peer{}}
	roster := map[string]Entry{}
	for i := range n {
		f.names = append(f.names, fmt.Sprintf("host-%04d", i))
		f.number[f.names[i]] = i
		roster[f.names[i]] = Entry{Number: 1}
	}
	f.old = Common{Generation: 1, Hash: [32]byte{1}, Roster: roster}
	f.view = Common{Generation: 2, Hash: [32]byte{2}, Roster: roster}
	f.digest = f.view.Digest()
	said := Said{Entry: 1, Version: f.old.Version(), Views: []Digest{f.old.Digest()}}
	for range n {
		f.hosts = append(f.hosts, &largeHost{known: make([]stage, n), said: said})
	}
	return f
}

func (f *largeFleet) after(d time.Duration, host int, do func()) {
	f.order++
	heap.Push(&f.queue, event{f.now + d, f.order, host, do})
}

func (f *largeFleet) send(to int, size int, do func()) {
	f.messages++
	f.bytes += sizeHeader + size
	f.after(hop, to, do)
}

// around are a host's neighbours in the tree.
func (f *largeFleet) around(i int) []int {
	var found []int
	if i > 0 {
		found = append(found, (i-1)/treeFanOut)
	}
	for child := i*treeFanOut + 1; child <= i*treeFanOut+treeFanOut && child < len(f.hosts); child++ {
		found = append(found, child)
	}
	return found
}

// write brings the version to host i, which passes it on at once and acknowledges it.
func (f *largeFleet) write(i int) {
	if f.hosts[i].stage != stageBefore {
		return
	}
	for _, j := range f.around(i) {
		f.send(j, sizeObject, func() { f.write(j) })
	}
	f.say(i, stageWaiting)
	f.ask(i)
}

// say tells the tree, and those directly that wait for it: the writer, once, and the next in rank.
func (f *largeFleet) say(i int, to stage) {
	h := f.hosts[i]
	h.stage, h.known[i] = to, to
	f.pass(i, news{i, to})
	if to == stageUpdating {
		return
	}
	words := []news{{i, to}}
	if to == stageDone {
		words = f.handed(i)
	}
	next := f.next(i)
	if to == stageWaiting && i != 0 {
		next = append(next, 0)
	}
	for _, j := range next {
		f.send(j, sizeWord*len(words), func() { f.hear(j, words) })
	}
}

// handed is what a host that is done tells the next: itself, and what it has just heard of others.
func (f *largeFleet) handed(i int) []news {
	h := f.hosts[i]
	h.young = h.young[max(0, len(h.young)-handOn):]
	return append([]news{{i, h.stage}}, h.young...)
}

// next are the first twice as many as may be down that are not done, as far as host i knows.
func (f *largeFleet) next(i int) []int {
	var found []int
	for j, known := range f.hosts[i].known {
		if j != i && known < stageUpdating {
			found = append(found, j)
		}
		if len(found) == 2*f.budget {
			break
		}
	}
	return found
}

// pass gathers news for the tree.
func (f *largeFleet) pass(i int, w news) {
	h := f.hosts[i]
	h.pending = append(h.pending, w)
	if h.queued {
		return
	}
	h.queued = true
	f.after(batch, i, func() {
		words := h.pending
		h.pending, h.queued = nil, false
		for _, j := range f.around(i) {
			f.told++
			f.send(j, sizeWord*len(words), func() { f.hear(j, words) })
		}
	})
}

// hear is news at host i.
func (f *largeFleet) hear(i int, words []news) {
	h := f.hosts[i]
	for _, w := range words {
		if w.about == i || h.known[w.about] >= w.stage {
			continue
		}
		h.known[w.about] = w.stage
		if w.stage == stageDone {
			h.young = append(h.young, w)
		}
		f.pass(i, w)
		if w.stage != stageUpdating && h.waits[w.about] { // nobody is let go by that
			delete(h.waits, w.about)
			h.need--
		}
	}
	if h.stage == stageWaiting && !h.memory.Updating && h.need <= 0 {
		f.ask(i)
	}
}

// ask is the rule at host i.
func (f *largeFleet) ask(i int) {
	h := f.hosts[i]
	f.asked++
	r := f.turn(i).Rule(Own{Placed: true, Wants: true, Old: true}, h.memory, h.said)
	h.said = r.Said
	if !r.Start {
		h.waits = map[int]bool{}
		for _, b := range r.Blockers {
			h.waits[f.number[b.Node]] = true
		}
		h.need = len(r.Blockers) - f.budget + 1
		return
	}
	h.memory = r.Memory
	f.after(diskWrite, i, func() {
		f.down++
		f.worst = max(f.worst, f.down)
		f.say(i, stageUpdating)
		f.after(exchange, i, func() {
			f.down--
			h.memory.Updating = false
			f.finished = f.now
			f.say(i, stageDone)
		})
	})
}

func (f *largeFleet) turn(i int) Turn {
	old := f.old.Version()
	view := f.hosts[0].said.Views[0]
	for j, known := range f.hosts[i].known {
		p := Peer{Told: true, View: f.digest, Version: f.view.Version(), Placed: true, Available: known != stageUpdating, Updating: known == stageUpdating, Done: known == stageDone, Old: known < stageUpdating}
		if known == stageBefore {
			p.View, p.Version = view, old
		}
		f.peers[f.names[j]] = p
	}
	return Turn{Self: f.names[i], View: f.view, Digest: f.digest, Peers: f.peers, Before: forwards, Budget: func(int) int { return f.budget }}
}

func (f *largeFleet) run() {
	f.write(0)
	for len(f.queue) > 0 {
		e := heap.Pop(&f.queue).(event)
		f.now = e.at
		e.do()
	}
}

// TestThousandHosts prints what a rollout costs, and holds it against the containers' own times.
func TestThousandHosts(t *testing.T) {
	type cost struct{ messages, bytes float64 }
	for _, percent := range []int{0, 10} {
		var first cost
		for _, n := range []int{10, 100, 1000} {
			budget := max(1, n*percent/100)
			f := newLargeFleet(n, budget)
			f.run()
			steps := (n + budget - 1) / budget
			own := time.Duration(steps) * exchange
			over := (f.finished - own) / time.Duration(steps)
			perHost := cost{float64(f.messages) / float64(n), float64(f.bytes) / float64(n)}
			perTurn := cost{perHost.messages / float64(n), perHost.bytes / float64(n)}
			t.Logf("%4d hosts, %3d at a time: %v, the containers' own time %v, overhead %v a step; a host sends %.1f messages and %.0f bytes a turn"+
				" (%.0f and %.0f in all, %.0f%% through the tree); the rule was asked %.1f times a host", n, budget, f.finished.Round(time.Millisecond), own,
				over.Round(10*time.Microsecond), perTurn.messages, perTurn.bytes, perHost.messages, perHost.bytes, 100*float64(f.told)/float64(f.messages), float64(f.asked)/float64(n))
			for i, h := range f.hosts {
				if h.stage != stageDone {
					t.Fatalf("%s is not done: %+v", f.names[i], h.stage)
				}
			}
			if f.worst > budget {
				t.Errorf("%d were down at once, %d may", f.worst, budget)
			}
			if over > 20*time.Millisecond {
				t.Errorf("a step takes %v more than the containers: ROLLOUT.md allows 20 ms", over)
			}
			switch log := float64(len(fmt.Sprint(n)) - 1); {
			case n == 10:
				first = perTurn
			case perTurn.messages > first.messages*log || perTurn.bytes > first.bytes*log:
				t.Errorf("%d hosts: %+v a host and turn, more than log of 10 hosts' %+v", n, perTurn, first)
			}
		}
	}
}

// BenchmarkRule is one question of the last host in rank, which waits for half of the others.
func BenchmarkRule(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := newLargeFleet(n, 1)
			for j := range n {
				f.hosts[n-1].known[j] = stageWaiting + 2*stage(j%2)
			}
			t := f.turn(n - 1)
			for b.Loop() {
				t.Rule(Own{Placed: true, Wants: true, Old: true}, Memory{}, f.hosts[n-1].said)
			}
		})
	}
}
