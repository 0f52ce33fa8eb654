package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	kubectl "k8s.io/kubectl/pkg/cmd"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/util/templates"
)

// absent are commands of kubectl about things that do not exist here: a kubeconfig of many clusters and preferences in ~/.kube (both
// would let Kubernetes' settings in), plugins, and kinds that this API does not serve.
var absent = []string{"config", "kuberc", "plugin", "cluster-info", "certificate", "expose", "scale", "autoscale", "run", "alpha"}

// newCommand builds the whole command line. Nothing is opened before a command needs it.
func newCommand(streams genericiooptions.IOStreams, lookupEnv func(string) (string, bool)) *cobra.Command {
	flags := genericclioptions.NewConfigFlags(true).WithDiscoveryBurst(300).WithDiscoveryQPS(50).WithWarningPrinter(streams)
	// Callers are known by their certificate or by the socket's mode, nothing else.
	flags.BearerToken, flags.Impersonate, flags.ImpersonateUID, flags.ImpersonateGroup, flags.ImpersonateUserExtra = nil, nil, nil, nil, nil
	*flags.CacheDir = cacheDir()
	conn := &connection{flags: flags, lookupEnv: lookupEnv, defaultCache: *flags.CacheDir}
	flags.WithWrapConfigFn(func(c *rest.Config) *rest.Config {
		if conn.tunnel != nil {
			c.Proxy = conn.tunnel.proxy
		}
		return c
	})

	// Without arguments and a plugin handler kubectl reads no preferences and looks for no plugins.
	root := kubectl.NewKubectlCommand(kubectl.KubectlOptions{ConfigFlags: flags, IOStreams: streams})
	root.Use = "picket"
	root.Version = version
	root.Short = "picket runs DaemonSets on every host of a fleet"
	root.Long = `picket runs DaemonSets on every host of a fleet, without Kubernetes.

The commands are kubectl's. They talk to the agent of this host, picketd, through its unix socket, or to any host of the fleet with
--kubeconfig. Any host answers for the whole fleet.`
	remove(root, absent)
	factory := cmdutil.NewFactory(flags)
	root.AddCommand(newWhyCommand(factory, streams), newPKICommand(streams), newAdmitCommand(flags, streams), newLeaveCommand(flags, streams))
	pauseDaemonSets(root, factory)
	group(root)
	root.PersistentFlags().StringVar(&conn.socket, "socket", "", "Unix socket of the agent to talk to (also PICKET_SOCKET; default "+defaultSocket+")")
	root.PersistentFlags().Lookup("kubeconfig").Usage = "Kubeconfig to reach a host through the network, in place of the socket (also PICKET_KUBECONFIG)"
	_ = root.PersistentFlags().MarkHidden("kuberc") // fails only for an unknown flag
	renameInHelp(root)
	prepareConnection(root, conn)
	return root
}

// remove takes commands out of the tree.
func remove(root *cobra.Command, names []string) {
	for _, c := range root.Commands() {
		if slices.Contains(names, c.Name()) {
			root.RemoveCommand(c)
		}
	}
}

// groups are the sections of `picket help`; what they do not name comes last, under "Other Commands".
var groups = []struct{ title, commands string }{
	{"Run and change DaemonSets:", "apply create diff edit replace patch set delete rollout label annotate"},
	{"See what runs:", "get why describe events logs top wait explain"},
	{"Inside containers:", "exec cp attach port-forward debug"},
	{"Hosts:", "cordon uncordon drain taint admit leave pki"},
}

// group replaces kubectl's sections, one of which would list kubectl's plugins.
func group(root *cobra.Command) {
	var sections templates.CommandGroups
	for _, g := range groups {
		section := templates.CommandGroup{Message: g.title}
		for _, name := range strings.Fields(g.commands) {
			if c, _, err := root.Find([]string{name}); err == nil {
				section.Commands = append(section.Commands, c)
			}
		}
		sections = append(sections, section)
	}
	templates.ActsAsRootCommand(root, []string{"options"}, sections...)
}

// prepareConnection chooses what to talk to once the flags are parsed, before any command runs.
func prepareConnection(root *cobra.Command, conn *connection) {
	next := root.PersistentPreRunE
	root.PersistentPreRunE = func(cmd *cobra.Command, args []string) error {
		if completes(cmd) {
			// Flags of the line to complete are still unparsed arguments; those that are not ours do not matter. kubectl's own
			// preparation is left out: it would offer kubectl's plugins.
			unknown := root.PersistentFlags().ParseErrorsAllowlist
			root.PersistentFlags().ParseErrorsAllowlist.UnknownFlags = true
			_ = root.PersistentFlags().Parse(args)
			root.PersistentFlags().ParseErrorsAllowlist = unknown
			conn.choose()
			return nil
		}
		conn.choose()
		if conn.tunnel != nil && talks(cmd) {
			// One plain sentence now, instead of one from every request of the command.
			if err := conn.tunnel.check(cmd.Context()); err != nil {
				return err
			}
		}
		return next(cmd, args)
	}
}

func completes(cmd *cobra.Command) bool {
	return cmd.Name() == cobra.ShellCompRequestCmd || cmd.Name() == cobra.ShellCompNoDescRequestCmd
}

// offline are commands that need no agent, or that are of use without one.
var offline = []string{"completion", "help", "kustomize", "options", "pki", "version"}

// talks tells whether the command cannot do without the agent. Where it may be able to, its own request will fail.
func talks(cmd *cobra.Command) bool {
	if cmd.HasSubCommands() && cmd.Flags().NFlag() == 0 {
		return false // it prints its help
	}
	for c := cmd; c != nil; c = c.Parent() {
		if slices.Contains(offline, c.Name()) {
			return false
		}
	}
	for flag, value := range map[string]string{"local": "true", "dry-run": "client", "client": "true"} {
		if f := cmd.Flags().Lookup(flag); f != nil && f.Value.String() == value {
			return false
		}
	}
	return true
}
