package main

import "github.com/spf13/cobra"

// Holds the place until the real command is here.
func newCertCommand(*app) *cobra.Command { return &cobra.Command{Use: "cert"} }
