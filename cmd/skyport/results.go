package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

type resultsOptions struct {
	to    string
	force bool
	list  bool
}

func newResultsCommand(a *app) *cobra.Command {
	var opts resultsOptions
	cmd := &cobra.Command{
		Use:   "results [flags] JOB",
		Short: "Fetch the outputs of a job",
		Long: `Fetch the outputs of a job into a directory, by default results-ID below the
current one. Every file is checked and comes in place as a whole; what is there
already is not sent again. A directory that is not empty is left alone, unless
--force is given: then files of the same names are replaced, and others stay.
Outputs that the script named and did not leave are told as warnings.

` + jobHelp,
		Example: lines(
			"skyport results @last",
			"skyport results 1a2b --to ~/figures",
			"skyport results 1a2b --list",
		),
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeJob(skyport.JobFinished),
		RunE:              func(cmd *cobra.Command, args []string) error { return runResults(cmd.Context(), a, opts, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&opts.to, "to", "", "fetch into this `DIRECTORY`")
	f.BoolVar(&opts.force, "force", false, "also into a directory that is not empty")
	f.BoolVar(&opts.list, "list", false, "only list what there is")
	cmd.MarkFlagsMutuallyExclusive("to", "list")
	if err := cmd.MarkFlagDirname("to"); err != nil {
		panic(err) // there is no such flag: a mistake of ours
	}
	return cmd
}

// fetched is what results prints for programs.
type fetched struct {
	Directory string `json:"directory,omitempty"`
	skyport.Results
}

func runResults(ctx context.Context, a *app, opts resultsOptions, arg string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	job, err := findJob(ctx, c, arg)
	if err != nil {
		return err
	}
	if opts.list {
		results, err := c.ResultList(ctx, job.ID)
		if err != nil {
			return err
		}
		return printResults(a, results)
	}
	if opts.to == "" {
		opts.to = "results-" + job.ID.Short()
	}
	dir, err := filepath.Abs(opts.to)
	if err != nil {
		return fmt.Errorf("fetch results to %s: %w", opts.to, err)
	}
	if !opts.force {
		if err := mustBeEmpty(dir); err != nil {
			return err
		}
	}
	results, err := fetchResults(ctx, a, c, job, dir)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(fetched{dir, orEmpty(results)})
	}
	a.Out.printf("%s, %s, in %s\n", count(results.Count, "file"), results.Bytes, dir)
	for _, missing := range results.Missing {
		a.Err.printf("%s the job left no %s\n", a.Err.paint(yellow, "warning:"), oneLine(missing))
	}
	return a.Out.failed()
}

// fetchResults downloads with progress.
func fetchResults(ctx context.Context, a *app, c *client.Client, job skyport.Job, dir string) (skyport.Results, error) {
	bar := a.newProgress("download results")
	results, err := c.Results(ctx, job.ID, dir, func(t skyport.Transfer) { bar.update(t.Done, t.Total) })
	bar.end(err == nil)
	return results, err
}

func mustBeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return skyport.Errorf(skyport.CodeConflict, "fetch results: %w", err)
	case len(entries) > 0:
		return skyport.Errorf(skyport.CodeConflict, "fetch results to %s: the directory is not empty", dir).
			WithHint("--to names another one, --force replaces files of the same names")
	}
	return nil
}

func printResults(a *app, results skyport.Results) error {
	if a.JSON {
		return a.printJSON(orEmpty(results))
	}
	t := table{columns: []column{{title: "MODE"}, {title: "SIZE", right: true}, {title: "PATH"}}, empty: "No outputs."}
	for _, f := range results.Files {
		mode := fs.FileMode(f.Mode) & fs.ModePerm
		switch f.Kind {
		case "dir":
			mode |= fs.ModeDir
		case "symlink":
			mode |= fs.ModeSymlink
		}
		t.add(text(mode.String()), text(f.Bytes.String()), text(f.Path))
	}
	t.print(a.Out)
	for _, missing := range results.Missing {
		a.Err.printf("%s the job left no %s\n", a.Err.paint(yellow, "warning:"), oneLine(missing))
	}
	return a.Out.failed()
}

func orEmpty(r skyport.Results) skyport.Results {
	r.Files, r.Missing = list(r.Files), list(r.Missing)
	return r
}
