package main

import "github.com/spf13/cobra"

// Holds the place until the real command is here.
func newSetupCommand(*app) *cobra.Command { return &cobra.Command{Use: "setup"} }
