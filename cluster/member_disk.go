package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"sync"

	"go.etcd.io/bbolt"
)

var (
	bucketCounters  = []byte("counters")  // name -> number 8, checksum 4
	bucketAddresses = []byte("addresses") // node -> its last gossip address, ip:port
)

// Counter gives out numbers that only ever grow, also over restarts: incarnations and sequences. On disk is a number that none
// given out is above; it is written once in margin numbers, and a restart goes on above it. Any goroutine may call its methods.
type Counter struct {
	db     *bbolt.DB
	name   string
	margin uint64

	mu    sync.Mutex
	last  uint64 // given out
	limit uint64 // on disk
}

// firstNumbers is where a counter may begin: two that begin anew, because a disk was lost, should differ.
const firstNumbers = 1 << 20

// OpenCounter reads a counter; one that was never there begins somewhere in the first million. A damaged one is an error: it might give out a number twice.
func OpenCounter(db *bbolt.DB, name string, margin uint64) (*Counter, error) {
	c := &Counter{db: db, name: name, margin: max(margin, 1)}
	err := db.Update(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists(bucketCounters)
		if err != nil {
			return err
		}
		v := bucket.Get([]byte(name))
		if v == nil {
			c.limit = rand.Uint64N(firstNumbers)
			return nil
		}
		if len(v) != 8+sumLength || recordSum(name, v[:8]) != binary.BigEndian.Uint32(v[8:]) {
			return errors.New("its record is damaged")
		}
		c.limit = binary.BigEndian.Uint64(v)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the counter %s in %s: %w", name, db.Path(), err)
	}
	c.last = c.limit
	return c, nil
}

// Next is above all numbers that were given out before, by this process or an earlier one.
func (c *Counter) Next() (uint64, error) { return c.NextAbove(0) }

// NextAbove is Next, and above floor too.
func (c *Counter) NextAbove(floor uint64) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := max(c.last, floor) + 1
	if next > c.limit {
		if err := c.write(next + c.margin - 1); err != nil {
			return 0, fmt.Errorf("cannot write the counter %s to %s: %w", c.name, c.db.Path(), err)
		}
	}
	c.last = next
	return next, nil
}

func (c *Counter) write(limit uint64) error {
	v := binary.BigEndian.AppendUint64(nil, limit)
	v = binary.BigEndian.AppendUint32(v, recordSum(c.name, v))
	err := c.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketCounters).Put([]byte(c.name), v) })
	if err == nil {
		c.limit = limit
	}
	return err
}

// addressBook remembers where hosts were last, so that they are found again after both sides were restarted.
type addressBook struct {
	db    *bbolt.DB
	known map[string]netip.AddrPort
}

// openAddresses leaves out what cannot be read: an address is only a place to try.
func openAddresses(db *bbolt.DB) (*addressBook, error) {
	b := &addressBook{db: db, known: map[string]netip.AddrPort{}}
	err := db.Update(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists(bucketAddresses)
		if err != nil {
			return err
		}
		return bucket.ForEach(func(k, v []byte) error {
			if addr, err := netip.ParseAddrPort(string(v)); err == nil {
				b.known[string(k)] = addr
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the addresses of hosts in %s: %w", db.Path(), err)
	}
	return b, nil
}

// save keeps what changed.
func (b *addressBook) save(now map[string]netip.AddrPort) error {
	changed := map[string]netip.AddrPort{}
	for node, addr := range now {
		if b.known[node] != addr {
			changed[node] = addr
		}
	}
	if len(changed) == 0 {
		return nil
	}
	err := b.db.Update(func(tx *bbolt.Tx) error {
		for node, addr := range changed {
			if err := tx.Bucket(bucketAddresses).Put([]byte(node), []byte(addr.String())); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot write the addresses of hosts to %s: %w", b.db.Path(), err)
	}
	maps.Copy(b.known, changed)
	return nil
}
