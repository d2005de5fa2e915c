package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
)

type partitionsOptions struct {
	all  bool
	site string
}

func newPartitionsCommand(a *app) *cobra.Command {
	var opts partitionsOptions
	cmd := &cobra.Command{
		Use:   "partitions [flags]",
		Short: "List the clusters that were made for jobs",
		Long: `List the partitions: the clusters of nodes that were made at the sites for jobs.
With --all also those that were removed.`,
		Example:           lines("skyport partitions", "skyport partitions --all --site local"),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runPartitions(cmd.Context(), a, opts) },
	}
	cmd.Flags().BoolVarP(&opts.all, "all", "a", false, "also those that were removed")
	siteFlag(a, cmd, &opts.site)
	return cmd
}

func runPartitions(ctx context.Context, a *app, opts partitionsOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	partitions, err := c.Partitions(ctx, opts.all)
	if err != nil {
		return err
	}
	partitions = atSite(partitions, opts.site, func(p skyport.Partition) string { return p.Site })
	if a.JSON {
		return a.printJSON(partitions)
	}
	t := table{
		columns: []column{
			{title: "PARTITION"},
			{title: "STATE"},
			{title: "SITE"},
			{title: "FLAVOR", rank: 1},
			{title: "NODES", right: true},
			{title: "PRICE", right: true},
			{title: "AGE", right: true},
			{title: "ACCOUNT", rank: 3},
			{title: "DETAILS", flex: true, rank: 2},
		},
		empty: "No partitions: nothing is at any site.",
	}
	now := a.Now()
	for _, p := range partitions {
		t.add(text(p.ID.Short()), cell{string(p.State), partitionStyle(p.State)}, text(p.Site), text(p.Flavor.Name),
			text(strconv.Itoa(len(p.Nodes))), text(price(p.PricePerHour())), text(age(p.Created, now)), text(p.Account), cell{p.Details, faint})
	}
	t.print(a.Out)
	return a.Out.failed()
}

func partitionStyle(s skyport.PartitionState) style {
	switch {
	case s == skyport.PartitionFailed:
		return red
	case s.Connected():
		return green
	case s == skyport.PartitionDeleted:
		return faint
	case s.Usable():
		return cyan
	}
	return yellow
}
