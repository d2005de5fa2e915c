package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/session"
	"github.com/openworkload/skyport/internal/worker/proc"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/shim"
)

// readyTime is how long a container may take to come up.
const readyTime = 3 * time.Minute

// Ready waits until the run's container is up.
func (c *Container) Ready(ctx context.Context, run Run) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for {
		switch {
		case shim.Exists(run.Dir, shim.ExitFile) || shim.Exists(run.Dir, shim.ResultFile):
			return skyport.Errorf(skyport.CodeConflict, "run %s has ended", run.Spec.Run)
		case shim.Exists(boxDir(run.Dir), begunFile) && shim.Exists(run.Dir, shim.ContainerFile):
			return nil
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return skyport.Errorf(skyport.CodeUnavailable, "the container of run %s does not come up", run.Spec.Run)
		}
	}
}

// Exec executes a command in the run's container.
func (c *Container) Exec(ctx context.Context, run *Run, command protocol.Command, s *session.Served) session.Exit {
	if run == nil {
		return session.Failed(skyport.Errorf(skyport.CodeInvalid, "a command in a container needs a run"))
	}
	if err := c.Ready(ctx, *run); err != nil {
		return session.Failed(err)
	}
	var plan containerPlan
	if err := shim.Read(run.Dir, planFile, &plan); err != nil {
		return session.Failed(fmt.Errorf("find the container: %w", err))
	}
	e, err := c.connect(ctx)
	if err != nil {
		return session.Failed(err)
	}
	x := &execution{api: e.api, served: s, tty: command.TTY}
	exit, err := x.run(ctx, plan, execOptions(c.opts.Self, *run, plan, command))
	if err != nil {
		return session.Failed(err)
	}
	return exit
}

// execOptions says what the engine executes: our own binary, which finds the
// command and becomes it, so that the image needs nothing.
func execOptions(self string, run Run, plan containerPlan, command protocol.Command) client.ExecCreateOptions {
	env := maps.Clone(command.Env)
	if env == nil {
		env = make(map[string]string)
	}
	if command.TTY && env["TERM"] == "" {
		env["TERM"] = "xterm"
	}
	name, value, _ := strings.Cut(mark(run.Spec.Run), "=")
	env[name] = value
	dir := run.Work
	if command.Dir != "" {
		dir = within(dir, command.Dir)
	}
	options := client.ExecCreateOptions{
		User: plan.Config.User, TTY: command.TTY, Env: entries(env),
		AttachStdin: true, AttachStdout: true, AttachStderr: true,
		Cmd: append([]string{self, "exec", plan.Box, dir}, command.Argv...),
	}
	if command.TTY && command.Rows > 0 && command.Cols > 0 {
		options.ConsoleSize = client.ConsoleSize{Height: uint(command.Rows), Width: uint(command.Cols)}
	}
	return options
}

// execution is one command in a container.
type execution struct {
	api    *client.Client
	served *session.Served
	tty    bool
	id     string
}

func (x *execution) run(ctx context.Context, plan containerPlan, options client.ExecCreateOptions) (session.Exit, error) {
	made, err := x.api.ExecCreate(ctx, plan.Name, options)
	if cerrdefs.IsNotFound(err) || cerrdefs.IsConflict(err) {
		return session.Exit{}, skyport.Errorf(skyport.CodeConflict, "the job's container has ended")
	}
	if err != nil {
		return session.Exit{}, skyport.Errorf(skyport.CodeUnavailable, "start a command in the container: %w", plain(err))
	}
	x.id = made.ID
	attached, err := x.api.ExecAttach(context.WithoutCancel(ctx), x.id, client.ExecAttachOptions{TTY: x.tty})
	if err != nil {
		return session.Exit{}, skyport.Errorf(skyport.CodeUnavailable, "start a command in the container: %w", plain(err))
	}
	defer attached.Close()
	if options.ConsoleSize.Height > 0 {
		x.resize(ctx, session.Size{Rows: int(options.ConsoleSize.Height), Cols: int(options.ConsoleSize.Width)})
	}

	over := make(chan struct{}) // the output has ended
	var around sync.WaitGroup
	around.Go(func() { x.control(ctx, over) })
	around.Go(func() {
		_, err := io.Copy(attached.Conn, x.served.Stdin) // ends with the input, the caller, or the command
		if !x.tty {
			_ = attached.CloseWrite() // nothing more comes
		} else if err == nil { // the engine would hang up
			_, _ = attached.Conn.Write([]byte{endOfInput}) // the command may have ended
		}
	})
	// The connection is closed only when nobody is left who writes to it.
	if x.tty {
		_, err = io.Copy(x.served.Stdout, attached.Reader)
	} else {
		_, err = stdcopy.StdCopy(x.served.Stdout, x.served.Stderr, attached.Reader)
	}
	exit, endErr := x.end()
	close(over)
	if closer, ok := x.served.Stdin.(io.Closer); ok {
		_ = closer.Close() // what comes is for nobody
		attached.Close()
		around.Wait()
	}
	if endErr != nil {
		return session.Exit{}, errors.Join(endErr, err)
	}
	return exit, nil
}

