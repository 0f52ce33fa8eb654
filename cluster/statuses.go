package cluster

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"go.etcd.io/bbolt"
)

const (
	// MaxStatus is how large the body of a status may be, in bytes (ARCHITECTURE.md, State).
	MaxStatus = 120
	// maxUnit is how long the name of a unit may be: namespace and name of a DaemonSet.
	maxUnit = 320
	// maxUnits bounds what one host may have the others remember.
	maxUnits = 4096
	// sequenceMargin is how many statuses one write to disk is for.
	sequenceMargin = 1 << 12
	sequenceName   = "status"
)

// Status is a host's signed word on one unit, a DaemonSet or itself. The one with the higher sequence holds; a body of nothing
// takes the word back. Units and bodies are opaque here.
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
	last   map[statusID]Status
	units  map[string]int // of each node
	signed [32]byte       // fingerprint of the certificate that this host's own are signed with
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
		last: map[statusID]Status{}, units: map[string]int{}, sketch: newSketch(), news: newStatusNews(),
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
	s.signed = self.Fingerprint
	s.keep(said)
	return said, nil
}

// keep puts a status in the place of an earlier one; mu is held.
func (s *Statuses) keep(st Status) {
	id := st.id()
	if old, ok := s.last[id]; ok {
		s.sketch.remove(id.key(), old.imprint())
	} else {
		s.units[st.Node]++
	}
	s.last[id] = st
	s.sketch.add(id.key(), st.imprint())
}

// Merge takes in what others relay. changed are those that were new and are worth telling on; it holds also words of this host's
// own which answer what is told of an earlier life of it.
func (s *Statuses) Merge(statuses []Status) (changed []Status, refused StatusRefusals, err error) {
	var earlier []Status
	for _, st := range statuses {
		switch verdict := s.admit(st, &refused); {
		case !verdict:
		case st.Node == s.node:
			earlier = append(earlier, st)
		default:
			changed = append(changed, st)
		}
	}
	s.mu.Lock()
	changed = slices.DeleteFunc(changed, func(st Status) bool {
		if last, ok := s.last[st.id()]; ok && last.Sequence >= st.Sequence { // merged by another goroutine meanwhile
			return true
		}
		s.keep(st)
		return false
	})
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

// admit says whether a status is new and rightly signed. What is not new is not worth checking.
func (s *Statuses) admit(st Status, refused *StatusRefusals) bool {
	s.mu.RLock()
	last, known := s.last[st.id()]
	full := !known && s.units[st.Node] >= maxUnits
	s.mu.RUnlock()
	switch {
	case st.check() != nil || full:
		refused.Malformed++
	case known && last.Sequence >= st.Sequence:
		refused.Stale++
	case s.verify(st) != nil:
		refused.Unsigned++
	default:
		return true
	}
	return false
}

func (s *Statuses) verify(st Status) error {
	credential, ok := s.roster.credential(st.Node)
	if standing, _ := s.roster.Standing(st.Node); !ok || standing.State == RosterDeleted {
		return fmt.Errorf("%s is not in the fleet", st.Node)
	}
	by, err := s.auth.Verify(credential, st.signedPart(s.fleet), st.Signature)
	if err == nil && by.Node != st.Node {
		err = fmt.Errorf("it is signed by %s", by.Node)
	}
	return err
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
	s.mu.RLock()
	current := s.signed == self.Fingerprint || s.units[s.node] == 0
	s.mu.RUnlock()
	if current {
		return nil, nil
	}
	var renewed []Status
	for _, st := range s.Of(s.node) {
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
	st, ok := s.last[id]
	return st, ok
}

// Get is a host's last word on a unit; false when there is none, or it was taken back.
func (s *Statuses) Get(node, unit string) (Status, bool) {
	st, ok := s.get(statusID{node, unit})
	return st, ok && len(st.Body) > 0
}

// Of are all words of a host, sorted by unit, those that were taken back with no body.
func (s *Statuses) Of(node string) []Status {
	return s.selected(func(st Status) bool { return st.Node == node })
}

// All are the words of all hosts, sorted by node and unit.
func (s *Statuses) All() []Status { return s.selected(func(Status) bool { return true }) }

func (s *Statuses) selected(which func(Status) bool) []Status {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list []Status
	for _, st := range s.last {
		if which(st) {
			list = append(list, st)
		}
	}
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(a.id().key(), b.id().key()) })
	return list
}

// Forget drops what a host said: it is no longer in the fleet.
func (s *Statuses) Forget(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, st := range s.last {
		if id.node == node {
			s.sketch.remove(id.key(), st.imprint())
			delete(s.last, id)
		}
	}
	delete(s.units, node)
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
