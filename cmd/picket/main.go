// Command picket is the command line of a picket fleet: kubectl's own commands, talking to the agent of this host through its unix
// socket, or to any host's with a kubeconfig.
package main

import (
	"os"

	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/component-base/cli"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// version is picket's own, set at build time.
var version = "dev"

func main() {
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	command := newCommand(streams, os.LookupEnv)
	// CheckErr ends the process with the right code: that of the command for exec, 1 for a difference in diff.
	cmdutil.CheckErr(cli.RunNoErrOutput(command))
}
