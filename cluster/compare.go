package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
)

// compare finds what this host and another do not both have, and sees to it that both get it. Nothing travels of what is equal but
// the sums that show it.
func (r *Replication) compare(ctx context.Context, node string) error {
	r.stats.rounds.Add(1)
	digest := r.digest()
	answer, err := r.call(ctx, node, pathCompare, digest[:])
	if err != nil || len(answer) == 0 {
		return err
	}
	r.stats.differing.Add(1)
	f := &fields{rest: answer}
	for len(f.rest) > 0 {
		set, groups := f.take(1), f.take(groupCount*sumSize)
		if f.bad || int(set[0]) >= setCount {
			return errors.New("the sums of its groups are cut off")
		}
		if err := r.compareSet(ctx, node, int(set[0]), groups); err != nil {
			return err
		}
	}
	return nil
}

// answerCompare sends the sums of the sets that differ; nothing when all are equal.
func (r *Replication) answerCompare(body []byte) ([]byte, error) {
	if len(body) != digestSize {
		return nil, errors.New("the digest is cut off")
	}
	mine := r.digest()
	var answer []byte
	for i, set := range r.sets {
		from, to := i*len(imprint{}), (i+1)*len(imprint{})
		if slices.Equal(mine[from:to], body[from:to]) {
			continue
		}
		set.view(func(s *sketch) { answer = append(append(answer, byte(i)), s.groupSums()...) })
	}
	return answer, nil
}

func (r *Replication) compareSet(ctx context.Context, node string, set int, theirs []byte) error {
	request := []byte{byte(set)}
	r.sets[set].view(func(s *sketch) {
		for _, group := range differing(s.groupSums(), theirs) {
			request = append(request, byte(group))
		}
	})
	if len(request) == 1 {
		return nil
	}
	answer, err := r.call(ctx, node, pathBuckets, request)
	if err != nil {
		return err
	}
	if len(answer) != (len(request)-1)*groupSize*sumSize {
		return errors.New("the sums of its buckets are cut off")
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
	if err == nil && len(rest) > groupCount {
		err = errors.New("it asks for groups that are not there")
	}
	if err != nil {
		return nil, err
	}
	var answer []byte
	r.sets[set].view(func(s *sketch) {
		for _, group := range rest {
			answer = append(answer, s.bucketSums(group%groupCount)...)
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

// reconcile exchanges what differs in some buckets.
func (r *Replication) reconcile(ctx context.Context, node string, set int, buckets []uint16) error {
	if len(buckets) == 0 {
		return nil
	}
	request := []byte{byte(set)}
	for _, bucket := range buckets {
		request = appendUint16(request, bucket)
	}
	answer, err := r.call(ctx, node, pathItems, request)
	if err != nil {
		return err
	}
	theirs, err := decodeItems(answer)
	if err != nil {
		return err
	}
	fetch, give := r.differences(set, buckets, theirs)
	r.send(node, set, give)
	return r.fetch(ctx, node, set, fetch)
}

// differences are the keys of what another host has newer and of what this one has newer; what cannot be told goes both ways.
func (r *Replication) differences(set int, buckets []uint16, theirs []item) (fetch, give []string) {
	mine := map[string]item{}
	for _, i := range r.sets[set].items(buckets) {
		mine[i.key] = i
	}
	for _, i := range theirs {
		own, known := mine[i.key]
		delete(mine, i.key)
		if !known || i.order >= own.order && i.imprint != own.imprint {
			fetch = append(fetch, i.key)
			if set == setObjects {
				r.stats.behind.Store(i.key, i.order)
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

// answerItems lists what is in some buckets.
func (r *Replication) answerItems(body []byte) ([]byte, error) {
	set, rest, err := splitSet(body)
	if err == nil && (len(rest)%2 != 0 || len(rest) > 2*groupCount*groupSize) {
		err = errors.New("it asks for buckets that are not there")
	}
	if err != nil {
		return nil, err
	}
	var buckets []uint16
	for ; len(rest) > 0; rest = rest[2:] {
		buckets = append(buckets, binary.BigEndian.Uint16(rest))
	}
	var answer []byte
	for _, i := range r.sets[set].items(buckets) {
		answer = appendItem(answer, i)
	}
	return answer, nil
}

// fetch asks for elements until all have come, as many at a time as fit into an answer.
func (r *Replication) fetch(ctx context.Context, node string, set int, keys []string) error {
	for len(keys) > 0 {
		answer, err := r.call(ctx, node, pathFetch, appendKeys([]byte{byte(set)}, keys))
		if err != nil {
			return err
		}
		records, err := decodeRecords(answer)
		if err != nil || len(records) == 0 {
			return err // the other one has changed meanwhile: the next comparison shows it
		}
		if err := r.take(node, records); err != nil {
			return err
		}
		came := map[string]bool{}
		for _, rec := range records {
			came[rec.key] = true
		}
		before := len(keys)
		keys = slices.DeleteFunc(keys, func(key string) bool { return came[key] })
		if len(keys) == before {
			return errors.New("it sends what it was not asked for")
		}
	}
	return nil
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
