package daemonset

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// A simulator of a fleet that updates: the rule of turn.go on every host, and around it all that may go wrong. It is not told what the
// network did: any message may be lost, doubled, late or overtaken, hosts crash with nothing but their disks, join, leave, fail, come
// back, are suspected wrongly, and several versions are written at once. One seed is one schedule.

// mutant takes one clause of the rule away, to see the simulator find out.
type mutant string

const (
	intact     mutant = ""
	noAck      mutant = "an acknowledgement of another view counts"
	noRank     mutant = "those before it that are not done do not count"
	noStranger mutant = "a host starts though a member does not know it"
	noPersist  mutant = "views are told before they are on disk"
	noIntent   mutant = "a stop that has begun is forgotten in a restart"
	noAtomic   mutant = "a permission is kept for later"
	noEntry    mutant = "who said that it shall not start may start"
	noScope    mutant = "an exclusion lasts beyond its version"
	noVouch    mutant = "an excluded host that is heard is not waited for"
	noWipe     mutant = "a host that lost its disk keeps its entry"
	noUpdating mutant = "a host that updates and is not placed any more does not count"
)

type simVersion struct {
	generation uint64
	hash       byte
	revision   int
	budget     int
}

// simCommon is Common as numbers: it is copied a lot.
type simCommon struct {
	version    int
	exclusions [maxSimHosts]uint64
	roster     [maxSimHosts]Entry
}

const maxSimHosts = 8

type simWord struct {
	sequence uint64
	runs     int
	peer     Peer
}

type simHost struct {
	// On disk.
	common   simCommon
	disk     simCommon // what noPersist falls back to
	sequence uint64
	memory   Memory
	// What its containerd has; it outlives the agent.
	exists    bool
	runs      int
	available bool
	placed    bool
	aside     bool
	updating  bool
	started   simCommon // the view it took its pod down under
	// In memory.
	words  [maxSimHosts]simWord
	said   Said
	failed [maxSimHosts]bool
	permit *Ruling // noAtomic
	// The world's.
	down bool
}

type simMessage struct {
	from   int
	to     int
	common simCommon
	words  [maxSimHosts]simWord
}

type simulation struct {
	random   *rand.Rand
	without  mutant
	hosts    []*simHost
	versions []simVersion
	flight   []simMessage
	side     [maxSimHosts]int         // of a cut
	powers   []func(*simulation, int) // what is rare, and may happen in this schedule
	trace    []string
	tracing  bool
	finished int
}

func simName(i int) string { return string(rune('a' + i)) }

func newSimulation(seed uint64, without mutant, tracing bool) *simulation {
	s := &simulation{random: rand.New(rand.NewPCG(seed, 1)), without: without, tracing: tracing}
	n := 3 + s.random.IntN(4)
	s.versions = []simVersion{{generation: 1, revision: 0, budget: s.budget(n)}}
	for range 1 + s.random.IntN(4) {
		s.powers = append(s.powers, simPowers[s.random.IntN(len(simPowers))])
	}
	partial, late := s.random.IntN(3) == 0, s.random.IntN(3) == 0
	for i := range n {
		h := &simHost{exists: i < 2 || !late || s.random.IntN(2) > 0, available: true, placed: true}
		for j := range n {
			if j == i || !partial || s.random.IntN(2) > 0 { // partial rosters that meet
				h.common.roster[j].Number = 1
			}
		}
		s.hosts = append(s.hosts, h)
	}
	for i, h := range s.hosts {
		for j := range h.common.roster {
			if j < n && !s.hosts[j].exists && j != i {
				h.common.roster[j] = Entry{}
			}
		}
		h.disk = h.common
		if h.exists {
			s.say(i)
		}
	}
	return s
}

func (s *simulation) budget(n int) int { return 1 + s.random.IntN(1+s.random.IntN(max(n/2, 1))) }

func (s *simulation) note(format string, args ...any) {
	if s.tracing {
		s.trace = append(s.trace, fmt.Sprintf(format, args...))
	}
}

func (s *simulation) view(c simCommon) Common {
	v := s.versions[c.version]
	view := Common{Generation: v.generation, Hash: [32]byte{v.hash}, Exclusions: map[string]uint64{}, Roster: map[string]Entry{}}
	for i := range s.hosts {
		if c.roster[i].Number > 0 {
			view.Roster[simName(i)] = c.roster[i]
		}
		if c.exclusions[i] > 0 {
			view.Exclusions[simName(i)] = c.exclusions[i]
		}
	}
	return view
}

