package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/shim"
)

// Contain stands for a run's container beside the shim: it makes the container,
// starts it, passes TERM on, ends it at shim.KillSignal, notes how it ended in
// shim.ResultFile, and removes it. It may be killed and called again at any
// instruction, and the engine may go away and come back. Only a process of its
// own may call it.
func Contain(dir string) error {
	told := make(chan os.Signal, 4)
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGPIPE)
	signal.Notify(told, shim.StopSignal, shim.KillSignal)
	c := contained{dir: dir, told: told}
	if err := shim.Read(dir, planFile, &c.plan); err != nil {
		return err
	}
	switch os.Getenv(shim.EndVariable) {
	case "term":
		c.ending = syscall.SIGTERM
	case "kill":
		c.ending = syscall.SIGKILL
	}
	api, err := client.New(client.WithHost(c.plan.Engine))
	if err != nil {
		return fmt.Errorf("connect to the container engine: %w", err)
	}
	defer func() { _ = api.Close() }() // the process ends
	c.api = api
	if !shim.Exists(dir, shim.ResultFile) {
		if err := shim.Write(dir, shim.ResultFile, c.live(context.Background())); err != nil {
			return err
		}
	}
	return c.remove()
}

// contained is one container, from before it is made until it has ended.
type contained struct {
	dir    string
	plan   containerPlan
	api    *client.Client
	told   <-chan os.Signal
	ending syscall.Signal // what was asked for last: TERM, KILL, or 0
	pidfd  int            // of the container's first process; 0: not to be seen
}

const (
	// missingTime is how long an engine may be away when the container is to be made.
	missingTime = 2 * time.Minute
	// stateTime is how long an engine may be away, or wrong, after the container ended.
	stateTime = 30 * time.Second
)

// live brings the container up and waits for its end.
func (c *contained) live(ctx context.Context) shim.Result {
	var missing time.Time // since when the engine is
	for {
		id, pid, state, err := c.up(ctx)
		switch {
		case err == nil && ended(state):
			return c.result(ctx)
		case err == nil:
			c.note(id, pid)
			c.wait(ctx, id)
			return c.result(ctx)
		case errors.Is(err, errEndedEarly):
			return shim.Result{ExitCode: 128 + int(c.ending), Signal: int(c.ending)}
		case errors.Is(err, errVanished):
			res := c.result(ctx)
			if res.Note == "" && res.ExitCode == 0 && !shim.Exists(c.plan.Box, reportFile) {
				res = killedResult("its container was removed by somebody else")
			}
			return res
		case !away(err):
			return shim.Result{Refused: fmt.Sprintf("container image %s: %v%s", c.plan.Image, plain(err), hint(err))}
		}
		if c.attend(ctx) {
			return c.result(ctx)
		}
		if missing.IsZero() {
			missing = time.Now()
		}
		if time.Since(missing) > missingTime && !shim.Exists(c.dir, shim.ContainerFile) {
			return shim.Result{Refused: fmt.Sprintf("the container engine does not answer: %v", plain(err))}
		}
		if c.hear(200*time.Millisecond) && !shim.Exists(c.dir, shim.ContainerFile) {
			return shim.Result{ExitCode: 128 + int(c.ending), Signal: int(c.ending)}
		}
	}
}

// hint is what to do about an error, behind its text.
func hint(err error) string {
	if what := skyport.HintOf(err); what != "" {
		return " (" + what + ")"
	}
	return ""
}

var (
	errEndedEarly = errors.New("the run was ended before it started")
	errVanished   = errors.New("the container is gone")
)

