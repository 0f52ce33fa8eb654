package runtimetest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Leftover is the containerd that Start made in dir in a process that has died since. It is for Crash.
func Leftover(dir string) *Containerd {
	return &Containerd{Dir: dir, Address: filepath.Join(dir, socketName), cgroups: map[string]bool{}}
}

// Crash is a power cut: containerd and everything it ran end at once, and what would be in memory is gone. The disk is as it was,
// and Restart boots again.
func (c *Containerd) Crash() error {
	if err := errors.Join(c.Kill(), c.killAtOnce(), c.removeSockets()); err != nil {
		return err
	}
	state := filepath.Join(c.Dir, "state")
	bundles, _ := filepath.Glob(filepath.Join(state, "io.containerd.runtime.v2.task/*/*"))
	for _, bundle := range bundles {
		ns, id := filepath.Base(filepath.Dir(bundle)), filepath.Base(bundle)
		if err := os.RemoveAll(filepath.Join("/run/containerd/runc", ns, id)); err != nil {
			return fmt.Errorf("cannot remove runc's state of %s: %w", id, err)
		}
		_ = os.Remove(filepath.Join("/run/containerd/runc", ns)) // one that is used stays
	}
	if err := unmountUnder(state); err != nil {
		return err
	}
	if err := os.RemoveAll(state); err != nil {
		return fmt.Errorf("cannot remove containerd's state: %w", err)
	}
	return nil
}

// killAtOnce kills the shims and all below them. A shim that stands still sees nobody die.
func (c *Containerd) killAtOnce() error {
	deadline := time.Now().Add(stopTimeout)
	for time.Now().Before(deadline) {
		shims := c.Shims()
		if len(shims) == 0 {
			return nil
		}
		signalAll(shims, syscall.SIGSTOP)
		if below := descendants(shims); len(below) > 0 {
			signalAll(below, syscall.SIGKILL)
		} else {
			signalAll(shims, syscall.SIGKILL)
		}
		time.Sleep(time.Millisecond)
	}
	return fmt.Errorf("shims and containers do not end: %v", c.Shims())
}

func signalAll(pids []int, signal syscall.Signal) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, signal) // gone already
	}
}

// descendants are the processes below, the dead left out.
func descendants(pids []int) []int {
	children := make(map[int][]int)
	for _, pid := range processes() {
		parent := parentOf(pid)
		children[parent] = append(children[parent], pid)
	}
	var found []int
	for todo := pids; len(todo) > 0; todo = todo[1:] {
		for _, pid := range children[todo[0]] {
			todo = append(todo, pid)
			if Alive(pid) {
				found = append(found, pid)
			}
		}
	}
	return found
}
