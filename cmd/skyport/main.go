package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program but for the process: arguments and streams in, exit
// code out.
func run(args []string, in io.Reader, out, errs io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal ends things in order. From then on signals have their
	// own meaning again, so a second Ctrl-C ends the process at once.
	context.AfterFunc(ctx, stop)

	a := newApp(in, out, errs)
	root := newRootCommand(a)
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	return a.exit(ctx, command.CommandPath(), err)
}
