package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestOpenDBIsDurableAndSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := openDB(t, path)
	if db.NoSync || db.NoGrowSync {
		t.Error("the database does not sync")
	}
	put(t, openStore(t, db), content("web", "1"))
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() > 512<<10 {
		t.Errorf("the file has mode %v and %d bytes: %v", info.Mode(), info.Size(), err)
	}
}

func TestOpenDBOfARunningAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := openDB(t, path)
	_, setAside, err := OpenDB(path)
	if err == nil || setAside != "" || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "another picketd") {
		t.Errorf("a second OpenDB set aside %q: %v", setAside, err)
	}
	put(t, openStore(t, db), content("web", "1"))
}

// An agent that waited for the lock of a file that is set aside meanwhile must not work on that.
func TestOpenDBTwiceOnADamagedFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	if err := os.WriteFile(path, bytes.Repeat([]byte("no database "), 2000), 0o600); err != nil {
		t.Fatal(err)
	}
	var opens sync.WaitGroup
	for range 4 {
		opens.Go(func() {
			db, _, err := OpenDB(path)
			if err != nil {
				t.Error(err)
				return
			}
			if db.Path() != path {
				t.Errorf("opened %s", db.Path())
			}
			_ = db.Close()
		})
	}
	opens.Wait()
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left are %v", entries)
	}
}

func TestOpenDBKeepsWhatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	for name, path := range map[string]string{
		"a directory":         dir,
		"a missing directory": filepath.Join(dir, "none", "state.db"),
		"a device":            "/dev/full",
	} {
		if _, setAside, err := OpenDB(path); err == nil || setAside != "" || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: set aside %q, error %v", name, setAside, err)
		}
	}
}

// brokenDisk fails to read from an offset on.
type brokenDisk struct {
	io.ReaderAt
	from int64
}

func (d brokenDisk) ReadAt(b []byte, at int64) (int, error) {
	if at+int64(len(b)) > d.from {
		return 0, errors.New("input/output error")
	}
	return d.ReaderAt.ReadAt(b, at)
}

func TestADiskThatFailsIsNoDamagedFile(t *testing.T) {
	file, _, _ := realFile(t)
	for from := range int64(len(file)) {
		if from%512 != 0 {
			continue
		}
		disk := brokenDisk{bytes.NewReader(file), from}
		meta, _, err := newestMeta(disk)
		if err == nil {
			w := &pageWalk{file: disk, meta: meta, seen: map[uint64]bool{}, visit: func(_, _, _ []byte) {}}
			err = w.page(meta.root, keyRange{}, nil, 0)
		}
		if errors.Is(err, errCorrupt) {
			t.Fatalf("a read error at %d is taken for damage: %v", from, err)
		}
	}
}

func TestALockedFileThatWasMovedIsNotUsed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	f, err := openLocked(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := isStill(f, path); err != nil {
		t.Error(err)
	}
	if _, err := moveAside(path); err != nil {
		t.Fatal(err)
	}
	if err := isStill(f, path); !errors.Is(err, errMoved) {
		t.Errorf("after it was moved: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := isStill(f, path); !errors.Is(err, errMoved) {
		t.Errorf("after another took its place: %v", err)
	}
}

func TestAnEmptyFileIsANewOne(t *testing.T) {
	o, done := openBytes(t, t.TempDir(), nil)
	defer done()
	if o.setAside != "" || len(o.objects) > 0 {
		t.Errorf("set aside %q, objects %v", o.setAside, o.objects)
	}
}

func FuzzWalkPages(f *testing.F) {
	path := filepath.Join(f.TempDir(), "seed.db")
	db := openDB(f, path)
	put(f, openStore(f, db), content("web", "1"))
	_ = db.Close()
	seed, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, file []byte) {
		r := bytes.NewReader(file)
		meta, _, err := newestMeta(r)
		if err != nil {
			return
		}
		w := &pageWalk{file: r, meta: meta, seen: map[uint64]bool{}, visit: func(_, _, _ []byte) {}}
		if err := w.page(meta.root, keyRange{}, nil, 0); err != nil && !errors.Is(err, errCorrupt) {
			t.Error(err)
		}
	})
}

func BenchmarkOpenDB(b *testing.B) {
	path := filepath.Join(b.TempDir(), "state.db")
	db := openDB(b, path)
	var writes []Write
	for i := range 1000 {
		writes = append(writes, content(fmt.Sprintf("DaemonSet/default/web-%d", i), strings.Repeat("x", 4000)))
	}
	put(b, openStore(b, db), writes...)
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		db, _, err := OpenDB(path)
		if err != nil {
			b.Fatal(err)
		}
		_ = db.Close()
	}
}
