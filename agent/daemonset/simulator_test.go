package daemonset

import (
	"cmp"
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
	noRoster   mutant = "an acknowledgement of this version with another roster counts"
	noRank     mutant = "those before it that are not done do not count"
	noTurn     mutant = "who is before it depends on what it alone knows"
	noStranger mutant = "a host starts though a member does not know it"
	noPersist  mutant = "views are told before they are on disk"
	noIntent   mutant = "a stop that has begun is forgotten in a restart"
	noAtomic   mutant = "a permission is kept for later"
	noEntry    mutant = "who said that it shall not start may start"
	noOwnWord  mutant = "a failed host that was not placed under another view does not count"
	noConfig   mutant = "what restarts the pods is not in the view"
	noScope    mutant = "an exclusion lasts beyond its version"
	noVouch    mutant = "an excluded host that is heard is not waited for"
	noWipe     mutant = "a host that lost its disk keeps its entry"
	noUpdating mutant = "a host that updates and is not placed any more does not count"
	noShare    mutant = "a percentage is of all hosts, whether they acknowledged or not"
	noHalt     mutant = "a host that is stuck stops nobody"
	noLift     mutant = "a view whose exclusion was lifted is the one before that"
	noDoubt    mutant = "who may have forgotten that it shall not start does not ask anew"
	noSecond   mutant = "a host that runs two pods does not count"
	noWord     mutant = "an exclusion holds though a member knows that the host took up the version"
)

var mutants = []mutant{
	noAck, noRoster, noRank, noTurn, noStranger, noPersist, noIntent, noAtomic, noEntry, noOwnWord, noConfig, noScope, noVouch, noWipe, noUpdating, noShare, noHalt, noLift, noWord, noDoubt, noSecond,
}

const maxSimHosts = 8

var simNames = [maxSimHosts]string{"a", "b", "c", "d", "e", "f", "g", "h"}

// simContent is what a user writes.
type simContent struct {
	revision  int // of the template
	budget    int // maxUnavailable or, with surge, maxSurge
	percent   bool
	surge     bool // the new pod runs beside the old one until it is available
	backwards bool // the order of turns
	deleted   bool
}

type simVersion struct {
	simContent
	generation uint64
	hash       byte
	before     func(a, b string) bool
	allowed    func(placed int) int
	// lost is up to which entries somebody found, while this was the newest that it knew, that it may go on without a host.
	lost [maxSimHosts]uint16
}

// simConfig is a version of a ConfigMap that restarts the pods.
type simConfig struct {
	generation uint64
	hash       byte
}

// simCommon is Common as numbers: it is copied and compared a lot.
type simCommon struct {
	version, config uint8               // as indices
	out             uint8               // who is out, as bits
	exclusions      [maxSimHosts]uint16 // up to which entry, and in the last bit whether it was lifted
	roster          [maxSimHosts]uint16
}

// simView is what follows from a simCommon, made once, and who acknowledged it.
type simView struct {
	common Common
	digest Digest
	placed uint8 // who said that it is placed
	heard  uint8 // who was heard by somebody that acknowledged it
}

type simWord struct {
	sequence uint64
	runs     int
	peer     Peer
}

// noPod is what a host runs where there is none.
const noPod = -1

type simHost struct {
	simState // common is on disk, words are in memory
	// On disk.
	disk     simCommon // what noPersist falls back to
	sequence uint64
	memory   Memory
	// What its containerd has; it outlives the agent.
	exists    bool
	runs      int // a revision, see simulation.current
	available bool
	placed    bool
	aside     bool
	updating  bool
	second    bool // it runs a new pod beside the old one
	forgot    bool // noIntent: its agent does not know that it is updating
	stuck     bool
	started   simCommon // the view it took its pod down under
	// In memory.
	said          Said
	found         Found
	failed, quiet [maxSimHosts]bool // what it thinks of the others
	ruling        Ruling            // on how it stands now
	permit        *Ruling           // noAtomic
	turned        bool              // noTurn
	// The world's.
	down   bool
	mute   bool              // it cannot raise its entry
	frozen bool              // it cannot do anything, and is heard all the same
	full   bool              // its disk does not take what it says
	cut    [maxSimHosts]bool // who does not hear it
}

// simState is what a host tells.
type simState struct {
	common simCommon
	words  [maxSimHosts]simWord
}

type simMessage struct {
	from, to int
	state    *simState
}

type simulation struct {
	random   *rand.Rand
	without  mutant
	hosts    []*simHost
	versions []simVersion
	configs  []simConfig
	views    map[simCommon]*simView
	peers    map[string]Peer // that the rule is asked with
	reaped   [maxSimHosts]bool
	flight   []simMessage
	powers   []func(*simulation, int) // what is rare, and may happen in this schedule
	storm    int                      // how rare, in a thousand
	flaw     string
	trace    []string
	tracing  bool
	finished int
}

func newFleet(seed uint64, without mutant, tracing bool) *simulation {
	return &simulation{
		random: rand.New(rand.NewPCG(seed, 1)), without: without, tracing: tracing, configs: []simConfig{{}},
		views: map[simCommon]*simView{}, peers: map[string]Peer{}, storm: 20,
	}
}

func forwards(a, b string) bool  { return a < b }
func backwards(a, b string) bool { return a > b }

