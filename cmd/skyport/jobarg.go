package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

// How commands take jobs, and how shells complete them.

const jobHelp = `JOB is an id, the beginning of one (at least 4 characters, as far as it is
unique), the exact name of a job, or @last (also -) for the job that was
submitted last.`

const minPrefix = 4

// findJob returns the caller's job that a person means.
func findJob(ctx context.Context, c *client.Client, arg string) (skyport.Job, error) {
	if id, err := skyport.ParseJobID(arg); err == nil {
		job, err := c.Job(ctx, id)
		if err != nil && skyport.CodeOf(err) == skyport.CodeNotFound {
			return job, errNoJob(arg)
		}
		return job, err
	}
	if arg == "@last" || arg == "-" {
		for job, err := range c.Jobs(ctx, client.JobFilter{Limit: 1}) {
			return job, err
		}
		return skyport.Job{}, skyport.Errorf(skyport.CodeNotFound, "find the last job: you have none").
			WithHint("skyport submit submits one")
	}
	if len(arg) >= minPrefix && strings.Trim(arg, "0123456789abcdefABCDEF-") == "" {
		job, err := c.Find(ctx, strings.ToLower(arg))
		if err == nil || skyport.CodeOf(err) != skyport.CodeNotFound {
			return job, err
		}
	}
	return findJobByName(ctx, c, arg)
}

func findJobByName(ctx context.Context, c *client.Client, name string) (skyport.Job, error) {
	var found []skyport.Job
	if name != "" {
		for job, err := range c.Jobs(ctx, client.JobFilter{Name: name}) {
			if err != nil {
				return skyport.Job{}, err
			}
			if job.Name == name {
				found = append(found, job)
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return skyport.Job{}, errNoJob(name)
	}
	return skyport.Job{}, skyport.Errorf(skyport.CodeConflict, "find job %q: %d jobs have this name", skyport.Abbreviate(name, 60), len(found)).
		WithHint("say the id: the newest is %s", found[0].ID)
}

func errNoJob(arg string) error {
	return skyport.Errorf(skyport.CodeNotFound, "find job %q: no job of yours has this id or name", skyport.Abbreviate(arg, 60)).
		WithHint("skyport jobs --all lists your jobs; an id may be cut to %d characters and more", minPrefix)
}

// eachJob finds the jobs of the arguments and does something with each. What
// fails for one is told at once and stops nothing; the first such error is
// what the command ends with.
func (a *app) eachJob(ctx context.Context, c *client.Client, args []string, do func(skyport.Job) error) error {
	var first error
	for _, arg := range args {
		job, err := findJob(ctx, c, arg)
		if err == nil {
			err = do(job)
		}
		if err == nil {
			continue
		}
		if ctx.Err() != nil || len(args) == 1 {
			return err
		}
		a.tell(err)
		if first == nil {
			first = endWith(a.exitCode(ctx, err))
		}
	}
	return first
}

// label is how a job is called in messages: short id and name.
func label(job skyport.Job) string {
	if job.Name == "" {
		return job.ID.Short()
	}
	return job.ID.Short() + " (" + oneLine(job.Name) + ")"
}

// completionPatience is how long a shell waits for names from core.
const completionPatience = time.Second

type completionFunc = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// completeFrom asks core for words to complete with. Without core there are none.
func (a *app) completeFrom(words func(context.Context, *client.Client) ([]string, error)) completionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if err := a.begin(); err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c, err := a.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
		defer cancel()
		found, err := words(ctx, c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return slices.DeleteFunc(found, func(word string) bool {
			id, _, _ := strings.Cut(word, "\t")
			return slices.Contains(args, id)
		}), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeJobs offers the newest jobs in the given states; none: in all.
func (a *app) completeJobs(states ...skyport.JobState) completionFunc {
	return a.completeFrom(func(ctx context.Context, c *client.Client) ([]string, error) {
		words := []string{"@last\tthe job that was submitted last"}
		for job, err := range c.Jobs(ctx, client.JobFilter{States: states, Limit: 50}) {
			if err != nil {
				return nil, err
			}
			words = append(words, job.ID.Short()+"\t"+oneLine(job.State.Word()+" "+job.Name))
		}
		return words, nil
	})
}

// completeJob is completeJobs for commands that take one job.
func (a *app) completeJob(states ...skyport.JobState) completionFunc {
	return firstOnly(a.completeJobs(states...))
}

func firstOnly(complete completionFunc) completionFunc {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, word)
	}
}

func (a *app) completeSites() completionFunc {
	return a.completeFrom(func(ctx context.Context, c *client.Client) ([]string, error) {
		sites, err := c.Sites(ctx)
		words := make([]string, 0, len(sites))
		for _, s := range sites {
			words = append(words, s.Name+"\t"+s.Kind)
		}
		return words, err
	})
}

func (a *app) completeFlavors() completionFunc {
	return a.completeFrom(func(ctx context.Context, c *client.Client) ([]string, error) {
		flavors, err := c.Flavors(ctx)
		words := make([]string, 0, len(flavors))
		for _, f := range flavors {
			words = append(words, f.Name+"\t"+f.Site+", "+count(f.CPUs, "cpu")+", "+f.Memory.String()+", "+price(f.Price))
		}
		return words, err
	})
}

func (a *app) completeImages(kind skyport.ImageKind) completionFunc {
	return a.completeFrom(func(ctx context.Context, c *client.Client) ([]string, error) {
		images, err := c.Images(ctx)
		var words []string
		for _, i := range images {
			if i.Kind == kind {
				words = append(words, i.Name+"\t"+i.Site)
			}
		}
		return words, err
	})
}

func (a *app) completeAccounts() completionFunc {
	return a.completeFrom(func(ctx context.Context, c *client.Client) ([]string, error) {
		accounts, err := c.Accounts(ctx)
		words := make([]string, 0, len(accounts))
		for _, account := range accounts {
			words = append(words, account.Name)
		}
		return words, err
	})
}

// completeOn offers completions for a flag. It fails only for a flag that the
// command does not have, which is a mistake of ours.
func completeOn(cmd *cobra.Command, flag string, complete completionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err)
	}
}
