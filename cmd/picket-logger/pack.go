package main

import (
	"compress/gzip"
	"errors"
	"io"
	"os"
	goruntime "runtime"
	"sync"
	"syscall"
)

var errStopped = errors.New("the container has ended")

// packer compresses rotated files beside the logging, all but the newest: readers are likely still at that one. Each is done by
// a process of its own, for a compressor's megabyte would stay with every logger that ever rotated.
type packer struct {
	log     *logFile
	work    chan struct{} // holds one: there may be something to do
	start   sync.Once
	running sync.WaitGroup

	mu      sync.Mutex
	stopped bool
	child   *os.Process
}

func (p *packer) init(l *logFile) {
	p.log = l
	p.work = make(chan struct{}, 1)
}

// wake makes the packer look. Most logs never rotate: it starts with the first that does.
func (p *packer) wake() {
	p.start.Do(func() { p.running.Go(p.run) })
	select {
	case p.work <- struct{}{}:
	default:
	}
}

// stop ends it; what is half compressed stays as it was. No wake may follow.
func (p *packer) stop() {
	p.mu.Lock()
	p.stopped = true
	if p.child != nil {
		_ = p.child.Kill() // it may have ended
	}
	p.mu.Unlock()
	close(p.work)
	p.running.Wait()
}

func (p *packer) run() {
	goruntime.LockOSThread() // a compressor dies with the thread that has started it: with the logger, not before
	for range p.work {
		p.packAll()
	}
}

// packAll compresses all but the newest. What fails, for the disk is full, is tried at the next rotation.
func (p *packer) packAll() {
	files := p.log.rotatedFiles()
	for i, f := range files {
		if i == len(files)-1 || f.compressed() {
			continue
		}
		if files[i+1].when == f.when { // the compressed form is complete, it has its name
			_ = os.Remove(f.path)
			continue
		}
		err := p.runCompressor(f.path)
		if err == nil {
			err = p.replace(f.path)
		}
		if err != nil {
			_ = os.Remove(f.path + unfinished)
		}
	}
}

// runCompressor lets a child make path's unfinished form.
func (p *packer) runCompressor(path string) error {
	p.mu.Lock()
	if p.stopped {
		p.mu.Unlock()
		return errStopped
	}
	child, err := os.StartProcess("/proc/self/exe", []string{os.Args[0], "--compress", path}, &os.ProcAttr{
		Env: []string{},                                       // CONTAINER_ID is the mark of a logger
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}, // the next logger's compressor writes the same file
	})
	p.child = child
	p.mu.Unlock()
	if err != nil {
		return err
	}
	state, err := child.Wait()
	p.mu.Lock()
	p.child = nil
	p.mu.Unlock()
	if err == nil && !state.Success() {
		err = errors.New("compression failed")
	}
	return err
}

// replace gives the compressed form its name, unless the file was pruned meanwhile.
func (p *packer) replace(path string) error {
	p.log.Lock()
	defer p.log.Unlock()
	if _, err := os.Lstat(path); err != nil {
		return err
	}
	if err := os.Rename(path+unfinished, path+compressed); err != nil {
		return err
	}
	return os.Remove(path)
}

// compress is the child: it writes the compressed form of path beside it, sure to be on the disk, for path goes then.
func compress(path string) error {
	goruntime.LockOSThread() // a priority is a thread's
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19)
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	_ = os.Remove(path + unfinished) // of a logger that was killed
	out, err := os.OpenFile(path+unfinished, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer out.Close()
	if err := deflate(out, in); err != nil {
		return err
	}
	// Readers skip what is older than they ask for, and know by it which file theirs has become.
	if err := os.Chtimes(out.Name(), info.ModTime(), info.ModTime()); err != nil {
		return err
	}
	return out.Sync()
}

func deflate(out io.Writer, in io.Reader) error {
	w, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, in); err != nil {
		return err
	}
	return w.Close()
}
