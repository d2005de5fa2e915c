// Command skyport-worker is the agent on a node and the shim beside each
// script. Under the names swm-task and swm-rsh it is what jobs start things on
// their nodes with. It is carried inside skyport and started by it; nobody needs to call
// it by hand.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/openworkload/skyport/internal/worker"
	"github.com/openworkload/skyport/internal/worker/runtime"
	"github.com/openworkload/skyport/internal/worker/shim"
	"github.com/openworkload/skyport/internal/worker/task"
)

// version is set by the build.
var version = "development"

const usage = `usage:
  skyport-worker serve --dir DIR [--node NAME] [--socket PATH]   run the agent in the foreground
  skyport-worker version                                          print the version

Example:
  skyport-worker serve --dir /var/lib/skyport
`

func main() {
	switch filepath.Base(os.Args[0]) { // by the names that jobs know
	case "swm-task":
		os.Exit(task.Main(os.Args[1:]))
	case "swm-rsh":
		os.Exit(task.RemoteShell(os.Args[1:]))
	}
	if len(os.Args) > 2 { // before all else: a script waits for these
		switch os.Args[1] {
		case "shim":
			exitIf(len(os.Args) == 3, func() error { return shim.Main(os.Args[2]) })
		case "contain": // beside a shim, for a container
			exitIf(len(os.Args) == 3, func() error { return runtime.Contain(os.Args[2]) })
		case "init": // the first process of a container
			exitIf(len(os.Args) == 3, func() error { return runtime.Init(os.Args[2]) })
		case "exec": // a further one of a container
			exitIf(len(os.Args) > 3, func() error { return runtime.ExecInside(os.Args[2:]) })
		}
	}
	exit(run(os.Args[1:], os.Stdout))
}

// exitIf ends the process with what f says, or goes on when it was not called rightly.
func exitIf(right bool, f func() error) {
	if right {
		exit(f())
	}
}

func exit(err error) {
	switch {
	case err == nil:
		os.Exit(0)
	case errors.Is(err, errUsage):
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, "skyport-worker:", err)
	os.Exit(1)
}

var errUsage = errors.New("usage")

func run(args []string, out io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	switch args[0] {
	case "serve":
		return serve(args[1:])
	case "version":
		_, err := fmt.Fprintln(out, buildVersion())
		return err //nolint:wrapcheck // of standard output
	case "help", "-h", "--help":
		_, err := fmt.Fprint(out, usage)
		return err //nolint:wrapcheck // of standard output
	}
	return errUsage
}

func serve(args []string) error {
	var opts worker.Options
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&opts.Dir, "dir", "", "directory of everything durable")
	flags.StringVar(&opts.Node, "node", "", "name of the node; default: the host name")
	flags.StringVar(&opts.Socket, "socket", "", "unix socket; default: worker.sock in the directory")
	format := flags.String("log-format", "json", "json or text")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 || opts.Dir == "" {
		return errUsage
	}
	opts.Version = buildVersion()
	opts.Logger = slog.New(slog.NewJSONHandler(os.Stderr, nil))
	if *format == "text" {
		opts.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	// The worker outlives the connection that started it.
	// Ignored signals would be ignored by the commands that it starts, too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	w, err := worker.Open(opts)
	if err != nil {
		return err
	}
	return w.Serve(ctx)
}

func buildVersion() string {
	if version != "development" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return version
}
