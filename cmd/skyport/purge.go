package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

type purgeOptions struct {
	all    bool
	states []string
	yes    bool
}

func newPurgeCommand(a *app) *cobra.Command {
	var opts purgeOptions
	cmd := &cobra.Command{
		Use:   "purge [flags] (JOB... | --all | --state STATE)",
		Short: "Forget jobs, with their logs and results",
		Long: `Cancel jobs, remove what was made for them, and forget them: their scripts, logs
and the results that core keeps are gone. Results that were fetched to a
directory stay. It asks before, unless --yes is given; without a terminal to
ask at, --yes is needed.

` + jobHelp,
		Example: lines(
			"skyport purge 1a2b",
			"skyport purge --state finished,canceled",
			"skyport purge --all --yes",
		),
		ValidArgsFunction: a.completeJobs(),
		RunE:              func(cmd *cobra.Command, args []string) error { return runPurge(cmd.Context(), a, opts, args) },
	}
	f := cmd.Flags()
	f.BoolVarP(&opts.all, "all", "a", false, "all your jobs")
	f.StringSliceVar(&opts.states, "state", nil, "all your jobs in these `STATES`")
	f.BoolVarP(&opts.yes, "yes", "y", false, "do not ask")
	completeOn(cmd, "state", cobra.FixedCompletions(stateWords(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func runPurge(ctx context.Context, a *app, opts purgeOptions, args []string) error {
	states, err := parseStates(opts.states)
	if err != nil {
		return err
	}
	byFilter := opts.all || len(states) > 0
	if byFilter == (len(args) > 0) || opts.all && len(states) > 0 {
		return usagef("say which jobs: some JOBs, or --all, or --state")
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	if byFilter {
		return purgeAll(ctx, a, c, opts, states)
	}
	var jobs []skyport.Job
	for _, arg := range args {
		job, err := findJob(ctx, c, arg)
		if err != nil {
			return err
		}
		jobs = append(jobs, job)
	}
	what := count(len(jobs), "job")
	if len(jobs) == 1 {
		what = "job " + label(jobs[0])
	}
	if err := a.confirm(opts.yes, "Forget "+what+" with all logs and results?"); err != nil {
		return err
	}
	for _, job := range jobs {
		if err := c.Purge(ctx, job.ID); err != nil {
			return err
		}
		if !a.JSON {
			a.Out.printf("%s: purged\n", label(job))
		}
	}
	return a.purged(len(jobs))
}

func purgeAll(ctx context.Context, a *app, c *client.Client, opts purgeOptions, states []skyport.JobState) error {
	which := "all your jobs"
	if len(states) > 0 {
		which = "all your jobs in the states " + strings.Join(opts.states, ", ")
	}
	if err := a.confirm(opts.yes, "Forget "+which+" with all logs and results?"); err != nil {
		return err
	}
	n, err := c.PurgeAll(ctx, client.JobFilter{States: states})
	if err != nil {
		return err
	}
	if !a.JSON {
		a.Out.printf("%s purged\n", count(n, "job"))
	}
	return a.purged(n)
}

func (a *app) purged(n int) error {
	if a.JSON {
		return a.printJSON(map[string]int{"purged": n})
	}
	return a.Out.failed()
}

// confirm asks on the terminal. Anything but yes is no.
func (a *app) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	f, ok := a.In.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return usagef("this asks before it removes anything, and there is no terminal to ask at: add --yes")
	}
	a.Err.printf("%s [y/N] ", question)
	answer, err := bufio.NewReader(a.In).ReadString('\n')
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	a.Err.printf("Nothing was changed.\n")
	return endWith(exitFailure)
}