// turn is what host i asks with.
func (s *simulation) turn(i int) Turn {
	h := s.hosts[i]
	view := s.view(h.common)
	t := Turn{
		Self: simName(i), View: view, Digest: view.Digest(), Peers: map[string]Peer{}, Before: func(a, b string) bool { return a < b },
		Budget: func(int) int { return s.versions[h.common.version].budget },
	}
	for j := range s.hosts {
		p := h.words[j].peer
		p.Failed = h.failed[j]
		p.Old = p.Told && h.words[j].runs != s.versions[h.common.version].revision
		switch s.without {
		case noVouch:
			p.Failed = p.Failed || view.Excluded(simName(j))
		case noAck:
			p.View = t.Digest
		case noRank:
			p.Done = true
		}
		t.Peers[simName(j)] = p
	}
	return t
}

// ask is the rule, asked by host i.
func (s *simulation) ask(i int) Ruling {
	h, t := s.hosts[i], s.turn(i)
	old := h.runs != s.versions[h.common.version].revision
	own := Own{Placed: h.placed, Aside: h.aside, Old: old, Wants: h.available && old && !h.updating}
	memory, said := h.memory, h.said
	if s.without == noEntry {
		memory.Away = Digest{}
	}
	if s.without == noStranger {
		said = t.present(said)
		for _, p := range t.Peers {
			said.Views = append(slices.Clip(said.Views), p.View)
		}
	}
	return t.Rule(own, memory, said)
}

// say makes the host's own word, if it has changed.
func (s *simulation) say(i int) {
	h := s.hosts[i]
	ruling := s.ask(i)
	v := s.versions[h.common.version]
	word := Peer{
		Told: true, View: ruling.Acknowledge, Version: Version{v.generation, [4]byte{v.hash}}, Placed: h.placed, Aside: h.aside,
		Available: h.available && !h.updating, Updating: h.updating, Done: h.available && !h.updating && h.runs == v.revision,
	}
	if s.without == noUpdating && !h.placed {
		word.Updating = false
	}
	h.said, h.memory.Away = ruling.Said, ruling.Memory.Away
	if s.without != noPersist || s.random.IntN(3) == 0 {
		h.disk = h.common
	}
	last := &h.words[i]
	if next := (simWord{last.sequence, h.runs, word}); last.sequence == 0 || *last != next {
		h.sequence++
		next.sequence = h.sequence
		*last = next
	}
}

// raise makes the host's own entry higher than all that was said of it.
func (s *simulation) raise(i int, above uint64) {
	h := s.hosts[i]
	h.common.roster[i] = Entry{Number: max(h.common.roster[i].Number, above) + 1}
	s.note("%s raises its entry to %d", simName(i), h.common.roster[i].Number)
}

func (s *simulation) deliver(m simMessage) {
	h := s.hosts[m.to]
	before := h.common
	mine, theirs := s.versions[h.common.version], s.versions[m.common.version]
	switch newer := theirs.generation > mine.generation || theirs.generation == mine.generation && theirs.hash > mine.hash; {
	case newer && s.without == noScope:
		h.common.version = m.common.version
		fallthrough
	case !newer && m.common.version == h.common.version:
		for j := range h.common.exclusions {
			h.common.exclusions[j] = max(h.common.exclusions[j], m.common.exclusions[j])
		}
	case newer:
		h.common.version, h.common.exclusions = m.common.version, m.common.exclusions
	}
	for j, e := range m.common.roster {
		own := h.common.roster[j]
		if e.Number > own.Number || e.Number == own.Number && e.Out && !own.Out {
			h.common.roster[j] = e
		}
	}
	// A host that lost its disk while its containers run hears what it was, or that it is new, from one that knows its own place:
	// two that know nothing would agree with each other.
	was, sender := before.roster[m.to].Number, m.common.roster[m.from].Number
	if now := h.common.roster[m.to].Number; (now > was || was == 0 && sender > 0) && s.without != noWipe {
		s.raise(m.to, now)
	}
	for j, w := range m.words {
		if j != m.to && w.sequence > h.words[j].sequence {
			h.words[j] = w
		}
	}
	if own := m.words[m.to]; own.sequence > h.words[m.to].sequence || own.sequence == h.words[m.to].sequence && own != h.words[m.to] {
		h.sequence = max(h.sequence, own.sequence) // an earlier life's word is answered above it
		h.words[m.to].sequence = 0
	}
	s.settle(m.to)
}

// settle raises the host's entry where it must, and says how it stands.
func (s *simulation) settle(i int) {
	h := s.hosts[i]
	own := h.common.roster[i]
	if exclusion := h.common.exclusions[i]; own.Number > 0 && own.Number <= exclusion {
		s.raise(i, exclusion)
	}
	s.say(i)
}

