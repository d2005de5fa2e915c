package docker

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// FaultsVariable is the environment variable of the gate by which a person
// switches faults on; see [ParseFaults].
const FaultsVariable = "SWM_DOCKER_FAULTS"

// Faults are what tests switch on to see how the rest copes. They concern what
// is created while they are on.
type Faults struct {
	CreateFails   int           // so many calls of Create fail with a passing error
	CreateRefused bool          // Create fails for good
	NodeFails     int           // the node with this number, from 1, cannot be made
	NeverBoot     bool          // nodes run, their SSH servers are never started
	BootDelay     time.Duration // nodes wait so long before they boot, in whole seconds
	DieAfter      time.Duration // all nodes are killed so long after they were made
	Disk          skyport.Bytes // gate.NodeDir is on a disk of this size, emptied by a reboot
	DeleteFails   int           // so many calls of Delete fail with a passing error
}

// ParseFaults reads faults such as "never-boot,boot-delay=10s,die-after=1m,disk=64MiB,node-fails=2".
func ParseFaults(text string, size func(string) (skyport.Bytes, error)) (f Faults, err error) {
	for word := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(word), "=")
		var err error
		switch name {
		case "":
		case "create-fails":
			f.CreateFails, err = strconv.Atoi(value)
		case "create-refused":
			f.CreateRefused = true
		case "node-fails":
			f.NodeFails, err = strconv.Atoi(value)
		case "never-boot":
			f.NeverBoot = true
		case "boot-delay":
			f.BootDelay, err = time.ParseDuration(value)
		case "die-after":
			f.DieAfter, err = time.ParseDuration(value)
		case "disk":
			f.Disk, err = size(value)
		case "delete-fails":
			f.DeleteFails, err = strconv.Atoi(value)
		default:
			err = fmt.Errorf("there is no such fault")
		}
		if err != nil {
			return f, skyport.Errorf(skyport.CodeInvalid, "%s: %q: %w", FaultsVariable, skyport.Abbreviate(word, 60), err).
				WithHint("known are create-fails=N, create-refused, node-fails=N, never-boot, boot-delay=10s, die-after=1m, disk=64MiB, delete-fails=N")
		}
	}
	return f, nil
}

// SetFaults switches faults on and off. Nodes that exist are not touched.
func (p *Provider) SetFaults(f Faults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = f
}

func (f *Faults) create() error {
	if f.CreateRefused {
		return permanent(skyport.CodeUnsupported, "creation is refused: a fault is switched on")
	}
	return spend(&f.CreateFails, "creation")
}

func (f *Faults) delete() error { return spend(&f.DeleteFails, "deletion") }

func (f *Faults) node(number int) error {
	if f.NodeFails == number+1 {
		return permanent(skyport.CodeUnsupported, "node %d cannot be made: a fault is switched on", number+1)
	}
	return nil
}

// env tells the node image how to boot.
func (f *Faults) env() []string {
	delay := f.BootDelay
	if f.NeverBoot {
		delay = 24 * time.Hour
	}
	if delay <= 0 {
		return nil
	}
	return []string{fmt.Sprintf("SKYPORT_BOOT_DELAY=%d", int64(delay.Round(time.Second)/time.Second))}
}

func spend(n *int, what string) error {
	if *n <= 0 {
		return nil
	}
	*n--
	return skyport.Errorf(skyport.CodeUnavailable, "%s fails: a fault is switched on", what)
}

// haunt lets the nodes of a partition die when that fault is switched on.
func (p *Provider) haunt(w *work) {
	after := w.faults.DieAfter
	if after <= 0 {
		return
	}
	p.jobs.Go(func() {
		if !rest(p.ctx, after) {
			return
		}
		for _, name := range w.record.nodes {
			if err := p.Kill(p.ctx, name); err != nil {
				p.log.Warn("fault: the node does not die", "node", name, "error", err)
			}
		}
	})
}

// own finds the container of a node of ours.
func (p *Provider) own(ctx context.Context, node string) (client.ContainerInspectResult, error) {
	found, err := p.engine.ContainerInspect(ctx, node, client.ContainerInspectOptions{})
	if err != nil {
		return found, p.engineError(err, "look for node "+node)
	}
	if found.Container.Config == nil || found.Container.Config.Labels[labelSite] != p.options.Site {
		return found, skyport.Errorf(skyport.CodeForbidden, "container %s is not of site %s", node, p.options.Site)
	}
	return found, nil
}

// Kill ends a node as a loss of power does.
func (p *Provider) Kill(ctx context.Context, node string) error {
	c, err := p.own(ctx, node)
	if err != nil {
		return err
	}
	if _, err := p.engine.ContainerKill(ctx, c.Container.ID, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		return p.engineError(err, "kill node "+node)
	}
	return nil
}

