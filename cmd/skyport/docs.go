package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newDocsCommand is for the makers of Sky Port: it writes docs/cli.md.
func newDocsCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "docs",
		Short:  "Print the reference of all commands as Markdown",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			writeReference(a.Out, cmd.Root())
			return a.Out.failed()
		},
	}
}

// writeReference writes docs/cli.md from the commands themselves.
func writeReference(w io.Writer, root *cobra.Command) {
	say := func(format string, args ...any) {
		fmt.Fprintf(w, format, args...) //nolint:errcheck // the screen keeps the error
	}
	say("# The command line\n\n")
	say("<!-- Made by `skyport docs`; a test keeps it so. Change the commands, then run\n     go test ./cmd/skyport -update -->\n\n")
	say("%s\n\n", root.Long)
	for _, g := range root.Groups() {
		say("%s\n\n| command | |\n|---|---|\n", strings.TrimSuffix(g.Title, ":"))
		for _, c := range root.Commands() {
			if c.GroupID == g.ID && c.IsAvailableCommand() {
				say("| [`%s`](#%s) | %s |\n", c.Name(), anchor(c), c.Short)
			}
		}
		say("\n")
	}
	say("## Flags of every command\n\n")
	writeFlags(say, root.PersistentFlags())
	for _, c := range root.Commands() {
		if c.IsAdditionalHelpTopicCommand() {
			say("## %s\n\n```text\n%s\n```\n\n", c.Short, c.Long)
		}
	}
	for _, c := range root.Commands() {
		writeCommand(say, c)
	}
}

func writeCommand(say func(string, ...any), c *cobra.Command) {
	if !c.IsAvailableCommand() || c.Name() == "help" {
		return
	}
	say("## %s\n\n%s.\n\n", c.CommandPath(), strings.TrimSuffix(c.Short, "."))
	if c.Runnable() {
		say("    %s\n\n", c.UseLine())
	}
	if len(c.Aliases) > 0 {
		say("Also: `%s`.\n\n", strings.Join(c.Aliases, "`, `"))
	}
	if c.Long != "" {
		say("%s\n\n", c.Long)
	}
	if c.Example != "" {
		say("```sh\n%s\n```\n\n", unindent(c.Example))
	}
	writeFlags(say, c.LocalNonPersistentFlags())
	if exit := c.Annotations["exit"]; exit != "" {
		say("Exit codes: %s.\n\n", exit)
	}
	for _, sub := range c.Commands() {
		writeCommand(say, sub)
	}
}

func writeFlags(say func(string, ...any), flags *pflag.FlagSet) {
	var rows []string
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		kind, usage := pflag.UnquoteUsage(f)
		if kind != "" {
			name += " " + kind
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s |\n", name, strings.ReplaceAll(usage, "|", `\|`)))
	})
	if len(rows) == 0 {
		return
	}
	say("| flag | |\n|---|---|\n%s\n", strings.Join(rows, ""))
}

func anchor(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

func unindent(example string) string {
	var out []string
	for line := range strings.Lines(example) {
		out = append(out, strings.TrimPrefix(strings.TrimRight(line, "\n"), "  "))
	}
	return strings.Join(out, "\n")
}
