package main

import (
	"regexp"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commandName finds kubectl as the name of the command, not as a part of an annotation, a field manager or an address.
var commandName = regexp.MustCompile(`(^|[^\w./-])kubectl($|[^\w./-]|[.-]?(?:\s|$))`)

// renameInHelp makes the help of kubectl's commands speak of picket. It is done when a help text is printed, not at every start.
func renameInHelp(root *cobra.Command) {
	help, usage := root.HelpFunc(), root.UsageFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		rename(cmd)
		help(cmd, args)
	})
	root.SetUsageFunc(func(cmd *cobra.Command) error {
		rename(cmd)
		return usage(cmd)
	})
}

func rename(cmd *cobra.Command) {
	if !cmd.HasParent() || ours(cmd) {
		return
	}
	for _, text := range []*string{&cmd.Short, &cmd.Long, &cmd.Example} {
		*text = renamed(*text)
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Usage = renamed(f.Usage) })
	for _, sub := range cmd.Commands() {
		sub.Short = renamed(sub.Short)
	}
}

// ours tells commands of our own, whose texts speak of kubectl when they mean it. (So do the root's.)
func ours(cmd *cobra.Command) bool {
	for ; cmd != nil; cmd = cmd.Parent() {
		if cmd.Name() == "pki" {
			return true
		}
	}
	return false
}

func renamed(text string) string { return commandName.ReplaceAllString(text, "${1}picket${2}") }
