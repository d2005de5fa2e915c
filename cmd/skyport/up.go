package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport/internal/core"
	"github.com/openworkload/skyport/internal/spool"
)

func newUpCommand(a *app) *cobra.Command {
	var opts daemonOptions
	cmd := &cobra.Command{
		Use:   "up [flags]",
		Short: "Run core, gate and the local site in one process",
		Long: `Run all that jobs need on this machine, in the foreground: core, the gate, and
the local site, whose nodes are processes here. It ends cleanly on Ctrl-C, at
once on a second one. What runs on nodes goes on then, and the next skyport up
takes it up.

Programs see that it is ready by the file run/core.json of the spool, which
holds the address; with --json the same object is printed when it is ready.`,
		Example:           lines("skyport up", "skyport up --spool /tmp/try --log-level warn"),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runUp(cmd.Context(), a, opts) },
	}
	opts.addFlags(cmd)
	return cmd
}

func runUp(ctx context.Context, a *app, opts daemonOptions) error {
	s, log, err := opts.open(a)
	if err != nil {
		return err
	}
	// Core ends first, then the gate that it uses; each takes the other along
	// when it fails.
	ctx, stopCore := context.WithCancel(ctx)
	defer stopCore()
	gateContext, stopGate := context.WithCancel(context.WithoutCancel(ctx))
	defer stopGate()
	gateEnded := make(chan error, 1)
	gateReady := make(chan struct{})
	if s.Config.Gate.URL != "" {
		close(gateReady) // it runs elsewhere
		gateEnded <- nil
	} else {
		go func() {
			defer stopCore()
			gateEnded <- runGate(gateContext, s, log, func(string) { close(gateReady) })
		}()
	}
	var coreErr error
	select {
	case <-gateReady:
		coreErr = core.Run(ctx, core.Options{
			Spool: s, Logger: log, Version: readVersion().Version,
			Ready: func(url string) { a.welcome(s, log, url) },
		})
	case <-ctx.Done():
	}
	stopGate()
	return errors.Join(coreErr, <-gateEnded)
}

// welcome says that everything is ready, and what to do with it.
func (a *app) welcome(s *spool.Spool, log *slog.Logger, url string) {
	if a.JSON {
		if err := a.printJSONLine(map[string]string{"url": url, "spool": s.Dir}); err != nil {
			log.Warn("cannot say that all is ready", "error", err)
		}
		return
	}
	option := ""
	if usual, err := spool.Default(""); err != nil || usual != s.Dir {
		option = " --spool " + shellQuote(s.Dir)
	}
	a.Out.printf("%s\n", a.Out.paint(bold, "Sky Port is ready."))
	a.Out.printf("  core    %s\n", url)
	if s.Config.Local.Enabled && s.Config.Gate.URL == "" {
		a.Out.printf("  site    local, this machine\n")
	} else {
		a.Out.printf("  gate    %s\n", s.GateURL())
	}
	a.Out.printf("  submit  skyport%s submit --follow job.sh\n", option)
	a.Out.printf("  stop    Ctrl-C; jobs on nodes go on, the next skyport up takes them up\n")
}
