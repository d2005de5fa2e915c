package runtime

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/openworkload/skyport/internal/worker/shim"
)

// The labels of our containers.
const (
	labelRun  = "skyport.run"
	labelDir  = "skyport.dir"  // of the worker
	labelGPUs = "skyport.gpus" // indexes, with commas
)

// ContainerOptions say whose containers they are.
type ContainerOptions struct {
	// Dir is the worker's directory.
	Dir string
	// Self is the worker's binary: it stands for the container beside the shim, and
	// is the first process inside. Empty: this program.
	Self   string
	Logger *slog.Logger // nil: slog.Default()

	firstPause time.Duration   // before a pull is tried again; 0: 2 s
	hosts      func() []string // where engines may listen; nil: engineHosts
	boot       string          // where a node tells how far it has booted; empty: /run
}

// Container runs scripts in containers, through the API of the node's engine.
// The shim executes a small client of the engine (see Contain), and the first
// process inside is our own (see Init), so any image will do.
type Container struct {
	opts  ContainerOptions
	log   *slog.Logger
	pulls pulls

	mu     sync.Mutex
	engine *engine // the one that answered last
}

// NewContainer returns the runtime of containers of the worker that lives in a
// directory. The engine is looked for when it is needed first.
func NewContainer(opts ContainerOptions) (*Container, error) {
	if opts.Self == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find the worker's own binary: %w", err)
		}
		opts.Self = self
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.firstPause == 0 {
		opts.firstPause = 2 * time.Second
	}
	if opts.hosts == nil {
		opts.hosts = engineHosts
	}
	if opts.boot == "" {
		opts.boot = "/run"
	}
	return &Container{opts: opts, log: opts.Logger}, nil
}

// Name returns "container".
func (c *Container) Name() string { return "container" }

// Close lets go of the engine.
func (c *Container) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.engine == nil {
		return nil
	}
	err := c.engine.api.Close()
	c.engine = nil
	if err != nil {
		return fmt.Errorf("close the connection to the container engine: %w", err)
	}
	return nil
}

// connect returns the engine that answers. One that did before is not asked
// again: what is wanted of it will show.
func (c *Container) connect(ctx context.Context) (*engine, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.engine != nil {
		return c.engine, nil
	}
	e, err := findEngine(ctx, c.opts.hosts())
	if err != nil {
		return nil, err
	}
	c.engine = e
	return e, nil
}

// Prepare makes sure that the image is there and is one for this node. It waits
// for an engine that may still come up.
func (c *Container) Prepare(ctx context.Context, run Run, progress func(string)) error {
	e, err := c.await(ctx, progress)
	if err != nil {
		return err
	}
	found, err := c.provide(ctx, e, run, progress)
	if err != nil {
		return err
	}
	if err := shim.Write(run.Dir, imageFile, found); err != nil {
		return fmt.Errorf("note the image: %w", err)
	}
	return nil
}

// Launch writes down what the container is made of.
func (c *Container) Launch(run Run) (shim.Launch, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*engineTime)
	defer cancel()
	e, err := c.connect(ctx)
	if err != nil {
		return shim.Launch{}, err
	}
	var found foundImage
	if err := shim.Read(run.Dir, imageFile, &found); err != nil {
		return shim.Launch{}, fmt.Errorf("find the image of the run: %w", err)
	}
	plan, enforced, err := c.plan(e, run, found)
	if err != nil {
		return shim.Launch{}, err
	}
	if err := shim.Write(run.Dir, planFile, plan); err != nil {
		return shim.Launch{}, fmt.Errorf("plan the container: %w", err)
	}
	launch := shim.Launch{
		Argv: []string{c.opts.Self, "contain", run.Dir},
		Env:  []string{"GOMAXPROCS=1", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", mark(run.Spec.Run)},
		Dir:  run.Dir, Stdin: run.Stdin, Stdout: run.Stdout, Stderr: run.Stderr,
		TimeLimit: run.Spec.Request.TimeLimit.Duration(), Grace: run.Spec.Grace.Duration(),
		Contained: true, Enforced: enforced,
	}
	if launch.Grace <= 0 {
		launch.Grace = DefaultGrace
	}
	return launch, nil
}

// containerName is that of a run's container. Workers may share an engine, and
// the nodes of a job on one machine even have the same run.
func (c *Container) containerName(run string) string {
	sum := sha256.Sum256([]byte(c.opts.Dir))
	return "skyport-" + run + "-" + hex.EncodeToString(sum[:4])
}

// Clean removes the run's container. One that was just being made when its shim
// was killed appears a moment later.
func (c *Container) Clean(ctx context.Context, run Run) error {
	if !shim.Exists(run.Dir, planFile) {
		return nil // nobody could have made one
	}
	e, err := c.connect(ctx)
	if err != nil {
		return err
	}
	name := c.containerName(run.Spec.Run)
	late := 10
	if shim.Exists(run.Dir, shim.ContainerFile) || !shim.Exists(run.Dir, shim.BeganFile) {
		late = 0 // it had appeared, or nobody asked for it
	}
	for range late {
		found, err := removeContainer(ctx, e.api, name)
		if err != nil || found {
			return err
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	_, err = removeContainer(ctx, e.api, name)
	return err
}

// Sweep removes the containers of runs that no longer exist. It waits for an
// engine that may still come up; one that does not answer is no error.
func (c *Container) Sweep(ctx context.Context, keep func(run string) bool) error {
	e, err := c.await(ctx, func(string) {})
	if err != nil {
		if len(c.opts.hosts()) > 0 && ctx.Err() == nil {
			c.log.Warn("cannot look for left containers", "error", err)
		}
		return nil
	}
	listing, cancel := context.WithTimeout(ctx, 2*engineTime)
	defer cancel()
	filter := make(client.Filters).Add("label", labelDir+"="+c.opts.Dir)
	list, err := e.api.ContainerList(listing, client.ContainerListOptions{All: true, Filters: filter})
	if err != nil {
		c.log.Warn("cannot look for left containers", "error", plain(err))
		return nil
	}
	for _, item := range list.Items {
		if keep(item.Labels[labelRun]) {
			continue
		}
		if _, err := removeContainer(ctx, e.api, item.ID); err != nil {
			c.log.Warn("a container of a removed run is left", "run", item.Labels[labelRun], "error", err)
		}
	}
	return nil
}

// removeContainer kills and removes a container with its volumes, and says
// whether there was one.
func removeContainer(ctx context.Context, api *client.Client, name string) (found bool, err error) {
	for attempt := 0; ; attempt++ {
		_, err := api.ContainerRemove(ctx, name, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		switch {
		case err == nil:
			return true, nil
		case cerrdefs.IsNotFound(err):
			return found, nil
		case attempt == 100 || ctx.Err() != nil:
			return found, fmt.Errorf("remove container %s: %w", name, plain(err))
		}
		// Such as: its removal is on its way already, or it was just being killed.
		found = found || cerrdefs.IsConflict(err)
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return found, err
		}
	}
}

// sleep waits, unless ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // the caller's own
	}
}

// boxDir is the directory of a run that its init has inside the container: its
// orders, and what it reports.
func boxDir(run string) string { return filepath.Join(run, "box") }
