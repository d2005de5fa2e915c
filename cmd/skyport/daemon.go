package main

import (
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport/internal/spool"
)

// daemonOptions are the flags of up, core and gate.
type daemonOptions struct {
	logFormat string
	logLevel  string
}

func (o *daemonOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.logFormat, "log-format", "", "`FORMAT` of the log on standard error: text or json (default as configured, text)")
	f.StringVar(&o.logLevel, "log-level", "", "least `LEVEL` that is logged: debug, info, warn or error (default as configured, info)")
	completeOn(cmd, "log-format", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	completeOn(cmd, "log-level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
}

// open opens the spool and the log, which the flags may turn from what the
// configuration says.
func (o *daemonOptions) open(a *app) (*spool.Spool, *slog.Logger, error) {
	s, err := spool.Open(a.Spool)
	if err != nil {
		return nil, nil, err
	}
	if o.logFormat != "" {
		s.Config.Log.Format = o.logFormat
	}
	if o.logLevel != "" {
		s.Config.Log.Level = o.logLevel
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.Config.Log.Level)); err != nil {
		return nil, nil, usagef("--log-level %s: want debug, info, warn or error", s.Config.Log.Level)
	}
	options := &slog.HandlerOptions{Level: level}
	switch strings.ToLower(s.Config.Log.Format) {
	case "text":
		return s, slog.New(slog.NewTextHandler(a.Err, options)), nil
	case "json":
		return s, slog.New(slog.NewJSONHandler(a.Err, options)), nil
	}
	return nil, nil, usagef("--log-format %s: want text or json", s.Config.Log.Format)
}
