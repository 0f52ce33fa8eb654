// Command picketd is the agent of a picket fleet: it runs on every host, as a systemd service, and keeps that host's share of the
// fleet's DaemonSets running. `picketd check` says what is wrong with its configuration and manifests.
package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/picketd/picket/agent"
)

// version is picket's own, set at build time.
var version = "dev"

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	os.Exit(run(os.Args[1:], process{stdout: os.Stdout, stderr: os.Stderr, signals: signals, start: startAgent}))
}

// startAgent keeps a nil *Agent from becoming a service that is not nil.
func startAgent(cfg agent.Config) (service, error) {
	a, err := agent.New(cfg)
	if err != nil {
		return nil, err
	}
	return a, nil
}
