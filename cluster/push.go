package cluster

import (
	"errors"
	"slices"
)

const (
	// inlineSize is up to which size, in bytes, a record goes along with the news of it; larger ones are sent to who asks.
	inlineSize = 64 << 10
	// pushSize is how much goes into one message; a larger record has one of its own.
	pushSize = 1 << 20
	// maxMessage bounds a message from or to another host.
	maxMessage = MaxBody + pushSize + inlineSize
)

// outbox is what a neighbour is to be told: names of elements, whose present state is looked up when it is their turn, so that
// many changes of one element are one message.
type outbox struct {
	pending map[element]bool
	busy    bool
}

type element struct {
	set int
	key string
}

// spread tells the neighbours but one of elements that have changed, and everybody, by gossip, that something has.
func (r *Replication) spread(set int, keys []string, except string) {
	if len(keys) == 0 {
		return
	}
	for _, node := range r.neighbours() {
		if node != except {
			r.send(node, set, keys)
		}
	}
	r.tellDigest()
}

// send puts elements into a neighbour's outbox, which empties itself.
func (r *Replication) send(node string, set int, keys []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	o := r.outboxes[node]
	if o == nil {
		o = &outbox{pending: map[element]bool{}}
		r.outboxes[node] = o
	}
	for _, key := range keys {
		o.pending[element{set, key}] = true
	}
	if !o.busy && len(o.pending) > 0 {
		o.busy = true
		r.calls.Go(func() error { r.empty(node, o); return nil })
	}
}

// empty sends until nothing is left. What cannot be sent is found by comparing, once the neighbour answers again: until then it is
// not called for every piece of news.
func (r *Replication) empty(node string, o *outbox) {
	for {
		r.mu.Lock()
		if d := r.hosts[node]; d != nil && d.failures > 0 {
			clear(o.pending)
		}
		if len(o.pending) == 0 || r.ctx.Err() != nil {
			o.busy = false
			delete(r.outboxes, node)
			r.mu.Unlock()
			return
		}
		batch := make([]element, 0, len(o.pending))
		for e := range o.pending {
			batch = append(batch, e)
		}
		clear(o.pending)
		r.mu.Unlock()
		if err := r.push(node, batch); err != nil && r.ctx.Err() == nil {
			r.failed(node, "a neighbour was not told", err)
		}
	}
}

// push sends elements in as few messages as they need, then the large ones that the neighbour asks for.
func (r *Replication) push(node string, batch []element) error {
	slices.SortFunc(batch, func(a, b element) int { return a.set - b.set }) // objects first: statuses speak of them
	wanted, err := r.pushAll(node, batch, inlineSize)
	if err != nil || len(wanted) == 0 {
		return err
	}
	offered := map[element]bool{}
	for _, e := range batch {
		offered[e] = true
	}
	var large []element
	for _, key := range wanted {
		e := element{setObjects, key}
		if !offered[e] { // or twice
			return errUnasked
		}
		delete(offered, e)
		large = append(large, e)
	}
	_, err = r.pushAll(node, large, maxMessage)
	return err
}

// parcel is a message of news that is being filled: records, and items of what is too large to go along.
type parcel struct {
	records, items []byte
	count          int
}

func (r *Replication) pushAll(node string, batch []element, inline int) (wanted []string, err error) {
	var p parcel
	flush := func() error {
		if p.count == 0 {
			return nil
		}
		r.stats.pushes.Add(1)
		answer, err := r.call(r.ctx, node, pathPush, append(appendBytes(nil, p.records), p.items...), pushSize)
		if err != nil {
			return err
		}
		more, err := decodeKeys(answer)
		wanted = append(wanted, more...)
		p = parcel{}
		return err
	}
	for _, e := range batch {
		data := r.sets[e.set].record(e.key)
		if data == nil {
			continue
		}
		along, size := len(data) <= inline || e.set != setObjects, len(e.key)+itemOverhead
		if along {
			size += len(data)
		}
		if p.count == maxElements || len(p.records)+len(p.items)+size > pushSize {
			if err := flush(); err != nil {
				return nil, err
			}
		}
		p.count++
		if along {
			p.records = appendRecord(p.records, record{set: byte(e.set), key: e.key, data: data})
			continue
		}
		r.sets[e.set].view(func(s *sketch) {
			if i, ok := s.get(e.key); ok {
				p.items = appendItem(p.items, i)
			}
		})
	}
	return wanted, flush()
}

// receivePush takes a neighbour's news and answers with the large objects that are wanted.
func (r *Replication) receivePush(from string, body []byte) ([]byte, error) {
	f := &fields{rest: body}
	news := f.bytes()
	if f.bad {
		return nil, errors.New("the news are cut off")
	}
	records, err := decodeRecords(news)
	if err != nil {
		return nil, err
	}
	offered, err := decodeItems(f.rest)
	if err != nil {
		return nil, err
	}
	if _, err := r.take(from, records); err != nil {
		return nil, err
	}
	var wanted []byte
	for _, i := range offered {
		if r.lacks(i) {
			r.noteAhead(i)
			wanted = appendBytes(wanted, i.key)
		}
	}
	return wanted, nil
}

// lacks says whether an object that another host has may be newer than what is here.
func (r *Replication) lacks(i item) bool {
	mine, ok := r.config.Store.Get(i.key)
	order := mine.Version.Generation
	return !ok || i.order > order || i.order == order && i.imprint != imprintOf(mine)
}
