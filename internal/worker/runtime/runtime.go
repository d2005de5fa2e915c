package runtime

import (
	"context"

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
	// cannot be started here.
	Launch(run Run) (shim.Launch, error)
	// Clean ends and removes all that belongs to the run and lies outside its
	// directory. The worker calls it when no shim of the run lives.
	Clean(ctx context.Context, run Run) error
	// Sweep cleans what is left of runs that no longer exist. keep says which do.
	Sweep(ctx context.Context, keep func(run string) bool) error
}

// Run is a run as a runtime sees it.
type Run struct {
	Spec protocol.RunSpec
	// Dir is the run's own directory, Work the script's working directory.
	Dir, Work string
	// Script is the path of the executable script.
	Script string
	// Stdin, Stdout and Stderr are absolute paths.
	Stdin, Stdout, Stderr string
}
