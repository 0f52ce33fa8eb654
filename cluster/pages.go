package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// bbolt trusts its file: a damaged page makes it panic in goroutines of its own, recurse without end, touch memory behind the
// end of the file (SIGBUS) or, worst, return less than was stored. So before bbolt gets the file, pageWalk reads every page that
// bbolt would reach, without a memory map, and checks more than bbolt can: that the elements of a page fill it without gaps, so
// that a changed count or length does not go unnoticed. The layout is bbolt's file format 2.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	pageHeader    = 16 // id 8, flags 2, count 2, overflow 4
	elementHeader = 16 // leaf: flags 4, pos 4, key size 4, value size 4; branch: pos 4, key size 4, page id 8
	bucketHeader  = 16 // root page 8, sequence 8
	metaLength    = 64

	pageBranch = 0x01
	pageLeaf   = 0x02

	elementBucket = 0x01

	minPageSize, maxPageSize = 1 << 10, 1 << 24 // as bbolt looks for them

	// maxDepth bounds the pages between a root and a leaf, nested buckets included.
	maxDepth = 32
)

// errCorrupt is what every finding of a pageWalk wraps; other errors are those of reading.
var errCorrupt = errors.New("the file is damaged")

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errCorrupt, fmt.Sprintf(format, args...))
}

// boltMeta is what one of the two meta pages says. They take turns: the other one is the state before the last transaction.
type boltMeta struct {
	pageSize uint32
	root     uint64
	pages    uint64 // page ids are below it
	txid     uint64
}

// readMeta reads a meta page; it is not ok when it is damaged.
func readMeta(r io.ReaderAt, offset int64) (m boltMeta, ok bool, err error) {
	var b [pageHeader + metaLength]byte
	if n, err := r.ReadAt(b[:], offset); n < len(b) {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return m, false, err
	}
	meta := b[pageHeader:]
	sum := fnv.New64a()
	_, _ = sum.Write(meta[:metaLength-8])
	ne := binary.NativeEndian
	if ne.Uint32(meta) != boltMagic || ne.Uint32(meta[4:]) != boltVersion || ne.Uint64(meta[56:]) != sum.Sum64() {
		return m, false, nil
	}
	m = boltMeta{pageSize: ne.Uint32(meta[8:]), root: ne.Uint64(meta[16:]), pages: ne.Uint64(meta[40:]), txid: ne.Uint64(meta[48:])}
	return m, m.pageSize >= minPageSize, nil
}

// newestMeta finds the state bbolt would open. whole is false when only one of the two meta pages is readable: that is the
// newest state, or the one before it.
func newestMeta(r io.ReaderAt) (newest boltMeta, whole bool, err error) {
	first, ok0, err := readMeta(r, 0)
	if err != nil {
		return newest, false, err
	}
	sizes := []uint32{first.pageSize}
	if !ok0 { // the second page is somewhere behind a first one of unknown size
		sizes = nil
		for size := uint32(minPageSize); size <= maxPageSize; size *= 2 {
			sizes = append(sizes, size)
		}
	}
	for _, size := range sizes {
		second, ok1, err := readMeta(r, int64(size))
		switch {
		case err != nil:
			return newest, false, err
		case ok1 && second.pageSize != size:
			return newest, false, corrupt("its pages have %d or %d bytes", size, second.pageSize)
		case ok0 && ok1 && first.txid > second.txid, ok0 && !ok1:
			return first, ok1, nil
		case ok1:
			return second, ok0, nil
		}
	}
	return newest, false, corrupt("it has no readable meta page")
}

// pageWalk visits every key and value of a bbolt file.
type pageWalk struct {
	file  io.ReaderAt
	meta  boltMeta
	seen  map[uint64]bool
	visit func(bucket, key, value []byte) // bucket is the name of the top one; nothing may be kept
}

// walkPages checks all pages of the file's newest state. It reports errCorrupt, or why the file cannot be read. A new, empty
// file is fine.
func walkPages(f *os.File, visit func(bucket, key, value []byte)) (whole bool, err error) {
	if info, err := f.Stat(); err != nil || info.Size() == 0 {
		return true, err
	}
	meta, whole, err := newestMeta(f)
	if err != nil {
		return false, err
	}
	w := &pageWalk{file: f, meta: meta, seen: map[uint64]bool{}, visit: visit}
	return whole, w.page(meta.root, keyRange{}, nil, 0)
}

// keyRange is what the keys of a page must be in: from is in it, to is not; nil is no bound.
type keyRange struct{ from, to []byte }

