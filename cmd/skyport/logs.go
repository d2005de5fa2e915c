package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

type logsOptions struct {
	follow  bool
	stderr  bool
	tail    int
	attempt int
}

func newLogsCommand(a *app) *cobra.Command {
	var opts logsOptions
	cmd := &cobra.Command{
		Use:   "logs [flags] JOB",
		Short: "Print what a job wrote",
		Long: `Print the standard output of a job, or with --stderr its standard error, byte
for byte, also while it runs. --follow waits for a log that has not begun and
goes on until it ends; a lost connection or a restart of core is only a pause.
With --json each line is an object of its own.

` + jobHelp,
		Example: lines(
			"skyport logs @last",
			"skyport logs --follow 1a2b",
			"skyport logs --stderr --tail 20 1a2b",
			"skyport logs --attempt 1 1a2b",
		),
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeJob(),
		RunE:              func(cmd *cobra.Command, args []string) error { return runLogs(cmd.Context(), a, opts, args[0]) },
	}
	f := cmd.Flags()
	f.BoolVarP(&opts.follow, "follow", "f", false, "go on until the log ends")
	f.BoolVar(&opts.stderr, "stderr", false, "standard error in place of standard output")
	f.IntVar(&opts.tail, "tail", 0, "only the last so many `LINES`; 0: all")
	f.IntVar(&opts.attempt, "attempt", 0, "the log of this attempt `NUMBER`; 0: the current one")
	return cmd
}

func runLogs(ctx context.Context, a *app, opts logsOptions, arg string) error {
	if opts.tail < 0 || opts.attempt < 0 {
		return usagef("--tail and --attempt: want 0 or more")
	}
	stream := skyport.Stdout
	if opts.stderr {
		stream = skyport.Stderr
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	job, err := findJob(ctx, c, arg)
	if err != nil {
		return err
	}
	log, err := c.Logs(ctx, job.ID, stream, client.LogOptions{Follow: opts.follow, Tail: opts.tail, Attempt: opts.attempt})
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // only read
	if a.JSON {
		return a.printLogLines(stream, log)
	}
	_, err = io.Copy(a.Out, log)
	return readingLog(stream, errors.Join(a.Out.failed(), err))
}

func readingLog(stream skyport.LogStream, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("read %s of the job: %w", stream, err)
}

// logLine is a line of a log for programs. A line without an end is cut.
type logLine struct {
	Stream skyport.LogStream `json:"stream"`
	Line   string            `json:"line"`
}

const logLineMax = 1 << 20

func (a *app) printLogLines(stream skyport.LogStream, log io.Reader) error {
	scan := bufio.NewScanner(log)
	scan.Buffer(nil, logLineMax)
	scan.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		advance, token, err := bufio.ScanLines(data, atEOF)
		if advance == 0 && token == nil && err == nil && len(data) >= logLineMax/2 {
			return len(data), data, nil
		}
		return advance, token, err //nolint:wrapcheck // goes through the scanner, which tells by it
	})
	for scan.Scan() {
		if err := a.printJSONLine(logLine{stream, scan.Text()}); err != nil {
			return err
		}
	}
	return readingLog(stream, scan.Err())
}
