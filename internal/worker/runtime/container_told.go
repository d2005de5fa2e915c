package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport/internal/worker/proc"
	"github.com/openworkload/skyport/internal/worker/shim"
)

// note writes down which process is the container's first, if it can be seen
// from here: the engine may live among other processes.
func (c *contained) note(id string, pid int) {
	said := shim.Container{ID: id}
	if fd, err := unix.PidfdOpen(max(pid, 1), 0); err == nil && pid > 0 {
		row, err := proc.Read(pid)
		cgroups, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)) // empty when it has ended
		if err == nil && !row.Zombie && strings.Contains(string(cgroups), id) {
			said.PID, said.Start, c.pidfd = pid, row.Start, fd
		} else {
			_ = unix.Close(fd)
		}
	}
	if err := shim.Write(c.dir, shim.ContainerFile, said); err != nil {
		fmt.Fprintln(os.Stderr, err) // it is known by its name, too
	}
}

// attend waits for the end of a container that an engine started and went away
// before it said so, if the container can be seen without it.
func (c *contained) attend(ctx context.Context) bool {
	var known shim.Container
	if shim.Read(c.dir, shim.ContainerFile, &known) != nil || !shim.Exists(c.plan.Box, begunFile) {
		return false
	}
	if shim.Exists(c.plan.Box, reportFile) {
		return true // it has ended
	}
	table, err := proc.Snapshot()
	if err != nil {
		return false
	}
	for _, pid := range table.Processes() {
		if firstOf(pid, known.ID) {
			c.note(known.ID, pid)
			break
		}
	}
	if c.pidfd == 0 {
		return false
	}
	c.wait(ctx, known.ID)
	return true
}

// firstOf says whether a process is the first one inside a container.
func firstOf(pid int, id string) bool {
	cgroups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || !strings.Contains(string(cgroups), id) {
		return false
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok { // outermost first
			fields := strings.Fields(numbers)
			return len(fields) > 1 && fields[len(fields)-1] == "1"
		}
	}
	return false
}

// wait returns when the container's first process has ended. Signals reach it
// without the engine, which may be away.
func (c *contained) wait(ctx context.Context, id string) {
	over := make(chan struct{})
	go func() {
		defer close(over)
		if c.pidfd > 0 {
			fds := []unix.PollFd{{Fd: int32(c.pidfd), Events: unix.POLLIN}} //nolint:gosec // descriptors are small
			for {
				n, err := unix.Poll(fds, -1)
				if n > 0 || (err != nil && !errors.Is(err, unix.EINTR)) {
					return
				}
			}
		}
		c.waitByEngine(ctx, id)
	}()
	again := time.NewTimer(0) // for what the container was not ready to hear
	defer again.Stop()
	for {
		select {
		case <-over:
			return
		case sig := <-c.told:
			c.remember(sig)
			again.Reset(0)
		case <-again.C:
			if c.ending != 0 && !c.pass(ctx, id) {
				again.Reset(10 * time.Millisecond)
			}
		}
	}
}

// waitByEngine asks the engine, again and again when it goes away.
func (c *contained) waitByEngine(ctx context.Context, id string) {
	for {
		got, err := c.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if cerrdefs.IsNotFound(err) || (err == nil && ended(got.Container.State.Status)) {
			return
		}
		if err == nil {
			waited := c.api.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
			select {
			case <-waited.Result:
				return
			case err = <-waited.Error:
			}
		}
		if err != nil {
			_ = sleep(ctx, 200*time.Millisecond) // nothing ends this context
		}
	}
}

// hear takes what was told within a time, and says whether the end was asked for.
func (c *contained) hear(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case sig := <-c.told:
			c.remember(sig)
			if d > 0 {
				return true
			}
		case <-timer.C:
			return c.ending != 0
		}
	}
}

func (c *contained) remember(sig os.Signal) {
	switch {
	case sig == shim.KillSignal:
		c.ending = syscall.SIGKILL
	case c.ending == 0:
		c.ending = syscall.SIGTERM
	}
}

// pass tells the container, and says whether it was told. TERM is lost on an
// init that does not listen yet.
func (c *contained) pass(ctx context.Context, id string) bool {
	if c.ending == syscall.SIGTERM && !shim.Exists(c.plan.Box, begunFile) {
		return false
	}
	if c.pidfd > 0 {
		if err := unix.PidfdSendSignal(c.pidfd, c.ending, nil, 0); err == nil || errors.Is(err, unix.ESRCH) {
			return true
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*engineTime)
	defer cancel()
	_, err := c.api.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: unix.SignalName(c.ending)})
	return err == nil || !away(err)
}
