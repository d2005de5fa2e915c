package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

func newCancelCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "cancel JOB...",
		Short: "Cancel jobs",
		Long: `Cancel jobs, whatever they are doing. They count as canceled at once; what runs
is stopped and what was made for them is removed behind that. Their logs stay.

` + jobHelp,
		Example:           lines("skyport cancel @last", "skyport cancel 1a2b 3c4d"),
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeJobs(skyport.JobQueued, skyport.JobWaiting, skyport.JobTransferring, skyport.JobRunning),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeJobs(cmd.Context(), args, "canceled", (*client.Client).Cancel)
		},
	}
}

// changeJobs does with each job what cancel and requeue do.
func (a *app) changeJobs(ctx context.Context, args []string, done string,
	change func(*client.Client, context.Context, skyport.JobID) (skyport.Job, error),
) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	changed := []skyport.Job{}
	failed := a.eachJob(ctx, c, args, func(job skyport.Job) error {
		after, err := change(c, ctx, job.ID)
		if err != nil {
			return err
		}
		changed = append(changed, after)
		if !a.JSON {
			a.Out.printf("%s: %s\n", label(job), done)
		}
		return nil
	})
	if a.JSON {
		if err := a.printJSON(changed); err != nil {
			return err
		}
	}
	if failed != nil {
		return failed
	}
	return a.Out.failed()
}