// end waits for the command itself, which outlives its output when it closes it,
// or the caller went away.
func (x *execution) end() (session.Exit, error) {
	away := 0
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		got, err := x.inspect()
		switch {
		case err == nil && !got.Running:
			exit := session.Exit{Code: got.ExitCode}
			if got.ExitCode > 128 && got.ExitCode < 128+65 {
				exit.Signal = got.ExitCode - 128
			}
			return exit, nil
		case err != nil:
			if away++; away > 50 || cerrdefs.IsNotFound(err) {
				return session.Exit{}, skyport.Errorf(skyport.CodeUnavailable, "the container ended while the command ran")
			}
		}
		time.Sleep(pause) // the engine tells by its answer only
	}
}

func (x *execution) inspect() (client.ExecInspectResult, error) {
	ctx, cancel := context.WithTimeout(context.Background(), engineTime)
	defer cancel()
	got, err := x.api.ExecInspect(ctx, x.id, client.ExecInspectOptions{})
	if err != nil {
		return got, fmt.Errorf("look for the command: %w", err)
	}
	return got, nil
}

// control passes sizes and signals on, and ends the command when its caller is gone.
func (x *execution) control(ctx context.Context, over <-chan struct{}) {
	gone := ctx.Done()
	var next <-chan time.Time
	ladder := []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}
	for {
		select {
		case <-over:
			return
		case size := <-x.served.Resize:
			x.resize(ctx, size)
		case sig := <-x.served.Signals:
			x.signal(sig, over)
		case <-gone:
			gone = nil
			x.signal(syscall.SIGHUP, over)
			next = time.After(hangupTime)
		case <-next:
			x.signal(ladder[0], over)
			if len(ladder) > 1 {
				ladder = ladder[1:]
			}
			next = time.After(termTime)
		}
	}
}

func (x *execution) resize(ctx context.Context, size session.Size) {
	ctx, cancel := context.WithTimeout(ctx, engineTime)
	defer cancel()
	// A size that comes too early or too late is nobody's.
	_, _ = x.api.ExecResize(ctx, x.id, client.ExecResizeOptions{Height: uint(max(size.Rows, 0)), Width: uint(max(size.Cols, 0))})
}

// signal reaches the command and what it started, by the node's numbers. The
// engine knows its number a moment later than the command's first output.
func (x *execution) signal(sig syscall.Signal, over <-chan struct{}) {
	for range 100 {
		if got, err := x.inspect(); err == nil && got.Running && got.PID > 0 {
			table, err := proc.Snapshot()
			if err != nil {
				return // tried again by who wants it
			}
			for _, pid := range append([]int{got.PID}, table.Descendants(got.PID)...) {
				_ = syscall.Kill(pid, sig) // it may have ended
			}
			return
		}
		select {
		case <-over:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ExecInside becomes a command in the container that it is called in: args are
// the init's box, the working directory, and the command; without one, a shell.
func ExecInside(args []string) error {
	if len(args) < 2 {
		return errors.New("exec: nothing to execute")
	}
	box, dir, argv := args[0], args[1], args[2:]
	var orders initOrders
	if err := shim.Read(box, ordersFile, &orders); err != nil {
		return fmt.Errorf("read what to do: %w", err)
	}
	fail := func(code int, err error) error {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(code)
		return nil
	}
	if err := os.Chdir(dir); err != nil {
		return fail(126, err)
	}
	env := orders.environment()
	path := os.Getenv("PATH")
	if len(argv) == 0 {
		for _, name := range []string{"bash", "sh"} {
			if found, err := lookup(name, path, dir); err == nil {
				argv = []string{found}
				break
			}
		}
		if len(argv) == 0 {
			return fail(127, fmt.Errorf("container image %s has no shell: name a command that it has", orders.Image))
		}
	}
	program, err := lookup(argv[0], path, dir)
	if err != nil {
		exit := notFound(err)
		return fail(exit.Code, err)
	}
	syscall.Umask(0o022)
	err = syscall.Exec(within(dir, program), argv, env) //nolint:gosec // to run what a user says is its purpose
	if errors.Is(err, syscall.ENOENT) {
		err = fmt.Errorf("%s: its interpreter or loader is missing in container image %s", strconv.Quote(filepath.Base(program)), orders.Image)
	}
	return fail(126, err)
}
