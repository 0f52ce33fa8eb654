package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

func TestQueuesShareOnePacket(t *testing.T) {
	q := newQueues(100, 4, func() int { return 3 })
	for i := range 10 {
		if err := errors.Join(
			q.add(&q.roster, fmt.Sprint("r", i), 1, bytes.Repeat([]byte{1}, 30)),
			q.add(&q.user, fmt.Sprint("u", i), 2, bytes.Repeat([]byte{2}, 20)),
		); err != nil {
			t.Fatal(err)
		}
	}
	for limit := range 400 {
		used := 0
		for _, m := range q.take(3, limit) {
			used += 3 + len(m)
		}
		if used > limit {
			t.Fatalf("%d bytes in a packet with room for %d", used, limit)
		}
	}
}

func TestBothQueuesGetTheirTurn(t *testing.T) {
	q := newQueues(100, 4, func() int { return 3 })
	if err := errors.Join(q.add(&q.roster, "r", 1, make([]byte, 90)), q.add(&q.user, "u", 2, make([]byte, 90))); err != nil {
		t.Fatal(err)
	}
	if got := q.take(3, 1300); len(got) != 2 || got[0][0] != 1 || got[1][0] != 2 {
		t.Fatalf("%d messages", len(got))
	}
	for range 100 {
		q.take(3, 1300)
	}
	if q.waiting() != 0 {
		t.Errorf("%d wait for ever", q.waiting())
	}
}

func TestOversizeIsRefusedAndCounted(t *testing.T) {
	q := newQueues(100, 4, func() int { return 3 })
	if err := q.add(&q.user, "u", 2, make([]byte, 101)); !errors.Is(err, ErrTooLarge) || q.refused.Load() != 1 || q.waiting() != 0 {
		t.Errorf("%v, %d refused, %d waiting", err, q.refused.Load(), q.waiting())
	}
}

func TestANewerBroadcastTakesTheOldOnesPlace(t *testing.T) {
	q := newQueues(100, 4, func() int { return 3 })
	for i := range byte(5) {
		if err := q.add(&q.user, "same", 2, []byte{i}); err != nil {
			t.Fatal(err)
		}
	}
	if got := q.take(3, 1300); len(got) != 1 || got[0][1] != 4 {
		t.Errorf("%v", got)
	}
}

func TestQueuesAreBounded(t *testing.T) {
	q := newQueues(100, 4, func() int { return 3 })
	for i := range maxQueued + 10 {
		if err := q.add(&q.user, fmt.Sprint(i), 2, nil); err != nil {
			t.Fatal(err)
		}
	}
	if q.waiting() != maxQueued || q.dropped.Load() != 10 {
		t.Errorf("%d wait, %d were dropped", q.waiting(), q.dropped.Load())
	}
}
