package daemonset

// simPowers is everything that is rare. A schedule has some of them, that of a mutant all that concern it.
var simPowers = []struct {
	do       func(*simulation, int)
	concerns []mutant
	wipes    bool // it makes a host forget whom it knew
}{
	{do: (*simulation).split, concerns: []mutant{noScope, noVouch, noOwnWord}},
	{do: (*simulation).deafen, concerns: []mutant{noOwnWord}},
	{do: (*simulation).crash, concerns: []mutant{noScope, noOwnWord, noWord}},
	{do: (*simulation).reboot, concerns: []mutant{noPersist, noIntent, noDoubt}},
	{do: (*simulation).fail},
	{do: (*simulation).taint, concerns: []mutant{noEntry, noDoubt, noUpdating, noOwnWord, noShare}},
	{do: (*simulation).label},
	{do: (*simulation).standAside, concerns: []mutant{noEntry}},
	{do: (*simulation).arriveNew},
	{do: (*simulation).remove},
	{do: (*simulation).leave},
	{do: (*simulation).wipe, concerns: []mutant{noWipe}, wipes: true},
	{do: (*simulation).suspect, concerns: []mutant{noScope, noVouch, noOwnWord, noWord}},
	{do: (*simulation).silence},
	{do: (*simulation).freeze},
	{do: (*simulation).fill, concerns: []mutant{noDoubt}},
	{do: (*simulation).flap},
	{do: (*simulation).stick, concerns: []mutant{noHalt}},
	{do: (*simulation).rollBack},
	{do: (*simulation).push, concerns: []mutant{noStranger, noWord, noSecond}},
	{do: (*simulation).change, concerns: []mutant{noConfig}},
	{do: (*simulation).recreate},
	{do: func(s *simulation, i int) { s.hosts[i].turned = !s.hosts[i].turned; s.say(i) }, concerns: []mutant{noTurn}},
}

// up says whether the agent of host i runs, and can do anything.
func (s *simulation) up(i int) bool {
	return s.hosts[i].exists && !s.hosts[i].down && !s.hosts[i].frozen
}

// silence: a host cannot raise its entry, say for its certificate, or can again.
func (s *simulation) silence(i int) {
	if h := s.hosts[i]; s.up(i) {
		h.mute = !h.mute
		s.note("%s cannot raise its entry: %t", simNames[i], h.mute)
		s.settle(i)
	}
}

// freeze: a host's disk is full, and it takes in nothing and says nothing new, or can again.
func (s *simulation) freeze(i int) {
	if h := s.hosts[i]; h.exists && !h.down {
		h.frozen = !h.frozen
		s.note("%s is frozen: %t", simNames[i], h.frozen)
		if !h.frozen {
			s.settle(i)
		}
	}
}

// fill: a host's disk does not take what the host says, or does again.
func (s *simulation) fill(i int) {
	if h := s.hosts[i]; h.exists {
		h.full = !h.full
		s.note("the disk of %s is full: %t", simNames[i], h.full)
	}
}

// split cuts the network in two, or heals it.
func (s *simulation) split(int) {
	healed, side := false, s.random.Uint64()
	for _, h := range s.hosts {
		healed = healed || h.cut != [maxSimHosts]bool{}
	}
	for i, h := range s.hosts {
		for j := range s.hosts {
			h.cut[j] = !healed && side>>i&1 != side>>j&1
		}
	}
	if s.chance(2) {
		s.flight = nil
	}
	s.note("THE NETWORK IS CUT: %t, %b", !healed, side&(1<<len(s.hosts)-1))
}

// deafen cuts it one way: host i does not hear some others.
func (s *simulation) deafen(i int) {
	for j, h := range s.hosts {
		h.cut[i] = i != j && s.chance(2)
		if h.cut[i] {
			s.note("%s does not hear %s any more", simNames[i], simNames[j])
		}
	}
}

// crash takes a host's power, or gives it back.
func (s *simulation) crash(i int) {
	if h := s.hosts[i]; h.exists {
		h.down, h.frozen = !h.down, false
		s.note("%s is down: %t", simNames[i], h.down)
		if !h.down {
			s.restart(i)
		}
	}
}

func (s *simulation) reboot(i int) {
	if s.up(i) {
		s.restart(i)
	}
}

// fail makes a pod fail by itself; it is replaced at once, see progress.
func (s *simulation) fail(i int) {
	if h := s.hosts[i]; s.up(i) && (!h.updating || h.second) {
		h.available = false
		s.note("the pod of %s fails", simNames[i])
		s.settle(i)
	}
}

// taint sets a NoSchedule taint or takes it away: the pod stays.
func (s *simulation) taint(i int) {
	if h := s.hosts[i]; s.up(i) {
		h.placed = !h.placed
		s.note("%s is placed: %t", simNames[i], h.placed)
		s.settle(i)
	}
}

