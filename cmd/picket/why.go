package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/cli-runtime/pkg/printers"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/util/completion"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/picketd/picket/agent/daemonset"
)

// newWhyCommand says where a rollout is, and why.
func newWhyCommand(f cmdutil.Factory, streams genericiooptions.IOStreams) *cobra.Command {
	output := genericclioptions.NewPrintFlags("")
	cmd := &cobra.Command{
		Use:                   "why (NAME | daemonset/NAME)",
		DisableFlagsInUseLine: true,
		Short:                 "Show what each host does about a daemon set, and why",
		Long: templates.LongDesc(`
			Show what each host does about a daemon set, and why.

			The first line says how far its rollout has come, the second which command would move on one that does not move. Then comes
			every host of the fleet, in the order of their turns: whether the daemon set is placed on it and by which label or taint, its
			pod and the pod's revision, how the pod is, and whom it waits for. A question mark is a guess: that host has not told yet. All
			of it is as the host knows it that the command talks to.`),
		Example: templates.Examples(`
			# Why is the rollout of web where it is?
			picket why ds/web

			# The hosts that are not up to date
			picket why web -o jsonpath='{range .hosts[?(@.current==false)]}{.host}{"\n"}{end}'`),
		ValidArgsFunction: completeDaemonSet(f),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := daemonSetIn(cmd, args)
			if err != nil {
				return err
			}
			if name.Namespace, _, err = f.ToRawKubeConfigLoader().Namespace(); err != nil {
				return err
			}
			answer, err := ask(cmd.Context(), f, name)
			if err != nil {
				return err
			}
			if output.OutputFlagSpecified != nil && output.OutputFlagSpecified() {
				return printAs(output, answer, streams.Out)
			}
			return printWhy(answer, time.Now(), streams.Out)
		},
	}
	output.AddFlags(cmd)
	return cmd
}

// kindsOfDaemonSet are the ways to write the type of a DaemonSet.
var kindsOfDaemonSet = []string{"ds", "daemonset", "daemonsets", "daemonset.apps", "daemonsets.apps"}

// daemonSetIn reads "web", "ds/web" or "ds web".
func daemonSetIn(cmd *cobra.Command, args []string) (types.NamespacedName, error) {
	parts := args
	if len(args) == 1 {
		parts = strings.Split(args[0], "/")
	}
	switch {
	case len(parts) == 1 && parts[0] != "":
		return types.NamespacedName{Name: parts[0]}, nil
	case len(parts) != 2 || parts[1] == "" || strings.Contains(parts[1], "/"):
		return types.NamespacedName{}, cmdutil.UsageErrorf(cmd, "the name of one daemon set is needed")
	case !slices.Contains(kindsOfDaemonSet, parts[0]):
		return types.NamespacedName{}, cmdutil.UsageErrorf(cmd, "only daemon sets are rolled out, there is no why of %q", parts[0])
	}
	return types.NamespacedName{Name: parts[1]}, nil
}

// completeDaemonSet completes "we" and "ds/we".
func completeDaemonSet(f cmdutil.Factory) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		kind, name, typed := strings.Cut(toComplete, "/")
		if !typed {
			return completion.CompGetResource(f, "daemonset", toComplete), cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		if slices.Contains(kindsOfDaemonSet, kind) {
			for _, n := range completion.CompGetResource(f, "daemonset", name) {
				names = append(names, kind+"/"+n)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// ask gets the answer as it stands, so that also what a newer agent adds to it can be printed.
func ask(ctx context.Context, f cmdutil.Factory, name types.NamespacedName) ([]byte, error) {
	client, err := f.RESTClient()
	if err != nil {
		return nil, err
	}
	result := client.Get().AbsPath("/apis/picket.io/v1/namespaces", name.Namespace, "daemonsets", name.Name, "why").Do(ctx)
	if err := result.Error(); err != nil {
		return nil, err
	}
	return result.Raw()
}

func printAs(flags *genericclioptions.PrintFlags, answer []byte, out io.Writer) error {
	printer, err := flags.ToPrinter()
	if err != nil {
		return err
	}
	var object unstructured.Unstructured
	if err := object.UnmarshalJSON(answer); err != nil {
		return err
	}
	return printer.PrintObj(&object, out)
}

// printWhy prints the answer for people.
func printWhy(answer []byte, now time.Time, out io.Writer) error {
	var why daemonset.Why
	if err := json.Unmarshal(answer, &why); err != nil {
		return fmt.Errorf("cannot read the answer: %w", err)
	}
	text := "daemonset.apps/" + why.Name + ": " + why.Rollout.Message + "\n"
	if why.Rollout.Command != "" {
		text += "To go on: " + why.Rollout.Command + "\n"
	}
	if _, err := fmt.Fprint(out, text, "\n"); err != nil {
		return err
	}
	rows := []string{"HOST\tPLACED\tBY\tPOD\tREVISION\tSTATE\tSINCE\tWHY\n"}
	for _, h := range why.Hosts {
		rows = append(rows, strings.Join([]string{
			h.Host, placedCell(h), orNone(h.By), orNone(h.Pod), revisionCell(h), h.State, sinceCell(h.Since, now), orNone(h.Message),
		}, "\t")+"\n")
	}
	table := printers.GetNewTabWriter(out)
	if _, err := io.WriteString(table, strings.Join(rows, "")); err != nil {
		return err
	}
	return table.Flush()
}

func placedCell(h daemonset.WhyHost) string {
	cell := "no"
	if h.Placed {
		cell = "yes"
	}
	if h.Guess {
		cell += "?"
	}
	return cell
}

func revisionCell(h daemonset.WhyHost) string {
	cell := strconv.FormatInt(h.Revision, 10)
	switch {
	case h.RevisionHash == "":
		return orNone("")
	case h.Revision == 0:
		cell = h.RevisionHash
	}
	if !h.Current {
		cell += " (old)"
	}
	return cell
}

func sinceCell(since *metav1.Time, now time.Time) string {
	if since.IsZero() {
		return orNone("")
	}
	return duration.HumanDuration(now.Sub(since.Time))
}

func orNone(cell string) string {
	if cell == "" {
		return "<none>"
	}
	return cell
}
