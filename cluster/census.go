package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"

	"go.etcd.io/bbolt"
)

// Records carry checksums, but one that is gone carries nothing. So the store keeps a census beside them, in a bucket of its
// own: how many there are, a sum over all their versions, and the highest generation.
var (
	bucketObjects = []byte("objects") // key -> record
	bucketCensus  = []byte("objects-census")
	keyCensus     = []byte("census")
)

const (
	censusFormat = 1
	censusLength = 1 + 3*8
	// lostGenerations is put on top of the highest known generation when what was higher can no longer be told.
	lostGenerations = 1 << 20
)

var (
	crc64Table = crc64.MakeTable(crc64.ECMA)

	errMissing = errors.New("objects are missing or old")
)

// census counts records in the order of their keys.
type census struct {
	count   uint64
	sum     uint64
	highest uint64 // generation
	// unreadable records have no version to add to the sum; maybe the key is wrong too.
	unreadable uint64
}

func (c *census) add(key, record []byte) {
	c.count++
	h, err := decodeHead(string(key), record)
	if err != nil {
		c.unreadable++
		return
	}
	c.highest = max(c.highest, h.version.Generation)
	c.sum = crc64.Update(c.sum, crc64Table, key)
	c.sum = crc64.Update(c.sum, crc64Table, record[:headLength])
}

func censusOf(objects *bbolt.Bucket) (*census, error) {
	c := &census{}
	err := objects.ForEach(func(key, record []byte) error {
		c.add(key, record)
		return nil
	})
	return c, err
}

// recount brings the kept census up to date with what the transaction has put. floor keeps it from forgetting how high the
// generations of unreadable records may have been.
func recount(tx *bbolt.Tx, floor uint64) error {
	c, err := censusOf(tx.Bucket(bucketObjects))
	if err != nil {
		return err
	}
	c.highest = max(c.highest, floor)
	return tx.Bucket(bucketCensus).Put(keyCensus, c.encode())
}

func (c *census) encode() []byte {
	b := []byte{censusFormat}
	for _, n := range []uint64{c.count, c.sum, c.highest} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return binary.BigEndian.AppendUint32(b, recordSum(string(keyCensus), b))
}

func decodeCensus(b []byte) (*census, error) {
	if len(b) != censusLength+sumLength || b[0] != censusFormat || recordSum(string(keyCensus), b[:censusLength]) != binary.BigEndian.Uint32(b[censusLength:]) {
		return nil, errors.New("the census of the objects cannot be read: whether some are missing cannot be told")
	}
	return &census{count: binary.BigEndian.Uint64(b[1:]), sum: binary.BigEndian.Uint64(b[9:]), highest: binary.BigEndian.Uint64(b[17:])}, nil
}

// compare checks what was counted against the kept census, nil when there is none. The error is errMissing when something is.
func (c *census) compare(kept []byte) error {
	if kept == nil {
		if c.count == 0 {
			return nil
		}
		return fmt.Errorf("%w: %d are there and no census of them", errMissing, c.count)
	}
	want, err := decodeCensus(kept)
	if err != nil {
		return err
	}
	if c.count != want.count {
		return fmt.Errorf("%w: %d are there, %d were stored", errMissing, c.count, want.count)
	}
	if c.unreadable == 0 && c.sum != want.sum {
		return fmt.Errorf("%w: their versions are not those that were stored", errMissing)
	}
	return nil
}

// floor is a generation that none of the unreadable records is above.
func (c *census) floor(kept []byte) uint64 {
	if c.unreadable == 0 {
		return 0
	}
	if want, err := decodeCensus(kept); err == nil {
		return max(c.highest, want.highest)
	}
	return c.highest + lostGenerations
}
