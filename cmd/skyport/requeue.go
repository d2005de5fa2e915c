package main

import (
	"github.com/spf13/cobra"

	"github.com/openworkload/skyport/client"
)

func newRequeueCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "requeue JOB...",
		Short: "Run jobs again",
		Long: `Put jobs into the queue again, as a new attempt. What the attempt before does is
stopped; its logs are kept and can be read with skyport logs --attempt.

` + jobHelp,
		Example:           lines("skyport requeue @last", "skyport requeue 1a2b 3c4d"),
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeJobs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeJobs(cmd.Context(), args, "queued again", (*client.Client).Requeue)
		},
	}
}
