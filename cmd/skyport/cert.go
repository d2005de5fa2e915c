package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/pki"
	"github.com/openworkload/skyport/internal/spool"
)

func newCertCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert COMMAND",
		Short: "Make, renew and list certificates",
		Long: `Make, renew and list the certificates of the spool. This works where the setup
ran: the keys of the CAs stay there. Core and gate renew their own certificates
by themselves; a certificate that was renewed here is taken up without a restart.`,
		Example: lines("skyport cert list", "skyport cert user alice", "skyport cert renew --all"),
		Args:    cobra.NoArgs,
	}
	cmd.AddCommand(newCertUserCommand(a), newCertServerCommand(a, pki.RoleCore), newCertServerCommand(a, pki.RoleGate),
		newCertRenewCommand(a), newCertListCommand(a))
	for _, sub := range cmd.Commands() {
		sub.DisableFlagsInUseLine = true
	}
	return cmd
}

func newCertUserCommand(a *app) *cobra.Command {
	var id string
	cmd := &cobra.Command{
		Use:   "user NAME [flags]",
		Short: "Make a certificate and key for a user",
		Long: `Make a certificate and key for a user, and tell which files to give to that
person. A user who is there already is left as it is.`,
		Example:           lines("skyport cert user alice", "skyport cert user alice --id 6f1c0a54-7a0e-4a3c-9c3e-0d6b6a3a8f10"),
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(_ *cobra.Command, args []string) error { return runCertUser(a, args[0], id) },
	}
	cmd.Flags().StringVar(&id, "id", "", "`UUID` of the user, when it has one already (default a fresh one)")
	return cmd
}

type certUserOutput struct {
	spool.Certificate
	KeyPath string   `json:"key_path"`
	CAPath  string   `json:"ca_path"`
	Made    []string `json:"made"`
}

func runCertUser(a *app, name, id string) error {
	user := skyport.UserID("")
	if id != "" {
		var err error
		if user, err = skyport.ParseUserID(id); err != nil {
			return usageError{err.Error()}
		}
	}
	s, err := spool.Open(a.Spool)
	if err != nil {
		return err
	}
	cert, made, err := s.AddUser(name, user)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(certUserOutput{cert, s.User(name).Key, s.CAChain(), list(made)})
	}
	if len(made) == 0 {
		a.Out.printf("User %s is there already: nothing was changed.\n", cert.Name)
	}
	a.Out.printf("user %s (%s), valid until %s\n", cert.Name, cert.ID, cert.Expires.Local().Format(time.DateOnly))
	a.Out.printf("Give these files to that person, the key by a safe way:\n")
	for _, path := range []string{cert.Path, s.User(name).Key, s.CAChain()} {
		a.Out.printf("  %s\n", path)
	}
	return a.Out.err
}

func newCertServerCommand(a *app, role pki.Role) *cobra.Command {
	name, whose := "node", "core"
	if role == pki.RoleGate {
		name, whose = "gate", "the gate"
	}
	var names []string
	cmd := &cobra.Command{
		Use:   name + " [flags]",
		Short: "Renew the certificate of " + whose + ", with further host names",
		Long: "Renew the certificate of " + whose + `. It stays good for every name and address that it
had, and becomes good for the names of this machine now and for those given.`,
		Example:           lines("skyport cert "+name, "skyport cert "+name+" --name skyport.example.org --name 10.0.0.5"),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runCertServer(cmd.Context(), a, role, names) },
	}
	cmd.Flags().StringArrayVar(&names, "name", nil, "further host `name` or address; may be repeated")
	return cmd
}

func runCertServer(ctx context.Context, a *app, role pki.Role, names []string) error {
	if err := spool.CheckHosts(names); err != nil {
		return usageError{err.Error()}
	}
	s, err := spool.Open(a.Spool)
	if err != nil {
		return err
	}
	cert, err := s.RenewServer(ctx, role, names)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(cert)
	}
	a.Out.printf("%s: good for %s, until %s\n", cert.Name, strings.Join(cert.Hosts, ", "), cert.Expires.Local().Format(time.DateOnly))
	return a.Out.err
}

