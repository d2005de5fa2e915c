package runtime

import (
	"context"
	"errors"
	"log/slog"

	"github.com/openworkload/skyport/internal/session"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/shim"
)

// Node runs each run where it wants to be: in a container when it names an
// image, else as a process.
type Node struct {
	process   *Process
	container *Container
}

var (
	_ Runtime = (*Node)(nil)
	_ Runtime = (*Container)(nil)
)

// NewNode returns the runtimes of the worker that lives in dir. Self is the
// worker's binary; empty: this program.
func NewNode(dir, self string, logger *slog.Logger) (*Node, error) {
	c, err := NewContainer(ContainerOptions{Dir: dir, Self: self, Logger: logger})
	if err != nil {
		return nil, err
	}
	return &Node{process: NewProcess(dir), container: c}, nil
}

func (n *Node) of(spec protocol.RunSpec) Runtime {
	if spec.Request.ContainerImage != "" {
		return n.container
	}
	return n.process
}

// Name returns "node".
func (n *Node) Name() string { return "node" }

// Prepare makes ready what the run's runtime needs.
func (n *Node) Prepare(ctx context.Context, run Run, progress func(string)) error {
	return n.of(run.Spec).Prepare(ctx, run, progress)
}

// Launch says what the shim executes.
func (n *Node) Launch(run Run) (shim.Launch, error) { return n.of(run.Spec).Launch(run) }

// Ready waits until commands can be executed in the run.
func (n *Node) Ready(ctx context.Context, run Run) error { return n.of(run.Spec).Ready(ctx, run) }

// Exec executes a command where the run is, or on the node.
func (n *Node) Exec(ctx context.Context, run *Run, command protocol.Command, s *session.Served) session.Exit {
	if run == nil {
		return n.process.Exec(ctx, nil, command, s)
	}
	return n.of(run.Spec).Exec(ctx, run, command, s)
}

// Clean removes what is left of the run, wherever it was.
func (n *Node) Clean(ctx context.Context, run Run) error {
	err := n.process.Clean(ctx, run) // what stood for the container is one of these
	if run.Spec.Request.ContainerImage == "" {
		return err
	}
	return errors.Join(err, n.container.Clean(ctx, run))
}

// Sweep cleans what is left of runs that no longer exist.
func (n *Node) Sweep(ctx context.Context, keep func(run string) bool) error {
	return errors.Join(n.process.Sweep(ctx, keep), n.container.Sweep(ctx, keep))
}

// Close lets go of the container engine.
func (n *Node) Close() error { return n.container.Close() }
