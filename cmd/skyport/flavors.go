package main

import (
	"context"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
)

type flavorsOptions struct{ site string }

func newFlavorsCommand(a *app) *cobra.Command {
	var opts flavorsOptions
	cmd := &cobra.Command{
		Use:               "flavors [flags]",
		Short:             "List the kinds of nodes, with prices",
		Long:              "List the flavors that nodes can have at the sites. Prices are for a node and hour.",
		Example:           lines("skyport flavors", "skyport flavors --site local --json"),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runFlavors(cmd.Context(), a, opts) },
	}
	siteFlag(a, cmd, &opts.site)
	return cmd
}

// siteFlag is the flag that restricts a list to one site.
func siteFlag(a *app, cmd *cobra.Command, site *string) {
	cmd.Flags().StringVar(site, "site", "", "only at this `SITE`")
	completeOn(cmd, "site", a.completeSites())
}

// atSite keeps what is at a site; an empty site keeps all.
func atSite[T any](all []T, site string, siteOf func(T) string) []T {
	kept := slices.DeleteFunc(slices.Clone(all), func(v T) bool { return site != "" && siteOf(v) != site })
	return list(kept)
}

func runFlavors(ctx context.Context, a *app, opts flavorsOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	flavors, err := c.Flavors(ctx)
	if err != nil {
		return err
	}
	flavors = atSite(flavors, opts.site, func(f skyport.Flavor) string { return f.Site })
	if a.JSON {
		return a.printJSON(flavors)
	}
	t := table{
		columns: []column{
			{title: "FLAVOR"},
			{title: "SITE"},
			{title: "CPUS", right: true},
			{title: "MEMORY", right: true},
			{title: "GPUS", right: true, rank: 1},
			{title: "STORAGE", right: true, rank: 2},
			{title: "ARCH", rank: 3},
			{title: "PRICE", right: true},
		},
		empty: "No flavors.",
	}
	for _, f := range flavors {
		t.add(text(f.Name), text(f.Site), text(strconv.Itoa(f.CPUs)), text(f.Memory.String()),
			text(strconv.Itoa(f.GPUs)), text(f.Storage.String()), text(f.Arch), text(price(f.Price)))
	}
	t.print(a.Out)
	return a.Out.failed()
}
