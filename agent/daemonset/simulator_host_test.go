package daemonset

// What a host does in the simulator: it listens, speaks, and takes its turn.

// say makes the host's own word, if it has changed, and rules on how it stands.
func (s *simulation) say(i int) {
	h := s.hosts[i]
	h.ruling = s.ask(i)
	h.said, h.memory.Away = h.ruling.Said, h.ruling.Memory.Away
	if s.without != noPersist || s.chance(8) {
		h.disk = h.common
	}
	last := &h.words[i]
	if next := (simWord{last.sequence, h.runs, s.word(i)}); last.sequence == 0 || *last != next {
		h.sequence++
		next.sequence = h.sequence
		*last = next
	}
	view := s.view(h.common)
	if h.ruling.Acknowledge != view.digest {
		return
	}
	if s.places(i) {
		view.placed |= 1 << i
	}
	for j := range s.hosts {
		if j == i || !h.failed[j] || s.turn(i).tookUp(h.words[j].peer) {
			view.heard |= 1 << j
		}
	}
}

// word is how host i stands.
func (s *simulation) word(i int) Peer {
	h, v := s.hosts[i], s.versions[s.hosts[i].common.version]
	updating := h.updating && !h.forgot && (s.without != noSecond || !h.second)
	word := Peer{
		Told: true, View: h.ruling.Acknowledge, Version: Version{v.generation, [4]byte{v.hash}}, Placed: s.places(i), Aside: h.aside,
		Available: h.available && (!updating || h.second), Updating: updating, Stuck: h.stuck,
		Done: h.available && !updating && h.runs == s.current(h.common),
	}
	if s.without == noUpdating && !word.Placed {
		word.Updating = false
	}
	return word
}

// raise makes the host's own entry higher than all that was said of it.
func (s *simulation) raise(i int) {
	h := s.hosts[i]
	h.common.roster[i] = max(h.common.roster[i], h.common.exclusions[i]>>1) + 1
	h.common.out &^= 1 << i
	s.note("%s raises its entry to %d", simNames[i], h.common.roster[i])
}

// deliver lets host i hear what another one told.
func (s *simulation) deliver(i, from int, state *simState) {
	if s.merge(i, from, state) {
		s.settle(i)
	}
}

func (s *simulation) merge(i, from int, state *simState) (changed bool) {
	h := s.hosts[i]
	before, was := h.common, h.common.roster[i]
	s.join(&h.common, &state.common)
	// A host that lost its disk while its containers run hears what it was, or that it is new, from one that knows its own place:
	// two that know nothing would agree with each other.
	if now := h.common.roster[i]; (now > was || was == 0 && state.common.roster[from] > 0) && s.without != noWipe {
		s.raise(i)
	}
	for j := range s.hosts {
		if w := &state.words[j]; j != i && w.sequence > h.words[j].sequence {
			h.words[j], changed = *w, true
		}
	}
	if own, last := &state.words[i], &h.words[i]; own.sequence > last.sequence || own.sequence == last.sequence && *own != *last {
		h.sequence = max(h.sequence, own.sequence) // an earlier life's word is answered above it
		last.sequence, changed = 0, true
	}
	return changed || h.common != before
}

// join adds what another host knows to what one knows.
func (s *simulation) join(mine, theirs *simCommon) {
	switch newer := s.newer(theirs.version, mine.version); {
	case newer && s.without == noScope:
		mine.version = theirs.version
		fallthrough
	case theirs.version == mine.version:
		for j, e := range theirs.exclusions {
			mine.exclusions[j] = max(mine.exclusions[j], e)
		}
	case newer:
		mine.version, mine.exclusions = theirs.version, theirs.exclusions
	}
	if s.newerConfig(theirs.config, mine.config) {
		mine.config = theirs.config
	}
	for j, e := range theirs.roster {
		switch bit := uint8(1) << j; {
		case e > mine.roster[j]:
			mine.roster[j] = e
			mine.out = mine.out&^bit | theirs.out&bit
		case e == mine.roster[j]:
			mine.out |= theirs.out & bit
		}
	}
	for j, e := range mine.exclusions {
		if e>>1 < mine.roster[j] || mine.isOut(j) {
			mine.exclusions[j] = 0 // whoever hears that it is void forgets it
		}
	}
}

