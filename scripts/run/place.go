package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/picketd/picket/scripts/lab"
)

// place is where everything is: the source in root, the lab in dir.
type place struct{ root, dir string }

func (p place) binaries() string { return filepath.Join(p.root, "bin") }
func (p place) control() string  { return filepath.Join(p.dir, "control.sock") }

// log is the supervisor's; New removes what is in dir.
func (p place) log() string { return p.dir + ".log" }

// launch starts this program again as the fleet's supervisor and returns when all hosts are ready.
func (p place) launch(ctx context.Context, n int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p.dir), 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(p.log(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(self, "serve", strconv.Itoa(n))
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.root, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start the fleet: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			return fmt.Errorf("the fleet ended: %w; its last words (all are in %s):\n%s", err, p.log(), p.lastWords())
		case <-ctx.Done():
			_ = cmd.Process.Signal(syscall.SIGTERM)
			return errors.Join(ctx.Err(), <-ended)
		case <-time.After(50 * time.Millisecond):
			if _, err := p.request(ctx, http.MethodGet, "/"); err == nil {
				return nil
			}
		}
	}
}

// lastWords are the last lines of the supervisor's log.
func (p place) lastWords() string {
	text, err := os.ReadFile(p.log())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// down ends the supervisor, which takes everything along, waits for it, and removes what a killed one has left.
func down(ctx context.Context, p place) error {
	pid, runs := lab.Owner(p.dir)
	_, err := os.Stat(p.dir)
	if !runs && errors.Is(err, os.ErrNotExist) {
		fmt.Println("Nothing runs.")
		return nil
	}
	if runs {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("cannot end the fleet: %w", err)
		}
	}
	for ; runs; _, runs = lab.Owner(p.dir) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	if err := lab.Clean(p.dir); err != nil {
		return fmt.Errorf("the fleet has ended, but not all of it is gone: %w", err)
	}
	if err := os.Remove(p.log()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fmt.Println("The fleet and everything that ran on it are gone.")
	return nil
}

// tell has the supervisor do something with a host.
func (p place) tell(ctx context.Context, verb, host string) error {
	said, err := p.request(ctx, http.MethodPost, "/"+verb+"/"+host)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return errors.New("no fleet runs: make fleet")
	}
	fmt.Print(said)
	return err
}

// request asks the supervisor.
func (p place) request(ctx context.Context, method, path string) (string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", p.control())
	}}}
	request, err := http.NewRequestWithContext(ctx, method, "http://fleet"+path, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	said, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		return "", errors.New(string(bytes.TrimSpace(said)))
	}
	return string(said), err
}
