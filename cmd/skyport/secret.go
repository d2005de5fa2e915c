package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

func newSecretCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret COMMAND",
		Short: "Keep the logins of container registries",
		Long: `Keep what your jobs need and scripts should not have: the logins of container
registries. Core keeps them sealed, for you alone, hands one over to a node when
a job of yours pulls an image from that registry, and never shows it again.`,
		Args: cobra.NoArgs,
	}
	for _, sub := range []*cobra.Command{newSecretSetCommand(a), newSecretListCommand(a), newSecretDeleteCommand(a)} {
		sub.DisableFlagsInUseLine = true
		cmd.AddCommand(sub)
	}
	return cmd
}

type secretOptions struct {
	username string
	stdin    bool
	ca       string
}

func newSecretSetCommand(a *app) *cobra.Command {
	var opts secretOptions
	cmd := &cobra.Command{
		Use:   "set [flags] registry HOST",
		Short: "Keep a login, or replace it",
		Long: `Keep the login of a container registry, or replace the one that is kept. HOST is
what stands before the first slash of an image, with its port if it has one;
docker.io is meant by images without a host. The password, or token, is asked
for at the terminal, or read from standard input with --password-stdin: it is
never an argument, which others on the machine could see. --ca names a PEM file
with the certificates that the registry's must chain to, when they are not
public ones; a registry that needs no login can have a CA alone.`,
		Example: lines(
			"skyport secret set registry registry.example.org:5000 --username ada",
			"skyport secret set registry ghcr.io --username ada --password-stdin < token",
			"skyport secret set registry registry.lan:5000 --ca lan-ca.pem",
		),
		Args:              secretArgs,
		ValidArgsFunction: completeSecretKind,
		RunE:              func(cmd *cobra.Command, args []string) error { return runSecretSet(cmd.Context(), a, opts, args[1]) },
	}
	f := cmd.Flags()
	f.StringVarP(&opts.username, "username", "u", "", "log in as this `USER`")
	f.BoolVar(&opts.stdin, "password-stdin", false, "read the password from standard input")
	f.StringVar(&opts.ca, "ca", "", "`FILE` with the certificates of the registry's authority, in PEM")
	completeOn(cmd, "username", cobra.NoFileCompletions)
	return cmd
}

// secretArgs takes a kind, of which there is one, and a name.
func secretArgs(_ *cobra.Command, args []string) error {
	if len(args) != 2 {
		return usagef("say of which registry: registry HOST")
	}
	if args[0] != skyport.SecretRegistry {
		return usagef("there are no secrets of kind %q; there is one kind: %s", skyport.Abbreviate(args[0], 40), skyport.SecretRegistry)
	}
	return nil
}

func completeSecretKind(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{skyport.SecretRegistry + "\tlogin of a container registry"}, cobra.ShellCompDirectiveNoFileComp
}

// Bounds of what is read; core has its own.
const (
	passwordLimit = 64 << 10
	caLimit       = 1 << 20
)

func runSecretSet(ctx context.Context, a *app, opts secretOptions, host string) error {
	login := client.RegistryLogin{Username: opts.username}
	switch {
	case opts.username == "" && opts.stdin:
		return usagef("--password-stdin goes with --username")
	case opts.username == "" && opts.ca == "":
		return usagef("say as whom to log in with --username, or give certificates with --ca")
	}
	if opts.ca != "" {
		pem, err := readSmall(opts.ca, caLimit)
		if err != nil {
			return skyport.Errorf(skyport.CodeInvalid, "read the certificates of the registry: %w", err)
		}
		login.CA = string(pem)
	}
	var err error
	switch {
	case opts.stdin:
		login.Password, err = passwordFrom(a.In)
	case opts.username != "":
		login.Password, err = a.askPassword(ctx, fmt.Sprintf("Password of %s at %s: ", oneLine(opts.username), oneLine(host)))
	}
	if err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	secret, err := c.SetRegistry(ctx, host, login)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(secret)
	}
	a.Out.printf("registry %s: kept\n", oneLine(secret.Name))
	return a.Out.failed()
}

func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says on what; the caller, what for
	}
	defer func() { _ = f.Close() }() // it was only read
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = fmt.Errorf("%s is longer than %s", path, skyport.Bytes(limit))
	}
	return content, err
}

