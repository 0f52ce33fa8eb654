package runtime

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const (
	// execDrain bounds how long output is waited for after the command has ended: what it left in the background may hold its pipes.
	execDrain = 2 * time.Second
	// execCleanup bounds the end of a command whose caller is gone.
	execCleanup = 10 * time.Second
)

// Exec runs a command in the container, as the container's user and with its environment, and returns its exit code. When ctx
// ends the command is killed. Exec returns when the command has ended and its output is written; a read from Stdin that is
// then still waiting ends when the caller's reader does. ErrNotFound: the container does not run. ErrStart: no such command.
func (r *Runtime) Exec(ctx context.Context, id string, e ExecConfig) (int, error) {
	ctx = r.ctx(ctx)
	ctr, err := r.client.LoadContainer(ctx, containerKey(id))
	if err != nil {
		return 0, fmt.Errorf("cannot run in container: %w", r.native(err))
	}
	task, err := ctr.Task(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("cannot run in container: it does not run: %w", r.native(err))
	}
	spec, err := ctr.Spec(ctx)
	if err != nil {
		return 0, fmt.Errorf("cannot read the container's spec: %w", r.native(err))
	}
	x := &execution{runtime: r, id: id, config: e, stdin: newStdin(e.Stdin), out: &output{to: e.Stdout}, errs: &output{to: e.Stderr}}
	dir := filepath.Join(r.cfg.RunDir, "exec")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, fmt.Errorf("cannot make the directory of exec's pipes: %w", err)
	}
	x.process, err = task.Exec(ctx, "exec-"+rand.Text(), execProcess(spec.Process, e), x.streams(dir))
	if err != nil {
		return 0, r.execError(ctx, id, err)
	}
	return x.run(ctx)
}

// execError tells a container that does not run from a command that cannot be run.
func (r *Runtime) execError(ctx context.Context, id string, err error) error {
	if err = r.native(err); errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNotFound) {
		return fmt.Errorf("cannot run in container: %w", err)
	}
	if s, statusErr := r.ContainerStatus(ctx, id); statusErr == nil && s.State != ContainerRunning {
		return fmt.Errorf("cannot run in container: it is %s: %w", s.State, ErrNotFound)
	}
	return fmt.Errorf("%w: %w", ErrStart, err)
}

// execProcess is the container's own process with another command.
func execProcess(p *specs.Process, e ExecConfig) *specs.Process {
	p.Args, p.Terminal = e.Command, e.TTY
	p.ConsoleSize, p.CommandLine = nil, ""
	if e.TTY {
		p.Env = append(p.Env, "TERM=xterm")
	}
	return p
}

// execution is one command that is being run.
type execution struct {
	runtime *Runtime
	id      string // of the container
	config  ExecConfig
	process client.Process
	stdin   *stdin
	out     *output
	errs    *output
}

func (x *execution) streams(dir string) cio.Creator {
	var in io.Reader
	if x.stdin != nil {
		in = x.stdin
	}
	opts := []cio.Opt{cio.WithFIFODir(dir)}
	if x.config.TTY {
		return cio.NewCreator(append(opts, cio.WithTerminal, cio.WithStreams(in, x.out, nil))...)
	}
	return cio.NewCreator(append(opts, cio.WithStreams(in, x.out, x.errs))...)
}

// run starts the command and waits for its end.
func (x *execution) run(ctx context.Context) (code int, err error) {
	clean := true
	defer func() {
		if clean {
			x.delete(ctx)
		} else {
			go x.delete(ctx) // the shim, too, waits for what holds the output open
		}
		x.out.end()
		x.errs.end()
	}()
	// Before the start, or a short command's end is missed.
	waiting, stopWaiting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWaiting()
	exit, err := x.process.Wait(waiting)
	if err != nil {
		return 0, fmt.Errorf("cannot wait for command: %w", x.runtime.native(err))
	}
	if err := x.start(ctx); err != nil {
		return 0, x.runtime.execError(ctx, x.id, err)
	}
	done := make(chan struct{})
	defer close(done)
	go x.resize(ctx, done)
	go x.closeStdin(ctx, done)
	select {
	case status := <-exit:
		code, _, err := status.Result()
		if err != nil {
			return 0, fmt.Errorf("lost sight of the command: %w", x.runtime.native(err))
		}
		clean = x.drain()
		return int(code), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("command killed: %w", context.Cause(ctx))
	}
}

func (x *execution) start(ctx context.Context) error {
	ctx, cancel := wholly(ctx)
	defer cancel()
	return x.process.Start(ctx)
}

// resize hands on terminal sizes.
func (x *execution) resize(ctx context.Context, done <-chan struct{}) {
	for {
		select {
		case size, ok := <-x.config.Resize:
			if !ok {
				return
			}
			if err := x.process.Resize(ctx, uint32(size.Width), uint32(size.Height)); err != nil {
				x.runtime.log.Debug("cannot resize terminal", "error", err)
			}
		case <-done:
			return
		}
	}
}

// closeStdin tells the command of the end of its input: the shim holds the pipe open until it is told.
func (x *execution) closeStdin(ctx context.Context, done <-chan struct{}) {
	if x.stdin == nil {
		return
	}
	select {
	case <-x.stdin.ended:
		if err := x.process.CloseIO(ctx, client.WithStdinCloser); err != nil && !errdefs.IsNotFound(err) {
			x.runtime.log.Debug("cannot close a command's input", "error", err)
		}
	case <-done:
	}
}

// drain waits until all output is copied; it reports false when something in the background keeps it open.
func (x *execution) drain() (complete bool) {
	streams := x.process.IO()
	copied := make(chan struct{})
	go func() {
		streams.Wait()
		close(copied)
	}()
	select {
	case <-copied:
		complete = true
	case <-time.After(execDrain):
	}
	x.closeStreams()
	return complete
}

// delete kills the command if it still runs and removes every trace of it.
func (x *execution) delete(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), execCleanup)
	defer cancel()
	x.process.IO().Cancel()
	err := x.process.Kill(ctx, syscall.SIGKILL)
	if err == nil {
		err = x.ended(ctx)
	}
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
		x.runtime.log.Debug("cannot kill a command", "error", err)
	}
	x.closeStreams() // Delete waits for what is copied
	if _, err := x.process.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
		x.runtime.log.Debug("cannot remove a command's process", "error", err)
	}
}

// closeStreams removes the pipes.
func (x *execution) closeStreams() {
	x.process.IO().Cancel()
	if err := x.process.IO().Close(); err != nil {
		x.runtime.log.Debug("cannot close a command's pipes", "error", err)
	}
}

func (x *execution) ended(ctx context.Context) error {
	exit, err := x.process.Wait(ctx)
	if err != nil {
		return err
	}
	select {
	case <-exit:
	case <-ctx.Done():
	}
	return nil
}

// stdin is a command's input that tells when it has ended.
type stdin struct {
	io.Reader
	once  sync.Once
	ended chan struct{}
}

func newStdin(in io.Reader) *stdin {
	if in == nil {
		return nil
	}
	return &stdin{Reader: in, ended: make(chan struct{})}
}

func (s *stdin) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil {
		s.once.Do(func() { close(s.ended) })
	}
	return n, err
}

// output is a writer of the caller's, until Exec has returned: something in the background may go on writing. It may be nil.
type output struct {
	mu    sync.Mutex
	to    io.Writer
	ended bool
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.ended:
		return 0, os.ErrClosed
	case o.to == nil:
		return len(p), nil
	}
	return o.to.Write(p)
}

func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
}
