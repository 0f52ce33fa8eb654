package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// realFile is a state file with a history: pages of every kind, free ones with old content, values of several pages, buckets of
// others. It returns what is stored in it and what was before the last transaction.
func realFile(t *testing.T) (file []byte, now, before []Object) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	db := openDB(t, path)
	s := openStore(t, db)
	err := db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte("sequences"))
		if err == nil {
			err = b.Put([]byte("pod"), []byte("12345678"))
		}
		_, err2 := tx.CreateBucketIfNotExists([]byte("applied"))
		return errors.Join(err, err2)
	})
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 40 {
		key := func() string { return fmt.Sprintf("ConfigMap/default/c%02d", random.IntN(24)) }
		size := []int{10, 300, 1500, 9000}[i%4]
		put(t, s, content(key(), strings.Repeat(string(rune('a'+i%26)), size)), content(key(), fmt.Sprint(i)), deletion(key()))
	}
	before = s.All()
	put(t, s, content("ConfigMap/default/c05", "the last"), deletion("ConfigMap/default/c06"))
	now = s.All()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if file, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	return file, now, before
}

// opened says how OpenDB and OpenStore took a file.
type opened struct {
	setAside string
	objects  []Object
	damaged  []error
	store    *Store
}

func openBytes(t *testing.T, dir string, file []byte) (o opened, done func()) {
	t.Helper()
	path := filepath.Join(dir, "state.db")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	db, setAside, err := OpenDB(path)
	if err != nil {
		t.Fatal(err)
	}
	s := openStore(t, db)
	return opened{setAside, s.All(), s.Damaged(), s}, func() {
		_ = db.Close()
		if setAside != "" {
			_ = os.Remove(setAside)
		}
	}
}

// memoryDir is on tmpfs when there is one: the sweeps sync thousands of times.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "picket-cluster-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// checkDamage opens a damaged copy of a file and checks the promise: everything that was acknowledged, but for records that
// are reported one by one, or the file is set aside as it was.
func checkDamage(t *testing.T, dir, what string, file []byte, now, before []Object) (outcome string) {
	t.Helper()
	o, done := openBytes(t, dir, file)
	defer done()
	if o.setAside != "" {
		kept, err := os.ReadFile(o.setAside)
		if err != nil || !bytes.Equal(kept, file) {
			t.Errorf("%s: set aside was %d bytes of %d: %v", what, len(kept), len(file), err)
		}
		switch {
		case len(o.objects) == 0 && len(o.damaged) == 0:
			return "set aside, new"
		case sameObjects(o.objects, now):
			return "set aside, nothing lost"
		case sameObjects(o.objects, before):
			return "set aside, one transaction lost"
		}
		t.Errorf("%s: set aside, and %d objects are neither all nor those before nor none; damaged %v", what, len(o.objects), o.damaged)
		return "wrong"
	}
	lost := 0
	for _, want := range now {
		got, ok := o.store.Get(want.Key)
		if !ok {
			lost++
		} else if !sameObjects([]Object{got}, []Object{want}) {
			t.Errorf("%s: %s changed", what, want.Key)
		}
		next := put(t, o.store, content(want.Key, "after"))[0]
		if next.Version.Generation <= want.Version.Generation {
			t.Errorf("%s: %s had generation %d, its next write has %d", what, want.Key, want.Version.Generation, next.Version.Generation)
		}
	}
	if lost > len(o.damaged) || len(o.objects)+lost != len(now) {
		t.Errorf("%s: %d of %d objects are missing, reported are %v", what, lost, len(now), o.damaged)
	}
	if len(o.damaged) > 0 {
		return "reported"
	}
	return "unharmed"
}

func sweep(t *testing.T, now, before []Object, each func(yield func(what string, file []byte))) {
	dir := memoryDir(t)
	outcomes := map[string]int{}
	each(func(what string, file []byte) {
		if !t.Failed() {
			outcomes[checkDamage(t, dir, what, file, now, before)]++
		}
	})
	t.Log(outcomes)
}