func (s *simulation) connected(i, j int) bool {
	return !s.hosts[i].down && !s.hosts[j].down && s.hosts[i].exists && s.hosts[j].exists && s.side[i] == s.side[j]
}

// mayStart is the one decision that this is all about.
func (s *simulation) mayStart(i int) (Ruling, bool) {
	h := s.hosts[i]
	if h.down || !h.exists {
		return Ruling{}, false
	}
	r := s.ask(i)
	return r, r.Start || r.Raise
}

func (s *simulation) start(i int, r Ruling) {
	h := s.hosts[i]
	if r.Raise {
		s.raise(i, h.common.exclusions[i])
		s.say(i)
		return
	}
	s.note("%s STARTS under version %d, exclusions %v, roster %v", simName(i), h.common.version, h.common.exclusions, h.common.roster)
	h.updating, h.started, h.permit, h.memory = true, h.common, nil, r.Memory
	if s.random.IntN(10) < 7 {
		s.say(i) // or the stop is faster than the word
	}
}

// step does one thing.
func (s *simulation) step() {
	i := s.random.IntN(len(s.hosts))
	h := s.hosts[i]
	switch p := s.random.IntN(1000); {
	case p < 250: // tell the others; it may be lost, doubled, and late for ever
		if !h.exists || h.down {
			return
		}
		for j := range s.hosts {
			for range []int{0, 0, 1, 1, 2}[s.random.IntN(5)] {
				if s.connected(i, j) && i != j {
					s.flight = append(s.flight, simMessage{i, j, h.common, h.words})
				}
			}
		}
	case p < 740:
		for range 2 {
			s.arrive()
		}
	case p < 850:
		r, may := s.mayStart(i)
		switch {
		case h.permit != nil && h.available && !h.updating && !h.down:
			s.start(i, *h.permit)
		case may && s.without == noAtomic && s.random.IntN(2) == 0:
			h.permit = &r
		case may:
			s.start(i, r)
		}
	case p < 950:
		s.finish(i)
	case p < 975:
		s.detect(i, s.random.IntN(len(s.hosts)))
	default:
		s.trouble(i)
	}
}

// arrive delivers one of the messages on their way, half of the time the oldest.
func (s *simulation) arrive() {
	if len(s.flight) == 0 {
		return
	}
	at := 0
	if s.random.IntN(2) == 0 {
		at = s.random.IntN(len(s.flight))
	}
	m := s.flight[at]
	s.flight = slices.Delete(s.flight, at, at+1)
	if to := s.hosts[m.to]; to.exists && !to.down {
		s.deliver(m)
	}
}

func (s *simulation) finish(i int) {
	h := s.hosts[i]
	if !h.updating || h.down || s.random.IntN(3) == 0 {
		return
	}
	h.runs = s.versions[h.common.version].revision
	if s.random.IntN(4) == 0 {
		h.runs = s.versions[h.started.version].revision
	}
	h.updating, h.available, h.memory.Updating = false, true, false
	s.finished++
	s.note("%s is available with revision %d", simName(i), h.runs)
	s.settle(i)
}

// detect is what host i thinks of host j: late, mostly right.
func (s *simulation) detect(i, j int) {
	h := s.hosts[i]
	if i == j || h.down {
		return
	}
	h.failed[j] = !s.connected(i, j)
	s.exclude(i)
	s.say(i)
}

// exclude lets the present version go on without hosts that are lost.
func (s *simulation) exclude(i int) {
	h := s.hosts[i]
	for _, node := range s.turn(i).lost() {
		j := int(node[0] - 'a')
		if s.random.IntN(2) == 0 {
			h.common.exclusions[j] = h.common.roster[j].Number
			s.note("%s excludes %s up to entry %d from version %d", simName(i), node, h.common.exclusions[j], h.common.version)
		}
	}
}

// restart leaves a host with what is on its disk.
func (s *simulation) restart(i int) {
	h := s.hosts[i]
	if s.without == noPersist {
		h.common = h.disk
	}
	if s.without == noIntent && h.updating {
		h.words[i].peer.Updating = false
		h.words = [maxSimHosts]simWord{}
		h.said, h.permit, h.memory.Updating = Said{}, nil, false
		h.sequence++
		word := Peer{Told: true, View: s.view(h.common).Digest(), Placed: h.placed, Available: true}
		h.words[i] = simWord{h.sequence, h.runs, word}
		return
	}
	h.words = [maxSimHosts]simWord{}
	h.said, h.permit = Said{}, nil
	s.note("the agent of %s restarts", simName(i))
	s.settle(i)
}
