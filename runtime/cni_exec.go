package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"
)

// cniLockPause is between two looks whether an earlier agent's plugins have ended.
const cniLockPause = 5 * time.Millisecond

// cniExec runs CNI plugins, each with an open lock that it passes on to what it starts itself. So when an agent is killed, the
// next one waits for plugins that go on by themselves: one that still adds what is being deleted would leave it for ever.
type cniExec struct {
	invoke.RawExec
	version.PluginDecoder

	mu   sync.Mutex
	lock *os.File // nil: not taken yet
}

// take takes the lock, once.
func (e *cniExec) take(ctx context.Context, path string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lock != nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("cannot make the network's directory: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open the network's lock: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, cniTimeout)
	defer cancel()
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			e.lock = f
			return nil
		}
		select {
		case <-ctx.Done():
			f.Close()
			return fmt.Errorf("another agent, or CNI plugins that one left behind, hold %s: %w", path, err)
		case <-time.After(cniLockPause):
		}
	}
}

// close gives the lock back.
func (e *cniExec) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lock != nil {
		e.lock.Close()
		e.lock = nil
	}
}

// ExecPlugin is libcni's, but for the lock.
func (e *cniExec) ExecPlugin(ctx context.Context, plugin string, stdin []byte, environ []string) ([]byte, error) {
	e.mu.Lock()
	lock := e.lock
	e.mu.Unlock()
	if lock == nil {
		return nil, errors.New("the runtime is closed")
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, plugin)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = environ, bytes.NewReader(stdin), &stdout, &stderr
	cmd.ExtraFiles = []*os.File{lock}
	if err := cmd.Run(); err != nil {
		return nil, pluginError(err, stdout.Bytes(), stderr.String())
	}
	return stdout.Bytes(), nil
}

// pluginError is what the plugin says of itself, or what can be said of it.
func pluginError(err error, stdout []byte, stderr string) error {
	var said types.Error
	if json.Unmarshal(stdout, &said) == nil && said.Msg != "" {
		return &said
	}
	if stderr = strings.TrimSpace(stderr); stderr != "" {
		return fmt.Errorf("%w: %s", err, stderr)
	}
	return err
}