// TestChangedBytes changes one byte at a time: all of the headers of pages, where bbolt is defenceless, and some of the rest.
func TestChangedBytes(t *testing.T) {
	file, now, before := realFile(t)
	pageSize := os.Getpagesize()
	sweep(t, now, before, func(yield func(string, []byte)) {
		for at := range file {
			step := 127
			switch in := at % pageSize; {
			case in < pageHeader+metaLength && at < 2*pageSize, in < pageHeader:
				step = 1
			case in < pageHeader+2*elementHeader:
				step = 3
			}
			if testing.Short() {
				step *= 7
			}
			if at%step != 0 {
				continue
			}
			changed := bytes.Clone(file)
			changed[at] ^= []byte{0x01, 0xff, 0x80, 0x04}[(at/step)%4]
			yield(fmt.Sprintf("byte %d", at), changed)
		}
	})
}

func TestCutFiles(t *testing.T) {
	file, now, before := realFile(t)
	sweep(t, now, before, func(yield func(string, []byte)) {
		for length := 1; length < len(file); length += 1021 {
			yield(fmt.Sprintf("cut after %d bytes", length), file[:length])
		}
	})
}

func TestLostSectors(t *testing.T) {
	file, now, before := realFile(t)
	random := rand.NewChaCha8([32]byte{1})
	for name, fill := range map[string]func([]byte){
		"zeroed":  func(b []byte) { clear(b) },
		"garbage": func(b []byte) { _, _ = random.Read(b) },
		"misread": func(b []byte) { copy(b, file[len(file)/2:]) },
	} {
		t.Run(name, func(t *testing.T) {
			sweep(t, now, before, func(yield func(string, []byte)) {
				for at := 0; at < len(file); at += 512 {
					changed := bytes.Clone(file)
					fill(changed[at:min(at+512, len(file))])
					if !bytes.Equal(changed, file) {
						yield(fmt.Sprintf("%s sector at %d", name, at), changed)
					}
				}
			})
		})
	}
}

// pages lists the pages of a file by what is on them.
func pages(file []byte, flags uint16) (ids []uint64) {
	for at := 0; at < len(file); at += os.Getpagesize() {
		if binary.NativeEndian.Uint16(file[at+8:]) == flags {
			ids = append(ids, uint64(at/os.Getpagesize()))
		}
	}
	return ids
}

// A pointer that leads to another page that is well-formed - an old one, a parent, the page itself - is the damage that page
// by page checks miss.
func TestMisledPointers(t *testing.T) {
	file, now, before := realFile(t)
	branches, leaves := pages(file, pageBranch), pages(file, pageLeaf)
	if len(branches) == 0 || len(leaves) < 5 {
		t.Fatalf("the file has %d branch and %d leaf pages: it shows nothing", len(branches), len(leaves))
	}
	sweep(t, now, before, func(yield func(string, []byte)) {
		ids := slices.Concat(branches, leaves)
		for _, from := range ids {
			for at := 0; at+8 <= os.Getpagesize(); at += 8 {
				position := int(from)*os.Getpagesize() + at
				if id := binary.NativeEndian.Uint64(file[position:]); at == 0 || !slices.Contains(ids, id) {
					continue
				}
				for _, to := range ids {
					changed := bytes.Clone(file)
					binary.NativeEndian.PutUint64(changed[position:], to)
					yield(fmt.Sprintf("page %d leads to %d", from, to), changed)
				}
			}
		}
	})
}

// A page that counts less than it holds, or a bucket that is marked a plain value, would be data that quietly is not there.
func TestUncountedElements(t *testing.T) {
	file, now, before := realFile(t)
	ne := binary.NativeEndian
	sweep(t, now, before, func(yield func(string, []byte)) {
		for _, id := range slices.Concat(pages(file, pageBranch), pages(file, pageLeaf)) {
			at := int(id) * os.Getpagesize()
			for count := range ne.Uint16(file[at+10:]) {
				changed := bytes.Clone(file)
				ne.PutUint16(changed[at+10:], count)
				yield(fmt.Sprintf("page %d counts %d", id, count), changed)
				changed = bytes.Clone(file)
				element := at + pageHeader + int(count)*elementHeader
				ne.PutUint32(changed[element:], ne.Uint32(file[element:])^elementBucket)
				yield(fmt.Sprintf("element %d of page %d has another flag", count, id), changed)
			}
		}
	})
}
