package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/picketd/picket/runtime/runtimetest"
)

const (
	// readyWithin is how long a host may take until it is ready; a machine with many is slow.
	readyWithin = 2 * time.Minute
	// stopWithin is how long the agent may take to end; systemd's unit says as much.
	stopWithin = 30 * time.Second
)

var errForeign = errors.New("the lab belongs to another process")

// Host is one host of a lab. Its methods may be called from several goroutines; those that start and stop it wait for each other.
type Host struct {
	Name       string // host-01 and so on
	Address    netip.Addr
	Dir        string // of all that it has
	Namespace  string // where its network namespace is mounted
	Socket     string // of its API; whoever opens it is admin
	Kubeconfig string // an administrator's, with its address

	index int
	lab   *Lab

	mu         sync.Mutex
	plugged    bool
	containerd *runtimetest.Containerd // nil until the first start
	booted     bool                    // containerd runs
	agent      *process                // the last one; nil until the first start
	lag        lag
	queue      *queue // of what is delayed; nil without a lag

	filtering sync.Mutex // its rules are being changed
}

// process is one run of picketd.
type process struct {
	cmd   *exec.Cmd
	ended <-chan struct{}
}

func (p *process) runs() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func newHost(l *Lab, i int) *Host {
	name := fmt.Sprintf("host-%02d", i+1)
	h := &Host{Name: name, Dir: filepath.Join(l.Dir, name), Namespace: filepath.Join(l.netDir(), name), index: i, lab: l}
	if l.Network.IsValid() {
		h.Address = l.address(byte(lastByteHosts + i))
	}
	h.Socket, h.Kubeconfig = filepath.Join(h.runDir(), "picket.sock"), filepath.Join(h.Dir, "kubeconfig")
	return h
}

func (h *Host) runDir() string { return filepath.Join(h.Dir, "run") }

// LogFile is where its agent's log is.
func (h *Host) LogFile() string { return filepath.Join(h.Dir, "picketd.log") }

// ConfigFile is where its agent's configuration is.
func (h *Host) ConfigFile() string { return filepath.Join(h.Dir, "picketd.yaml") }

// Start boots the host, or starts what of it does not run, and returns when it is ready.
func (h *Host) Start(ctx context.Context) error {
	began := time.Now()
	agent, err := h.launch(ctx)
	if err != nil {
		return err
	}
	if err := h.ready(ctx, agent); err != nil {
		return err
	}
	h.lab.logf("%s is ready after %s", h.Name, time.Since(began).Round(time.Millisecond))
	return nil
}

// launch starts containerd and the agent.
func (h *Host) launch(ctx context.Context) (*process, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lab.lock == nil {
		return nil, errForeign
	}
	if err := h.boot(ctx); err != nil {
		return nil, err
	}
	if h.agent.runs() {
		return h.agent, nil
	}
	log, err := os.OpenFile(h.LogFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(h.lab.options.Binaries, "picketd"), "--config", h.ConfigFile())
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", environment(), log, log
	ended, err := runtimetest.Launch(cmd, h.Namespace)
	if err != nil {
		return nil, fmt.Errorf("cannot start picketd: %w", err)
	}
	h.agent = &process{cmd, ended}
	return h.agent, nil
}

// boot brings up what is there before the agent: the network and containerd.
func (h *Host) boot(ctx context.Context) (err error) {
	if !h.plugged {
		if err := h.plug(); err != nil {
			return err
		}
		h.plugged = true
	}
	switch {
	case h.booted:
		return nil
	case h.containerd == nil:
		h.containerd, err = runtimetest.StartIn(ctx, h.containerdDir(), h.Namespace)
	default:
		err = h.containerd.Restart(ctx)
	}
	h.booted = err == nil
	return err
}

func (h *Host) containerdDir() string { return filepath.Join(h.Dir, "c") }

// environment is ours without what picketd and picket would read from it.
func environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PICKET_") && !strings.HasPrefix(v, "NOTIFY_SOCKET=") && !strings.HasPrefix(v, "PATH=") {
			env = append(env, v)
		}
	}
	return append(env, "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
}

// ready waits until the host's /readyz says so.
func (h *Host) ready(ctx context.Context, agent *process) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		_, err := h.get(ctx, "/readyz")
		if err == nil {
			return nil
		}
		select {
		case <-agent.ended:
			return fmt.Errorf("picketd ended (%s); its last words:\n%s", agent.cmd.ProcessState, h.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("it is not ready: %w; picketd's last words:\n%s", err, h.lastWords())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// PID is the agent's; 0 when it does not run.
func (h *Host) PID() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.agent.runs() {
		return 0
	}
	return h.agent.cmd.Process.Pid
}

// Ended is closed when the agent that was started last has ended. It blocks forever before the first start.
func (h *Host) Ended() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.agent == nil {
		return nil
	}
	return h.agent.ended
}

// ExitCode is that of the agent that was started last, which has ended; -1 when a signal ended it.
func (h *Host) ExitCode() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.agent.cmd.ProcessState.ExitCode()
}

// Stop ends the agent in order, and containers run on. It does nothing when the agent does not run.
func (h *Host) Stop() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.end(syscall.SIGTERM)
}

// Kill ends the agent at once, and containers run on.
func (h *Host) Kill() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.end(syscall.SIGKILL)
}

// Restart is Stop and Start, as an upgrade of the agent.
func (h *Host) Restart(ctx context.Context) error {
	if err := h.Stop(); err != nil {
		return err
	}
	return h.Start(ctx)
}

// RestartContainerd ends containerd as an upgrade of it does, and starts it again. Containers and the agent run on.
func (h *Host) RestartContainerd(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.containerd.Restart(ctx)
}

func (h *Host) end(signal syscall.Signal) error {
	if !h.agent.runs() {
		return nil
	}
	if err := h.agent.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("cannot end picketd: %w", err)
	}
	select {
	case <-h.agent.ended:
		return nil
	case <-time.After(stopWithin):
		_ = h.agent.cmd.Process.Kill()
		<-h.agent.ended
		return fmt.Errorf("picketd did not end within %s", stopWithin)
	}
}

// Crash is a power cut: the agent, containerd and every container end at once, the network goes, and what was in memory is gone.
// Start boots the host again, with what is on its disk. Its cuts stay: they are not the host's, but the wire's.
// (What the kernel had not yet written to the disk is not lost, as it would be.)
func (h *Host) Crash() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lab.lock == nil {
		return errForeign
	}
	if err := h.off(); err != nil {
		return err
	}
	h.lab.logf("%s has lost its power", h.Name)
	return h.renew()
}

// off is Crash, without a network for what comes next.
func (h *Host) off() error {
	if err := h.end(syscall.SIGKILL); err != nil {
		return err
	}
	if err := errors.Join(h.endLag(), powerOff(h.Dir, h.containerd)); err != nil {
		return err
	}
	h.booted = false
	if !h.plugged {
		return nil
	}
	if err := ip(h.lab.wire(), "link delete "+h.Name); err != nil {
		return fmt.Errorf("cannot unplug: %w", err)
	}
	h.plugged = false
	return nil
}

// Picket is a command line for this host, through its socket.
func (h *Host) Picket(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(h.lab.options.Binaries, "picket"), args...)
	cmd.Env = append(environment(), "PICKET_SOCKET="+h.Socket)
	return cmd
}

// Log is the agent's log, of all its runs.
func (h *Host) Log() string {
	text, err := os.ReadFile(h.LogFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (h *Host) lastWords() string {
	lines := strings.Split(strings.TrimSpace(h.Log()), "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}
