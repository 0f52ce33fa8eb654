package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
)

// diagnosis finds out why a socket does not answer.
type diagnosis struct {
	proc string // /proc, except in tests
}

// explain makes an error that says what was found and what to do.
func (d diagnosis) explain(socket string, err error) error {
	pid := d.agent()
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("cannot talk to picketd: %s may not open %s: %s", whoami(), socket, membership())
	case errors.Is(err, fs.ErrNotExist) && pid != "":
		return fmt.Errorf("cannot talk to picketd: there is no socket %s, but picketd runs (process %s): its api.socket may name another one; give that one with --socket or PICKET_SOCKET", socket, pid)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("cannot talk to picketd: there is no socket %s and picketd does not run on this host: start it (systemctl start picketd), or reach another host with --kubeconfig", socket)
	case errors.Is(err, syscall.ECONNREFUSED) && pid != "":
		return fmt.Errorf("cannot talk to picketd: nobody answers on %s, though picketd runs (process %s): it may be starting, or its api.socket may name another one (--socket, PICKET_SOCKET)", socket, pid)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("cannot talk to picketd: nobody answers on %s and picketd does not run: start it (systemctl start picketd); why it ended is in journalctl -u picketd", socket)
	}
	return fmt.Errorf("cannot talk to picketd: %w", err)
}

// agent is the process id of a picketd on this host; "" when there is none.
func (d diagnosis) agent() string {
	files, _ := filepath.Glob(filepath.Join(d.proc, "[0-9]*", "comm")) // fails only for a bad pattern
	for _, file := range files {
		if comm, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(comm)) == "picketd" {
			return filepath.Base(filepath.Dir(file))
		}
	}
	return ""
}

func whoami() string {
	if u, err := user.Current(); err == nil {
		return "user " + u.Username
	}
	return fmt.Sprintf("user %d", os.Getuid())
}

// membership says how to be let in; who is in the group picket is as good as root.
func membership() string {
	if _, err := user.LookupGroup("picket"); err != nil {
		return "only root may, as this host has no group picket: use sudo, or add the group (groupadd picket), join it and restart picketd"
	}
	return "only root and members of the group picket may: use sudo, or join it (usermod -aG picket USER) and log in again"
}
