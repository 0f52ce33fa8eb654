package runtimetest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// runcRoot is where containerd's shims have runc keep its state, by containerd's namespaces.
const runcRoot = "/run/containerd/runc"

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
	if err := c.forgetRunc(); err != nil {
		return err
	}
	state := filepath.Join(c.Dir, "state")
	if err := unmountUnder(state); err != nil {
		return err
	}
	for _, path := range []string{state, c.Address, c.Address + ".ttrpc"} {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("cannot remove containerd's state: %w", err)
		}
	}
	return nil
}

// forgetRunc removes what runc remembers of the containers, outside of Dir.
func (c *Containerd) forgetRunc() error {
	for _, part := range []string{"state", "root"} { // root's has a namespace's name even when nothing runs in it
		tasks := filepath.Join(c.Dir, part, "io.containerd.runtime.v2.task")
		bundles, _ := filepath.Glob(filepath.Join(tasks, "*/*"))
		for _, bundle := range bundles {
			ns, id := filepath.Base(filepath.Dir(bundle)), filepath.Base(bundle)
			if err := os.RemoveAll(filepath.Join(runcRoot, ns, id)); err != nil {
				return fmt.Errorf("cannot remove runc's state of %s: %w", id, err)
			}
		}
		all, _ := filepath.Glob(filepath.Join(tasks, "*"))
		for _, ns := range all {
			_ = os.Remove(filepath.Join(runcRoot, filepath.Base(ns))) // one that is used stays
		}
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
