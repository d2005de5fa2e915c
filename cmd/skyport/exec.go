package main

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

type execOptions struct {
	node string
	tty  bool
	env  []string
	dir  string
}

func newExecCommand(a *app) *cobra.Command {
	var opts execOptions
	cmd := &cobra.Command{
		Use:   "exec [flags] JOB -- COMMAND [ARG...]",
		Short: "Run a command beside the script of a job",
		Long: `Run a command beside the script of a job, while the job is on its nodes: in its
container if it has one, in its work directory, with its environment. Standard
input, output and error are the command's, signals are passed on to it, and its
exit code is the one that skyport ends with. Ctrl-C three times ends the
connection, and with it the command.

` + jobHelp,
		Example: lines(
			"skyport exec @last -- ps aux",
			"skyport exec 1a2b --node compute1 -- nvidia-smi",
			"skyport exec 1a2b -- tar -cz checkpoints > checkpoints.tar.gz",
			"skyport exec -t 1a2b -- top",
		),
		Args:              execArgs,
		Annotations:       commandExitAnnotation,
		ValidArgsFunction: a.completeJob(skyport.JobRunning, skyport.JobTransferring),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runExec(cmd.Context(), a, opts, args[0], args[1:])
		},
	}
	f := cmd.Flags()
	nodeFlag(a, cmd, &opts.node)
	f.BoolVarP(&opts.tty, "tty", "t", false, "give the command a terminal")
	f.StringArrayVarP(&opts.env, "env", "e", nil, "set a `NAME=VALUE` in its environment; may be repeated")
	f.StringVar(&opts.dir, "dir", "", "run it in this `DIRECTORY`, below the work directory of the job")
	completeOn(cmd, "env", cobra.NoFileCompletions)
	completeOn(cmd, "dir", cobra.NoFileCompletions)
	return cmd
}

// commandExitAnnotation adds to the exit codes of a help.
var commandExitAnnotation = map[string]string{
	"exit": "once the command began: its own code, 128+signal; 255 it could not be run, or its end is not known",
}

func nodeFlag(a *app, cmd *cobra.Command, into *string) {
	cmd.Flags().StringVarP(into, "node", "N", "", "on this `NODE`, such as main or compute1 (default main)")
	completeOn(cmd, "node", func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.completeFrom(func(ctx context.Context, c *client.Client) ([]string, error) {
			job, err := findJob(ctx, c, args[0])
			return job.NodeNames, err
		})(cmd, nil, word)
	})
}

func execArgs(cmd *cobra.Command, args []string) error {
	if len(args) < 2 || cmd.ArgsLenAtDash() != 1 {
		return usagef("run what, beside which job? JOB -- COMMAND [ARG...]; skyport attach JOB opens a shell")
	}
	return nil
}

func runExec(ctx context.Context, a *app, opts execOptions, arg string, argv []string) error {
	env, err := parseEnv(opts.env)
	if err != nil {
		return err
	}
	command := client.Command{Argv: argv, Env: env, Dir: opts.dir, TTY: opts.tty}
	return a.besideJob(ctx, arg, opts.node, command)
}

func parseEnv(given []string) (map[string]string, error) {
	env := make(map[string]string, len(given))
	for _, g := range given {
		name, value, ok := strings.Cut(g, "=")
		if !ok || name == "" {
			return nil, usagef("--env %s: want NAME=VALUE", skyport.Abbreviate(g, 60))
		}
		env[name] = value
	}
	return env, nil
}

// besideJob runs a command beside a job's script, and ends as it does.
func (a *app) besideJob(ctx context.Context, arg, node string, command client.Command) error {
	if err := a.mayUseTerminal(command); err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return a.notRun(ctx, err)
	}
	defer c.Close()
	job, err := findJob(ctx, c, arg)
	if err != nil {
		return a.notRun(ctx, err)
	}
	if node, err = findNode(job.NodeNames, node); err != nil {
		return a.notRun(ctx, err)
	}
	return a.runCommand(ctx, command, func(ctx context.Context, command client.Command, streams client.Streams) (client.Exit, error) {
		return c.Exec(ctx, job.ID, node, command, streams)
	})
}

// findNode returns the node that a person means: by its name, or by what
// stands behind the last dash of it, such as compute1.
func findNode(names []string, arg string) (string, error) {
	if arg == "" {
		return "", nil
	}
	for _, name := range names {
		if name == arg || strings.HasSuffix(name, "-"+arg) {
			return name, nil
		}
	}
	missing := skyport.Errorf(skyport.CodeNotFound, "there is no node %q", skyport.Abbreviate(arg, 60))
	if len(names) == 0 {
		return "", missing.WithHint("there are no nodes yet")
	}
	return "", missing.WithHint("the nodes are %s", strings.Join(names, ", "))
}

// exitNotRun is how a command ends that could not be run, as with ssh.
const exitNotRun = 255

// notRun tells why a command was not run, or how it ended is not known.
func (a *app) notRun(ctx context.Context, err error) error {
	if _, wrong := errors.AsType[usageError](err); wrong {
		return err
	}
	if context.Cause(ctx) == context.Canceled { //nolint:errorlint // the very value: it says that no signal did it
		return err
	}
	a.tell(err)
	return endWith(exitNotRun)
}

// mayUseTerminal refuses a terminal for a command without one on this side.
func (a *app) mayUseTerminal(command client.Command) error {
	if command.TTY && a.terminal() == nil {
		return usagef("standard input is no terminal; skyport exec without -t takes it as it is")
	}
	return nil
}

// runCommand connects a command with this process. It ends with the command's
// exit code.
func (a *app) runCommand(ctx context.Context, command client.Command,
	run func(context.Context, client.Command, client.Streams) (client.Exit, error),
) error {
	exit, err := a.connected(ctx, command, run)
	if err != nil {
		code := a.notRun(ctx, err)
		if exit.Code > 0 && exit.Code < exitNotRun { // such as 127: there is no such command
			return endWith(exit.Code)
		}
		return code
	}
	if err := a.Out.failed(); err != nil {
		return err
	}
	if exit.Code != 0 {
		return endWith(exit.Code)
	}
	return nil
}

// connected runs a command with this process's streams, signals and, for one
// with a terminal, its terminal, which is as it was when it returns.
func (a *app) connected(ctx context.Context, command client.Command,
	run func(context.Context, client.Command, client.Streams) (client.Exit, error),
) (client.Exit, error) {
	ctx, signals, stop := passSignals(ctx)
	defer stop()
	streams := client.Streams{Stdin: a.In, Stdout: a.Out, Stderr: a.Err, Signals: signals}
	if !command.TTY {
		return run(ctx, command, streams)
	}
	if kind := a.Env("TERM"); kind != "" {
		env := map[string]string{"TERM": kind}
		for name, value := range command.Env {
			env[name] = value
		}
		command.Env = env
	}
	raw, err := makeRaw(a.terminal())
	if err != nil {
		return client.Exit{}, err
	}
	defer raw.restore()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	size := raw.size()
	command.Rows, command.Cols = size.Rows, size.Cols
	streams.Stdin = &escapes{in: a.In, hangUp: func() { cancel(errHungUp) }, fresh: true}
	streams.Resize = raw.sizes
	return run(ctx, command, streams)
}

// terminal is the terminal on standard input, or nil.
func (a *app) terminal() *os.File {
	f, ok := a.In.(*os.File)
	if !ok || !isTerminal(f) {
		return nil
	}
	return f
}
