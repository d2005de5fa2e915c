package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// Groups of commands, in the order of the help.
const (
	groupJobs    = "jobs"
	groupSites   = "sites"
	groupDaemons = "daemons"
	groupCare    = "care"
)

// The order of commands in the help is ours: that of a job's life.
func init() { cobra.EnableCommandSorting = false } //nolint:gochecknoinits // cobra has it as a global

// newRootCommand puts the commands together.
func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "skyport",
		Short: "Run jobs on clouds as if they were here",
		Long: `Sky Port runs your script where the machines are: it chooses a site and a
flavor, creates nodes there, brings your files, runs the script, forwards its
ports, fetches the results, and removes every resource that it made.

The first time: skyport setup, then skyport up, and in another shell
skyport submit --follow job.sh.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.begin() },
	}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetUsageTemplate(usageTemplate)

	flags := root.PersistentFlags()
	flags.StringVar(&a.Spool, "spool", "", "use the spool in `DIRECTORY` (default $SWM_SPOOL, then ~/.swm/spool)")
	flags.StringVar(&a.CoreURL, "core", "", "`URL` of core (default $SWM_CORE, then what the spool says)")
	flags.BoolVar(&a.JSON, "json", false, "print JSON for programs")

	root.AddGroup(
		&cobra.Group{ID: groupJobs, Title: "Jobs:"},
		&cobra.Group{ID: groupSites, Title: "Sites and what they offer:"},
		&cobra.Group{ID: groupDaemons, Title: "Daemons:"},
		&cobra.Group{ID: groupCare, Title: "Setup and care:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			c.DisableFlagsInUseLine = true
			root.AddCommand(c)
		}
	}
	add(groupJobs,
		newSubmitCommand(a), newJobsCommand(a), newShowCommand(a), newLogsCommand(a), newEventsCommand(a),
		newWaitCommand(a), newExecCommand(a), newAttachCommand(a), newTopCommand(a), newCpCommand(a),
		newPortsCommand(a), newMetricsCommand(a), newCostCommand(a), newResultsCommand(a),
		newCancelCommand(a), newRequeueCommand(a), newPurgeCommand(a),
	)
	add(groupSites,
		newSitesCommand(a), newFlavorsCommand(a), newImagesCommand(a), newPartitionsCommand(a), newNodesCommand(a), newSSHCommand(a), newGCCommand(a),
	)
	add(groupDaemons,
		newUpCommand(a), newCoreCommand(a), newGateCommand(a),
	)
	add(groupCare,
		newSetupCommand(a), newCertCommand(a), newSecretCommand(a), newDoctorCommand(a), newCompletionCommand(a), newVersionCommand(a),
	)
	root.AddCommand(newExitCodesTopic(), newEnvironmentTopic(), newDocsCommand(a))
	root.SetHelpCommandGroupID(groupCare)
	return root
}

// newExitCodesTopic is no command but a text: skyport help exit-codes.
func newExitCodesTopic() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodesHelp}
}

func newEnvironmentTopic() *cobra.Command {
	return &cobra.Command{Use: "environment", Short: "The environment variables that skyport reads", Long: environmentHelp}
}

const environmentHelp = `Flags win over these variables, and these over what the spool says:

  SWM_SPOOL  directory of the spool; default ~/.swm/spool
  SWM_CORE   URL of core; default: the core that runs on the spool, then the
             address of the spool's configuration
  SWM_CERT, SWM_KEY
             your certificate and its key; default ~/.swm/cert.pem and key.pem
             with the default spool, else those in secure/users of the spool
  SWM_CA     certificates that core's must chain to; default
             secure/cluster/ca-chain-cert.pem of the spool
  NO_COLOR   when not empty, no colours
  TERM       dumb: neither colours nor progress bars`

// lines makes the text of an Example: each line indented as cobra wants it.
func lines(text ...string) string {
	return "  " + strings.Join(text, "\n  ")
}

const usageTemplate = `Usage:{{if .Runnable}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND{{end}}{{if gt (len .Aliases) 0}}

Aliases:
  {{.NameAndAliases}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$cmds := .Commands}}{{if eq (len .Groups) 0}}

Commands:{{range $cmds}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{else}}{{range $group := .Groups}}

{{.Title}}{{range $cmds}}{{if (and (eq .GroupID $group.ID) (or .IsAvailableCommand (eq .Name "help")))}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Flags of every command:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasHelpSubCommands}}

Further topics:{{range .Commands}}{{if .IsAdditionalHelpTopicCommand}}
  {{rpad .CommandPath .CommandPathPadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .Runnable}}

Exit codes:
  ` + exitCodesLine + `{{with .Annotations.exit}}
  {{.}}{{end}}{{end}}
`
