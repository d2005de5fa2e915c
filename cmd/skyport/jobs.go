package main

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

type jobsOptions struct {
	all     bool
	states  []string
	limit   int
	name    string
	account string
	site    string
}

func newJobsCommand(a *app) *cobra.Command {
	var opts jobsOptions
	cmd := &cobra.Command{
		Use:     "jobs [flags]",
		Aliases: []string{"ps"},
		Short:   "List your jobs",
		Long: `List your jobs, the newest first: those that have not ended, or with --all
every one. States are named by letter or word: Q queued, W waiting for its
nodes, T transferring, R running, F finished, C canceled, E error.`,
		Example: lines(
			"skyport jobs",
			"skyport jobs --all --limit 10",
			"skyport ps --state running,queued --site local",
			"skyport jobs --state F --json | jq -r '.[].id'",
		),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runJobs(cmd.Context(), a, opts) },
	}
	f := cmd.Flags()
	f.BoolVarP(&opts.all, "all", "a", false, "also those that have ended")
	f.StringSliceVar(&opts.states, "state", nil, "only jobs in these `STATES`")
	f.IntVarP(&opts.limit, "limit", "n", 100, "at most `COUNT`; 0: every one")
	f.StringVar(&opts.name, "name", "", "only jobs with this `TEXT` in their name")
	f.StringVar(&opts.account, "account", "", "only jobs that this `ACCOUNT` pays")
	f.StringVar(&opts.site, "site", "", "only jobs at this `SITE`")
	completeOn(cmd, "state", cobra.FixedCompletions(stateWords(), cobra.ShellCompDirectiveNoFileComp))
	completeOn(cmd, "account", a.completeAccounts())
	completeOn(cmd, "site", a.completeSites())
	return cmd
}

func runJobs(ctx context.Context, a *app, opts jobsOptions) error {
	states, err := parseStates(opts.states)
	if err != nil {
		return err
	}
	if opts.limit < 0 {
		return usagef("--limit %d: want 0 or more", opts.limit)
	}
	if len(states) == 0 && !opts.all {
		states = slices.DeleteFunc(skyport.JobStates(), skyport.JobState.Terminal)
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	jobs := []skyport.Job{}
	filter := client.JobFilter{
		States: states, Limit: opts.limit, Name: opts.name, Account: opts.account, Site: opts.site,
	}
	for job, err := range c.Jobs(ctx, filter) {
		if err != nil {
			return err
		}
		jobs = append(jobs, job)
	}
	if a.JSON {
		return a.printJSON(jobs)
	}
	printJobs(a, jobs, opts)
	return a.Out.failed()
}

func printJobs(a *app, jobs []skyport.Job, opts jobsOptions) {
	t := table{
		columns: []column{
			{title: "JOB"},
			{title: "NAME", flex: true},
			{title: "STATE"},
			{title: "SITE", rank: 3},
			{title: "FLAVOR", rank: 4},
			{title: "AGE", right: true, rank: 1},
			{title: "RUN", right: true, rank: 2},
			{title: "EXIT", right: true},
			{title: "DETAILS", flex: true, rank: 5},
		},
		empty: "No jobs.",
	}
	if !opts.all && len(opts.states) == 0 {
		t.empty = "No active jobs. skyport jobs --all lists those that have ended."
	}
	now := a.Now()
	for _, job := range jobs {
		run := "-"
		if !job.StartTime.IsZero() {
			run = duration(job.Duration(now))
		}
		t.add(
			text(job.ID.Short()), text(job.Name), cell{job.State.Word(), stateStyle(job.State)},
			text(job.Site), text(job.Flavor), text(age(job.SubmitTime, now)), text(run),
			text(outcome(job)), cell{job.Details, faint},
		)
	}
	t.print(a.Out)
}

// outcome is how the script ended: its exit code, its signal, or - before.
func outcome(job skyport.Job) string {
	switch {
	case job.State != skyport.JobFinished:
		return "-"
	case job.Signal != 0:
		return "sig " + strconv.Itoa(job.Signal)
	}
	return strconv.Itoa(job.ExitCode)
}

func stateWords() []string {
	var words []string
	for _, s := range skyport.JobStates() {
		words = append(words, s.Word())
	}
	return words
}

// parseStates takes letters and words.
func parseStates(given []string) ([]skyport.JobState, error) {
	var states []skyport.JobState
	for _, g := range given {
		i := slices.IndexFunc(skyport.JobStates(), func(s skyport.JobState) bool {
			return strings.EqualFold(g, string(s)) || strings.EqualFold(g, s.Word())
		})
		if i < 0 {
			return nil, usagef("--state %s: no such state; there are %s", g, strings.Join(stateWords(), ", "))
		}
		states = append(states, skyport.JobStates()[i])
	}
	return states, nil
}