func newCertRenewCommand(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "renew (NAME... | --all)",
		Short: "Renew certificates: fresh life, same key, same names",
		Long: `Renew certificates: node, gate, or those of users. Key, names and id stay; only
the life is new. The copy in your ~/.swm is renewed too, if it is there.`,
		Example: lines("skyport cert renew alice", "skyport cert renew node gate", "skyport cert renew --all"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return renewable(a), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error { return runCertRenew(a, args, all) },
	}
	cmd.Flags().BoolVar(&all, "all", false, "renew all: node, gate and every user")
	return cmd
}

func runCertRenew(a *app, names []string, all bool) error {
	if all == (len(names) > 0) {
		return usagef("name the certificates to renew, or use --all for all of them")
	}
	s, err := spool.Open(a.Spool)
	if err != nil {
		return err
	}
	if all {
		names = renewable(a)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "" // a service account: there is no copy to renew
	}
	var renewed []spool.Certificate
	for _, name := range names {
		cert, err := s.Renew(name, home)
		if err != nil {
			return err
		}
		renewed = append(renewed, cert)
		if !a.JSON {
			a.Out.printf("%s: renewed until %s\n", cert.Name, cert.Expires.Local().Format(time.DateOnly))
		}
	}
	if a.JSON {
		return a.printJSON(list(renewed))
	}
	return a.Out.err
}

// renewable lists the names of the certificates that can be renewed, as far as
// they can be found.
func renewable(a *app) (names []string) {
	certificates, err := spool.Layout{Dir: a.Spool}.Certificates()
	if err != nil {
		return nil
	}
	for _, c := range certificates {
		if c.Role != pki.RoleGrid && c.Role != pki.RoleCluster && !c.Expires.IsZero() {
			names = append(names, c.Name)
		}
	}
	return names
}

func newCertListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "list",
		Aliases:           []string{"ls"},
		Short:             "List the certificates of the spool",
		Long:              "List the certificates of the spool: whose they are, until when they are valid, and what is wrong with them.",
		Example:           lines("skyport cert list", "skyport cert list --json"),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(*cobra.Command, []string) error { return runCertList(a) },
	}
}

func runCertList(a *app) error {
	s, err := spool.Open(a.Spool)
	if err != nil {
		return err
	}
	certificates, err := s.Certificates()
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(list(certificates))
	}
	t := table{columns: []column{
		{title: "NAME"},
		{title: "ROLE"},
		{title: "EXPIRES"},
		{title: "DAYS", right: true},
		{title: "ID", rank: 2},
		{title: "FOR", flex: true, rank: 3},
		{title: "KEY", rank: 1},
		{title: "STATE", flex: true},
	}}
	now := a.Now()
	for _, c := range certificates {
		state, st := certificateState(c, now)
		key := "here"
		if !c.Key {
			key = "elsewhere"
		}
		expires, days := "-", "-"
		if !c.Expires.IsZero() {
			expires, days = c.Expires.Local().Format(time.DateOnly), fmt.Sprint(int(c.Expires.Sub(now).Hours()/24))
		}
		t.add(text(c.Name), text(string(c.Role)), text(expires), cell{days, st}, text(string(c.ID)),
			text(strings.Join(c.Hosts, ",")), text(key), cell{state, st})
	}
	t.print(a.Out)
	a.Out.printf("in %s\n", filepath.Join(s.Dir, "secure"))
	return a.Out.err
}

// certificateState says how a certificate is, in a word or with its problem.
func certificateState(c spool.Certificate, now time.Time) (string, style) {
	switch {
	case c.Problem != "":
		return c.Problem, red
	case !now.Before(c.Due):
		return "renew soon", yellow
	}
	return "good", green
}
