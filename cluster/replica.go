package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// A replicated set is one of two: objects and statuses. What replication needs of them is the same.
type replica interface {
	name() string
	// view calls f with the set's sketch, which f may read.
	view(f func(*sketch))
	// items are the elements in some buckets.
	items(buckets []uint16) []item
	item(key string) (item, bool)
	// record is an element for the wire; nil when it is not there.
	record(key string) []byte
	// merge takes in records of others and returns the keys of those that were new; refused is how many were not taken.
	merge(from string, records []record) (changed []string, refused int, err error)
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
		key, data := string(r.bytes()), bytes.Clone(r.bytes())
		if r.bad {
			return nil, errors.New("the records are cut off")
		}
		list = append(list, record{set: set[0], key: key, data: data})
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
		i := item{key: string(r.bytes()), order: r.uvarint()}
		copy(i.imprint[:], r.take(uint64(len(i.imprint))))
		if r.bad {
			return nil, errors.New("the list of items is cut off")
		}
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
		keys = append(keys, string(r.bytes()))
		if r.bad {
			return nil, errors.New("the keys are cut off")
		}
	}
	return keys, nil
}

// objectReplica is the Store.
type objectReplica struct{ store *Store }

func (o objectReplica) name() string { return "objects" }

func (o objectReplica) view(f func(*sketch)) {
	o.store.mu.RLock()
	defer o.store.mu.RUnlock()
	f(o.store.sketch)
}

func (o objectReplica) items(buckets []uint16) []item {
	o.store.mu.RLock()
	defer o.store.mu.RUnlock()
	in := inBuckets(buckets)
	var list []item
	for key, object := range o.store.objects {
		if in(key) {
			list = append(list, itemOf(object))
		}
	}
	return list
}

func itemOf(o Object) item {
	return item{key: o.Key, order: o.Version.Generation, imprint: imprintOf(o)}
}

func (o objectReplica) item(key string) (item, bool) {
	object, ok := o.store.Get(key)
	return itemOf(object), ok
}

// inBuckets says whether a key's bucket is one of these.
func inBuckets(buckets []uint16) func(key string) bool {
	var wanted [groupCount * groupSize]bool
	for _, b := range buckets {
		wanted[b%uint16(len(wanted))] = true
	}
	return func(key string) bool { return wanted[bucketOf(key)] }
}

func (o objectReplica) record(key string) []byte {
	object, ok := o.store.Get(key)
	if !ok {
		return nil
	}
	return encode(object)
}

// merge looks at signatures only of what would win: the rest is not worth it.
func (o objectReplica) merge(from string, records []record) (changed []string, refused int, err error) {
	var objects []Object
	var reasons []error
	for _, r := range records {
		object, err := decode(r.key, r.data)
		if err == nil && o.store.wants(object) {
			if err = o.store.seal.check(object); err == nil {
				objects = append(objects, object)
			}
		}
		if err != nil {
			reasons = append(reasons, fmt.Errorf("object %q from %s: %w", r.key, from, err))
		}
	}
	stored, more, err := o.store.MergeAll(objects)
	for _, object := range stored {
		changed = append(changed, object.Key)
	}
	reasons = append(reasons, more...)
	return changed, len(reasons), errors.Join(err, errors.Join(reasons...))
}

// wants says whether an object is worth a closer look: it would win here, or it tells of a write that was lost.
func (s *Store) wants(o Object) bool {
	current, ok := s.Get(o.Key)
	return !ok || wins(o, current) || unaware(current, o)
}

// statusReplica is the Statuses.
type statusReplica struct{ statuses *Statuses }

func (s statusReplica) name() string { return "statuses" }

func (s statusReplica) view(f func(*sketch)) {
	s.statuses.mu.RLock()
	defer s.statuses.mu.RUnlock()
	f(s.statuses.sketch)
}

func (s statusReplica) items(buckets []uint16) []item {
	in := inBuckets(buckets)
	var list []item
	for _, st := range s.statuses.selected(func(st Status) bool { return in(st.id().key()) }) {
		list = append(list, st.item())
	}
	return list
}

func (s Status) item() item {
	return item{key: s.id().key(), order: s.Sequence, imprint: s.imprint()}
}

func (s statusReplica) item(key string) (item, bool) {
	st, ok := s.get(key)
	return st.item(), ok
}

func (s statusReplica) get(key string) (Status, bool) {
	node, unit, _ := strings.Cut(key, "\x00")
	return s.statuses.get(statusID{node, unit})
}

func (s statusReplica) record(key string) []byte {
	st, ok := s.get(key)
	if !ok {
		return nil
	}
	return st.encode()
}

func (s statusReplica) merge(from string, records []record) (changed []string, refused int, err error) {
	var statuses []Status
	var reasons []error
	for _, r := range records {
		st, err := decodeStatus(r.data)
		if err == nil && st.id().key() != r.key {
			err = errors.New("it has another key")
		}
		if err != nil {
			reasons = append(reasons, fmt.Errorf("a status from %s: %w", from, err))
			continue
		}
		statuses = append(statuses, st)
	}
	merged, not, err := s.statuses.Merge(statuses)
	for _, st := range merged {
		changed = append(changed, st.id().key())
	}
	return changed, len(reasons) + int(not.Malformed+not.Unsigned), errors.Join(err, errors.Join(reasons...))
}
