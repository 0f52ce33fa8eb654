package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
)

// errUnasked is an answer that no honest host gives.
var errUnasked = errors.New("it answers what it was not asked")

// compare finds what this host and another do not both have, and sees to it that both get it. Nothing travels of what is equal but
// the sums that show it. differed says that something was not equal, gained how many elements came.
func (r *Replication) compare(ctx context.Context, node string) (differed bool, gained int, err error) {
	r.stats.rounds.Add(1)
	digest := r.digest()
	answer, err := r.call(ctx, node, pathCompare, digest[:], int64(setCount*(1+groupCount*sumSize)))
	if err != nil || len(answer) == 0 {
		return false, 0, err
	}
	r.stats.differing.Add(1)
	f, next := &fields{rest: answer}, 0
	for len(f.rest) > 0 {
		set, groups := f.take(1), f.take(uint64(groupCount*sumSize))
		if f.bad || int(set[0]) >= setCount || int(set[0]) < next { // every set once
			return true, gained, errUnasked
		}
		next = int(set[0]) + 1
		n, err := r.compareSet(ctx, node, int(set[0]), groups)
		gained += n
		if err != nil {
			return true, gained, err
		}
	}
	return true, gained, nil
}

// answerCompare sends the sums of the sets that differ; nothing when all are equal.
func (r *Replication) answerCompare(body []byte) ([]byte, error) {
	if len(body) != digestSize {
		return nil, errors.New("the digest is cut off")
	}
	var answer []byte
	for i, set := range r.sets {
		set.view(func(s *sketch) {
			if theirs := imprint(body[i*sumSize:]); s.digest() != theirs {
				answer = append(append(answer, byte(i)), s.groupSums()...)
			}
		})
	}
	return answer, nil
}

func (r *Replication) compareSet(ctx context.Context, node string, set int, theirs []byte) (gained int, err error) {
	request := []byte{byte(set)}
	r.sets[set].view(func(s *sketch) {
		for _, group := range differing(s.groupSums(), theirs) {
			request = append(request, byte(group))
		}
	})
	if len(request) == 1 {
		return 0, nil
	}
	answer, err := r.call(ctx, node, pathBuckets, request, int64(len(request)-1)*groupSize*int64(sumSize))
	if err != nil {
		return 0, err
	}
	if len(answer) != (len(request)-1)*groupSize*sumSize {
		return 0, errUnasked
	}
	var buckets []uint16
	r.sets[set].view(func(s *sketch) {
		for i, group := range request[1:] {
			for _, place := range differing(s.bucketSums(group), answer[i*groupSize*sumSize:][:groupSize*sumSize]) {
				buckets = append(buckets, uint16(group)*groupSize+uint16(place))
			}
		}
	})
	return r.reconcile(ctx, node, set, buckets)
}

// answerBuckets sends the sums of some groups' buckets.
func (r *Replication) answerBuckets(body []byte) ([]byte, error) {
	set, rest, err := splitSet(body)
	if err == nil && (len(rest) > groupCount || slices.ContainsFunc(rest, func(group byte) bool { return group >= groupCount })) {
		err = errors.New("it asks for groups that are not there")
	}
	if err != nil {
		return nil, err
	}
	var answer []byte
	r.sets[set].view(func(s *sketch) {
		for _, group := range rest {
			answer = append(answer, s.bucketSums(group)...)
		}
	})
	return answer, nil
}

func splitSet(body []byte) (set int, rest []byte, err error) {
	if len(body) < 1 || int(body[0]) >= setCount {
		return 0, nil, errors.New("it names no set")
	}
	return int(body[0]), body[1:], nil
}

// reconcile exchanges what differs in some buckets, a page of the other host's items after another.
func (r *Replication) reconcile(ctx context.Context, node string, set int, buckets []uint16) (gained int, err error) {
	after, all, barren := "", len(buckets) == 0, 0
	for !all {
		var theirs []item
		if theirs, all, err = r.askItems(ctx, node, set, buckets, after); err != nil {
			return gained, err
		}
		last := ""
		if !all {
			last = theirs[len(theirs)-1].key
		}
		fetch, give := r.differences(set, buckets, after, last, theirs)
		r.send(node, set, give)
		n, err := r.fetch(ctx, node, set, fetch)
		gained += n
		if n == 0 {
			barren += len(fetch)
		}
		if err == nil && barren > maxBarrenElements {
			err = errBarren
		}
		if err != nil {
			return gained, err
		}
		after = last
	}
	return gained, nil
}

// askItems asks for the items in some buckets after a key, one page of them; all says that nothing follows. The request is
// set 1 | key | buckets 2 ..., the answer all 1 | items.
func (r *Replication) askItems(ctx context.Context, node string, set int, buckets []uint16, after string) (theirs []item, all bool, err error) {
	request := appendBytes([]byte{byte(set)}, after)
	for _, bucket := range buckets {
		request = binary.BigEndian.AppendUint16(request, bucket)
	}
	answer, err := r.call(ctx, node, pathItems, request, 1+pushSize+maxKey+int64(itemOverhead))
	if err != nil {
		return nil, false, err
	}
	if len(answer) == 0 || answer[0] > 1 {
		return nil, false, errUnasked
	}
	if theirs, err = decodeItems(answer[1:]); err != nil {
		return nil, false, err
	}
	for _, i := range theirs {
		if _, asked := slices.BinarySearch(buckets, bucketOf(i.key)); !asked || after != "" && compareKeys(i.key, after) <= 0 {
			return nil, false, errUnasked
		}
		after = i.key
	}
	all = answer[0] == 1
	if !all && len(theirs) < maxElements && len(answer) < pushSize/3 { // by its own count of bytes, which is not exact, the page is full
		return nil, false, errors.New("its pages are too small")
	}
	return theirs, all, nil
}

