package daemonset

import (
	"slices"
	"strings"
)

// broken are the hosts that are down by an update's will beyond what was promised: some starter's view must account for all of them
// that it does not exclude (ROLLOUT.md, Why it holds); without exclusions the newest version's budget holds for all.
func (s *simulation) broken() []string {
	var down []int
	for i, h := range s.hosts {
		if h.updating && h.placed && !h.common.roster[i].Out {
			down = append(down, i)
		}
	}
	if len(down) < 2 {
		return nil
	}
	for _, z := range down {
		c := s.hosts[z].started
		view, count := s.view(c), 0
		for _, y := range down {
			if name := simName(y); c.roster[y].Number == 0 || !c.roster[y].Out && !view.Excluded(name) {
				count++
			}
		}
		if count <= s.versions[c.version].budget {
			return nil
		}
	}
	var names []string
	for _, i := range down {
		names = append(names, simName(i))
	}
	return names
}

// end heals everything, lets the hosts talk, and returns who is not on the newest version then.
func (s *simulation) end() (stuck []string) {
	s.side, s.flight = [maxSimHosts]int{}, nil
	for i, h := range s.hosts {
		if h.down {
			h.down = false
			s.restart(i)
		}
		h.aside, h.permit = false, nil
		if !h.available && !h.updating {
			h.available, h.runs = true, s.versions[h.common.version].revision
		}
	}
	s.note("ALL IS WELL FROM NOW ON")
	for i, h := range s.hosts {
		if h.exists && h.common.roster[i].Number == 0 && !slices.ContainsFunc(s.hosts, func(o *simHost) bool { return o.exists && o.common.roster[slices.Index(s.hosts, o)].Number > 0 }) {
			s.raise(i, 0) // all have lost their disks: a person begins anew
		}
	}
	for range 40 * len(s.hosts) {
		before := s.state()
		for i, h := range s.hosts {
			if !h.exists {
				continue
			}
			h.failed = [maxSimHosts]bool{}
			for j, o := range s.hosts {
				if i != j && o.exists {
					s.deliver(simMessage{j, i, o.common, o.words})
				}
			}
			s.settle(i)
			if h.updating {
				h.updating, h.available, h.runs = false, true, s.versions[h.common.version].revision
				h.memory.Updating = false
				s.settle(i)
			}
			if r, may := s.mayStart(i); may {
				s.start(i, r)
			}
		}
		if slices.Equal(before, s.state()) {
			break
		}
	}
	for i, h := range s.hosts {
		if h.exists && h.placed && !h.common.roster[i].Out && h.runs != s.versions[h.common.version].revision {
			stuck = append(stuck, simName(i))
		}
	}
	return stuck
}

// state is enough to see whether anything still happens.
func (s *simulation) state() []uint64 {
	var state []uint64
	for _, h := range s.hosts {
		state = append(state, h.sequence, uint64(h.common.version), uint64(h.runs), uint64(one(h.updating)))
		for i := range s.hosts {
			state = append(state, h.common.roster[i].Number, h.common.exclusions[i], h.words[i].sequence)
		}
	}
	return state
}

// simulate runs one schedule and tells what went wrong; "" is nothing.
func simulate(seed uint64, without mutant, steps int, tracing bool) (wrong string, s *simulation) {
	s = newSimulation(seed, without, tracing)
	for range steps {
		s.step()
		if down := s.broken(); down != nil {
			return "too many are down: " + strings.Join(down, ", "), s
		}
	}
	if stuck := s.end(); len(stuck) > 0 {
		for i, h := range s.hosts {
			r := s.ask(i)
			s.note("%s: version %d runs %d available %t updating %t roster %v excl %v: %+v", simName(i), h.common.version, h.runs, h.available, h.updating, h.common.roster[:len(s.hosts)], h.common.exclusions[:len(s.hosts)], r)
		}
		return "not finished: " + strings.Join(stuck, ", "), s
	}
	return "", s
}
