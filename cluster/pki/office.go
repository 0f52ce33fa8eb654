package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Init makes dir, on an administrator's machine, the place where a fleet's certificates come from: an authority and a first gossip
// key. Nothing that is there is replaced: it is fs.ErrExist when there is an authority. What a crash has interrupted is finished.
func Init(dir, cluster string, now time.Time) (a *Authority, g GossipKeys, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, g, fmt.Errorf("cannot make the directory of the authority: %w", err)
	}
	err = alone(dir, func() error {
		for _, name := range []string{FileCA, FileHost} {
			if err := absent(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
		// The authority comes last: with it, this is done.
		path := filepath.Join(dir, FileGossipKeys)
		if g, err = ReadGossipKeys(path); errors.Is(err, fs.ErrNotExist) {
			g, err = firstGossipKey(dir, now)
		}
		if err != nil {
			return err
		}
		a, err = ownAuthority(dir, cluster, now, &Start{})
		return err
	})
	return a, g, err
}

// HostKit is what a host gets from its administrator: the content of its directory of certificates.
type HostKit struct {
	CA     []byte // PEM
	Pair   Pair
	Gossip GossipKeys
}

// Write writes ca.crt, gossip.keys, host.key and host.crt, in this order: a host.crt that is new is one that can be used. Without
// replace it is fs.ErrExist when one of them is there. Where an authority's key is, it writes nothing: what is copied to a host
// from there would take the key along.
func (k HostKit) Write(dir string, replace bool) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the directory of the host's certificate: %w", err)
	}
	if found, err := exists(filepath.Join(dir, FileCAKey)); err != nil {
		return err
	} else if found {
		return fmt.Errorf("%s holds %s, which must not get to a host: a host's files go into another directory", dir, FileCAKey)
	}
	for _, name := range []string{FileCA, FileGossipKeys, FileHostKey, FileHost} {
		if err := absent(filepath.Join(dir, name)); err != nil && !(replace && errors.Is(err, fs.ErrExist)) {
			return err
		}
	}
	if err := writeFile(filepath.Join(dir, FileCA), k.CA, 0o644); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, FileGossipKeys), k.Gossip.text, 0o600); err != nil {
		return err
	}
	return WritePair(filepath.Join(dir, FileHost), filepath.Join(dir, FileHostKey), k.Pair)
}

// WriteSecret writes a file of mode 0600 and makes the directories it is in. Without replace it is fs.ErrExist when it is there.
func WriteSecret(path string, data []byte, replace bool) error {
	if err := absent(path); err != nil && !(replace && errors.Is(err, fs.ErrExist)) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("cannot make the directory of %s: %w", path, err)
	}
	return writeFile(path, data, 0o600)
}

// absent is fs.ErrExist when there is something.
func absent(path string) error {
	found, err := exists(path)
	if found {
		return fmt.Errorf("%s: %w", path, fs.ErrExist)
	}
	return err
}

// alone runs f unless another process is at it in the same directory: two would each make an authority, or lose a key of the other.
func alone(dir string, f func() error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	switch err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return fmt.Errorf("another process makes certificates in %s: wait for it to end", dir)
	case err != nil:
		return fmt.Errorf("cannot lock %s: %w", dir, err)
	}
	return f()
}
