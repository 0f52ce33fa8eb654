// Command run starts a fleet of one host in .scratch/run, with a containerd of its own, applies configs/examples and shows what
// became of it; `run stop` takes all of it away again. It touches no containerd that is already there.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// readyWithin is how long the host may take until it is ready.
const readyWithin = time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "make run:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	p := place{root: root, dir: filepath.Join(root, ".scratch", "run")}
	switch strings.Join(args, " ") {
	case "":
		return up(ctx, p)
	case "stop":
		return down(ctx, p)
	case "serve":
		return serve(ctx, p)
	}
	return fmt.Errorf("cannot %s: nothing (start and show) or stop", strings.Join(args, " "))
}

// place is where everything is. All of it is under dir.
type place struct{ root, dir string }

func (p place) binary(name string) string { return filepath.Join(p.root, "bin", name) }
func (p place) socket() string            { return filepath.Join(p.dir, "picket.sock") }
func (p place) log() string               { return filepath.Join(p.dir, "log") }

// up starts the host, unless it runs, and shows it.
func up(ctx context.Context, p place) error {
	if os.Geteuid() != 0 {
		return errors.New("containers need root: run as root")
	}
	if pid, runs := p.runs(); runs {
		fmt.Printf("A host from an earlier `make run` is still there (pid %d); this shows it again. `make stop` takes it away.\n\n", pid)
		return show(ctx, p)
	}
	if err := errors.Join(p.unmount(), os.RemoveAll(p.dir)); err != nil {
		return fmt.Errorf("cannot remove what an earlier run left: %w", err)
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	if err := p.launch(ctx); err != nil {
		return err
	}
	return show(ctx, p)
}

// launch starts this program again as the host's supervisor and returns when the host is ready.
func (p place) launch(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(p.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(self, "serve")
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.root, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start the host: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	late := time.After(readyWithin)
	for {
		select {
		case err := <-ended:
			return fmt.Errorf("the host ended: %w; its last words:\n%s", errors.Join(err, errors.New("see "+p.log())), p.lastWords())
		case <-ctx.Done():
			_ = cmd.Process.Signal(syscall.SIGTERM)
			return errors.Join(ctx.Err(), <-ended)
		case <-late:
			_ = cmd.Process.Signal(syscall.SIGTERM)
			return errors.Join(fmt.Errorf("the host was not ready within %s; its last words:\n%s", readyWithin, p.lastWords()), <-ended)
		case <-time.After(100 * time.Millisecond):
			if p.picket(ctx, "get", "--raw", "/readyz").Run() == nil {
				return nil
			}
		}
	}
}

// lastWords are the last lines of the host's log.
func (p place) lastWords() string {
	text, err := os.ReadFile(p.log())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}

// runs tells whether a supervisor is there: it holds the lock, and its pid is in the file.
func (p place) runs() (pid int, runs bool) {
	f, err := os.Open(p.lock())
	if err != nil {
		return 0, false
	}
	defer f.Close()
	if syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
		return 0, false
	}
	_, err = fmt.Fscan(f, &pid)
	return pid, err == nil
}

func (p place) lock() string { return filepath.Join(p.dir, "lock") }

// down ends the supervisor, which takes everything along, and waits for it.
func down(ctx context.Context, p place) error {
	pid, runs := p.runs()
	if !runs {
		fmt.Println("Nothing runs.")
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("cannot end the host: %w", err)
	}
	for runs {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
			_, runs = p.runs()
		}
	}
	if err := os.RemoveAll(p.dir); err != nil {
		return fmt.Errorf("the host has ended, but not all of it is gone: %w", err)
	}
	fmt.Println("The host and everything that ran on it are gone.")
	return nil
}

// picket is a command line for this host.
func (p place) picket(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.binary("picket"), args...)
	cmd.Env = append(os.Environ(), "PICKET_SOCKET="+p.socket())
	return cmd
}
