package cluster

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// smallDisk mounts a file system of 1 MiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("picket-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all the space there is.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(bytes.Repeat([]byte{1}, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

func TestFullDisk(t *testing.T) {
	dir := smallDisk(t)
	path, filler := filepath.Join(dir, "state.db"), filepath.Join(dir, "filler")
	db := openDB(t, path)
	s := openStore(t, db)
	put(t, s, content("a", "1"), content("b", "1"))
	before := s.All()
	for range 5 {
		fill(t, filler)
		for range 20 {
			stored, err := s.PutAll([]Write{content("c", strings.Repeat("x", 40_000)), content("a", "2")})
			if err == nil {
				t.Fatalf("a full disk took %d bytes", len(stored[0].Body))
			}
			if !strings.Contains(err.Error(), path) || !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("the error is %q", err)
			}
		}
		if !sameObjects(s.All(), before) {
			t.Fatalf("failed writes are shown: %+v", s.All())
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		put(t, s, content("b", strings.Repeat("y", 10_000)))
		put(t, s, content("b", "3"))
		before = s.All()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = openDB(t, path)
		if s = openStore(t, db); !sameObjects(s.All(), before) || len(s.Damaged()) > 0 {
			t.Fatalf("reopened: %+v, want %+v; damaged %v", s.All(), before, s.Damaged())
		}
	}
}

func TestNewFileOnAFullDisk(t *testing.T) {
	dir := smallDisk(t)
	path, filler := filepath.Join(dir, "state.db"), filepath.Join(dir, "filler")
	fill(t, filler)
	if _, _, err := OpenDB(path); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "no space") {
		t.Errorf("OpenDB: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	put(t, openStore(t, openDB(t, path)), content("a", "1"))
}

func TestReadOnlyDisk(t *testing.T) {
	dir := smallDisk(t)
	path := filepath.Join(dir, "state.db")
	remount := func(flags uintptr) {
		t.Helper()
		if err := syscall.Mount("picket-test", dir, "tmpfs", syscall.MS_REMOUNT|flags, "size=1m"); err != nil {
			t.Fatal(err)
		}
	}
	remount(syscall.MS_RDONLY)
	if _, _, err := OpenDB(path); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("OpenDB of a new file: %v", err)
	}
	remount(0)
	db := openDB(t, path)
	s := openStore(t, db)
	put(t, s, content("a", "1"))
	before := s.All()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	remount(syscall.MS_RDONLY)
	if _, setAside, err := OpenDB(path); err == nil || setAside != "" || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("OpenDB set aside %q: %v", setAside, err)
	}
	remount(0)
	if s = openStore(t, openDB(t, path)); !sameObjects(s.All(), before) {
		t.Errorf("then there is %+v", s.All())
	}
}
