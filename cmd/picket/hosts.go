package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/util/templates"
)

// What agents are asked about hosts; Kubernetes' API has no word for it.
const (
	pathLeave = "/picket.io/v1/leave"
	pathAdmit = "/picket.io/v1/admit"
)

// newLeaveCommand takes the host that is talked to out of its fleet.
func newLeaveCommand(flags *genericclioptions.ConfigFlags, streams genericiooptions.IOStreams) *cobra.Command {
	return &cobra.Command{
		Use:                   "leave",
		DisableFlagsInUseLine: true,
		Short:                 "Take this host out of the fleet",
		Long: templates.LongDesc(`
			Take this host out of the fleet.

			Its pods stop, each with its grace period, the other hosts hear that it left, and picketd ends. From then on the host counts for
			no DaemonSet. Start picketd to bring it back.

			The host is the one that the command talks to: this one, or with --kubeconfig the one that the kubeconfig names. The command
			waits for the end; when it is interrupted, the host leaves all the same. To take out a host that is lost, use picket delete
			node on another one.`),
		Example: templates.Examples(`
			# Take this host out of the fleet
			picket leave

			# Take it out for good: let no certificate of it back in
			picket leave
			picket --kubeconfig=other-host.kubeconfig delete node host-02`),
		Args: noArguments, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := cmdutil.NewFactory(flags).RESTClient()
			if err != nil {
				return err
			}
			return leave(cmd.Context(), client, streams.Out)
		},
	}
}

// leave says what it will do before it does it: a dry run tells.
func leave(ctx context.Context, client *rest.RESTClient, out io.Writer) error {
	for _, dryRun := range []bool{true, false} {
		request := client.Post().AbsPath(pathLeave)
		if dryRun {
			request.Param("dryRun", metav1.DryRunAll)
		}
		if err := say(request.Do(ctx), out); err != nil {
			return err
		}
	}
	return nil
}

// newAdmitCommand takes a deleted host back.
func newAdmitCommand(flags *genericclioptions.ConfigFlags, streams genericiooptions.IOStreams) *cobra.Command {
	return &cobra.Command{
		Use:                   "admit NAME",
		DisableFlagsInUseLine: true,
		Short:                 "Take a deleted host back into the fleet",
		Long: templates.LongDesc(`
			Take a deleted host back into the fleet.

			After picket delete node no host talks to that one any more: its certificate is refused everywhere. This command lifts that,
			for the certificate that the host has. It needs no new one, and none needs this command: a host whose certificate was made
			after its deletion is let in as it is.`),
		Example: templates.Examples(`
			# Take host-02 back
			picket admit host-02`),
		Args: oneNode, ValidArgsFunction: cobra.NoFileCompletions, // deleted hosts are in no list
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cmdutil.NewFactory(flags).RESTClient()
			if err != nil {
				return err
			}
			return say(client.Post().AbsPath(pathAdmit, args[0]).Do(cmd.Context()), streams.Out)
		},
	}
}

func oneNode(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return cmdutil.UsageErrorf(cmd, "one name of a node is needed, not %d", len(args))
	}
	if errs := validation.NameIsDNSSubdomain(args[0], false); len(errs) > 0 {
		return cmdutil.UsageErrorf(cmd, "%q cannot be the name of a node: %s", args[0], errs[0])
	}
	return nil
}

// say prints what was done.
func say(r rest.Result, out io.Writer) error {
	var status metav1.Status
	if err := r.Into(&status); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, status.Message)
	return err
}
