package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
)

type nodesOptions struct{ site string }

func newNodesCommand(a *app) *cobra.Command {
	var opts nodesOptions
	cmd := &cobra.Command{
		Use:               "nodes [flags]",
		Short:             "List the nodes that there are now",
		Long:              "List the nodes that there are now, with the state of the partition of each.",
		Example:           lines("skyport nodes", "skyport nodes --site local --json"),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runNodes(cmd.Context(), a, opts) },
	}
	siteFlag(a, cmd, &opts.site)
	return cmd
}

func runNodes(ctx context.Context, a *app, opts nodesOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return err
	}
	nodes = atSite(nodes, opts.site, func(n skyport.NodeStatus) string { return n.Site })
	if a.JSON {
		return a.printJSON(nodes)
	}
	t := table{
		columns: []column{
			{title: "NODE"},
			{title: "ROLE"},
			{title: "STATE"},
			{title: "SITE"},
			{title: "FLAVOR", rank: 1},
			{title: "ADDRESS"},
			{title: "ACCOUNT", rank: 2},
		},
		empty: "No nodes.",
	}
	for _, n := range nodes {
		t.add(text(n.Name), text(string(n.Role)), cell{string(n.State), partitionStyle(n.State)},
			text(n.Site), text(n.Flavor), text(n.Address), text(n.Account))
	}
	t.print(a.Out)
	return a.Out.failed()
}
