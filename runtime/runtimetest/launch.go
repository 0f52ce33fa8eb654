package runtimetest

import (
	"fmt"
	"os"
	"os/exec"
	goruntime "runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// InNetwork runs f on a thread that is in the network namespace mounted at path; "" is the caller's. What f starts, listens on
// or dials without goroutines of its own is in that namespace, and stays there when f has returned.
func InNetwork(path string, f func() error) error {
	result := make(chan error, 1)
	go func() {
		goruntime.LockOSThread() // never unlocked: a goroutine that ends so takes the thread with it
		if unix.Gettid() == unix.Getpid() {
			// The first thread never ends, and it is what /proc/self shows. While it is held here f gets another.
			defer goruntime.UnlockOSThread()
			result <- InNetwork(path, f)
			return
		}
		if err := enterNetwork(path); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

func enterNetwork(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot open the network namespace: %w", err)
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("cannot enter the network namespace %s: %w", path, err)
	}
	return nil
}

// Launch starts a process in a network namespace, "" for the caller's, which the caller's death takes along; keyboard signals are
// not for it. ended is closed when it has ended; how is in cmd.ProcessState then.
func Launch(cmd *exec.Cmd, network string) (ended <-chan struct{}, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	done, started := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(done)
		// The thread lives as long as the process: the kernel means threads by the "parent" of Pdeathsig.
		err := InNetwork(network, func() error {
			if err := cmd.Start(); err != nil {
				return err
			}
			started <- nil
			_ = cmd.Wait() // its state says how it ended
			return nil
		})
		if err != nil {
			started <- err
		}
	}()
	return done, <-started
}
