package daemonset

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// broken says which promise of ROLLOUT.md (Why it holds) does not hold: of the hosts that took an available pod down and are not back,
// each whose view is below nobody else's, and among equal views the last in rank, has counted all others that its version does not go
// on without. "" is none.
func (s *simulation) broken() string {
	down := make([]int, 0, maxSimHosts)
	for i, h := range s.hosts {
		if h.updating {
			down = append(down, i)
		}
	}
	for _, z := range down {
		if len(down) < 2 || !s.accounts(z, down) {
			continue
		}
		var counted []string
		for _, y := range down {
			if !s.outside(z, y) {
				counted = append(counted, simNames[y])
			}
		}
		if allowed := s.promised(z); len(counted) > allowed {
			return fmt.Sprintf("%s are down, and of those %s promised %d", strings.Join(counted, ", "), simNames[z], allowed)
		}
	}
	return s.flaw
}

// accounts says whether z is one that has to have counted the others.
func (s *simulation) accounts(z int, down []int) bool {
	mine := s.hosts[z].started
	for _, y := range down {
		theirs := s.hosts[y].started
		if y != z && s.within(mine, theirs) && (!s.within(theirs, mine) || s.versions[mine.version].before(simNames[z], simNames[y])) {
			return false
		}
	}
	return true
}

// within says whether all that is in view a is in b.
func (s *simulation) within(a, b simCommon) bool {
	s.join(&a, &b)
	return a == b
}

// outside says whether host y is none that z's promise is about: z's view has it out, or somebody found y lost for z's version and none
// that acknowledged that view heard it, or knew that it had taken the version up.
func (s *simulation) outside(z, y int) bool {
	c := s.hosts[z].started
	if y == z {
		return false
	}
	lost := c.excluded(y) && s.versions[c.version].lost[y] >= max(c.roster[y], 1)
	return c.isOut(y) || lost && s.view(c).heard&(1<<y) == 0
}

// promised is how many may be down with z: a percentage is of those that ever said under its view that they are placed.
func (s *simulation) promised(z int) int {
	c := s.hosts[z].started
	return s.versions[c.version].allowed(bits.OnesCount8(s.view(c).placed | 1<<z))
}

// witness looks at a host that starts.
func (s *simulation) witness(i int) {
	h := s.hosts[i]
	for j, w := range h.words {
		if j != i && w.peer.Stuck && w.peer.View == s.view(h.common).digest && s.view(h.common).common.counts(simNames[j]) {
			s.flaw = fmt.Sprintf("%s starts though it knows that %s is stuck", simNames[i], simNames[j])
		}
	}
}

// heal makes an end of all trouble.
func (s *simulation) heal() {
	s.flight, s.storm = nil, 0
	s.note("ALL IS WELL FROM NOW ON")
	known := false
	for i, h := range s.hosts {
		h.cut = [maxSimHosts]bool{}
		known = known || h.exists && h.common.roster[i] > 0
	}
	for i, h := range s.hosts {
		if h.down {
			h.down = false
			s.restart(i)
		}
		h.aside, h.permit, h.stuck = false, nil, false
		h.failed, h.quiet = [maxSimHosts]bool{}, [maxSimHosts]bool{}
		if h.exists && !known {
			s.raise(i) // all have lost their disks: a person begins anew
		}
	}
}

// end heals everything, lets the hosts talk, and says who is not on the newest version then. What cannot be healed from outside comes
// last: until then it holds others up within the budget, and is named.
func (s *simulation) end() (wrong string) {
	s.heal()
	if slices.ContainsFunc(s.hosts, func(h *simHost) bool { return h.frozen || h.mute }) {
		s.converse()
		wrong = s.blame()
		for i, h := range s.hosts {
			if h.frozen || h.mute {
				h.frozen, h.mute = false, false
				s.settle(i)
			}
		}
	}
	s.converse()
	for i := range s.hosts {
		if s.behind(i) {
			wrong += " " + simNames[i]
		}
	}
	return wrong
}

// converse lets the hosts talk, and do what they may, until nothing happens any more.
func (s *simulation) converse() {
	for range 40 * len(s.hosts) {
		before := s.state()
		for i := range s.hosts {
			if s.up(i) {
				s.hear(i)
			}
		}
		for i := range s.hosts {
			s.proceed(i)
		}
		if slices.Equal(before, s.state()) {
			break
		}
	}
}

func (s *simulation) behind(i int) bool {
	return s.up(i) && s.places(i) && s.hosts[i].runs != s.current(s.hosts[i].common)
}

// blame says whom the first that does not go on waits for, besides hosts that are frozen, or that cannot raise their entries and have to.
func (s *simulation) blame() (wrong string) {
	troubled := func(i int) bool { return s.hosts[i].frozen || s.hosts[i].mute && s.hosts[i].ruling.Raise }
	first := -1
	for i, h := range s.hosts {
		if s.behind(i) && !troubled(i) && (first < 0 || s.versions[h.common.version].before(simNames[i], simNames[first])) {
			first = i
		}
	}
	if first < 0 {
		return ""
	}
	r := s.hosts[first].ruling
	if r.Stranger != "" && troubled(int(r.Stranger[0]-'a')) || r.Halted != "" && troubled(int(r.Halted[0]-'a')) {
		return ""
	}
	for _, b := range r.Blockers {
		if !troubled(int(b.Node[0] - 'a')) {
			wrong += fmt.Sprintf(" %s, which waits for %s, which is well: %s", simNames[first], b.Node, b.Why)
		}
	}
	if len(r.Blockers) == 0 {
		wrong = fmt.Sprintf(" %s, which waits for nobody: %+v", simNames[first], r)
	}
	return wrong
}

// hear lets host i hear all others.
func (s *simulation) hear(i int) {
	for j, o := range s.hosts {
		if i != j && o.exists {
			s.merge(i, j, &o.simState)
		}
	}
	s.settle(i)
}

// proceed lets host i do what it may.
func (s *simulation) proceed(i int) {
	h := s.hosts[i]
	switch current := s.current(h.common); {
	case !s.up(i):
	case len(h.ruling.Returned) > 0:
		s.lift(i)
	case h.updating || !h.available && s.places(i):
		s.finish(i, current)
	case s.mayAct(i):
		s.act(i, h.ruling)
		s.say(i)
	}
}

// state is enough to see whether anything still happens.
func (s *simulation) state() []uint64 {
	state := make([]uint64, 0, maxSimHosts*(2+maxSimHosts))
	for _, h := range s.hosts {
		state = append(state, h.sequence, uint64(one(h.updating)))
		for i := range s.hosts {
			state = append(state, h.words[i].sequence)
		}
	}
	return state
}

// simulate runs one schedule and tells what went wrong; "" is nothing.
func simulate(seed uint64, without mutant, steps int, tracing bool) (wrong string, s *simulation) {
	s = newSimulation(seed, without, tracing)
	for at := range steps {
		s.step(at)
		if wrong := s.broken(); wrong != "" {
			return wrong, s
		}
	}
	late := s.end()
	if wrong := s.broken(); wrong != "" {
		return wrong, s
	}
	if late == "" {
		return "", s
	}
	s.note("%s", s.stand())
	return unfinished + late, s
}

const unfinished = "not finished:"
