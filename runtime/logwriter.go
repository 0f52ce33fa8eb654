package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A container's output goes through two pipes to a picket-logger, which the shim starts and whose death it does not notice: the
// container would block on a full pipe, or die of SIGPIPE, and nobody can be put in the logger's place. So we watch. The logger
// is a child of the shim, as the container's first process is; the shim names the container in its environment.

// logWriters are the loggers that are being watched, by the container's key.
type logWriters struct {
	mu      sync.Mutex
	watched map[string]*os.File // pidfds; closing one ends its watch
	closed  bool
	running sync.WaitGroup // the watches' goroutines
}

// watch runs f on a goroutine that close waits for; after close it does nothing.
func (w *logWriters) watch(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.running.Go(f)
	}
}

// forget ends a watch: what happens to the logger is no news any more.
func (w *logWriters) forget(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f, ok := w.watched[key]; ok {
		delete(w.watched, key)
		f.Close()
	}
}

// close ends every watch, also those that are just beginning.
func (w *logWriters) close() {
	w.mu.Lock()
	w.closed = true
	for key, f := range w.watched {
		delete(w.watched, key)
		f.Close()
	}
	w.mu.Unlock()
	w.running.Wait()
}

// add reports false when the container is watched already.
func (w *logWriters) add(key string, f *os.File) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.watched[key]; ok || w.closed {
		return false
	}
	if w.watched == nil {
		w.watched = map[string]*os.File{}
	}
	w.watched[key] = f
	return true
}

// watchLogWriter finds the logger of a container whose process is pid and reports its death, EventLogWriterLost, while the
// container lives. It does not wait.
func (r *Runtime) watchLogWriter(key string, pid int) {
	if !r.known.get(key).logged {
		return
	}
	r.writers.watch(func() {
		shim := procStat(pid).parent
		f, err := findLogWriter(shim, key)
		if errors.Is(err, unix.ENOSYS) {
			r.log.Warn("this kernel cannot watch the containers' log writers; Linux 5.3 can", "error", err)
			return
		}
		if err != nil {
			r.logWriterGone(key, pid, shim)
			return
		}
		if !r.writers.add(key, f) {
			f.Close()
			return
		}
		if waitForEnd(f) {
			r.writers.forget(key)
			r.logWriterGone(key, pid, shim)
		}
	})
}

// logWriterGone reports a container that lives on without its logger. With the container itself, or with the shim, it may go.
func (r *Runtime) logWriterGone(key string, pid, shim int) {
	container := procStat(pid)
	if !container.alive || container.parent != shim || !procStat(shim).alive {
		return
	}
	c := r.known.get(key)
	r.log.Warn("the container's log writer died", "container", c.id)
	r.hub.publish(Event{Kind: EventLogWriterLost, ContainerID: c.id, PodUID: c.podUID, At: time.Now()})
}

// findLogWriter opens a pidfd of the shim's child that writes the container's log.
func findLogWriter(shim int, key string) (*os.File, error) {
	for _, pid := range childrenOf(shim) {
		if !isLogWriter(pid, shim, key) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
		if err != nil {
			return nil, fmt.Errorf("cannot watch process %d: %w", pid, err)
		}
		f := os.NewFile(uintptr(fd), "pidfd")
		if isLogWriter(pid, shim, key) { // the number did not change hands meanwhile
			return f, nil
		}
		f.Close()
	}
	return nil, fmt.Errorf("shim %d has no log writer for %s", shim, key)
}

// isLogWriter: no process of a container's can pass for a logger, for they are in mount namespaces of their own.
func isLogWriter(pid, shim int, key string) bool {
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || !slices.Contains(strings.Split(string(environ), "\x00"), "CONTAINER_ID="+key) {
		return false
	}
	of := func(pid int) string {
		ns, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid)) // gone: no match
		return ns
	}
	return of(pid) == of(shim) && of(pid) != ""
}

// waitForEnd waits until the process ends, or returns false when the watch does.
func waitForEnd(pidfd *os.File) bool {
	conn, err := pidfd.SyscallConn()
	if err != nil {
		return false
	}
	return conn.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 0)
		return err == nil && n > 0
	}) == nil
}

// proc is what /proc/<pid>/stat tells of a process.
type proc struct {
	alive  bool // and no zombie
	parent int
}

func procStat(pid int) proc {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return proc{}
	}
	text := string(stat)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // the name before may contain anything
	if len(fields) < 2 {
		return proc{}
	}
	parent, _ := strconv.Atoi(fields[1])
	return proc{alive: fields[0] != "Z" && fields[0] != "X", parent: parent}
}

// childrenOf lists a process's children, from whichever of its threads.
func childrenOf(pid int) []int {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is well-formed
	var pids []int
	for _, list := range lists {
		data, _ := os.ReadFile(list) // a thread that ended
		for _, field := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(field); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}
