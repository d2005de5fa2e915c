package runtime

import (
	"context"

	"github.com/openworkload/skyport/internal/session"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/shim"
)

// Runtime is one way to run scripts.
type Runtime interface {
	// Name is the word for people, such as "process".
	Name() string
	// Prepare makes ready what takes time, such as an image; the inputs are
	// still being uploaded meanwhile. It tells how far it is by progress.
	// An error means that the run cannot be started here.
	Prepare(ctx context.Context, run Run, progress func(details string)) error
	// Launch says what the shim has to execute. An error means that the run
	// cannot be started here. A run that is a member (RunSpec.Member) has no
	// script: what is launched keeps its surroundings up until the shim is told
	// to stop; no Argv at all says that there is nothing to keep up.
	Launch(run Run) (shim.Launch, error)
	// Ready waits until commands can be executed in a run whose shim has begun,
	// and fails when they never can. Only members are asked.
	Ready(ctx context.Context, run Run) error
	// Exec runs a command beside the run's script, with the script's environment,
	// limits and user, connected with s; nil for the run means on the node itself,
	// as its user. It returns when the command has ended. When ctx ends it ends the
	// command: HUP, TERM, KILL. A command that cannot be started is session.Failed.
	Exec(ctx context.Context, run *Run, command protocol.Command, s *session.Served) session.Exit
	// Clean ends and removes all that belongs to the run and lies outside its
	// directory. The worker calls it when no shim of the run lives.
	Clean(ctx context.Context, run Run) error
	// Sweep cleans what is left of runs that no longer exist. keep says which do. The
	// worker calls it once, beside its other work: it may take its time.
	Sweep(ctx context.Context, keep func(run string) bool) error
}

// StorageDir is where the node's own command mounts a storage of the site: a place
// of root's, in which nobody else can put a link.
func StorageDir(name string) string { return "/srv/skyport/storage/" + name }

// Run is a run as a runtime sees it.
type Run struct {
	Spec protocol.RunSpec
	// Dir is the run's own directory, Work the script's working directory.
	Dir, Work string
	// Script is the path of the executable script.
	Script string
	// Task is the directory with the host file and the socket of swm-task, Bin the
	// one with swm-task and swm-rsh, which comes first in PATH. Script and commands
	// find both at the same paths, wherever they run.
	Task, Bin string
	// Stdin, Stdout and Stderr are absolute paths.
	Stdin, Stdout, Stderr string
}
