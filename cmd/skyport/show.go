package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"
	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
)

type showOptions struct {
	script bool
}

func newShowCommand(a *app) *cobra.Command {
	var opts showOptions
	cmd := &cobra.Command{
		Use:   "show [flags] JOB",
		Short: "Show a job with its timeline",
		Long: `Show all that is known of a job: what it asks for, where it is, how it ended,
what it cost, and its timeline: how long it was queued, waited for nodes,
uploaded, ran, downloaded and had its nodes removed, with the bytes that were
moved.

` + jobHelp,
		Example: lines(
			"skyport show 1a2b",
			"skyport show @last --script",
			"skyport show @last --json | jq .timeline",
		),
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeJob(),
		RunE:              func(cmd *cobra.Command, args []string) error { return runShow(cmd.Context(), a, opts, args[0]) },
	}
	cmd.Flags().BoolVar(&opts.script, "script", false, "print only the script, as it was submitted")
	return cmd
}

// jobReport is what show prints for programs.
type jobReport struct {
	Job      skyport.Job       `json:"job"`
	Attempts []skyport.Attempt `json:"attempts"`
	Ports    []skyport.JobPort `json:"ports"`
	Timeline []skyport.Step    `json:"timeline"`
	Costs    []skyport.Cost    `json:"costs"`
}

func runShow(ctx context.Context, a *app, opts showOptions, arg string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	job, err := findJob(ctx, c, arg)
	if err != nil {
		return err
	}
	if opts.script {
		script, err := c.Script(ctx, job.ID)
		if err != nil {
			return err
		}
		if a.JSON {
			return a.printJSON(map[string]string{"job": string(job.ID), "script": string(script)})
		}
		if _, err := a.Out.Write(script); err != nil {
			return a.Out.failed()
		}
		return nil
	}
	report := jobReport{Job: job}
	if report.Attempts, err = c.Attempts(ctx, job.ID); err != nil {
		return err
	}
	if report.Ports, err = c.Ports(ctx, job.ID); err != nil {
		return err
	}
	if report.Timeline, err = c.Timeline(ctx, job.ID); err != nil {
		return err
	}
	if report.Costs, err = c.JobCost(ctx, job.ID); err != nil {
		return err
	}
	report.Costs = list(report.Costs)
	report.Attempts, report.Ports, report.Timeline = list(report.Attempts), list(report.Ports), list(report.Timeline)
	if a.JSON {
		return a.printJSON(report)
	}
	printJob(a, report)
	return a.Out.failed()
}

func printJob(a *app, report jobReport) {
	job, now := report.Job, a.Now()
	say := func(name, value string) {
		if value = oneLine(value); value != "" {
			a.Out.printf("%s  %s\n", a.Out.paint(faint, runewidth.FillRight(name, 9)), value)
		}
	}
	when := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		ago := age(t, now) + " ago"
		if now.Sub(t) < time.Second {
			ago = "just now"
		}
		return fmt.Sprintf("%s (%s)", t.Local().Format(time.DateTime), ago)
	}
	say("job", string(job.ID))
	say("name", job.Name)
	say("comment", job.Request.Comment)
	a.Out.printf("%s  %s\n", a.Out.paint(faint, runewidth.FillRight("state", 9)),
		a.Out.paint(stateStyle(job.State), job.State.Word())+detailsOf(job))
	if job.State == skyport.JobFinished {
		say("exit", strings.TrimPrefix(exitWords(job), "exit "))
	}
	say("account", job.Account)
	say("asks for", asksFor(job.Request))
	say("site", job.Site)
	say("flavor", job.Flavor)
	say("nodes", strings.Join(job.NodeNames, ", "))
	for _, p := range report.Ports {
		open := ""
		if !p.Open {
			open = ", not open"
		}
		say("port", fmt.Sprintf("%d %s %s%s", p.Number, p.Direction, p.Address, open))
	}
	say("submitted", when(job.SubmitTime))
	say("started", when(job.StartTime))
	say("ended", when(job.EndTime))
	if !job.StartTime.IsZero() {
		say("ran", duration(job.Duration(now)))
	}
	say("cost", costWordsOf(report.Costs))
	if job.ResultBytes > 0 {
		say("results", job.ResultBytes.String())
	}
	for _, w := range job.Warnings {
		a.Out.printf("%s  %s\n", a.Out.paint(yellow, runewidth.FillRight("warning", 9)), oneLine(w))
	}
	if len(report.Attempts) > 1 {
		a.Out.printf("\n")
		printAttempts(a, report.Attempts)
	}
	if len(report.Timeline) > 0 {
		a.Out.printf("\n")
		printTimeline(a.Out, report.Timeline, now)
	}
}

// detailsOf is what the details of a job say beyond its state.
func detailsOf(job skyport.Job) string {
	details, word := oneLine(job.Details), job.State.Word()
	if len(details) >= len(word) && strings.EqualFold(details[:len(word)], word) {
		details = strings.TrimLeft(details[len(word):], ": ")
	}
	if details == "" {
		return ""
	}
	return ": " + details
}

// exitWords says how the script of a job ended.
func exitWords(job skyport.Job) string {
	if job.Signal != 0 {
		return fmt.Sprintf("by signal %d", job.Signal)
	}
	return fmt.Sprintf("exit code %d", job.ExitCode)
}

// asksFor sums up a request in a line.
func asksFor(r skyport.Request) string {
	asks := []string{count(max(1, r.Nodes), "node")}
	if r.CPUs > 0 {
		asks = append(asks, count(r.CPUs, "cpu"))
	}
	if r.Memory > 0 {
		asks = append(asks, r.Memory.String())
	}
	if r.GPUs > 0 {
		asks = append(asks, count(r.GPUs, "gpu"))
	}
	if r.Flavor != "" {
		asks = append(asks, "flavor "+r.Flavor)
	}
	if r.Site != "" {
		asks = append(asks, "site "+r.Site)
	}
	if r.ContainerImage != "" {
		asks = append(asks, "image "+r.ContainerImage)
	}
	switch r.Spot {
	case skyport.SpotYes:
		asks = append(asks, "spot")
	case skyport.SpotPrefer:
		asks = append(asks, "spot where there is some")
	}
	if r.TimeLimit > 0 {
		asks = append(asks, "at most "+duration(r.TimeLimit.Duration()))
	}
	if r.MaxPrice > 0 {
		asks = append(asks, "at most "+price(r.MaxPrice))
	}
	return strings.Join(asks, ", ")
}

func printAttempts(a *app, attempts []skyport.Attempt) {
	t := table{columns: []column{
		{title: "ATTEMPT", right: true},
		{title: "PHASE"},
		{title: "PARTITION", rank: 1},
		{title: "RUN", right: true},
		{title: "EXIT", right: true},
		{title: "OUTCOME", flex: true},
	}}
	for _, at := range attempts {
		run, exit := "-", "-"
		if !at.Started.IsZero() {
			run = duration(stepEnd(skyport.Step{Start: at.Started, End: at.Ended}, a.Now()).Sub(at.Started))
		}
		if at.Phase >= skyport.PhaseEnded && !at.Started.IsZero() && at.Outcome == "" {
			exit = outcome(skyport.Job{State: skyport.JobFinished, ExitCode: at.ExitCode, Signal: at.Signal})
		}
		t.add(text(fmt.Sprint(at.Number)), text(at.Phase.String()), text(at.Partition.Short()), text(run), text(exit), text(at.Outcome))
	}
	t.print(a.Out)
}
