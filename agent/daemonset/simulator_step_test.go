package daemonset

import "slices"

// One schedule: a fleet, and one step after the other.

// newSimulation makes the fleet of a schedule.
func newSimulation(seed uint64, without mutant, tracing bool) *simulation {
	s := newFleet(seed, without, tracing)
	n := 3 + s.random.IntN(4)
	if without == noPersist || without == noStranger {
		n = 3 // few have told a newer view, or know a new host
	}
	s.version(1, s.content(0))
	s.storm = []int{10, 20, 40, 80}[s.random.IntN(4)]
	partial, late := s.chance(3) || without == noStranger, s.chance(3)
	s.empower(partial)
	for i := range n {
		s.hosts = append(s.hosts, &simHost{exists: i < 2 || !late || s.chance(2), available: true, placed: true})
	}
	s.introduce(partial)
	for i, h := range s.hosts {
		if h.exists {
			s.say(i)
		}
	}
	return s
}

// introduce tells the hosts who there is. A partial roster holds most of them, so that any two have a host in common: fleets that know
// nothing of each other promise nothing to each other.
func (s *simulation) introduce(partial bool) {
	var there []int
	for i, h := range s.hosts {
		if h.exists {
			there = append(there, i)
		}
	}
	for _, i := range there {
		h := s.hosts[i]
		h.common.roster[i] = 1
		for at, k := range s.random.Perm(len(there)) {
			if !partial || at <= len(there)/2 {
				h.common.roster[there[k]] = 1
			}
		}
		h.disk = h.common
	}
}

// empower chooses what may happen: some of everything; to a mutant all that concerns it, often nothing else, and often.
func (s *simulation) empower(partial bool) {
	alone := s.without != intact && s.chance(2)
	if alone {
		s.storm = 80
	}
	for _, p := range simPowers {
		concerns := s.without != intact && slices.Contains(p.concerns, s.without)
		if concerns || !alone && s.random.IntN(len(simPowers)) < 4 && (!partial || !p.wipes) {
			s.powers = append(s.powers, p.do)
		}
	}
}

// chance is true once in so many times.
func (s *simulation) chance(of int) bool { return s.random.IntN(of) == 0 }

func (s *simulation) content(revision int) simContent {
	n := max(len(s.hosts), 4)
	c := simContent{revision: revision, budget: 1 + s.random.IntN(1+s.random.IntN(n-1)), backwards: s.chance(4)}
	c.surge = s.chance(4)
	if s.chance(3) {
		c.percent, c.budget = true, []int{1, 10, 20, 25, 30, 34, 50}[s.random.IntN(7)]
	}
	return c
}

// step does one thing.
func (s *simulation) step(at int) {
	i := s.random.IntN(len(s.hosts))
	switch p := s.random.IntN(1000); {
	case p < s.storm && len(s.powers) > 0:
		s.powers[s.random.IntN(len(s.powers))](s, i)
	case p < s.storm+10 || at == 5:
		s.apply(i)
	case p < 280:
		s.tell(i)
	case p < 760:
		s.arrive()
		s.arrive()
	case p < 870:
		s.begin(i)
	case p < 970:
		s.progress(i)
	default:
		s.detect(i, s.random.IntN(len(s.hosts)))
	}
}

// maxFlight is how many messages may be on their way.
const maxFlight = 200

// tell sends to all others how host i stands; it may be lost, doubled, and late for ever.
func (s *simulation) tell(i int) {
	h := s.hosts[i]
	if !h.exists || h.down {
		return // one that is frozen still answers with what it was
	}
	state := new(h.simState)
	for j := range s.hosts {
		if j == i || !s.heard(i, j) {
			continue
		}
		for range [5]int{0, 1, 1, 1, 2}[s.random.IntN(5)] {
			s.flight = append(s.flight, simMessage{i, j, state})
		}
	}
	if over := len(s.flight) - maxFlight; over > 0 {
		s.flight = slices.Delete(s.flight, 0, over)
	}
}

// arrive delivers one of the messages on their way, half of the time the oldest.
func (s *simulation) arrive() {
	if len(s.flight) == 0 {
		return
	}
	at := 0
	if s.chance(2) {
		at = s.random.IntN(len(s.flight))
	}
	m := s.flight[at]
	s.flight = slices.Delete(s.flight, at, at+1)
	if s.up(m.to) {
		s.deliver(m.to, m.from, m.state)
	}
}

// begin lets a host do what it may, host i before the others.
func (s *simulation) begin(i int) {
	for k := range s.hosts {
		j := (i + k) % len(s.hosts)
		h := s.hosts[j]
		switch {
		case h.permit != nil && h.available && !h.updating && s.up(j) && s.chance(2):
			s.act(j, *h.permit)
		case !s.mayAct(j):
			continue
		case s.without == noAtomic && h.ruling.Start && h.permit == nil && s.chance(2):
			permit := h.ruling
			h.permit = &permit
		default:
			s.act(j, h.ruling)
		}
		if !s.chance(3) {
			s.say(j) // or the stop is faster than the word
		}
		return
	}
}

// progress ends a host's turn or its pod's failure, host i's before those of others.
func (s *simulation) progress(i int) {
	for k := range s.hosts {
		j := (i + k) % len(s.hosts)
		h := s.hosts[j]
		if !s.up(j) || h.available && !h.updating || !h.updating && !s.places(j) || s.chance(3) {
			continue
		}
		revision := s.current(h.common)
		switch {
		case h.second && h.available && s.current(h.started) != revision && s.chance(2):
			revision = h.runs // the new pod is not the one that is wanted any more, and the old one is all that is left
		case h.updating && s.chance(4):
			revision = s.current(h.started)
		}
		if revision != noPod {
			s.finish(j, revision)
			return
		}
	}
}

// detect is what host i thinks of host j: late, mostly right.
func (s *simulation) detect(i, j int) {
	h := s.hosts[i]
	if i == j || !s.up(i) {
		return
	}
	h.failed[j] = !s.heard(j, i)
	h.quiet[j] = h.failed[j] || s.chance(8)
	s.say(i)
	s.doubt(i)
	if s.chance(2) {
		s.lift(i)
	}
}

// doubt lets the present version go on without those that host i finds lost.
func (s *simulation) doubt(i int) {
	before := s.hosts[i].common.exclusions
	for _, node := range s.hosts[i].ruling.Lost {
		if s.chance(2) {
			s.exclude(i, int(node[0]-'a'))
		}
	}
	if s.hosts[i].common.exclusions != before {
		s.settle(i)
	}
}

// apply writes a version; several hosts may do so at once.
func (s *simulation) apply(i int) {
	h := s.hosts[i]
	if !s.up(i) || h.common.isOut(i) || h.common.roster[i] == 0 || len(s.versions) > 12 {
		return
	}
	generation := s.versions[h.common.version].generation + 1
	at := slices.IndexFunc(s.versions, func(v simVersion) bool { return v.generation == generation })
	switch {
	case at >= 0 && s.chance(2): // the same file is pushed to many hosts, or several roll back at once
		s.write(i, s.versions[at].simContent)
	case s.chance(4):
		c := s.content(s.versions[s.random.IntN(len(s.versions))].revision)
		s.write(i, c)
	default:
		s.write(i, s.content(len(s.versions)))
	}
	s.doubt(i)
}
