package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"go.etcd.io/bbolt"
)

const (
	// MaxStatus is how large the body of a status may be, in bytes (ARCHITECTURE.md, State).
	MaxStatus = 120
	// maxUnit is how long the name of a unit may be: namespace and name of a DaemonSet.
	maxUnit = 320
	// maxUnits bounds what one host may have the others remember, maxSilent how many words that it took back. Of more, those with the
	// highest sequences stay, whatever the order in which they came: so all hosts keep the same.
	maxUnits  = 4096
	maxSilent = 256
	// sequenceMargin is how many statuses one write to disk is for.
	sequenceMargin = 1 << 12
	sequenceName   = "status"
	// maxSequence leaves room above: no host says so much, and one that hears it of an earlier life must be able to go on.
	maxSequence = 1 << 62
)

// Status is a host's signed word on one unit, a DaemonSet or itself. The one with the higher sequence holds, and of one sequence, which
// no honest host says twice, the higher as it is encoded; a body of nothing takes the word back. Units and bodies are opaque here.
type Status struct {
	Node      string
	Unit      string
	Sequence  uint64
	Body      []byte
	Signature []byte // with the certificate that the host's own notice in the roster has
}

// StatusRefusals count statuses that were not taken.
type StatusRefusals struct {
	Stale     uint64 // known already, or older
	Malformed uint64
	Unsigned  uint64 // not signed by the host, or the host is not in the roster

	forged int // of the unsigned, those that were looked at
}

type statusID struct{ node, unit string }

func (s Status) id() statusID { return statusID{s.Node, s.Unit} }

// key is the status' place in a sketch. A node's name has no NUL.
func (id statusID) key() string { return id.node + "\x00" + id.unit }

// Statuses are the last words of all hosts. They live in memory: a host that starts hears them from the others. When a host fails
// they stay. Any goroutine may call the methods; what is returned shares its bytes with all readers.
type Statuses struct {
	fleet    string
	node     string
	auth     Authenticator
	roster   *Roster
	sequence *Counter

	saying sync.Mutex // held while this host's own word changes; taken before mu
	mu     sync.RWMutex
	last   map[string]words // of each node
	sketch *sketch
	news   statusNews
}

// OpenStatuses begins with no status at all; the sequence of this host's own goes on above those of its earlier lives.
func OpenStatuses(db *bbolt.DB, fleet, node string, auth Authenticator, roster *Roster) (*Statuses, error) {
	sequence, err := OpenCounter(db, sequenceName, sequenceMargin)
	if err != nil {
		return nil, err
	}
	return &Statuses{
		fleet: fleet, node: node, auth: auth, roster: roster, sequence: sequence,
		last: map[string]words{}, sketch: newSketch(), news: newStatusNews(),
	}, nil
}

// Say is this host's word on a unit from now on; changed is false when it has said the same before. A body of nothing takes the
// word back. The sequence is on disk before Say returns.
func (s *Statuses) Say(unit string, body []byte) (said Status, changed bool, err error) {
	s.saying.Lock()
	defer s.saying.Unlock()
	last, known := s.get(statusID{s.node, unit})
	if !known && len(body) == 0 || known && string(last.Body) == string(body) {
		return last, false, nil
	}
	said, err = s.say(unit, body, 0)
	return said, err == nil, err
}