// Reboot stops a node, kindly for a moment, and starts it again. It keeps its
// address and its disk.
func (p *Provider) Reboot(ctx context.Context, node string) error {
	c, err := p.own(ctx, node)
	if err != nil {
		return err
	}
	p.mu.Lock()
	k := p.knockOf(c.Container.ID)
	k.rebooting = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		k.rebooting = false
	}()
	kindly := 2
	if _, err := p.engine.ContainerRestart(ctx, c.Container.ID, client.ContainerRestartOptions{Timeout: &kindly}); err != nil {
		return p.engineError(err, "reboot node "+node)
	}
	return nil
}

// Disconnect takes a node's network away.
func (p *Provider) Disconnect(ctx context.Context, node string) error {
	c, net, err := p.wire(ctx, node)
	if err != nil {
		return err
	}
	_, err = p.engine.NetworkDisconnect(ctx, net, client.NetworkDisconnectOptions{Container: c.Container.ID, Force: true})
	if err != nil {
		return p.engineError(err, "disconnect node "+node)
	}
	return nil
}

// Reconnect gives a node its network back, with the address that it had.
func (p *Provider) Reconnect(ctx context.Context, node string) error {
	c, net, err := p.wire(ctx, node)
	if err != nil {
		return err
	}
	address, err := netip.ParseAddr(c.Container.Config.Labels[labelAddress])
	if err != nil {
		return fmt.Errorf("reconnect node %s: %w", node, err)
	}
	_, err = p.engine.NetworkConnect(ctx, net, client.NetworkConnectOptions{
		Container:      c.Container.ID,
		EndpointConfig: &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: address}},
	})
	if err != nil {
		return p.engineError(err, "reconnect node "+node)
	}
	return nil
}

// wire finds a node and its partition's network.
func (p *Provider) wire(ctx context.Context, node string) (c client.ContainerInspectResult, net string, err error) {
	if c, err = p.own(ctx, node); err != nil {
		return c, "", err
	}
	id := skyport.PartitionID(c.Container.Config.Labels[labelPartition])
	seen, err := p.look(ctx, id)
	if err != nil {
		return c, "", err
	}
	if v, ok := seen[id]; ok && len(v.networks) > 0 {
		return c, v.networks[0], nil
	}
	return c, "", skyport.Errorf(skyport.CodeNotFound, "node %s: its partition has no network", node)
}

const fill = gate.NodeDir + "/.skyport-fill"

// FillDisk leaves no room in the node's directory. The node must have a disk of
// its own for it (Faults.Disk): else it would fill the engine's.
func (p *Provider) FillDisk(ctx context.Context, node string) error {
	return p.run(ctx, node, "grep -q ' "+gate.NodeDir+" ' /proc/mounts || { echo "+gate.NodeDir+" is no disk of its own; exit 3; }; "+
		"cat /dev/zero >"+fill+" 2>/dev/null; [ -s "+fill+" ]")
}

// FreeDisk takes back what FillDisk has done.
func (p *Provider) FreeDisk(ctx context.Context, node string) error {
	return p.run(ctx, node, "rm -f "+fill)
}

// run runs a shell command as root in a node and waits for its end.
func (p *Provider) run(ctx context.Context, node, command string) error {
	c, err := p.own(ctx, node)
	if err != nil {
		return err
	}
	made, err := p.engine.ExecCreate(ctx, c.Container.ID, client.ExecCreateOptions{
		User: "0", AttachStdout: true, AttachStderr: true, TTY: true, Cmd: []string{"/bin/sh", "-c", command},
	})
	if err != nil {
		return p.engineError(err, "run a command in node "+node)
	}
	answer, err := p.engine.ExecAttach(ctx, made.ID, client.ExecAttachOptions{TTY: true})
	if err != nil {
		return p.engineError(err, "run a command in node "+node)
	}
	stop := context.AfterFunc(ctx, answer.Close)
	defer stop()
	defer answer.Close()
	said := make([]byte, 0, 1024)
	for part := make([]byte, 512); ; {
		n, err := answer.Reader.Read(part)
		if len(said) < cap(said) {
			said = append(said, part[:min(n, cap(said)-len(said))]...)
		}
		if err != nil {
			break // its end, or that of the caller
		}
	}
	for {
		state, err := p.engine.ExecInspect(ctx, made.ID, client.ExecInspectOptions{})
		switch {
		case err != nil:
			return p.engineError(err, "run a command in node "+node)
		case state.Running:
			if !rest(ctx, 20*time.Millisecond) {
				return fmt.Errorf("run a command in node %s: %w", node, ctx.Err())
			}
		case state.ExitCode != 0:
			return skyport.Errorf(skyport.CodeInternal, "a command in node %s ended with code %d: %s", node, state.ExitCode, strings.TrimSpace(string(said)))
		default:
			return nil
		}
	}
}
