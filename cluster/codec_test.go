package cluster

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"
)

// anyObject draws objects from few versions, so that equal and neighbouring ones come up.
func anyObject(key string) *rapid.Generator[Object] {
	return rapid.Custom(func(t *rapid.T) Object {
		hash := rapid.Custom(func(t *rapid.T) [32]byte { return hashOf(rapid.StringMatching("[a-c]").Draw(t, "content")) })
		o := Object{
			Key:     key,
			Version: Version{Generation: rapid.Uint64Range(1, 4).Draw(t, "generation")},
			Deleted: rapid.Bool().Draw(t, "deleted"),
			Past:    rapid.SliceOfN(hash, 0, 3).Draw(t, "past"),
			Author:  rapid.StringN(0, 3, -1).Draw(t, "author"),
			Origin:  rapid.SampledFrom([]string{"host-01", "host-02"}).Draw(t, "origin"),
			Time:    time.UnixMilli(rapid.Int64Range(-1e12, 1e13).Draw(t, "time")).UTC(),
		}
		o.Birth = rapid.Uint64Range(1, o.Version.Generation).Draw(t, "birth")
		if !o.Deleted {
			o.Version.Hash, o.Content = hash.Draw(t, "hash"), hash.Draw(t, "content")
			o.Body = rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, "body")
		}
		return o
	})
}

func TestRecordsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.String().Draw(t, "key")
		o := anyObject(key).Draw(t, "object")
		got, err := decode(key, encode(o))
		if err != nil || !sameObjects([]Object{got}, []Object{o}) || !got.Time.Equal(o.Time) || got.Author != o.Author || got.Origin != o.Origin ||
			!bytes.Equal(got.Body, o.Body) || got.Version != o.Version || got.Content != o.Content || got.Birth != o.Birth || got.Deleted != o.Deleted || len(got.Past) != len(o.Past) {
			t.Fatalf("%+v became %+v: %v", o, got, err)
		}
	})
}

// Files of earlier versions must stay readable: this record may not change, only get company.
func TestRecordOfFormat1(t *testing.T) {
	const record = "0100000000000000000300000000000000029834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0c7cbd2cc0561646d696e07686f7374" +
		"2d30319cb2cccaef66961b6dd3ede3cb8ecbaacbd68de040cd78eb2ed5889130cceb4c49268ea4d506013e23e8160039594a33894f6564e1b1348bbd7a0088d42c" +
		"4acb73eeaed59c009d03616161f76f37cf"
	b, err := hex.DecodeString(record)
	if err != nil {
		t.Fatal(err)
	}
	o, err := decode("DaemonSet/default/web", b)
	if err != nil {
		t.Fatal(err)
	}
	want := Object{
		Key: "DaemonSet/default/web", Version: Version{Generation: 3, Hash: hashOf("aaa")}, Birth: 2, Body: []byte("aaa"),
		Content: hashOf("aa"), Past: [][32]byte{hashOf("b")}, Author: "admin", Origin: "host-01", Time: epoch,
	}
	if !sameObjects([]Object{o}, []Object{want}) {
		t.Errorf("it reads as %+v, and %+v is now written as %x", o, want, encode(want))
	}
}

func TestEveryChangedBitOfARecordIsNoticed(t *testing.T) {
	o := Object{Key: "web", Version: Version{Generation: 3, Hash: hashOf("a")}, Birth: 2, Body: []byte("aaa"), Past: [][32]byte{hashOf("b")}, Author: "admin", Time: epoch}
	record := encode(o)
	for i := range record {
		for bit := range 8 {
			b := bytes.Clone(record)
			b[i] ^= 1 << bit
			if got, err := decode("web", b); err == nil {
				t.Errorf("bit %d of byte %d changed unnoticed: %+v", bit, i, got)
			}
			h, err := decodeHead("web", b)
			if inHead := i < headLength+sumLength; inHead == (err == nil) || err == nil && h != headOf(o) {
				t.Errorf("bit %d of byte %d: the head reads %+v, %v", bit, i, h, err)
			}
		}
	}
	for n := range record {
		if _, err := decode("web", record[:n]); err == nil {
			t.Errorf("a record cut after %d bytes reads", n)
		}
	}
	if _, err := decode("wab", record); err == nil {
		t.Error("a record reads under another key")
	}
}

// withHead makes a record of another format that keeps the promise all formats give.
func withHead(o Object, format, flags byte, rest string) []byte {
	b := encode(o)[:headLength]
	b[0], b[1] = format, b[1]|flags
	b = binary.BigEndian.AppendUint32(b, recordSum(o.Key, b))
	return append(b, rest...)
}

func TestNewerRecordsAreKeptAndTellTheirVersion(t *testing.T) {
	for name, record := range map[string]func(Object) []byte{
		"format": func(o Object) []byte { return withHead(o, recordFormat+1, 0, "something else") },
		"flag":   func(o Object) []byte { return withHead(o, recordFormat, 4, "something else") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			put(t, s, content("a", "1"))
			web := put(t, s, content("web", "1"), content("web", "2"))[1]
			s = tamper(t, s, "web", record(web))
			if err := s.db.Update(func(tx *bbolt.Tx) error { return recount(tx, 0) }); err != nil { // as its writer would
				t.Fatal(err)
			}
			s = openStore(t, s.db)
			if _, ok := s.Get("web"); ok || len(s.All()) != 1 {
				t.Errorf("the newer record is shown: %+v", s.All())
			}
			damaged := s.Damaged()
			if len(damaged) != 1 || !strings.Contains(damaged[0].Error(), `"web"`) || !strings.Contains(damaged[0].Error(), "newer picketd") {
				t.Errorf("damaged are %v", damaged)
			}
			put(t, s, content("a", "2"))
			if s = openStore(t, s.db); len(s.Damaged()) != 1 {
				t.Errorf("after another object's write damaged are %v", s.Damaged())
			}
			o := put(t, s, content("web", "3"))[0]
			if o.Version.Generation != 3 || o.Birth != 1 || len(s.Damaged()) != 0 {
				t.Errorf("the next write has generation %d, birth %d; damaged are %v", o.Version.Generation, o.Birth, s.Damaged())
			}
			if s = openStore(t, s.db); len(s.Damaged()) != 0 || len(s.All()) != 2 {
				t.Errorf("reopened: %v, damaged %v", s.All(), s.Damaged())
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("web", encode(Object{Key: "web", Version: Version{Generation: 3}, Birth: 2, Body: []byte("aaa"), Past: [][32]byte{{1}}, Author: "admin", Time: epoch}))
	f.Fuzz(func(t *testing.T, key string, b []byte) {
		// The sum is right, so that what follows it is reached.
		if len(b) >= headLength+2*sumLength {
			binary.BigEndian.PutUint32(b[headLength:], recordSum(key, b[:headLength]))
			end := len(b) - sumLength
			binary.BigEndian.PutUint32(b[end:], recordSum(key, b[:end]))
		}
		o, err := decode(key, b)
		if err != nil {
			return
		}
		if again, err := decode(key, encode(o)); err != nil || !sameObjects([]Object{again}, []Object{o}) {
			t.Errorf("%x became %+v and then %+v: %v", b, o, again, err)
		}
	})
}
