package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	goruntime "runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// The descriptors that the shim passes.
const (
	fdStdout = 3
	fdStderr = 4
	fdReady  = 5
)

// patience is how long the pipes may stay open after SIGTERM, and how long a logger that is about to end may keep the lock.
const patience = 2 * time.Second

// options are the arguments, see the package comment.
type options struct {
	path     string
	lock     string
	maxSize  int64
	maxFiles int
}

func main() { os.Exit(run(os.Args[1:])) }

// run returns the exit code: 0 end of file, 1 the lock is taken, 2 bad arguments.
func run(args []string) int {
	switch {
	case len(args) == 1 && args[0] == "--pause":
		return pause()
	case len(args) == 2 && args[0] == "--compress": // see packer
		if err := compress(args[1]); err != nil {
			return fail(1, err)
		}
		return 0
	}
	o, err := parse(args)
	if err != nil {
		return fail(2, err)
	}
	// One processor and a small heap: each more costs memory, and hardly anything is allocated once it runs.
	goruntime.GOMAXPROCS(1)
	debug.SetGCPercent(10)
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP)
	if err := serve(o, terminated); err != nil {
		return fail(1, err)
	}
	return 0
}

func fail(code int, err error) int {
	fmt.Fprintln(os.Stderr, "picket-logger:", err)
	return code
}

// parse reads keys and values. The shim takes them from a URI's query, in no order.
func parse(args []string) (options, error) {
	o := options{maxSize: 10 << 20, maxFiles: 5}
	if len(args)%2 != 0 {
		return o, fmt.Errorf("%q has no value", args[len(args)-1])
	}
	for i := 0; i < len(args); i += 2 {
		if err := o.set(args[i], args[i+1]); err != nil {
			return o, fmt.Errorf("cannot use %s %q: %w", args[i], args[i+1], err)
		}
	}
	if o.path == "" {
		return o, errors.New("path is missing")
	}
	return o, nil
}

func (o *options) set(key, value string) (err error) {
	switch key {
	case "path":
		o.path = value
	case "lock":
		o.lock = value
	case "max-size":
		if o.maxSize, err = strconv.ParseInt(value, 10, 64); err == nil && o.maxSize < 1 {
			return errors.New("it must be positive")
		}
	case "max-files":
		if o.maxFiles, err = strconv.Atoi(value); err == nil && o.maxFiles < 1 {
			return errors.New("it must be positive")
		}
	default:
		return errors.New("no such option")
	}
	return err
}

// serve logs both streams until they end.
func serve(o options, terminated <-chan os.Signal) error {
	for fd := fdStdout; fd <= fdReady; fd++ {
		if !isPipe(fd) {
			return fmt.Errorf("descriptor %d is no pipe: picket-logger is started by a containerd shim", fd)
		}
	}
	stdout, stderr := inherit(fdStdout, "stdout"), inherit(fdStderr, "stderr")
	if err := takeLock(o.lock); err != nil {
		return err
	}
	file := newLogFile(o.path, o.maxSize, o.maxFiles)
	var streams sync.WaitGroup
	streams.Go(func() { cut(stdout, file, streamStdout) })
	streams.Go(func() { cut(stderr, file, streamStderr) })
	go func() {
		<-terminated
		giveUp := time.Now().Add(patience)
		_ = stdout.SetReadDeadline(giveUp) // a file that takes no deadline ends by itself
		_ = stderr.SetReadDeadline(giveUp)
	}()
	ready()
	streams.Wait()
	file.close()
	return nil
}

// isPipe tells the shim's descriptors from what the Go runtime opens when they are missing.
func isPipe(fd int) bool {
	var stat syscall.Stat_t
	return syscall.Fstat(fd, &stat) == nil && stat.Mode&syscall.S_IFMT == syscall.S_IFIFO
}

// inherit is the pipe that the shim passed. Reading it must not hold a thread, and no compressor may hold it.
func inherit(fd int, name string) *os.File {
	_ = syscall.SetNonblock(fd, true) // else it is read as it is
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}

// ready lets the shim start the container. It may have given up meanwhile; then the pipes end.
func ready() {
	_, _ = syscall.Write(fdReady, []byte{0})
	_ = syscall.Close(fdReady)
}
