package cluster

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/memberlist"
)

// packetSize is what memberlist may put into one packet, the rest of these what it adds to a message. They are memberlist's own
// constants, which it does not export; a test sends a message of exactly the size that remains.
const (
	packetSize       = 1400
	compoundOverhead = 2
	partOverhead     = 2 + 1 // the length, and the type of a user message
	labelOverhead    = 2
	cryptOverhead    = 1 + 12 + 16
	kindOverhead     = 1
)

// maxBroadcast is how large a message may be to fit into a packet of its own, encrypted or not.
func maxBroadcast(label string) int {
	return packetSize - compoundOverhead - partOverhead - labelOverhead - len(label) - cryptOverhead - kindOverhead
}

// maxQueued bounds the messages that wait for a packet; those that were sent most often make room.
const maxQueued = 4096

// ErrTooLarge is a broadcast that fits into no packet. memberlist would keep it and never send it, without a word.
var ErrTooLarge = errors.New("it does not fit into one packet")

// queues are the messages of ours that wait for room in memberlist's packets. The roster's go first; both share what is left.
type queues struct {
	limit   int
	roster  memberlist.TransmitLimitedQueue
	user    memberlist.TransmitLimitedQueue
	refused atomic.Uint64
	dropped atomic.Uint64
}

func newQueues(limit, retransmitMult int, nodes func() int) *queues {
	q := &queues{limit: limit}
	for _, queue := range []*memberlist.TransmitLimitedQueue{&q.roster, &q.user} {
		queue.NumNodes, queue.RetransmitMult = nodes, retransmitMult
	}
	return q
}

// add queues a message in place of an earlier one of the same name.
func (q *queues) add(queue *memberlist.TransmitLimitedQueue, name string, kind byte, payload []byte) error {
	if len(payload) > q.limit {
		q.refused.Add(1)
		return fmt.Errorf("cannot broadcast %q, %d bytes of at most %d: %w", name, len(payload), q.limit, ErrTooLarge)
	}
	queue.QueueBroadcast(broadcast{name: name, message: append([]byte{kind}, payload...)})
	if over := queue.NumQueued() - maxQueued; over > 0 {
		queue.Prune(maxQueued)
		q.dropped.Add(uint64(over))
	}
	return nil
}

// take fills what memberlist left of a packet: every message costs overhead, all together at most limit.
func (q *queues) take(overhead, limit int) [][]byte {
	messages := q.roster.GetBroadcasts(overhead, limit)
	for _, m := range messages {
		limit -= overhead + len(m)
	}
	if limit <= overhead {
		return messages
	}
	return append(messages, q.user.GetBroadcasts(overhead, limit)...)
}

func (q *queues) waiting() int { return q.roster.NumQueued() + q.user.NumQueued() }

// broadcast is memberlist's NamedBroadcast.
type broadcast struct {
	name    string
	message []byte
}

func (b broadcast) Name() string    { return b.name }
func (b broadcast) Message() []byte { return b.message }
func (b broadcast) Finished()       {}

func (b broadcast) Invalidates(other memberlist.Broadcast) bool {
	o, ok := other.(memberlist.NamedBroadcast)
	return ok && o.Name() == b.name
}
