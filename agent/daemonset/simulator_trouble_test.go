package daemonset

// trouble is everything that is rare.
func (s *simulation) trouble(i int) {
	if s.random.IntN(3) == 0 {
		s.apply(i)
		return
	}
	s.powers[s.random.IntN(len(s.powers))](s, i)
}

// apply writes a version; several hosts may do so at once.
func (s *simulation) apply(i int) {
	h := s.hosts[i]
	if h.down || !h.exists || h.common.roster[i].Out || h.common.roster[i].Number == 0 {
		return
	}
	// The same file may be pushed to many hosts: they make one version.
	for k, v := range s.versions {
		if v.generation == s.versions[h.common.version].generation+1 && s.random.IntN(2) == 0 {
			h.common.version, h.common.exclusions = k, [maxSimHosts]uint64{}
			s.note("%s writes version %d too", simName(i), k)
			s.settle(i)
			return
		}
	}
	if len(s.versions) > 9 {
		return
	}
	revision := len(s.versions)
	if s.random.IntN(5) == 0 {
		revision = s.versions[s.random.IntN(len(s.versions))].revision
	}
	s.versions = append(s.versions, simVersion{
		generation: s.versions[h.common.version].generation + 1, hash: byte(s.random.IntN(16)<<4 | len(s.versions)), revision: revision, budget: s.budget(len(s.hosts)),
	})
	h.common.version = len(s.versions) - 1
	if s.without != noScope {
		h.common.exclusions = [maxSimHosts]uint64{}
	}
	s.note("%s writes version %d of generation %d, revision %d, budget %d", simName(i), h.common.version, s.versions[h.common.version].generation, revision, s.versions[h.common.version].budget)
	s.exclude(i)
	s.settle(i)
}

var simPowers = []func(*simulation, int){
	func(s *simulation, _ int) {
		if s.side != ([maxSimHosts]int{}) {
			s.side = [maxSimHosts]int{}
			s.note("THE NETWORK HEALS")
			return
		}
		for j := range s.hosts {
			s.side[j] = s.random.IntN(2)
		}
		if s.random.IntN(2) == 0 {
			s.flight = nil
		}
		s.note("THE NETWORK SPLITS %v", s.side[:len(s.hosts)])
	},
	func(s *simulation, i int) {
		if h := s.hosts[i]; h.exists {
			h.down = !h.down
			s.note("%s is down: %t", simName(i), h.down)
			if !h.down {
				s.restart(i)
			}
		}
	},
	func(s *simulation, i int) {
		if h := s.hosts[i]; h.exists && !h.down {
			s.restart(i)
		}
	},
	func(s *simulation, i int) { // its pod fails, or is well again
		if h := s.hosts[i]; h.exists && !h.updating && !h.down {
			h.available = !h.available
			if h.available {
				h.runs = s.versions[h.common.version].revision // replaced at once
			}
			s.note("the pod of %s is available: %t", simName(i), h.available)
			s.settle(i)
		}
	},
	func(s *simulation, i int) { // a NoSchedule taint comes or goes: its pod stays
		if h := s.hosts[i]; h.exists && !h.down {
			h.placed = !h.placed
			s.note("%s is placed: %t", simName(i), h.placed)
			s.settle(i)
		}
	},
	func(s *simulation, i int) { // it cannot make the next pod, or can after all
		if h := s.hosts[i]; h.exists && !h.down && !h.updating {
			h.aside = !h.aside
			s.note("%s stands aside: %t", simName(i), h.aside)
			s.settle(i)
		}
	},
	func(s *simulation, i int) {
		if h := s.hosts[i]; !h.exists {
			h.exists = true
			h.common.roster[i].Number = 1
			s.note("%s joins with revision %d", simName(i), h.runs)
			s.settle(i)
		}
	},
	func(s *simulation, i int) {
		h, j := s.hosts[i], s.random.IntN(len(s.hosts))
		if e := h.common.roster[j]; h.exists && !h.down && i != j && e.Number > 0 && !e.Out && s.random.IntN(3) == 0 {
			h.common.roster[j].Out = true
			s.note("%s deletes %s", simName(i), simName(j))
			s.settle(i)
		}
	},
	func(s *simulation, i int) { // its disk is lost; its containers live on
		if h := s.hosts[i]; h.exists && !h.down && !h.updating {
			h.common, h.sequence, h.memory = simCommon{}, 0, Memory{}
			if s.without == noWipe {
				h.common.roster[i].Number = 1
			}
			s.note("%s loses its disk", simName(i))
			s.restart(i) // it is not in its own roster until it has heard from another host
		}
	},
	func(s *simulation, i int) { // wrongly suspected
		if j := s.random.IntN(len(s.hosts)); i != j && !s.hosts[i].down {
			s.hosts[i].failed[j] = true
			s.exclude(i)
			s.say(i)
		}
	},
}
