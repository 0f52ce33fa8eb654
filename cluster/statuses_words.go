package cluster

import (
	"bytes"
	"maps"
	"slices"
)

// words are what a host has said, by unit.
type words map[string]kept

// kept is a status with the fingerprint of the certificate that it was signed with. While the roster has another one, or has not
// the host, no other host takes it, and it is not offered.
type kept struct {
	Status
	by [32]byte
}

// newer is a total order of the statuses of one unit, or of one host.
func (s Status) newer(o Status) bool {
	if s.Sequence != o.Sequence {
		return s.Sequence > o.Sequence
	}
	return bytes.Compare(s.encode(), o.encode()) > 0
}

func (s Status) silent() bool { return len(s.Body) == 0 }

// lowest is the status that has to go when there are more of its kind; false when there is room for another one. Those that were
// signed with another certificate than the host has now are lower than all others.
func (w words) lowest(silent bool, now [32]byte) (lowest kept, full bool) {
	most, count := maxUnits, 0
	if silent {
		most = maxSilent
	}
	if len(w) < most {
		return lowest, false
	}
	for _, k := range w {
		if k.silent() != silent {
			continue
		}
		if count++; count == 1 || lowest.above(k, now) {
			lowest = k
		}
	}
	return lowest, count >= most
}

// above is newer, of statuses that may have been signed with an earlier certificate.
func (k kept) above(o kept, now [32]byte) bool {
	if (k.by == now) != (o.by == now) {
		return k.by == now
	}
	return k.newer(o.Status)
}

func (w words) sorted() []Status {
	list := make([]Status, 0, len(w))
	for _, unit := range slices.Sorted(maps.Keys(w)) {
		list = append(list, w[unit].Status)
	}
	return list
}

// keep puts a status in the place of an earlier one; mu is held. What is too much goes.
func (s *Statuses) keep(k kept) {
	w := s.last[k.Node]
	if w == nil {
		w = words{}
		s.last[k.Node] = w
	}
	if old, known := w[k.Unit]; !known || old.silent() != k.silent() {
		if lowest, full := w.lowest(k.silent(), s.certificate(k.Node)); full {
			delete(w, lowest.Unit)
			s.sketch.remove(lowest.id().key())
		}
	}
	w[k.Unit] = k
	if s.believed(k) {
		s.sketch.put(k.item())
	} else {
		s.sketch.remove(k.id().key())
	}
}

// believed says whether other hosts take a status, by the roster.
func (s *Statuses) believed(k kept) bool {
	standing, ok := s.roster.Standing(k.Node)
	return ok && standing.State < RosterLeft && s.certificate(k.Node) == k.by
}

// certificate is the fingerprint of the one that a host has, by its own word.
func (s *Statuses) certificate(node string) [32]byte {
	return s.roster.word(node)[voiceSelf].Fingerprint
}

// reconsider keeps out of what is compared and told what no other host takes: it would be offered, and refused, for ever.
func (s *Statuses) reconsider() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.last {
		for _, k := range w {
			_, _, in := s.sketch.find(k.id().key())
			switch believed := s.believed(k); {
			case in && !believed:
				s.sketch.remove(k.id().key())
			case !in && believed:
				s.sketch.put(k.item())
			}
		}
	}
}

// offered is a status that is compared and told.
func (s *Statuses) offered(id statusID) (Status, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, _, in := s.sketch.find(id.key())
	k, ok := s.last[id.node][id.unit]
	return k.Status, ok && in
}

// fits says whether a status, signed with the host's present certificate, is newer than what is known of its unit, and not lower
// than all that are kept where there is no room; mu is held.
func (s *Statuses) fits(st Status) (newer, room bool) {
	w, k := s.last[st.Node], kept{st, s.certificate(st.Node)}
	old, known := w[st.Unit]
	newer, room = !known || k.above(old, k.by), true
	if known && st.Node == s.node { // an earlier life may have said it with the same sequence
		newer = st.Sequence > old.Sequence || st.Sequence == old.Sequence && !bytes.Equal(st.encode(), old.encode())
	}
	if newer && (!known || old.silent() != st.silent()) {
		lowest, full := w.lowest(st.silent(), k.by)
		room = !full || k.above(lowest, k.by)
	}
	return newer, room
}

// takes says whether a status that was admitted still is what it was; mu is held.
func (s *Statuses) takes(k kept) bool {
	newer, room := s.fits(k.Status)
	return newer && room && s.believed(k)
}
