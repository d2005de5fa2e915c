package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
)

func newMetricsCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "metrics JOB",
		Short: "Show what a job used of its node",
		Long: `Show how much processor and memory a job uses or used, on average and at most.
100% is one whole cpu.

` + jobHelp,
		Example:           lines("skyport metrics @last", "skyport metrics 1a2b --json | jq .mem_bytes.max"),
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeJob(),
		RunE:              func(cmd *cobra.Command, args []string) error { return runMetrics(cmd.Context(), a, args[0]) },
	}
}

func runMetrics(ctx context.Context, a *app, arg string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	job, err := findJob(ctx, c, arg)
	if err != nil {
		return err
	}
	m, err := c.Metrics(ctx, job.ID)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(m)
	}
	t := table{
		columns: []column{{title: "OF"}, {title: "AVERAGE", right: true}, {title: "MOST", right: true}},
		empty:   "No samples of job " + label(job) + ".",
	}
	row := func(of string, v *skyport.AvgMax, spell func(float64) string) {
		if v != nil {
			t.add(text(of), text(spell(v.Avg)), text(spell(v.Max)))
		}
	}
	percent := func(v float64) string { return fmt.Sprintf("%.0f%%", v) }
	size := func(v float64) string { return skyport.Bytes(v).String() }
	row("cpu", m.CPUPercent, percent)
	row("memory", m.MemBytes, size)
	row("gpu", m.GPUPercent, percent)
	row("gpu memory", m.GPUBytes, size)
	t.print(a.Out)
	return a.Out.failed()
}
