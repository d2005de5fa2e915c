package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"
)

func newPortsCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ports JOB",
		Short: "Show where the ports of a job answer",
		Long: `Show the forwarded ports of a job. An "in" port is a port of the job that
answers here, under its own number, at an address of the job's own; an "out"
port is one that the job uses and that leads here.

` + jobHelp,
		Example: lines(
			"skyport ports @last",
			`curl "http://$(skyport ports @last --json | jq -r '.[0].address')/"`,
		),
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeJob(),
		RunE:              func(cmd *cobra.Command, args []string) error { return runPorts(cmd.Context(), a, args[0]) },
	}
}

func runPorts(ctx context.Context, a *app, arg string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	job, err := findJob(ctx, c, arg)
	if err != nil {
		return err
	}
	ports, err := c.Ports(ctx, job.ID)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(list(ports))
	}
	t := table{
		columns: []column{{title: "PORT", right: true}, {title: "DIRECTION"}, {title: "ADDRESS"}, {title: "OPEN"}},
		empty:   "Job " + label(job) + " asked for no ports.",
	}
	for _, p := range ports {
		open := cell{"no", yellow}
		if p.Open {
			open = cell{"yes", green}
		}
		t.add(text(strconv.Itoa(p.Number)), text(string(p.Direction)), text(p.Address), open)
	}
	t.print(a.Out)
	return a.Out.failed()
}
