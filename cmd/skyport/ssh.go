package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

func newSSHCommand(a *app) *cobra.Command {
	var tty bool
	cmd := &cobra.Command{
		Use:   "ssh [flags] PARTITION [NODE] [-- COMMAND [ARG...]]",
		Short: "Open a shell on a node of a partition",
		Long: `Open a shell on a node itself, outside of any job and its container, or run a
command there. It goes through core and the connection that core has to the
node: no port of the node has to be open. Without NODE it is the main node.

PARTITION is an id, the beginning of one, or a name. Its jobs must all be yours,
or the last one when it is idle; the connection ends when a job of another user
comes onto it.`,
		Example: lines(
			"skyport ssh 5e6f",
			"skyport ssh 5e6f compute1",
			"skyport ssh 5e6f -- df -h",
		),
		Args:        sshArgs,
		Annotations: commandExitAnnotation,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			switch len(args) {
			case 0:
				return a.completePartitions()(cmd, args, word)
			case 1:
				return a.completeNodesOf(args[0])(cmd, nil, word)
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			before := len(args)
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				before = dash
			}
			node := ""
			if before > 1 {
				node = args[1]
			}
			argv := args[before:]
			shell := len(argv) == 0 && a.terminal() != nil
			return runSSH(cmd.Context(), a, args[0], node, client.Command{Argv: argv, TTY: tty || shell})
		},
	}
	cmd.Flags().BoolVarP(&tty, "tty", "t", false, "give the command a terminal; a shell has one")
	return cmd
}

func sshArgs(cmd *cobra.Command, args []string) error {
	before := len(args)
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		before = dash
	}
	if before < 1 || before > 2 {
		return usagef("on which node? PARTITION [NODE] [-- COMMAND [ARG...]]")
	}
	return nil
}

func runSSH(ctx context.Context, a *app, arg, node string, command client.Command) error {
	if err := a.mayUseTerminal(command); err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return a.notRun(ctx, err)
	}
	defer c.Close()
	p, err := findPartition(ctx, c, arg)
	if err != nil {
		return a.notRun(ctx, err)
	}
	if node, err = findNode(namesOf(p), node); err != nil {
		return a.notRun(ctx, err)
	}
	return a.runCommand(ctx, command, func(ctx context.Context, command client.Command, streams client.Streams) (client.Exit, error) {
		return c.ExecOn(ctx, p.ID, node, command, streams)
	})
}

func namesOf(p skyport.Partition) []string {
	names := make([]string, len(p.Nodes))
	for i, n := range p.Nodes {
		names[i] = n.Name
	}
	return names
}

// findPartition returns the partition that a person means.
func findPartition(ctx context.Context, c *client.Client, arg string) (skyport.Partition, error) {
	all, err := c.Partitions(ctx, false)
	if err != nil {
		return skyport.Partition{}, err
	}
	found := slices.DeleteFunc(all, func(p skyport.Partition) bool {
		return p.Name != arg && (len(arg) < minPrefix || !strings.HasPrefix(string(p.ID), strings.ToLower(arg)))
	})
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return skyport.Partition{}, skyport.Errorf(skyport.CodeNotFound, "find partition %q: there is none of this id or name", skyport.Abbreviate(arg, 60)).
			WithHint("skyport partitions lists them; an id may be cut to %d characters and more", minPrefix)
	}
	return skyport.Partition{}, skyport.Errorf(skyport.CodeConflict, "find partition %q: %d begin like this", skyport.Abbreviate(arg, 60), len(found)).
		WithHint("give more characters of the id")
}

func (a *app) completePartitions() completionFunc {
	return a.completeFrom(func(ctx context.Context, c *client.Client) ([]string, error) {
		partitions, err := c.Partitions(ctx, false)
		words := make([]string, 0, len(partitions))
		for _, p := range partitions {
			words = append(words, p.ID.Short()+"\t"+string(p.State)+", "+p.Site+", "+count(len(p.Nodes), "node"))
		}
		return words, err
	})
}

func (a *app) completeNodesOf(partition string) completionFunc {
	return a.completeFrom(func(ctx context.Context, c *client.Client) ([]string, error) {
		p, err := findPartition(ctx, c, partition)
		return namesOf(p), err
	})
}
