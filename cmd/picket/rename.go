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
	if !cmd.HasParent() {
		return // the root's texts are our own
	}
	for _, text := range []*string{&cmd.Short, &cmd.Long, &cmd.Example} {
		*text = renamed(*text)
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Usage = renamed(f.Usage) })
	for _, sub := range cmd.Commands() {
		sub.Short = renamed(sub.Short)
	}
}

func renamed(text string) string { return commandName.ReplaceAllString(text, "${1}picket${2}") }