// up makes and starts the container unless that was done, and returns its state.
func (c *contained) up(ctx context.Context) (id string, pid int, state container.ContainerState, err error) {
	ctx, cancel := context.WithTimeout(ctx, missingTime)
	defer cancel()
	known := shim.Exists(c.dir, shim.ContainerFile)
	if !known {
		if c.hear(0) {
			return "", 0, "", errEndedEarly
		}
		err := c.create(ctx)
		if err != nil && !cerrdefs.IsConflict(err) { // a conflict: by who stood here before
			return "", 0, "", err
		}
	}
	for started := false; ; started = true {
		got, err := c.api.ContainerInspect(ctx, c.plan.Name, client.ContainerInspectOptions{})
		if cerrdefs.IsNotFound(err) {
			return "", 0, "", errVanished
		}
		if err != nil {
			return "", 0, "", err //nolint:wrapcheck // judged by the caller
		}
		s := got.Container.State
		id = got.Container.ID
		if !known { // before the start: what runs must be found
			if err := shim.Write(c.dir, shim.ContainerFile, shim.Container{ID: id}); err != nil {
				return "", 0, "", err
			}
			known = true
		}
		if s.Status != container.StateCreated {
			return id, s.Pid, s.Status, nil
		}
		if c.hear(0) {
			return "", 0, "", errEndedEarly
		}
		if started {
			return "", 0, "", fmt.Errorf("the container does not start: %s", s.Error)
		}
		_, err = c.api.ContainerStart(ctx, id, client.ContainerStartOptions{})
		if err != nil && strings.Contains(err.Error(), "rlimit") && len(c.plan.Host.Ulimits) > 0 {
			// The engine may not raise them: nothing ran, and the next one goes without.
			c.plan.Host.Ulimits = nil
			if _, err := removeContainer(ctx, c.api, id); err != nil {
				return "", 0, "", err
			}
			if err := os.Remove(filepath.Join(c.dir, shim.ContainerFile)); err != nil {
				return "", 0, "", fmt.Errorf("forget the container: %w", err)
			}
			return c.up(ctx)
		}
		if err != nil {
			return "", 0, "", err //nolint:wrapcheck // judged by the caller
		}
	}
}

// create makes the container. GPUs are given out one run at a time.
func (c *contained) create(ctx context.Context) error {
	options := client.ContainerCreateOptions{Name: c.plan.Name, Config: c.plan.Config, HostConfig: c.plan.Host}
	if c.plan.GPUs > 0 {
		lock, err := os.OpenFile(filepath.Join(c.plan.Worker, "gpus.lock"), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return fmt.Errorf("give out GPUs: %w", err)
		}
		defer func() { _ = lock.Close() }() // lets go of the lock
		for errors.Is(syscall.Flock(int(lock.Fd()), syscall.LOCK_EX), syscall.EINTR) {
		}
		e, err := openEngine(ctx, c.plan.Engine)
		if err != nil {
			return err
		}
		defer func() { _ = e.api.Close() }() // was only asked
		taken, err := takenGPUs(ctx, e.api)
		if err != nil {
			return err
		}
		request, numbers, err := lookForGPUs(e).request(c.plan.GPUs, taken)
		if err != nil {
			return err
		}
		options.HostConfig.DeviceRequests = append(options.HostConfig.DeviceRequests, request)
		options.Config.Labels[labelGPUs] = strings.Join(numbers, ",")
	}
	_, err := c.api.ContainerCreate(ctx, options)
	return err //nolint:wrapcheck // judged by the caller
}

func ended(state container.ContainerState) bool {
	return state == container.StateExited || state == container.StateDead || state == container.StateRemoving
}

// result finds out how the container ended: from its init, or else from the engine.
func (c *contained) result(ctx context.Context) shim.Result {
	var res shim.Result
	reported := shim.Read(c.plan.Box, reportFile, &res) == nil
	ctx, cancel := context.WithTimeout(ctx, stateTime)
	defer cancel()
	if reported && (res.ExitCode == 0 || res.Refused != "" || res.OutOfMem) {
		return res // what the engine knows changes nothing
	}
	for {
		got, err := c.api.ContainerInspect(ctx, c.plan.Name, client.ContainerInspectOptions{})
		switch {
		case err == nil && got.Container.State.OOMKilled && reported:
			res.OutOfMem = true
			return res
		case reported:
			return res
		case err == nil && ended(got.Container.State.Status):
			s := got.Container.State
			res = shim.Result{ExitCode: s.ExitCode, OutOfMem: s.OOMKilled, Note: s.Error}
			if s.ExitCode > 128 && s.ExitCode < 128+65 {
				res.Signal = s.ExitCode - 128
			}
			if res.Note == "" && !res.OutOfMem && c.ending == 0 {
				res.Lost, res.Note = true, "its container was ended from outside"
			}
			return res
		case cerrdefs.IsNotFound(err):
			return killedResult("its container was removed by somebody else")
		case ctx.Err() != nil:
			return killedResult("the container engine does not tell how its container ended")
		}
		_ = sleep(ctx, 50*time.Millisecond) // its end is looked at above
	}
}

func killedResult(note string) shim.Result {
	return shim.Result{ExitCode: 128 + int(syscall.SIGKILL), Signal: int(syscall.SIGKILL), Lost: true, Note: note}
}

// remove removes the container. When the engine is away for longer, the worker
// removes it later: the file that tells of it stays.
func (c *contained) remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), stateTime)
	defer cancel()
	if _, err := removeContainer(ctx, c.api, c.plan.Name); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return nil
	}
	if err := os.Remove(filepath.Join(c.dir, shim.ContainerFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget the container: %w", err)
	}
	return nil
}