// label takes a label that the pod needs away, and the pod goes; it comes again with the label.
func (s *simulation) label(i int) {
	h := s.hosts[i]
	if !s.up(i) || h.updating {
		return
	}
	h.placed = !h.placed
	if !h.placed {
		h.available, h.runs = false, noPod
	}
	s.note("%s has its label: %t", simNames[i], h.placed)
	s.settle(i)
}

// standAside: it cannot make the next pod, or can after all.
func (s *simulation) standAside(i int) {
	if h := s.hosts[i]; s.up(i) && !h.updating {
		h.aside = !h.aside
		s.note("%s stands aside: %t", simNames[i], h.aside)
		s.settle(i)
	}
}

// arriveNew adds a host, which hears from another one first.
func (s *simulation) arriveNew(int) {
	for i, h := range s.hosts {
		from := s.random.IntN(len(s.hosts))
		if o := s.hosts[from]; h.exists || !s.up(from) || o.common.roster[from] == 0 || o.common.isOut(from) {
			continue
		}
		h.exists = true
		s.note("%s joins %s with revision %d", simNames[i], simNames[from], h.runs)
		s.deliver(i, from, &s.hosts[from].simState)
		return
	}
}

// remove deletes or reaps a host; one that was reaped comes back by itself.
func (s *simulation) remove(i int) {
	h, j := s.hosts[i], s.random.IntN(len(s.hosts))
	if !s.up(i) || i == j || h.common.roster[j] == 0 || h.common.isOut(j) || !s.chance(3) {
		return
	}
	s.reaped[j] = s.chance(2)
	h.common.out |= 1 << j
	s.note("%s deletes %s, or reaps it: %t", simNames[i], simNames[j], s.reaped[j])
	s.settle(i)
}

// leave takes a host out by its own will, or brings it back.
func (s *simulation) leave(i int) {
	h := s.hosts[i]
	if !s.up(i) || h.common.roster[i] == 0 {
		return
	}
	if h.common.isOut(i) {
		s.raise(i)
	} else {
		h.common.out |= 1 << i
		s.reaped[i] = false
	}
	s.note("%s leaves: %t", simNames[i], h.common.isOut(i))
	s.settle(i)
}

// wipe loses a disk; the containers live on. The host is not in its own roster until it has heard from another one.
func (s *simulation) wipe(i int) {
	if h := s.hosts[i]; s.up(i) && !h.updating {
		h.common, h.sequence, h.memory = simCommon{}, 0, Memory{}
		if s.without == noWipe {
			h.common.roster[i] = 1
		}
		s.note("%s loses its disk", simNames[i])
		s.restart(i)
	}
}

// suspect takes a host for failed that is not.
func (s *simulation) suspect(i int) {
	if j := s.random.IntN(len(s.hosts)); i != j && s.up(i) {
		s.hosts[i].failed[j] = true
		s.note("%s suspects %s", simNames[i], simNames[j])
		s.say(i)
		s.doubt(i)
	}
}

// flap is a detector that changes its mind about everybody.
func (s *simulation) flap(i int) {
	if !s.up(i) {
		return
	}
	for j := range s.hosts {
		s.hosts[i].failed[j] = i != j && s.chance(2)
	}
	s.say(i)
	s.doubt(i)
}

// stick: a host passes its deadline in its turn.
func (s *simulation) stick(int) {
	for i, h := range s.hosts {
		if s.up(i) && h.updating && !h.stuck && h.common.version == h.started.version {
			h.stuck = true
			s.note("%s is stuck", simNames[i])
			s.settle(i)
			return
		}
	}
}

// rollBack writes the version before again, on two hosts at once; another one may be applied beside it.
func (s *simulation) rollBack(i int) {
	if len(s.versions) > 12 {
		return
	}
	c := s.versions[s.random.IntN(len(s.versions))].simContent
	for _, j := range []int{i, s.random.IntN(len(s.hosts))} {
		if h := s.hosts[j]; s.up(j) && h.common.roster[j] > 0 && !h.common.isOut(j) {
			s.write(j, c)
		}
	}
}

// push writes one file on all hosts at once.
func (s *simulation) push(int) {
	if len(s.versions) > 12 {
		return
	}
	c := s.content(len(s.versions))
	for i, h := range s.hosts {
		if s.up(i) && h.common.roster[i] > 0 && !h.common.isOut(i) {
			s.write(i, c)
		}
	}
}

// change writes a ConfigMap.
func (s *simulation) change(i int) {
	if h := s.hosts[i]; s.up(i) && h.common.roster[i] > 0 && !h.common.isOut(i) && len(s.configs) < 12 {
		s.configure(i)
	}
}

// recreate deletes the DaemonSet, or makes it again under its old name.
func (s *simulation) recreate(i int) {
	h := s.hosts[i]
	if !s.up(i) || h.common.roster[i] == 0 || h.common.isOut(i) || len(s.versions) > 12 {
		return
	}
	if s.versions[h.common.version].deleted {
		s.write(i, s.content(len(s.versions)))
	} else {
		s.write(i, simContent{deleted: true})
	}
}
