package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// app is what all commands share: the streams, the flags that every command
// understands, and what follows from them.
type app struct {
	Spool   string // directory of the spool, absolute once a command runs
	CoreURL string // URL of core as asked for; empty: found out
	JSON    bool   // print JSON for programs

	In       io.Reader
	Out, Err *screen

	Now func() time.Time

	began bool // the arguments were right; a command runs
}

func newApp(in io.Reader, out, errs io.Writer) *app {
	return &app{In: in, Out: newScreen(out), Err: newScreen(errs), Now: time.Now}
}

// begin settles the flags that all commands share, before the command's own
// run function.
func (a *app) begin() error {
	a.began = true
	if a.Spool == "" {
		a.Spool = os.Getenv("SWM_SPOOL")
	}
	if a.Spool == "" {
		var err error
		if a.Spool, err = defaultSpool(); err != nil {
			return err
		}
	}
	absolute, err := filepath.Abs(a.Spool)
	if err != nil {
		return fmt.Errorf("find the spool %s: %w", a.Spool, err)
	}
	a.Spool = absolute
	a.CoreURL = cmp.Or(a.CoreURL, os.Getenv("SWM_CORE"))
	return nil
}

func defaultSpool() (string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the spool: neither --spool nor SWM_SPOOL is given, and %w", err)
	}
	return filepath.Join(home, ".swm", "spool"), nil
}
