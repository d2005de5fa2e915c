package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"charm.land/huh/v2"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/spool"
)

type setupOptions struct {
	yes        bool
	listen     string
	gateListen string
	names      []string
	user       string
}

func newSetupCommand(a *app) *cobra.Command {
	var opts setupOptions
	defaults := spool.Defaults()
	cmd := &cobra.Command{
		Use:   "setup [flags]",
		Short: "Make the spool, the certificates and the configuration",
		Long: `Make the spool with its configuration and certificates, and your own certificate
in ~/.swm. Setup only ever makes what is missing: run it again at any time, also
after it was interrupted. On a terminal it asks a few questions, unless the spool
is there already; --yes takes every default and asks nothing.`,
		Example: lines(
			"skyport setup",
			"skyport setup --yes",
			"skyport setup --yes --spool /srv/skyport --listen :9443 --name skyport.example.org",
		),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runSetup(cmd.Context(), a, opts) },
	}
	flags := cmd.Flags()
	flags.BoolVarP(&opts.yes, "yes", "y", false, "take every default, ask nothing")
	flags.StringVar(&opts.listen, "listen", "", fmt.Sprintf("address of core, host:port (default %q)", defaults.Core.Listen))
	flags.StringVar(&opts.gateListen, "gate-listen", "", fmt.Sprintf("address of the gate, host:port (default %q)", defaults.Gate.Listen))
	flags.StringArrayVar(&opts.names, "name", nil, "further host `name` or address that core is reached by; may be repeated")
	flags.StringVar(&opts.user, "user", "", "name of the first user (default the login name)")
	return cmd
}

func runSetup(ctx context.Context, a *app, opts setupOptions) error {
	_, err := spool.Open(a.Spool)
	// Only where nothing is yet, there is something to choose.
	if skyport.CodeOf(err) == skyport.CodeNotFound && !opts.yes {
		if !a.interactive() {
			return usagef("setup has questions and nobody is there to answer them: use --yes to take every default")
		}
		if err := askSetup(ctx, a, &opts); err != nil {
			return err
		}
	}
	report, err := spool.Setup(ctx, spool.Options{
		Dir: a.Spool, User: opts.user, Names: opts.names, CoreListen: opts.listen, GateListen: opts.gateListen,
	})
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(report)
	}
	for _, warning := range report.Warnings {
		a.Err.printf("%s %s\n", a.Err.paint(yellow, "warning:"), plain(warning))
	}
	if len(report.Made) == 0 {
		a.Out.printf("Everything is there already: nothing was changed.\n")
	} else {
		a.Out.printf("Made %s.\n", count(len(report.Made), "file"))
	}
	a.Out.printf("  spool  %s\n", report.Spool)
	a.Out.printf("  core   %s (certificate for %s)\n", report.CoreURL, strings.Join(report.Hosts, ", "))
	a.Out.printf("  user   %s (%s)\n", report.User, report.UserID)
	a.Out.printf("Next: skyport up\n")
	return a.Out.err
}

// interactive says whether a person is there to answer questions, at a terminal
// that can show a form.
func (a *app) interactive() bool {
	in, ok := a.In.(*os.File)
	return ok && term.IsTerminal(int(in.Fd())) && a.Err.live && !a.JSON
}

// askSetup asks for what the flags did not say.
func askSetup(ctx context.Context, a *app, opts *setupOptions) error {
	defaults := spool.Defaults()
	if opts.listen == "" {
		opts.listen = defaults.Core.Listen
	}
	names := strings.Join(opts.names, " ")
	proceed := true
	form := huh.NewForm(huh.NewGroup(
		huh.NewInput().Title("Where shall the spool be?").
			Description("The one directory that holds everything durable. Free space there limits what jobs can bring.").
			Value(&a.Spool),
		huh.NewInput().Title("Where shall core listen?").
			Description("host:port; no host means every address of this machine.").
			Value(&opts.listen).Validate(spool.CheckListen),
		huh.NewInput().Title("By which further names is this machine reached?").
			Description("Host names or addresses, blank-separated. Its own name and localhost are known.").
			Value(&names).Validate(func(text string) error { return spool.CheckHosts(strings.Fields(text)) }),
		huh.NewConfirm().Title("Make it?").Value(&proceed),
	)).WithInput(a.In).WithOutput(a.Err.w)
	if err := form.RunWithContext(ctx); errors.Is(err, huh.ErrUserAborted) || err == nil && !proceed {
		return skyport.Errorf(skyport.CodeConflict, "setup was not wanted: nothing was made")
	} else if err != nil {
		return fmt.Errorf("ask for the setup: %w", err)
	}
	opts.names = strings.Fields(names)
	if below, ok := strings.CutPrefix(a.Spool, "~/"); ok { // no shell has read it
		home, err := os.UserHomeDir()
		if err != nil {
			return fmt.Errorf("find the home directory: %w", err)
		}
		a.Spool = filepath.Join(home, below)
	}
	return nil
}
