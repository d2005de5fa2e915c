package main

import (
	"bytes"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// everyCommand calls do for each command that people see.
func everyCommand(do func(*cobra.Command)) {
	root := newRootCommand(newApp(strings.NewReader(""), io.Discard, io.Discard))
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		do(c)
		for _, sub := range c.Commands() {
			if !sub.Hidden && sub.Name() != "help" {
				walk(sub)
			}
		}
	}
	walk(root)
}

func TestHelp(t *testing.T) {
	t.Parallel()
	everyCommand(func(c *cobra.Command) {
		path := strings.Fields(c.CommandPath())
		t.Run(strings.Join(path, " "), func(t *testing.T) {
			t.Parallel()
			code, out, errs := sky(t, append([]string{"help"}, path[1:]...)...)
			if code != 0 || errs != "" {
				t.Errorf("help ends with %d and says %q", code, errs)
			}
			golden(t, filepath.Join("help", strings.Join(path, "-")+".golden"), out)
		})
	})
}

// TestEveryCommandIsExplained holds each command to the form of the others.
func TestEveryCommandIsExplained(t *testing.T) {
	t.Parallel()
	everyCommand(func(c *cobra.Command) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: Short is %q: want a phrase without a full stop", c.CommandPath(), c.Short)
		}
		if c.Long == "" {
			t.Errorf("%s has no Long", c.CommandPath())
		}
		if !c.Runnable() {
			return
		}
		if c.Example == "" {
			t.Errorf("%s has no Example", c.CommandPath())
		}
		// Without Args cobra lets any arguments pass; some look at them themselves.
		if own := []string{"submit", "purge", "renew"}; c.Args == nil && !slices.Contains(own, c.Name()) {
			t.Errorf("%s does not check its arguments", c.CommandPath())
		}
		for line := range strings.Lines(c.Long) {
			if len([]rune(line)) > 110 {
				t.Errorf("%s: a line of Long is very wide: %q", c.CommandPath(), line)
			}
		}
	})
}

func TestReferenceIsInStep(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	writeReference(&b, newRootCommand(newApp(strings.NewReader(""), io.Discard, io.Discard)))
	compareFile(t, filepath.Join("..", "..", "docs", "cli.md"), b.String())
}