// passwordFrom reads a password as other programs give it: one line break at
// its end does not belong to it.
func passwordFrom(in io.Reader) (string, error) {
	content, err := io.ReadAll(io.LimitReader(in, passwordLimit+1))
	if err != nil {
		return "", skyport.Errorf(skyport.CodeInvalid, "read the password from standard input: %w", err)
	}
	content = bytes.TrimSuffix(bytes.TrimSuffix(content, []byte("\n")), []byte("\r"))
	if len(content) == 0 || len(content) > passwordLimit {
		return "", usagef("standard input has no password in it, or more than %s", skyport.Bytes(passwordLimit))
	}
	return string(content), nil
}

// askPassword asks at the terminal, without an echo. The terminal is as it was
// afterwards, however it ends.
func (a *app) askPassword(ctx context.Context, question string) (string, error) {
	in, ok := a.In.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", usagef("standard input is no terminal to ask for the password at; --password-stdin reads it from there")
	}
	fd := int(in.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("ask for the password: %w", err)
	}
	a.Err.printf("%s", question)
	type answer struct {
		password []byte
		err      error
	}
	answered := make(chan answer, 1)
	go func() { // a read of a terminal cannot be ended: after Ctrl-C it ends with the program
		password, err := term.ReadPassword(fd)
		answered <- answer{password, err}
	}()
	select {
	case <-ctx.Done():
		a.Err.printf("\n")
		if err := term.Restore(fd, before); err != nil {
			return "", fmt.Errorf("restore the terminal: %w", err)
		}
		return "", ctx.Err() //nolint:wrapcheck // interrupted
	case got := <-answered:
		a.Err.printf("\n")
		if got.err != nil {
			return "", fmt.Errorf("ask for the password: %w", got.err)
		}
		if len(got.password) == 0 {
			return "", usagef("the password is empty: nothing was changed")
		}
		return string(got.password), nil
	}
}

func newSecretListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List what is kept, without the values",
		Long: `List your secrets: for which registry, as whom, whether there are certificates,
and when each was set last. Values are never shown.`,
		Example:           lines("skyport secret list", "skyport secret list --json | jq -r '.[].name'"),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runSecretList(cmd.Context(), a) },
	}
}

func runSecretList(ctx context.Context, a *app) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	secrets, err := c.Secrets(ctx)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(list(secrets))
	}
	t := table{
		columns: []column{{title: "KIND", rank: 1}, {title: "NAME", flex: true}, {title: "USERNAME", flex: true}, {title: "CA"}, {title: "SET", right: true}},
		empty:   "No secrets.",
	}
	now := a.Now()
	for _, s := range secrets {
		ca := "-"
		if s.CA {
			ca = "yes"
		}
		t.add(text(s.Kind), text(s.Name), text(strings.TrimSpace(s.Username)), text(ca), text(age(s.Updated, now)))
	}
	t.print(a.Out)
	for _, s := range secrets {
		if s.Problem != "" {
			a.Err.printf("%s %s %s cannot be used: %s\n", a.Err.paint(yellow, "warning:"), s.Kind, oneLine(s.Name), oneLine(s.Problem))
		}
	}
	return a.Out.failed()
}

func newSecretDeleteCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "delete registry HOST",
		Short: "Forget a login",
		Long: `Forget the login of a container registry. Jobs that pulled their image already
are not affected.`,
		Example: lines("skyport secret delete registry ghcr.io"),
		Args:    secretArgs,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) != 1 {
				return completeSecretKind(cmd, args, word)
			}
			return a.completeSecrets()(cmd, args, word)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runSecretDelete(cmd.Context(), a, args[0], args[1])
		},
	}
}

func (a *app) completeSecrets() completionFunc {
	return a.completeFrom(func(ctx context.Context, c *client.Client) ([]string, error) {
		secrets, err := c.Secrets(ctx)
		words := make([]string, 0, len(secrets))
		for _, s := range secrets {
			words = append(words, s.Name+"\t"+s.Username)
		}
		return words, err
	})
}

func runSecretDelete(ctx context.Context, a *app, kind, name string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.DeleteSecret(ctx, kind, name); err != nil {
		return err
	}
	if !a.JSON {
		a.Out.printf("%s %s: forgotten\n", kind, oneLine(name))
	}
	return a.Out.failed()
}