// answerItems lists what is in some buckets.
func (r *Replication) answerItems(body []byte) ([]byte, error) {
	set, rest, err := splitSet(body)
	if err != nil {
		return nil, err
	}
	f := &fields{rest: rest}
	after := f.bytes()
	if f.bad || len(after) > maxKey || len(f.rest)%2 != 0 || len(f.rest) > 2*bucketCount {
		return nil, errors.New("it asks for buckets that are not there")
	}
	var buckets []uint16
	for rest := f.rest; len(rest) > 0; rest = rest[2:] {
		bucket := binary.BigEndian.Uint16(rest)
		if bucket >= bucketCount || len(buckets) > 0 && bucket <= buckets[len(buckets)-1] {
			return nil, errors.New("its buckets are not sorted")
		}
		buckets = append(buckets, bucket)
	}
	answer := []byte{0}
	r.sets[set].view(func(s *sketch) {
		list, all := s.list(buckets, string(after), "", pushSize)
		if all {
			answer[0] = 1
		}
		for _, i := range list {
			answer = appendItem(answer, i)
		}
	})
	return answer, nil
}

// differences are the keys of what another host has newer and of what this one has newer, among those in some buckets after a key
// and up to a last one; what cannot be told goes both ways.
func (r *Replication) differences(set int, buckets []uint16, after, last string, theirs []item) (fetch, give []string) {
	mine := map[string]item{}
	r.sets[set].view(func(s *sketch) {
		for key, all := after, false; !all; {
			var list []item
			list, all = s.list(buckets, key, last, maxMessage)
			for _, i := range list {
				mine[i.key] = i
				key = i.key
			}
		}
	})
	for _, i := range theirs {
		own, known := mine[i.key]
		delete(mine, i.key)
		if !known || i.order >= own.order && i.imprint != own.imprint {
			fetch = append(fetch, i.key)
			if set == setObjects {
				r.noteAhead(i)
			}
		}
		if known && i.order <= own.order && i.imprint != own.imprint {
			give = append(give, i.key)
		}
	}
	for key := range mine {
		give = append(give, key)
	}
	return fetch, give
}

// maxBarren is how many answers, and how many elements, may come in one comparison of which nothing is taken.
const (
	maxBarrenAnswers  = 8
	maxBarrenElements = 1024
)

var errBarren = errors.New("nothing of what it sends can be taken")

// fetch asks for elements until all have come, as many at a time as fit into an answer. gained are those that were new.
func (r *Replication) fetch(ctx context.Context, node string, set int, keys []string) (gained int, err error) {
	wanted := map[string]bool{}
	for _, key := range keys {
		wanted[key] = true
	}
	for size, barren := pushSize, 0; len(keys) > 0; {
		answer, err := r.call(ctx, node, pathFetch, appendKeys([]byte{byte(set)}, keys), maxMessage)
		if err != nil {
			return gained, err
		}
		// The first record of this answer did not fit into the one before.
		if size+len(answer) <= pushSize {
			return gained, errors.New("it sends what it has listed in too small parts, or not at all")
		}
		size = len(answer)
		n, err := r.takeWanted(node, set, answer, wanted)
		gained += n
		if n == 0 {
			barren++
		}
		if err == nil && barren > maxBarrenAnswers {
			err = errBarren
		}
		if err != nil {
			return gained, err
		}
		keys = slices.DeleteFunc(keys, func(key string) bool { return !wanted[key] })
	}
	return gained, nil
}

// takeWanted takes the records of an answer, and off the list what came.
func (r *Replication) takeWanted(node string, set int, answer []byte, wanted map[string]bool) (gained int, err error) {
	records, err := decodeRecords(answer)
	if err != nil {
		return 0, err
	}
	if len(records) == 0 {
		return 0, errors.New("it does not send what it has listed") // or has forgotten it meanwhile
	}
	for _, rec := range records {
		if int(rec.set) != set || !wanted[rec.key] {
			return 0, errUnasked
		}
		delete(wanted, rec.key)
	}
	return r.take(node, records)
}

// answerFetch sends elements, until the answer is full.
func (r *Replication) answerFetch(body []byte) ([]byte, error) {
	set, rest, err := splitSet(body)
	if err != nil {
		return nil, err
	}
	keys, err := decodeKeys(rest)
	if err != nil {
		return nil, err
	}
	var answer []byte
	for _, key := range keys {
		data := r.sets[set].record(key)
		if data == nil {
			continue
		}
		if len(answer) > 0 && len(answer)+len(data) > pushSize {
			break
		}
		answer = appendRecord(answer, record{set: byte(set), key: key, data: data})
	}
	return answer, nil
}