// version adds one.
func (s *simulation) version(generation uint64, c simContent) uint8 {
	v := simVersion{simContent: c, generation: generation, hash: byte(s.random.IntN(8)<<5 | len(s.versions)), before: forwards}
	if c.backwards {
		v.before = backwards
	}
	v.allowed = func(placed int) int {
		if c.percent {
			return max(1, (c.budget*placed+99)/100)
		}
		return c.budget
	}
	s.versions = append(s.versions, v)
	return uint8(len(s.versions) - 1)
}

func (s *simulation) note(format string, args ...any) {
	if s.tracing {
		s.trace = append(s.trace, fmt.Sprintf(format, args...))
	}
}

// newer orders versions.
func (s *simulation) newer(a, b uint8) bool {
	x, y := s.versions[a], s.versions[b]
	return cmp.Or(cmp.Compare(x.generation, y.generation), cmp.Compare(x.hash, y.hash)) > 0
}

func (s *simulation) newerConfig(a, b uint8) bool {
	x, y := s.configs[a], s.configs[b]
	return cmp.Or(cmp.Compare(x.generation, y.generation), cmp.Compare(x.hash, y.hash)) > 0
}

// current is the revision that belongs to a view.
func (s *simulation) current(c simCommon) int {
	if s.versions[c.version].deleted {
		return noPod
	}
	return s.versions[c.version].revision<<8 | int(c.config)
}

func (c simCommon) isOut(i int) bool { return c.out&(1<<i) != 0 }

func (c simCommon) excluded(i int) bool {
	return c.exclusions[i]&1 == 0 && c.exclusions[i]>>1 >= max(c.roster[i], 1)
}

func (s *simulation) view(c simCommon) *simView {
	if v := s.views[c]; v != nil {
		return v
	}
	v := s.versions[c.version]
	view := &simView{common: Common{
		Generation: v.generation, Hash: [32]byte{v.hash}, Configs: []byte{c.config}, Exclusions: map[string]Exclusion{}, Roster: map[string]Entry{},
	}}
	if s.without == noConfig {
		view.common.Configs = nil
	}
	for i := range s.hosts {
		if c.roster[i] > 0 {
			view.common.Roster[simNames[i]] = Entry{Number: uint64(c.roster[i]), Out: c.isOut(i)}
		}
		if e := c.exclusions[i]; e > 0 && (e&1 == 0 || s.without != noLift) {
			view.common.Exclusions[simNames[i]] = Exclusion{uint64(c.exclusions[i] >> 1), c.exclusions[i]&1 == 1}
		}
	}
	view.digest = view.common.Digest()
	s.views[c] = view
	return view
}

// turn is what host i asks with. The peers are good until the next call.
func (s *simulation) turn(i int) Turn {
	h := s.hosts[i]
	view, v := s.view(h.common), &s.versions[h.common.version]
	for j := range s.hosts {
		p := h.words[j].peer
		p.Failed, p.Quiet = h.failed[j], h.quiet[j]
		p.Old = p.Told && h.words[j].runs != s.current(h.common) && h.words[j].runs != noPod
		s.peers[simNames[j]] = s.mutate(p, view, j)
	}
	t := Turn{Self: simNames[i], View: view.common, Digest: view.digest, Peers: s.peers, Before: v.before, Budget: v.allowed}
	if s.without == noTurn && h.turned {
		t.Before = func(a, b string) bool { return v.before(b, a) }
	}
	if s.without == noShare {
		t.Budget = func(int) int { return v.allowed(len(view.common.Roster)) }
	}
	return t
}

// mutate makes of what is known of host j what the rule takes for it without one of its clauses.
func (s *simulation) mutate(p Peer, view *simView, j int) Peer {
	switch s.without {
	case noWord:
		if p.Failed && view.common.Excluded(simNames[j]) {
			p = Peer{Failed: true}
		}
	case noVouch:
		p.Failed = p.Failed || view.common.Excluded(simNames[j])
	case noAck:
		p.View = view.digest
	case noRoster:
		if p.Version == view.common.Version() && p.View != (Digest{}) {
			p.View = view.digest
		}
	case noStranger:
		if !p.Told {
			p.Told, p.View = true, Digest{1}
		}
	case noRank:
		p.Done = true
	case noOwnWord:
		if p.Failed && p.Told && !p.Placed {
			p.View = view.digest
		}
	case noHalt:
		p.Stuck = false
	}
	return p
}

// ask is the rule, asked by host i.
func (s *simulation) ask(i int) Ruling {
	h, t := s.hosts[i], s.turn(i)
	old := h.runs != s.current(h.common) && h.runs != noPod
	own := Own{Placed: s.places(i), Aside: h.aside, Old: old, Wants: h.available && old && (!h.updating || h.forgot), Stuck: h.stuck}
	own.Unsure = s.without != noDoubt && h.found == Found{t.View.Version(), t.View.Roster[t.Self].Number}
	memory, said := h.memory, h.said
	if s.without == noEntry {
		memory.Away, own.Unsure = Digest{}, false
	}
	if s.without != noStranger {
		return t.Rule(own, memory, said)
	}
	met := t.present(said)
	for _, p := range t.Peers {
		met.Views = append(slices.Clip(met.Views), p.View)
	}
	r := t.Rule(own, memory, met)
	r.Said = t.Rule(own, memory, said).Said
	return r
}

// places says whether the DaemonSet is to run on host i.
func (s *simulation) places(i int) bool {
	h := s.hosts[i]
	return h.placed && !h.common.isOut(i) && !s.versions[h.common.version].deleted
}
