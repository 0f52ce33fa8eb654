package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A replicated set is one of two: objects and statuses. What replication needs of them is the same.
type replica interface {
	// view calls f with the set's sketch, which nobody else uses meanwhile. The sketch holds what other hosts are to have.
	view(f func(*sketch))
	// record is an element for the wire; nil when there is none that other hosts are to have.
	record(key string) []byte
	// merge takes in records of others. After as many wrong signatures as there is patience for, it looks at no more.
	merge(from string, records []record, patience int) merged
	// reconsider looks anew which elements other hosts take: some whose signer's standing or certificate changed they do not.
	reconsider()
}

// merged is what became of records.
type merged struct {
	changed []string // keys of those that were new
	refused int      // those that were not taken
	forged  int      // of the refused, those with a wrong signature
	why     error    // of some of the refused
	err     error    // nothing is known of the others: the disk failed
}

func (m *merged) refuse(err error) {
	m.refused++
	if m.refused <= maxReasons {
		m.why = errors.Join(m.why, err)
	}
}

const (
	// maxReasons bounds what is said of one message of another host.
	maxReasons = 3
	// maxElements bounds how many elements one message has: each costs many times its bytes when it is read.
	maxElements = 1 << 14
	// maxKey is how long the key of an element may be, in bytes.
	maxKey = 1024
	// itemOverhead is what an item has on the wire beside its key, at most.
	itemOverhead = binary.MaxVarintLen16 + binary.MaxVarintLen64 + len(imprint{})
)

var errTooMany = fmt.Errorf("it has more than %d elements", maxElements)

// checkName refuses names that no host makes: they would be trouble where they are shown.
func checkName(name string) error {
	switch {
	case len(name) > maxKey:
		return fmt.Errorf("its name has %d bytes; %d is the most", len(name), maxKey)
	case !utf8.ValidString(name), strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("its name is not text")
	}
	return nil
}

// record is an element on its way.
type record struct {
	set  byte // which replica
	key  string
	data []byte
}

// item says which state of an element somebody has.
type item struct {
	key     string
	order   uint64 // generation or sequence: the higher is the newer
	imprint imprint
}

// Records and items travel with their length before them:
//
//	set 1 | key | data ...        key | order | imprint 16 ...
func appendRecord(b []byte, r record) []byte {
	b = append(b, r.set)
	b = appendBytes(b, r.key)
	return appendBytes(b, r.data)
}

func decodeRecords(b []byte) ([]record, error) {
	var list []record
	for r := (&fields{rest: b}); len(r.rest) > 0; {
		set := r.take(1)
		key, data := r.bytes(), r.bytes()
		switch {
		case r.bad || set[0] >= setCount || len(key) > maxKey:
			return nil, errors.New("the records are cut off")
		case len(list) == maxElements:
			return nil, errTooMany
		}
		list = append(list, record{set: set[0], key: string(key), data: data})
	}
	return list, nil
}

func appendItem(b []byte, i item) []byte {
	b = appendBytes(b, i.key)
	b = binary.AppendUvarint(b, i.order)
	return append(b, i.imprint[:]...)
}

func decodeItems(b []byte) ([]item, error) {
	var list []item
	for r := (&fields{rest: b}); len(r.rest) > 0; {
		key, order := r.bytes(), r.uvarint()
		i := item{order: order}
		copy(i.imprint[:], r.take(uint64(len(i.imprint))))
		switch {
		case r.bad || len(key) == 0 || len(key) > maxKey:
			return nil, errors.New("the list of items is cut off")
		case len(list) == maxElements:
			return nil, errTooMany
		}
		i.key = string(key)
		list = append(list, i)
	}
	return list, nil
}

func appendKeys(b []byte, keys []string) []byte {
	for _, key := range keys {
		b = appendBytes(b, key)
	}
	return b
}

func decodeKeys(b []byte) ([]string, error) {
	var keys []string
	for r := (&fields{rest: b}); len(r.rest) > 0; {
		key := r.bytes()
		switch {
		case r.bad || len(key) > maxKey:
			return nil, errors.New("the keys are cut off")
		case len(keys) == maxElements:
			return nil, errTooMany
		}
		keys = append(keys, string(key))
	}
	return keys, nil
}

// objectReplica is the Store.
type objectReplica struct{ store *Store }

func (o objectReplica) view(f func(*sketch)) {
	o.store.mu.Lock()
	defer o.store.mu.Unlock()
	f(o.store.sketch)
}

func itemOf(o Object) item {
	return item{key: o.Key, order: o.Version.Generation, imprint: imprintOf(o)}
}

func (o objectReplica) record(key string) []byte {
	object, ok := o.store.offered(key)
	if !ok {
		return nil
	}
	return encode(object)
}

func (o objectReplica) reconsider() { o.store.reconsider() }

// merge looks at signatures only of what would win: the rest is not worth it.
func (o objectReplica) merge(from string, records []record, patience int) (m merged) {
	var objects []Object
	for _, r := range records {
		object, err := decode(r.key, r.data)
		if err == nil {
			err = checkName(r.key)
		}
		if err == nil && o.store.wants(object) {
			if m.forged >= patience {
				err = errPatience
			} else if err = o.store.seal.check(object); err == nil {
				objects = append(objects, object)
			} else {
				m.forged++
			}
		}
		if err != nil {
			m.refuse(fmt.Errorf("object %.200q from %s: %w", r.key, from, err))
		}
	}
	stored, reasons, err := o.store.MergeAll(objects)
	for _, object := range stored {
		m.changed = append(m.changed, object.Key)
	}
	for _, reason := range reasons {
		m.refuse(fmt.Errorf("from %s: %w", from, reason))
	}
	m.err = err
	return m
}

var errPatience = errors.New("there were too many wrong signatures to look at it")

// wants says whether an object is worth a closer look: it is not void, and would win here or tells of a write that was lost.
func (s *Store) wants(o Object) bool {
	if s.isVoid(o) {
		return false
	}
	current, ok := s.Get(o.Key)
	return !ok || wins(o, current) || unaware(current, o)
}

// statusReplica is the Statuses.
type statusReplica struct{ statuses *Statuses }

func (s statusReplica) view(f func(*sketch)) {
	s.statuses.mu.Lock()
	defer s.statuses.mu.Unlock()
	f(s.statuses.sketch)
}

func (s Status) item() item {
	return item{key: s.id().key(), order: s.Sequence, imprint: imprintOfBytes(s.encode())}
}

func (s statusReplica) record(key string) []byte {
	node, unit, _ := strings.Cut(key, "\x00")
	st, ok := s.statuses.offered(statusID{node, unit})
	if !ok {
		return nil
	}
	return st.encode()
}

func (s statusReplica) reconsider() { s.statuses.reconsider() }

func (s statusReplica) merge(from string, records []record, patience int) (m merged) {
	var statuses []Status
	for _, r := range records {
		st, err := decodeStatus(r.data)
		if err == nil && st.id().key() != r.key {
			err = errors.New("it has another key")
		}
		if err != nil {
			m.refuse(fmt.Errorf("a status from %s: %w", from, err))
			continue
		}
		statuses = append(statuses, st)
	}
	changed, refused, err := s.statuses.merge(statuses, patience)
	for _, st := range changed {
		m.changed = append(m.changed, st.id().key())
	}
	m.refused += int(refused.Malformed + refused.Unsigned)
	m.forged, m.err = refused.forged, err
	return m
}