// page checks a page and all below it. bucket is nil for the tree of the top buckets themselves.
func (w *pageWalk) page(id uint64, keys keyRange, bucket []byte, depth int) error {
	if depth > maxDepth {
		return corrupt("page %d is too deep", id)
	}
	b, err := w.read(id)
	if err != nil {
		return err
	}
	switch flags := binary.NativeEndian.Uint16(b[8:]); flags {
	case pageLeaf:
		err = w.leaf(b, keys, bucket, depth)
	case pageBranch:
		err = w.branch(b, keys, bucket, depth)
	default:
		err = corrupt("its type is %#x", flags)
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// read reads a page with those it flows over to. Every page has one place in the tree.
func (w *pageWalk) read(id uint64) ([]byte, error) {
	b, err := w.readAt(id, 1)
	if err != nil {
		return nil, err
	}
	if own := binary.NativeEndian.Uint64(b); own != id {
		return nil, corrupt("page %d says that it is page %d", id, own)
	}
	n := 1 + uint64(binary.NativeEndian.Uint32(b[12:]))
	if n > 1 {
		if b, err = w.readAt(id, n); err != nil {
			return nil, err
		}
	}
	for i := range n {
		if w.seen[id+i] {
			return nil, corrupt("page %d is used twice", id+i)
		}
		w.seen[id+i] = true
	}
	return b, nil
}

func (w *pageWalk) readAt(id, n uint64) ([]byte, error) {
	if id < 2 || id >= w.meta.pages || n > w.meta.pages-id {
		return nil, corrupt("page %d, %d long, is outside of the %d there are", id, n, w.meta.pages)
	}
	size := int64(w.meta.pageSize)
	// A short file is noticed before memory is set aside for what a damaged page claims to be.
	var last [1]byte
	if _, err := w.file.ReadAt(last[:], int64(id+n)*size-1); err != nil {
		return nil, readError(id, err)
	}
	b := make([]byte, int64(n)*size)
	if _, err := w.file.ReadAt(b, int64(id)*size); err != nil {
		return nil, readError(id, err)
	}
	return b, nil
}

func readError(id uint64, err error) error {
	if errors.Is(err, io.EOF) {
		return corrupt("page %d is behind the end of the file", id)
	}
	return err
}

func (w *pageWalk) leaf(b []byte, keys keyRange, bucket []byte, depth int) error {
	return elements(b, keys, func(header, key, value []byte) error {
		nested := binary.NativeEndian.Uint32(header)
		switch {
		case nested == elementBucket && bucket == nil:
			return w.bucket(key, value, key, depth)
		case nested == elementBucket:
			return w.bucket(key, value, bucket, depth)
		case nested != 0 || bucket == nil:
			return corrupt("element %q has the flags %#x", key, nested)
		}
		w.visit(bucket, key, value)
		return nil
	})
}

// bucket checks a nested bucket: a small one has its only page in the value itself.
func (w *pageWalk) bucket(key, value, top []byte, depth int) error {
	if len(value) < bucketHeader {
		return corrupt("bucket %q has no root", key)
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return w.page(root, keyRange{}, top, depth+1)
	}
	inline := value[bucketHeader:]
	if len(inline) < pageHeader || binary.NativeEndian.Uint16(inline[8:]) != pageLeaf || depth > maxDepth {
		return corrupt("bucket %q has no page", key)
	}
	return w.leaf(inline, keyRange{}, top, depth+1)
}

func (w *pageWalk) branch(b []byte, keys keyRange, bucket []byte, depth int) error {
	type child struct {
		id  uint64
		key []byte
	}
	var children []child
	err := elements(b, keys, func(header, key, _ []byte) error {
		children = append(children, child{binary.NativeEndian.Uint64(header[8:]), key})
		return nil
	})
	if err == nil && len(children) == 0 {
		return corrupt("it has no children")
	}
	for i, c := range children {
		if err != nil {
			return err
		}
		within := keyRange{from: c.key, to: keys.to}
		if i+1 < len(children) {
			within.to = children[i+1].key
		}
		err = w.page(c.id, within, bucket, depth+1)
	}
	return err
}

// elements hands over the elements of a page in order, after a check that they lie in it as bbolt puts them: the headers, then
// each key and value behind the one before, in the order of the keys.
func elements(b []byte, keys keyRange, each func(header, key, value []byte) error) error {
	ne := binary.NativeEndian
	flags, count := ne.Uint16(b[8:]), int(ne.Uint16(b[10:]))
	next := uint64(pageHeader + count*elementHeader)
	if next > uint64(len(b)) {
		return corrupt("%d elements do not fit", count)
	}
	if count == 0 && len(b) >= pageHeader+elementHeader && !bytes.Equal(b[pageHeader:pageHeader+elementHeader], make([]byte, elementHeader)) {
		return corrupt("it has elements but counts none")
	}
	previous := keys.from
	for i := range count {
		at := pageHeader + i*elementHeader
		header := b[at : at+elementHeader]
		pos, keySize, valueSize := ne.Uint32(header), ne.Uint32(header[4:]), uint32(0)
		if flags == pageLeaf {
			pos, keySize, valueSize = ne.Uint32(header[4:]), ne.Uint32(header[8:]), ne.Uint32(header[12:])
		}
		end := next + uint64(keySize) + uint64(valueSize)
		if uint64(at)+uint64(pos) != next || keySize == 0 || end > uint64(len(b)) {
			return corrupt("element %d is not where it should be", i)
		}
		key := b[next : next+uint64(keySize)]
		order := bytes.Compare(previous, key)
		if order > 0 || order == 0 && i > 0 || keys.to != nil && bytes.Compare(key, keys.to) >= 0 {
			return corrupt("key %q is out of order", key)
		}
		if err := each(header, key, b[next+uint64(keySize):end]); err != nil {
			return err
		}
		previous, next = key, end
	}
	if inline := ne.Uint64(b) == 0; inline && next != uint64(len(b)) {
		return corrupt("an inline page has %d bytes, its elements fill %d", len(b), next)
	}
	return nil
}