// say signs and keeps a word, with a sequence above floor; saying is held.
func (s *Statuses) say(unit string, body []byte, floor uint64) (Status, error) {
	said := Status{Node: s.node, Unit: unit, Body: slices.Clone(body)}
	if err := said.check(); err != nil {
		return said, fmt.Errorf("cannot say how %q stands: %w", unit, err)
	}
	var err error
	if said.Sequence, err = s.sequence.NextAbove(floor); err != nil {
		return said, fmt.Errorf("cannot say how %q stands: %w", unit, err)
	}
	var self Signer
	said.Signature, err = s.auth.Sign(func(signer Signer, _ []byte) []byte {
		self = signer
		return said.signedPart(s.fleet)
	})
	if err != nil {
		return said, fmt.Errorf("cannot say how %q stands: %w", unit, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep(kept{said, self.Fingerprint})
	return said, nil
}

// Merge takes in what others relay. changed are those that were new and are worth telling on; it holds also words of this host's
// own which answer what is told of an earlier life of it.
func (s *Statuses) Merge(statuses []Status) (changed []Status, refused StatusRefusals, err error) {
	return s.merge(statuses, len(statuses))
}

// merge looks at no more after as many wrong signatures as there is patience for.
func (s *Statuses) merge(statuses []Status, patience int) (changed []Status, refused StatusRefusals, err error) {
	var signed []kept
	for _, st := range statuses {
		if by, ok := s.admit(st, patience, &refused); ok {
			signed = append(signed, kept{st, by})
		}
	}
	var earlier []Status
	s.mu.Lock()
	for _, k := range signed {
		switch {
		case !s.takes(k): // another goroutine was faster, or the host was deleted meanwhile
		case k.Node == s.node:
			earlier = append(earlier, k.Status)
		default:
			s.keep(k)
			changed = append(changed, k.Status)
		}
	}
	s.mu.Unlock()
	s.news.add(changed)
	for _, st := range earlier {
		said, e := s.answer(st)
		if e == nil {
			changed = append(changed, said)
		}
		err = errors.Join(err, e)
	}
	return changed, refused, err
}

// admit says whether a status is new and rightly signed, and with which certificate. What is not new is not worth checking.
func (s *Statuses) admit(st Status, patience int, refused *StatusRefusals) (by [32]byte, ok bool) {
	if st.check() != nil {
		refused.Malformed++
		return by, false
	}
	s.mu.RLock()
	newer, room := s.fits(st)
	s.mu.RUnlock()
	switch {
	case !newer, !room && st.silent():
		refused.Stale++
		return by, false
	case !room:
		refused.Malformed++
		return by, false
	}
	credential, known := s.roster.credential(st.Node)
	standing, _ := s.roster.Standing(st.Node)
	if !known || standing.State >= RosterLeft || refused.forged >= patience {
		refused.Unsigned++
		return by, false
	}
	signer, err := s.auth.Verify(credential, st.signedPart(s.fleet), st.Signature)
	if err != nil || signer.Node != st.Node {
		refused.Unsigned++
		refused.forged++
		return by, false
	}
	return signer.Fingerprint, true
}

// answer is what this host says now of a unit about which others have heard an earlier life of it.
func (s *Statuses) answer(heard Status) (Status, error) {
	s.saying.Lock()
	defer s.saying.Unlock()
	now, _ := s.get(heard.id())
	return s.say(heard.Unit, now.Body, heard.Sequence)
}

// Renew signs this host's own words anew when it has a new certificate, and returns them.
func (s *Statuses) Renew() ([]Status, error) {
	self, err := s.auth.Self()
	if err != nil {
		return nil, err
	}
	s.saying.Lock()
	defer s.saying.Unlock()
	var old []Status
	s.mu.RLock()
	for _, k := range s.last[s.node] {
		if k.by != self.Fingerprint {
			old = append(old, k.Status)
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(old, func(a, b Status) int { return cmp.Compare(a.Sequence, b.Sequence) })
	var renewed []Status
	for _, st := range old {
		said, e := s.say(st.Unit, st.Body, 0)
		if e == nil {
			renewed = append(renewed, said)
		}
		err = errors.Join(err, e)
	}
	return renewed, err
}

func (s *Statuses) get(id statusID) (Status, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k, ok := s.last[id.node][id.unit]
	return k.Status, ok
}

// Get is a host's last word on a unit; false when there is none, or it was taken back.
func (s *Statuses) Get(node, unit string) (Status, bool) {
	st, ok := s.get(statusID{node, unit})
	return st, ok && len(st.Body) > 0
}

// Of are all words of a host, sorted by unit, those that were taken back with no body.
func (s *Statuses) Of(node string) []Status {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.last[node].sorted()
}

// All are the words of all hosts, sorted by node and unit.
func (s *Statuses) All() []Status {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list []Status
	for _, node := range slices.Sorted(maps.Keys(s.last)) {
		list = append(list, s.last[node].sorted()...)
	}
	return list
}

// Forget drops what a host said: it is no longer in the fleet.
func (s *Statuses) Forget(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.last[node] {
		s.sketch.remove(k.id().key())
	}
	delete(s.last, node)
}

// statusNews are the statuses of others that are new since the agent last looked.
type statusNews struct {
	mu   sync.Mutex
	ids  map[statusID]bool
	ring chan struct{}
}

func newStatusNews() statusNews {
	return statusNews{ids: map[statusID]bool{}, ring: make(chan struct{}, 1)}
}

func (n *statusNews) add(changed []Status) {
	if len(changed) == 0 {
		return
	}
	n.mu.Lock()
	for _, st := range changed {
		n.ids[st.id()] = true
	}
	n.mu.Unlock()
	select {
	case n.ring <- struct{}{}:
	default:
	}
}

// News rings when others have said something new. It is for one reader, which calls TakeNews then.
func (s *Statuses) News() <-chan struct{} { return s.news.ring }

// TakeNews are the statuses of other hosts that have changed since the last time, as they are now.
func (s *Statuses) TakeNews() []Status {
	s.news.mu.Lock()
	ids := slices.Collect(maps.Keys(s.news.ids))
	clear(s.news.ids)
	s.news.mu.Unlock()
	var list []Status
	for _, id := range ids {
		if st, ok := s.get(id); ok {
			list = append(list, st)
		}
	}
	return list
}
