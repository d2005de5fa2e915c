package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
)

func newSitesCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "sites",
		Short:             "List the sites where jobs can run",
		Long:              "List the sites where nodes can be had, with how much may be had at once.",
		Example:           lines("skyport sites", "skyport sites --json | jq -r '.[].name'"),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runSites(cmd.Context(), a) },
	}
}

func runSites(ctx context.Context, a *app) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	sites, err := c.Sites(ctx)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(list(sites))
	}
	t := table{
		columns: []column{
			{title: "SITE"},
			{title: "KIND"},
			{title: "REGION", rank: 1},
			{title: "CONTAINERS", rank: 2},
			{title: "DEFAULT FLAVOR", rank: 1},
			{title: "CURRENCY", rank: 3},
			{title: "AT MOST", flex: true},
			{title: "SERVER", flex: true, rank: 3},
		},
		empty: "No sites. skyport doctor looks for the reason.",
	}
	for _, s := range sites {
		containers := "no"
		if s.Container {
			containers = "yes"
		}
		server := s.Server
		if s.Port != 0 {
			server += ":" + strconv.Itoa(s.Port)
		}
		t.add(text(s.Name), text(s.Kind), text(s.Region), text(containers), text(s.DefaultFlavor), text(s.Currency), text(limits(s.Limits)), text(server))
	}
	t.print(a.Out)
	return a.Out.failed()
}

func limits(l skyport.Limits) string {
	var said []string
	if l.Nodes > 0 {
		said = append(said, count(l.Nodes, "node"))
	}
	if l.CPUs > 0 {
		said = append(said, count(l.CPUs, "cpu"))
	}
	if l.Memory > 0 {
		said = append(said, l.Memory.String())
	}
	if len(said) == 0 {
		return "no limit"
	}
	return strings.Join(said, ", ")
}
