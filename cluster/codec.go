package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// An object on disk and on the wire is a record, bound to its key by checksums:
//
//	format 1 | flags 1 | generation 8 | birth 8 | hash 32 | headSum 4 | author, origin, time, content 32, past, body | credential, signature | sum 4
//
// The head, up to headSum, is the same in every format there will be: it tells the version of what cannot be read otherwise.
// Numbers are big endian; what varies in length has its length before it. What is signed is all before the credential. Format 1 had
// neither credential nor signature.
const (
	recordFormat = 2
	headLength   = 1 + 1 + 8 + 8 + 32
	sumLength    = 4

	flagDeleted = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// head is what stays known of an object whose record is damaged or of a newer format.
type head struct {
	version Version
	birth   uint64
	deleted bool
}

func headOf(o Object) head { return head{version: o.Version, birth: o.Birth, deleted: o.Deleted} }

func recordSum(key string, b []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(key), castagnoli), castagnoli, b)
}

// encode makes the record of an object. Equal objects have equal records.
func encode(o Object) []byte {
	b := o.appendClaim(make([]byte, 0, headLength+2*sumLength+len(o.Author)+len(o.Origin)+(1+len(o.Past))*len(o.Version.Hash)+
		len(o.Body)+len(o.Credential)+len(o.Signature)+7*binary.MaxVarintLen64))
	b = appendBytes(b, o.Credential)
	b = appendBytes(b, o.Signature)
	return binary.BigEndian.AppendUint32(b, recordSum(o.Key, b))
}

const signedObject = "picket object\x00"

// signedPart is what an object's signature is of. The fleet's name keeps objects out of another fleet with the same authority.
func (o Object) signedPart(fleet string) []byte {
	b := appendBytes([]byte(signedObject), fleet)
	b = appendBytes(b, o.Key)
	return o.appendClaim(b)
}

// appendClaim is all that the origin says; b may hold something else before it.
func (o Object) appendClaim(b []byte) []byte {
	start := len(b)
	var flags byte
	if o.Deleted {
		flags |= flagDeleted
	}
	b = append(b, recordFormat, flags)
	b = binary.BigEndian.AppendUint64(b, o.Version.Generation)
	b = binary.BigEndian.AppendUint64(b, o.Birth)
	b = append(b, o.Version.Hash[:]...)
	b = binary.BigEndian.AppendUint32(b, recordSum(o.Key, b[start:]))
	b = appendBytes(b, o.Author)
	b = appendBytes(b, o.Origin)
	b = binary.AppendVarint(b, o.Time.UnixMilli())
	b = append(b, o.Content[:]...)
	b = binary.AppendUvarint(b, uint64(len(o.Past)))
	for _, hash := range o.Past {
		b = append(b, hash[:]...)
	}
	return appendBytes(b, o.Body)
}

func appendBytes[T string | []byte](b []byte, v T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

// decodeHead reads the part of a record that every format shares.
func decodeHead(key string, b []byte) (head, error) {
	if len(b) < headLength+sumLength {
		return head{}, fmt.Errorf("the record of %d bytes is too short", len(b))
	}
	if recordSum(key, b[:headLength]) != binary.BigEndian.Uint32(b[headLength:]) {
		return head{}, errors.New("the checksum of the record's head is wrong")
	}
	h := head{deleted: b[1]&flagDeleted != 0, birth: binary.BigEndian.Uint64(b[10:])}
	h.version.Generation = binary.BigEndian.Uint64(b[2:])
	copy(h.version.Hash[:], b[18:])
	return h, nil
}

// decode reads a record. The object shares no memory with it: bbolt's pages do not outlive their transaction.
func decode(key string, b []byte) (Object, error) {
	h, err := decodeHead(key, b)
	if err != nil {
		return Object{}, err
	}
	if b[0] > recordFormat || b[1]&^flagDeleted != 0 {
		return Object{}, fmt.Errorf("the record has format %d, flags %#x: it was written by a newer picketd", b[0], b[1])
	}
	end := len(b) - sumLength
	if end < headLength+sumLength || recordSum(key, b[:end]) != binary.BigEndian.Uint32(b[end:]) {
		return Object{}, errors.New("the checksum of the record is wrong")
	}
	r := fields{rest: b[headLength+sumLength : end]}
	o := Object{Key: key, Version: h.version, Deleted: h.deleted, Birth: h.birth}
	o.Author = string(r.bytes())
	o.Origin = string(r.bytes())
	o.Time = time.UnixMilli(r.varint()).UTC()
	copy(o.Content[:], r.take(uint64(len(o.Content))))
	o.Past = r.hashes()
	if body := r.bytes(); len(body) > 0 {
		o.Body = bytes.Clone(body)
	}
	if b[0] > 1 {
		o.Credential, o.Signature = bytes.Clone(r.bytes()), bytes.Clone(r.bytes())
	}
	if r.bad || len(r.rest) > 0 {
		return Object{}, errors.New("the record's fields do not fill it")
	}
	return o, nil
}

// fields reads a record's fields one by one; the first that is not there makes it bad.
type fields struct {
	rest []byte
	bad  bool
}

func (f *fields) take(n uint64) []byte {
	if f.bad || n > uint64(len(f.rest)) {
		f.bad = true
		return nil
	}
	b := f.rest[:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) uvarint() uint64 {
	v, n := binary.Uvarint(f.rest)
	f.bad = f.bad || n <= 0
	f.take(uint64(max(n, 0)))
	return v
}

func (f *fields) varint() int64 {
	v, n := binary.Varint(f.rest)
	f.bad = f.bad || n <= 0
	f.take(uint64(max(n, 0)))
	return v
}

func (f *fields) bytes() []byte { return f.take(f.uvarint()) }

func (f *fields) hashes() [][32]byte {
	n := f.uvarint()
	if n > maxPast {
		f.bad = true
		return nil
	}
	var hashes [][32]byte
	for range n {
		var hash [32]byte
		copy(hash[:], f.take(uint64(len(hash))))
		hashes = append(hashes, hash)
	}
	return hashes
}
