package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
	"github.com/openworkload/skyport/jobscript"
)

type submitOptions struct {
	dryRun     bool
	follow     bool
	wait       bool
	key        string
	directives []skyport.Directive
}

func newSubmitCommand(a *app) *cobra.Command {
	var opts submitOptions
	cmd := &cobra.Command{
		Use:   "submit [flags] (FILE | - | -- COMMAND [ARG...])",
		Short: "Submit a job",
		Long: `Submit a job: a script, the standard input, or a command with its arguments.
Lines of the script that begin with #SWM say what the job needs; for each such
directive there is a flag of the same name, which wins. Input files are sent to
core first, as far as core does not have them already; relative paths are
relative to the current directory. The id of the job is printed once the job is
accepted, and it is never lost from then on.

With --follow the command stays: progress goes to standard error, the output of
the job to standard output and standard error, until the job has ended; Ctrl-C
leaves the job alone. With --dry-run nothing is submitted: it shows what the job
asks for and where it would run now, at which price, and what it would cost.`,
		Example: lines(
			"skyport submit job.sh",
			"skyport submit --follow --cpus 4 --time 1h job.sh",
			"skyport submit --dry-run job.sh",
			"skyport submit --wait --input-files data.csv -- wc -l data.csv",
			"generate-script | skyport submit --name nightly -",
		),
		Annotations:       jobExitAnnotation,
		ValidArgsFunction: scriptFiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runSubmit(cmd.Context(), a, opts, args, cmd.ArgsLenAtDash())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false // its own first, then the directives in the order of their reference
	f.BoolVarP(&opts.follow, "follow", "f", false, "show what happens and what the job writes, until it has ended")
	f.BoolVarP(&opts.wait, "wait", "w", false, "stay until the job has ended")
	f.BoolVar(&opts.dryRun, "dry-run", false, "submit nothing: show the job and where it would run now")
	f.StringVar(&opts.key, "key", "", "the same `TEXT` with the same job is the same job: submitting again is harmless")
	for _, k := range jobscript.Keywords() {
		addDirectiveFlag(cmd, k, &opts.directives)
	}
	cmd.MarkFlagsMutuallyExclusive("dry-run", "follow", "wait")
	completeOn(cmd, "flavor", a.completeFlavors())
	completeOn(cmd, "site", a.completeSites())
	completeOn(cmd, "account", a.completeAccounts())
	completeOn(cmd, "cloud-image", a.completeImages(skyport.ImageCloud))
	completeOn(cmd, "container-image", a.completeImages(skyport.ImageContainer))
	return cmd
}

// jobExitAnnotation adds to the exit codes of a help.
var jobExitAnnotation = map[string]string{
	"exit": "once the job has ended: its own code, 128+signal, 124 state E, 125 canceled",
}

// directiveFlag collects the directives that flags give, in their order.
type directiveFlag struct {
	keyword jobscript.Keyword
	into    *[]skyport.Directive
}

func (d directiveFlag) String() string { return "" }
func (d directiveFlag) Type() string   { return strings.Trim(d.keyword.Argument, "[]") }
func (d directiveFlag) Set(value string) error {
	*d.into = append(*d.into, skyport.Directive{Keyword: d.keyword.Name, Value: value})
	return nil
}

// addDirectiveFlag makes the flags of a directive: its name and its other
// spellings, which the help does not list.
func addDirectiveFlag(cmd *cobra.Command, k jobscript.Keyword, into *[]skyport.Directive) {
	for i, name := range append([]string{k.Name}, k.Aliases...) {
		f := cmd.Flags().VarPF(directiveFlag{k, into}, name, "", k.Summary)
		f.Hidden = i > 0
		if k.Switch {
			f.NoOptDefVal = "yes"
		}
	}
}

func scriptFiles(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveDefault
}

func runSubmit(ctx context.Context, a *app, opts submitOptions, args []string, dash int) error {
	script, err := readScript(a, args, dash)
	if err != nil {
		return err
	}
	request, err := script.parse(opts.directives)
	if err != nil {
		return scriptError{script, err}
	}
	if request.Name == "" && script.title != "" {
		opts.directives = append(opts.directives, skyport.Directive{Keyword: "name", Value: script.title})
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	sub := client.Submission{Script: script.text, Directives: opts.directives, Key: opts.key}
	if opts.dryRun {
		return showPlan(ctx, a, c, sub, script)
	}
	job, err := submit(ctx, a, c, sub)
	if err != nil {
		return script.blame(err)
	}
	if !a.JSON {
		a.printWarnings(job) // of a budget that comes to its end
		job.Warnings = nil
	}
	switch {
	case opts.follow:
		return follow(ctx, a, c, job)
	case opts.wait:
		return submitted(ctx, a, c, job)
	case a.JSON:
		return a.printJSON(job)
	}
	a.Out.printf("%s\n", job.ID)
	if a.Out.live {
		a.Err.printf("%s\n", a.Err.paint(faint, "skyport show "+job.ID.Short()+" tells how it is, skyport logs -f "+job.ID.Short()+" what it writes"))
	}
	return a.Out.failed()
}

// submit sends the inputs, with progress, and the job.
func submit(ctx context.Context, a *app, c *client.Client, sub client.Submission) (skyport.Job, error) {
	var bar *progress
	sub.Progress = func(t skyport.Transfer) {
		if bar == nil {
			bar = a.newProgress("send inputs")
		}
		bar.update(t.Done, t.Total)
	}
	job, err := c.Submit(ctx, sub)
	if bar != nil {
		bar.end(err == nil)
	}
	return job, err
}

// submitted waits for the end of a job that was just submitted.
func submitted(ctx context.Context, a *app, c *client.Client, job skyport.Job) error {
	if !a.JSON {
		a.Out.printf("%s\n", job.ID)
	}
	id := job.ID
	job, err := c.Wait(ctx, id)
	if err != nil {
		return stillThere(a, id, err)
	}
	if a.JSON {
		if err := a.printJSON(job); err != nil {
			return err
		}
	} else {
		a.printEnd(job)
		a.printWarnings(job)
	}
	return jobExit(job)
}

// stillThere tells that the job goes on although nobody waits any more.
func stillThere(a *app, id skyport.JobID, err error) error {
	a.Err.printf("The job goes on: skyport wait %[1]s waits for it, skyport cancel %[1]s ends it.\n", id.Short())
	return err
}

// jobText is a script as it was read.
type jobText struct {
	text  []byte
	file  string // how messages call it
	title string // name of the job where the script has none
}

// parse checks the script here, so that mistakes are told without core.
func (s jobText) parse(directives []skyport.Directive) (skyport.Request, error) {
	return jobscript.Parse(s.text, jobscript.Options{File: s.file, Overrides: directives})
}

// blame finds out whether an error of core is about a line of the script.
func (s jobText) blame(err error) error {
	if wrong, ok := errors.AsType[*skyport.Error](err); ok && wrong.Line > 0 {
		return scriptError{s, err}
	}
	return err
}

// readScript reads what is to be submitted. Dash is the number of arguments
// before --, or below 0 without it.
func readScript(a *app, args []string, dash int) (jobText, error) {
	switch {
	case dash == 0 && len(args) > 0:
		return commandScript(args), nil
	case dash >= 0 || len(args) != 1:
		return jobText{}, usagef("submit what: one script file, - for standard input, or -- and a command")
	case args[0] == "-":
		text, err := readBounded(a.In)
		if err != nil {
			return jobText{}, fmt.Errorf("read the job script from standard input: %w", err)
		}
		return jobText{text: text, file: "standard input"}, nil
	}
	f, err := os.Open(args[0])
	if err != nil {
		return jobText{}, unreadable(err)
	}
	defer func() { _ = f.Close() }() // only read
	text, err := readBounded(f)
	if err != nil {
		return jobText{}, unreadable(err)
	}
	return jobText{text: text, file: args[0], title: filepath.Base(args[0])}, nil
}

// unreadable gives an error of a script's file its exit code.
func unreadable(err error) error {
	code := skyport.CodeInputUnreadable
	if errors.Is(err, os.ErrNotExist) {
		code = skyport.CodeNotFound
	}
	return skyport.Errorf(code, "read the job script: %w", err)
}

// readBounded reads at most one byte more than a script may have: the parser
// refuses it then with the right words.
func readBounded(r io.Reader) ([]byte, error) {
	return io.ReadAll(io.LimitReader(r, jobscript.MaxSize+1)) //nolint:wrapcheck // callers say of what
}

// commandScript is a script that is one command.
func commandScript(args []string) jobText {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = shellQuote(arg)
	}
	return jobText{
		text:  []byte("#!/bin/sh\nexec " + strings.Join(words, " ") + "\n"),
		file:  "command",
		title: oneLine(filepath.Base(args[0])),
	}
}

// shellQuote spells a word so that a shell takes it literally.
func shellQuote(word string) string {
	const harmless = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./,:@%+-"
	if word != "" && strings.Trim(word, harmless) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// scriptError is what is wrong with a script, with the script to show where.
type scriptError struct {
	script jobText
	err    error
}

func (e scriptError) Error() string { return e.err.Error() }
func (e scriptError) Unwrap() error { return e.err }

// tell prints one mistake per line, so that editors find the places; people at
// a terminal also see the line and a mark below the column.
func (e scriptError) tell(a *app) {
	all, ok := errors.AsType[jobscript.Errors](e.err)
	if one, single := errors.AsType[*skyport.Error](e.err); !ok && single {
		all = jobscript.Errors{one}
	}
	source := strings.Split(string(e.script.text), "\n")
	for _, one := range all {
		a.Err.printf("%s\n", a.Err.paint(bold, oneLine(one.Message)))
		if a.Err.live && one.Line > 0 && one.Line <= len(source) {
			line, before := source[one.Line-1], one.Column-1
			a.Err.printf("  %s\n  %s\n", strings.ReplaceAll(plain(line), "\t", " "),
				strings.Repeat(" ", max(0, width(line, before)))+a.Err.paint(red, "^"))
		}
		if one.Hint != "" {
			a.Err.printf("  %s %s\n", a.Err.paint(cyan, "hint:"), plain(one.Hint))
		}
	}
}

// showPlan prints the normalised job and where it would run now.
func showPlan(ctx context.Context, a *app, c *client.Client, sub client.Submission, script jobText) error {
	plan, err := c.Plan(ctx, sub)
	if err != nil {
		return script.blame(err)
	}
	if a.JSON {
		return a.printJSON(plan)
	}
	a.Out.printf("%s", jobscript.Format(plan.Request))
	a.Out.printf("\n%s\n", placement(plan))
	if words := estimateWords(plan); words != "" {
		a.Out.printf("%s\n", words)
	}
	if plan.Reason != "" {
		a.Out.printf("It would wait: %s\n", oneLine(plan.Reason))
	}
	return a.Out.failed()
}

func placement(p skyport.Plan) string {
	if p.Site == "" {
		return "No place for it now."
	}
	nodes := count(p.Nodes, "node")
	at := fmt.Sprintf("%s of flavor %s at %s, %s", nodes, p.Flavor, p.Site, planPrice(p))
	if p.Partition != "" {
		return "On partition " + p.Partition.Short() + ", which is there: " + at + "."
	}
	return "On a new partition: " + at + "."
}
