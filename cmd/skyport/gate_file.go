package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport/internal/spool"
)

func newGateSchemaCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of gate.yaml",
		Long: `Print the JSON Schema (draft 2020-12) by which gate.yaml is checked. Editors with
yaml-language-server complete and check the file as it is written, when its first
line is
  # yaml-language-server: $schema=gate.schema.json`,
		Example:           lines("skyport gate schema > ~/.swm/gate.schema.json"),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(*cobra.Command, []string) error { return a.printFile(spool.GateSchema()) },
	}
}

func newGateExampleCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "example",
		Short: "Print a gate.yaml that explains itself",
		Long: `Print a gate.yaml with a site of each kind of cloud, explained. All of it is a
comment: take away the # before what you need. Its place is ~/.swm/gate.yaml, or
gate.yaml in the spool when that is not ~/.swm/spool; the setting gate.config
names another. It may hold secrets, and must be readable by you alone then.`,
		Example:           lines("(umask 077; skyport gate example > ~/.swm/gate.yaml)", "skyport gate check"),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(*cobra.Command, []string) error { return a.printFile(spool.GateExample()) },
	}
}

// printFile prints a file as it is.
func (a *app) printFile(content []byte) error {
	if _, err := a.Out.Write(content); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
