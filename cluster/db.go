package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
)

const (
	// lockTimeout is how long OpenDB waits for another process to let go of the file, lockInterval how often it asks.
	lockTimeout  = time.Second
	lockInterval = 20 * time.Millisecond

	// mapSize is address space, not memory: a file below it never has to be mapped anew, which would wait for all readers.
	mapSize = 64 << 20
	// allocSize is what the file grows by.
	allocSize = 128 << 10
)

// OpenDB opens the state file, or makes it. A file of which a part is damaged is kept aside, under the name that is returned,
// and the database holds what it held before the last transaction, when only a meta page is damaged, or else nothing. A file
// that cannot be read or locked, for whatever other reason, is an error and stays what it is.
//
// Single damaged values are not its business, but for the Store's: it notices when objects are missing.
func OpenDB(path string) (db *bbolt.DB, setAside string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot open the state file %s: %w", path, err)
		}
	}()
	f, err := openLocked(path)
	if err != nil {
		return nil, "", err
	}
	whole, err := inspect(f)
	switch {
	case errors.Is(err, errCorrupt):
		if setAside, err = moveAside(path); err == nil {
			_ = f.Close()
			f, err = openLocked(path)
		}
	case err == nil && !whole:
		setAside, err = copyAside(path, f)
	}
	if err != nil {
		_ = f.Close()
		return nil, "", err
	}
	db, err = openBolt(path, f)
	if err != nil {
		return nil, setAside, err
	}
	// bbolt syncs the file it makes, but not its name.
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, setAside, errors.Join(err, db.Close())
	}
	return db, setAside, nil
}

// inspect reads the whole file. It is not whole when the last transaction may be lost.
func inspect(f *os.File) (whole bool, err error) {
	var found census
	var kept []byte
	whole, err = walkPages(f, func(bucket, key, value []byte) {
		switch {
		case bytes.Equal(bucket, bucketObjects):
			found.add(key, value)
		case bytes.Equal(bucket, bucketCensus):
			kept = slices.Clone(value)
		}
	})
	if err != nil {
		return false, err
	}
	if err := found.compare(kept); errors.Is(err, errMissing) {
		return false, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return whole, nil
}

// openLocked opens the file and locks it as bbolt does. The lock is held from before the first look to the database's end, so
// that nobody writes to what is being inspected or sets it aside twice.
func openLocked(path string) (*os.File, error) {
	deadline := time.Now().Add(lockTimeout)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			if err = isStill(f, path); err == nil {
				return f, nil
			}
		}
		_ = f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, errMoved) {
			return nil, fmt.Errorf("cannot lock it: %w", err)
		}
		if time.Now().After(deadline) {
			return nil, errors.New("it is locked: another picketd is running with it")
		}
		time.Sleep(lockInterval)
	}
}

var errMoved = errors.New("the file was moved")

// isStill says whether the path still leads to the file: whoever had the lock before may have set it aside.
func isStill(f *os.File, path string) error {
	opened, err := f.Stat()
	if err != nil {
		return err
	}
	if now, err := os.Stat(path); err != nil || !os.SameFile(now, opened) {
		return errMoved
	}
	return nil
}

func openBolt(path string, f *os.File) (db *bbolt.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, errors.Join(fmt.Errorf("bbolt panicked: %v", r), f.Close())
		}
	}()
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: lockTimeout,
		// A list of free pages on disk could be damaged unnoticed; a scan at start cannot.
		NoFreelistSync:  true,
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: mapSize,
		OpenFile:        func(string, int, os.FileMode) (*os.File, error) { return f, nil },
	})
	if err != nil {
		return nil, err
	}
	db.AllocSize = allocSize
	return db, nil
}

// asideName is a free name for what is damaged.
func asideName(path string) string {
	name := path + ".corrupt-" + time.Now().UTC().Format("20060102T150405Z")
	for try, n := name, 2; ; n++ {
		if _, err := os.Lstat(try); errors.Is(err, os.ErrNotExist) || n > 1000 {
			return try
		}
		try = fmt.Sprintf("%s-%d", name, n)
	}
}

func moveAside(path string) (string, error) {
	name := asideName(path)
	if err := os.Rename(path, name); err != nil {
		return "", fmt.Errorf("it is damaged and cannot be set aside: %w", err)
	}
	return name, syncDir(filepath.Dir(path))
}

func copyAside(path string, f *os.File) (name string, err error) {
	name = asideName(path)
	to, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("it is damaged and cannot be copied: %w", err)
	}
	info, err := f.Stat()
	if err == nil {
		_, err = io.Copy(to, io.NewSectionReader(f, 0, info.Size()))
	}
	if err = errors.Join(err, to.Sync(), to.Close()); err != nil {
		return "", errors.Join(fmt.Errorf("it is damaged and cannot be copied: %w", err), os.Remove(name))
	}
	return name, syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
