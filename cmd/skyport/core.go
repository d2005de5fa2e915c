package main

import (
	"github.com/spf13/cobra"

	"github.com/openworkload/skyport/internal/core"
)

func newCoreCommand(a *app) *cobra.Command {
	var opts daemonOptions
	cmd := &cobra.Command{
		Use:   "core [flags]",
		Short: "Run core, which owns the jobs",
		Long: `Run core of the spool in the foreground, apart from the gate: it takes jobs,
decides where they run, and drives them to their end. It ends cleanly on Ctrl-C;
jobs that run go on, and the next core takes them up. skyport up runs it
together with the gate.`,
		Example:           lines("skyport core", "skyport core --log-format json"),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, log, err := opts.open(a)
			if err != nil {
				return err
			}
			return core.Run(cmd.Context(), core.Options{Spool: s, Logger: log, Version: readVersion().Version})
		},
	}
	opts.addFlags(cmd)
	return cmd
}
