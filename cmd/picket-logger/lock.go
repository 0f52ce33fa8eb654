package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// takeLock locks path for as long as this process lives and writes the pid into it. A logger of the same container that has not
// ended yet, or an agent that looks at the lock, is waited for.
func takeLock(path string) error {
	if path == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("cannot make the lock's directory: %w", err)
	}
	// The descriptor is never closed: closing it would release the lock.
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CREAT|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return fmt.Errorf("cannot open the lock: %w", err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err = syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) || time.Now().After(deadline) {
			return fmt.Errorf("cannot lock %s: %w", path, err)
		}
	}
	if err := syscall.Ftruncate(fd, 0); err != nil {
		return fmt.Errorf("cannot empty the lock: %w", err)
	}
	if _, err := syscall.Write(fd, append(strconv.AppendInt(nil, int64(os.Getpid()), 10), '\n')); err != nil {
		return fmt.Errorf("cannot write the pid: %w", err)
	}
	return nil
}
