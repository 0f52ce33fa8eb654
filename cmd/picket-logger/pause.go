package main

import (
	"os"
	"os/signal"
	"syscall"
)

// pause reaps orphans until SIGTERM or SIGINT. The kernel spares PID 1 the signals it has no handler for; Go handles them all,
// so the ones that would end the process are ignored by name: a container's "kill -HUP 1" must not end its pod's namespace.
func pause() int {
	ended, terminated := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	signal.Notify(terminated, syscall.SIGTERM, syscall.SIGINT)
	signal.Ignore(syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGALRM, syscall.SIGVTALRM, syscall.SIGPIPE,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTRAP, syscall.SIGSYS, syscall.SIGXCPU, syscall.SIGXFSZ, syscall.SIGSTKFLT)
	for {
		reap() // also what ended before the first signal could be caught
		select {
		case <-ended:
		case <-terminated:
			return 0
		}
	}
}

// reap waits for every child that has ended.
func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if pid <= 0 && err != syscall.EINTR {
			return
		}
	}
}
