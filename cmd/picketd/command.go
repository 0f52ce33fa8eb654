package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/picketd/picket/agent"
)

// process is what a picketd gets from outside.
type process struct {
	stdout, stderr io.Writer
	// signals: SIGTERM and SIGINT end the agent, the second of them at once; SIGHUP reloads the configuration.
	signals <-chan os.Signal
	start   func(agent.Config) (service, error)
}

// errShown is for failures that were printed in full already.
var errShown = errors.New("the errors are shown above")

// run is the whole program; it returns the exit code.
func run(args []string, p process) int {
	root := newCommand(p)
	root.SetArgs(args)
	err := root.Execute()
	switch {
	case err == nil:
		return 0
	case !errors.Is(err, errShown):
		fmt.Fprintf(p.stderr, "picketd: %s\n", oneLine(err.Error()))
	}
	return 1
}

func newCommand(p process) *cobra.Command {
	root := &cobra.Command{
		Use:   "picketd",
		Short: "picketd runs this host's share of a fleet's DaemonSets",
		Long: `picketd runs this host's share of a fleet's DaemonSets, through containerd.

Every key of the configuration file is a flag and an environment variable too: api.listen is --api.listen and PICKET_API_LISTEN.
A flag counts more than the environment, that more than the file, and the file more than the default. Lists are separated by
commas. The file is read again on SIGHUP and whenever it changes.`,
		Version: version, Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	source := newSource(root.PersistentFlags())
	root.Flags().SortFlags = false
	root.SetGlobalNormalizationFunc(anyCase)
	root.RunE = func(*cobra.Command, []string) error { return serve(source, p) }
	root.AddCommand(&cobra.Command{
		Use:   "check",
		Short: "Check the configuration and the manifests directory, and do nothing else",
		Long: `Check the configuration and the manifests directory as the agent would read them, and do nothing else.

Every error is a line, file:line: key: what is wrong. The exit code is 0 when there is none, else 1. Warnings are about fields of
manifests that picket does not honour.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return check(source, p.stdout, p.stderr) },
	})
	return root
}
