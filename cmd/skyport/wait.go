package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
)

func newWaitCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "wait JOB...",
		Short: "Wait until jobs have ended",
		Long: `Wait until every one of the jobs has ended, and end as they did: with the exit
code of the script. Of several, the first that is not 0 counts, in the order of
the arguments.

` + jobHelp,
		Example: lines(
			"skyport wait @last",
			"skyport wait 1a2b 3c4d && echo both are good",
		),
		Annotations:       jobExitAnnotation,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeJobs(),
		RunE:              func(cmd *cobra.Command, args []string) error { return runWait(cmd.Context(), a, args) },
	}
}

func runWait(ctx context.Context, a *app, args []string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	var waited []skyport.Job
	for _, arg := range args { // all are found before any is waited for
		job, err := findJob(ctx, c, arg)
		if err != nil {
			return err
		}
		waited = append(waited, job)
	}
	var end error
	for i, job := range waited {
		if job, err = c.Wait(ctx, job.ID); err != nil {
			return err
		}
		waited[i] = job
		if !a.JSON {
			a.printEnd(job)
			a.printWarnings(job)
		}
		if end == nil {
			end = jobExit(job)
		}
	}
	if a.JSON {
		if err := a.printJSON(waited); err != nil {
			return err
		}
	}
	return end
}

// printEnd says for people how a job ended.
func (a *app) printEnd(job skyport.Job) {
	said := job.State.Word()
	switch job.State {
	case skyport.JobFinished:
		said += ", " + exitWords(job) + ", ran " + duration(job.Duration(a.Now()))
	default:
		said += detailsOf(job)
	}
	a.Err.printf("%s: %s\n", label(job), a.Err.paint(endStyle(job), said))
}

func (a *app) printWarnings(job skyport.Job) {
	for _, w := range job.Warnings {
		a.Err.printf("  %s %s\n", a.Err.paint(yellow, "warning:"), oneLine(w))
	}
}

func endStyle(job skyport.Job) style {
	if job.State == skyport.JobFinished && job.ExitCode == 0 && job.Signal == 0 {
		return green
	}
	if job.State == skyport.JobFinished {
		return red
	}
	return stateStyle(job.State)
}
