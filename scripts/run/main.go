// Command run starts a fleet on this machine, in .scratch/fleet: hosts with network namespaces and containerds of their own (see
// scripts/lab). It touches no containerd and no network that is already there.
//
//	run               a fleet of three, unless one runs; applies configs/examples and shows what became of it
//	run fleet N       a fleet of N
//	run fleet-down    takes all of it away again
//	run cut HOST      loses everything between a host and the others
//	run heal          ends that
//	run kill HOST     kills its agent; it is started again after two seconds, as systemd would
//	run crash HOST    cuts its power
//	run boot HOST     gives it back
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/picketd/picket/scripts/lab"
)

// hosts is how many `make run` starts.
const hosts = 3

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cannot do that:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("containers need root: run as root")
	}
	p := place{root: root, dir: filepath.Join(root, ".scratch", "fleet")}
	verb, object := "", ""
	if len(args) > 0 {
		verb = args[0]
	}
	if len(args) > 1 {
		object = args[1]
	}
	switch verb {
	case "":
		return try(ctx, p)
	case "fleet", "serve":
		n, err := strconv.Atoi(object)
		if err != nil {
			return fmt.Errorf("%s needs a number of hosts: %w", verb, err)
		}
		if verb == "serve" {
			return serve(ctx, p, n)
		}
		return fleet(ctx, p, n)
	case "fleet-down":
		return down(ctx, p)
	case "cut", "heal":
		return wire(p, verb, object)
	case "kill", "crash", "boot":
		return p.tell(ctx, verb, object)
	}
	return fmt.Errorf("%q is none of fleet, fleet-down, cut, heal, kill, crash and boot", strings.Join(args, " "))
}

// try is `make run`.
func try(ctx context.Context, p place) error {
	if pid, runs := lab.Owner(p.dir); runs {
		fmt.Printf("The fleet of an earlier `make run` or `make fleet` is still there (pid %d); this shows it again.\n\n", pid)
	} else if err := p.launch(ctx, hosts); err != nil {
		return err
	}
	return show(ctx, p)
}

// fleet is `make fleet`.
func fleet(ctx context.Context, p place, n int) error {
	if pid, runs := lab.Owner(p.dir); runs {
		return fmt.Errorf("a fleet runs (pid %d): make fleet-down first", pid)
	}
	if err := p.launch(ctx, n); err != nil {
		return err
	}
	l, err := lab.Open(p.dir)
	if err != nil {
		return err
	}
	fmt.Printf("%d hosts are ready: %s (%s) to %s (%s).\n\n", n, l.Hosts[0].Name, l.Hosts[0].Address, l.Hosts[n-1].Name, l.Hosts[n-1].Address)
	p.goOn(l, "")
	return nil
}

// wire cuts a host off, or ends all cuts.
func wire(p place, verb, name string) error {
	l, err := lab.Open(p.dir)
	if err != nil {
		return err
	}
	if verb == "heal" {
		return l.Heal()
	}
	h, err := l.Host(name)
	if err != nil {
		return err
	}
	return l.Isolate(h)
}