// settle does what the host must at once, and lets it say how it stands.
func (s *simulation) settle(i int) {
	h := s.hosts[i]
	if h.common.isOut(i) && s.reaped[i] && !h.down {
		s.raise(i)
	}
	if h.common.roster[i] > 0 && h.common.excluded(i) && !h.mute {
		s.raise(i)
	}
	if h.stuck && (!h.updating || h.common.version != h.started.version) {
		h.stuck = false // another version: another deadline
	}
	if h.common.isOut(i) || s.versions[h.common.version].deleted {
		h.runs, h.available, h.updating, h.second, h.forgot, h.memory.Updating = noPod, false, false, false, false, false
	}
	s.say(i)
}

// heard says whether j hears i.
func (s *simulation) heard(i, j int) bool {
	a, b := s.hosts[i], s.hosts[j]
	return a.exists && b.exists && !a.down && !b.down && !a.cut[j]
}

// mayAct says whether host i has something to do that is its own decision.
func (s *simulation) mayAct(i int) bool {
	h := s.hosts[i]
	return s.up(i) && (h.ruling.Start || h.ruling.Raise && !h.mute)
}

// act does as the rule said: it starts, or raises its entry first.
func (s *simulation) act(i int, r Ruling) {
	h := s.hosts[i]
	if r.Raise {
		s.raise(i)
		s.say(i)
		return
	}
	s.note("%s STARTS under version %d, config %d, exclusions %v, roster %v", simNames[i], h.common.version, h.common.config, h.common.exclusions, h.common.roster)
	s.witness(i)
	h.updating, h.forgot, h.started, h.permit, h.memory = true, false, h.common, nil, r.Memory
	h.second = s.versions[h.common.version].surge
	h.ruling.Start = false
}

// finish ends the turn of host i, or brings back a pod that failed.
func (s *simulation) finish(i, revision int) {
	h := s.hosts[i]
	s.finished += int(one(h.updating))
	h.runs, h.updating, h.second, h.forgot, h.stuck, h.available, h.memory.Updating = revision, false, false, false, false, true, false

	s.note("%s is available with revision %d", simNames[i], h.runs)
	s.settle(i)
}

// exclude lets the present version go on without host j, which host i finds lost.
func (s *simulation) exclude(i, j int) {
	h := s.hosts[i]
	h.common.exclusions[j] = h.common.roster[j] << 1
	v := &s.versions[h.common.version]
	v.lost[j] = max(v.lost[j], h.common.roster[j])
	s.note("%s excludes %s up to entry %d from version %d", simNames[i], simNames[j], h.common.roster[j], h.common.version)
}

// lift lets those that host i knows better of count again.
func (s *simulation) lift(i int) {
	h := s.hosts[i]
	for _, node := range h.ruling.Returned {
		h.common.exclusions[node[0]-'a'] |= 1
		s.note("%s lifts the exclusion of %s", simNames[i], node)
	}
	if len(h.ruling.Returned) > 0 {
		s.settle(i)
	}
}

// restart leaves a host with what is on its disk.
func (s *simulation) restart(i int) {
	h := s.hosts[i]
	if s.without == noPersist {
		h.common = h.disk
	}
	if s.without == noIntent && h.updating {
		h.forgot, h.memory.Updating, h.available = true, false, true
	}
	h.words = [maxSimHosts]simWord{}
	h.said, h.permit = Said{}, nil
	if h.full {
		h.memory.Away = Digest{}
	}
	h.found = Found{s.view(h.common).common.Version(), uint64(h.common.roster[i])}
	s.note("the agent of %s restarts", simNames[i])
	s.settle(i)
}

// write makes a version, or the one that another host has written with the same content at the same time.
func (s *simulation) write(i int, c simContent) {
	h := s.hosts[i]
	generation := s.versions[h.common.version].generation + 1
	for k, v := range s.versions {
		if v.generation == generation && v.simContent == c {
			s.adopt(i, uint8(k))
			return
		}
	}
	s.adopt(i, s.version(generation, c))
}

func (s *simulation) adopt(i int, version uint8) {
	h := s.hosts[i]
	h.common.version = version
	if s.without != noScope {
		h.common.exclusions = [maxSimHosts]uint16{}
	}
	s.note("%s writes version %d: %+v of generation %d", simNames[i], version, s.versions[version].simContent, s.versions[version].generation)
	s.settle(i)
}

// configure writes a ConfigMap.
func (s *simulation) configure(i int) {
	h := s.hosts[i]
	s.configs = append(s.configs, simConfig{s.configs[h.common.config].generation + 1, byte(s.random.IntN(8)<<5 | len(s.configs))})
	h.common.config = uint8(len(s.configs) - 1)
	s.note("%s writes config %d", simNames[i], h.common.config)
	s.settle(i)
}
