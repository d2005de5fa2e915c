package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

type eventsOptions struct {
	follow  bool
	after   int64
	fromNow bool // skips what is stored
}

func newEventsCommand(a *app) *cobra.Command {
	var opts eventsOptions
	cmd := &cobra.Command{
		Use:   "events [flags] [JOB]",
		Short: "Show what happened, in order",
		Long: `Show the events of a job, or of all your jobs and their partitions, in the
order in which they happened. --follow goes on with those that happen, transfers
on their way included; without a job it begins now, unless --after says where.
With --json and --follow each event is a line of its own.

` + jobHelp,
		Example: lines(
			"skyport events @last",
			"skyport events --follow",
			"skyport events --follow --after 1200 --json",
		),
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeJob(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if opts.after < 0 {
				return usagef("--after %d: want 0 or more", opts.after)
			}
			opts.fromNow = opts.follow && len(args) == 0 && !cmd.Flags().Changed("after")
			return runEvents(cmd.Context(), a, opts, args)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&opts.follow, "follow", "f", false, "go on with what happens")
	f.Int64Var(&opts.after, "after", 0, "only those after this `NUMBER`")
	return cmd
}

func runEvents(ctx context.Context, a *app, opts eventsOptions, args []string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	var filter client.EventFilter
	if len(args) > 0 {
		job, err := findJob(ctx, c, args[0])
		if err != nil {
			return err
		}
		filter.Job = job.ID
	}
	after := opts.after
	if opts.fromNow {
		after = client.FromNow
	}
	if opts.follow {
		for e, err := range c.Events(ctx, filter, after) {
			if err != nil {
				return err
			}
			if err := a.printEvent(e, filter.Job == ""); err != nil {
				return err
			}
		}
		return ctx.Err() //nolint:wrapcheck // says all
	}
	events := []skyport.Event{}
	for e, err := range c.StoredEvents(ctx, filter, after) {
		if err != nil {
			return err
		}
		events = append(events, e)
	}
	if a.JSON {
		return a.printJSON(events)
	}
	for _, e := range events {
		if err := a.printEvent(e, filter.Job == ""); err != nil {
			return err
		}
	}
	return a.Out.failed()
}

// printEvent prints an event as a line; with subject also whose it is.
func (a *app) printEvent(e skyport.Event, subject bool) error {
	if a.JSON {
		return a.printJSONLine(e)
	}
	line := e.Time.Local().Format(time.DateTime+".000") + "  "
	if subject {
		line += fmt.Sprintf("%-8s  ", eventSubject(e))
	}
	word := eventWord(e)
	st := style("")
	if e.Kind == skyport.EventWarning {
		st = yellow
	} else if e.Job != "" && e.Kind == skyport.EventState {
		st = stateStyle(skyport.JobState(e.State))
	}
	said := eventText(e)
	if said != "" {
		word = fmt.Sprintf("%-12s  ", word)
	}
	line += a.Out.paint(st, word) + said
	a.Out.printf("%s\n", line)
	return a.Out.failed()
}

func eventSubject(e skyport.Event) string {
	if e.Job != "" {
		return e.Job.Short()
	}
	return e.Partition.Short()
}

// eventWord is the state that an event tells of, else its kind.
func eventWord(e skyport.Event) string {
	switch {
	case e.Kind != skyport.EventState && e.Kind != skyport.EventDetails:
		return string(e.Kind)
	case e.Job != "":
		return skyport.JobState(e.State).Word()
	}
	return e.State
}

// eventText is what an event says, or what its numbers say.
func eventText(e skyport.Event) string {
	if e.Text != "" || e.Transfer == nil {
		return oneLine(e.Text)
	}
	t := e.Transfer
	moved := fmt.Sprintf("%s: %s of %s", t.Name, t.Done, t.Total)
	if t.Files > 0 {
		moved += " in " + count(t.Files, "file")
	}
	return oneLine(moved)
}
