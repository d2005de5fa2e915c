package docker_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/docker"
)

// until follows the provider's changes until f is true.
func until(t *testing.T, p *docker.Provider, what string, f func() (bool, error)) {
	t.Helper()
	within(t, p, patience, what, f)
}

func within(t *testing.T, p *docker.Provider, patience time.Duration, what string, f func() (bool, error)) {
	t.Helper()
	end := time.After(patience)
	for {
		changed := p.Changed()
		ok, err := f()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond): // what is awaited may not be of the provider
		case <-end:
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
	}
}

func specFor(o docker.Options, nodes int) gate.PartitionSpec {
	id := skyport.NewPartitionID()
	return gate.PartitionSpec{
		ID: id, Owner: "test-" + id.Short(), Site: o.Site, Flavor: o.Flavors[0].Name, Nodes: skyport.NodeNames(id, nodes),
		Lease: time.Now().Add(time.Hour).UTC().Truncate(time.Second),
	}
}

// create makes a partition, which is removed at the end of the test.
func create(t *testing.T, p *docker.Provider, spec gate.PartitionSpec) {
	t.Helper()
	t.Cleanup(func() { remove(t, p, spec) })
	if err := p.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, p *docker.Provider, spec gate.PartitionSpec) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	until(t, p, "removal", func() (bool, error) {
		if err := p.Delete(ctx, spec.Site, spec.ID); err != nil {
			return false, err
		}
		s, err := p.Status(ctx, spec.Site, spec.ID)
		if errors.Is(err, gate.ErrNotFound) {
			return true, nil
		}
		return false, fmt.Errorf("state %s %s: %w", s.State, s.Details, err)
	})
}

func await(t *testing.T, p *docker.Provider, spec gate.PartitionSpec, state gate.State) (s gate.PartitionStatus) {
	t.Helper()
	until(t, p, string(state), func() (bool, error) {
		var err error
		s, err = p.Status(t.Context(), spec.Site, spec.ID)
		if err == nil && s.State == gate.StateFailed && state != gate.StateFailed {
			t.Fatalf("partition failed: %s", s.Details)
		}
		return err == nil && s.State == state, fmt.Errorf("state %s %s: %w", s.State, s.Details, err)
	})
	return s
}

func mentions(t *testing.T, s gate.PartitionStatus, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(s.Details, word) {
			t.Errorf("details %q do not mention %q", s.Details, word)
		}
	}
}

// answers says whether something listens at a node's SSH port.
func answers(t *testing.T, address string) bool {
	t.Helper()
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(t.Context(), "tcp", net.JoinHostPort(address, "22"))
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing was said
	return true
}

// TestWhatNodesAre: each has its name, its address, its share of the machine.
func TestWhatNodesAre(t *testing.T) {
	t.Parallel()
	o := options(t)
	p, engine := open(t, o), connect(t)
	spec := specFor(o, 2)
	spec.UserData = []string{"#cloud-config\n# secret-of-main\n", "#cloud-config\n# secret-of-compute\n"}
	create(t, p, spec)
	s := await(t, p, spec, gate.StateUp)
	for i, n := range s.Nodes {
		c, err := engine.ContainerInspect(t.Context(), n.Name, client.ContainerInspectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		host := c.Container.HostConfig
		if c.Container.Config.Hostname != n.Name || host.NanoCPUs != 1e9 || host.Memory != 64<<20 || host.RestartPolicy.Name == "always" {
			t.Errorf("node %s: %+v %+v", n.Name, c.Container.Config, host)
		}
		if strings.Contains(string(c.Raw), "secret-of") {
			t.Error("the engine keeps user data beside the node's disk")
		}
		if out, code := inside(t, engine, n.Name, "cat /var/lib/cloud/seed/nocloud/user-data /var/lib/cloud/seed/nocloud/meta-data"); code != 0 ||
			!strings.Contains(out, spec.UserData[i][15:28]) || !strings.Contains(out, "local-hostname: "+n.Name) {
			t.Errorf("seed of node %s, code %d: %q", n.Name, code, out)
		}
		if n.Endpoint != gate.Endpoint(n.Address) {
			t.Errorf("endpoint %s of %s", n.Endpoint, n.Address)
		}
	}
	if out, code := inside(t, engine, spec.Nodes[0], "nc -w 5 "+spec.Nodes[1]+" 22 </dev/null"); code != 0 {
		t.Errorf("main does not reach compute by name: %s", out)
	}
}

// inside runs a shell command in a node.
func inside(t *testing.T, engine *client.Client, node, command string) (out string, code int) {
	t.Helper()
	made, err := engine.ExecCreate(t.Context(), node, client.ExecCreateOptions{
		Cmd: []string{"/bin/sh", "-c", command}, AttachStdout: true, AttachStderr: true, TTY: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := engine.ExecAttach(t.Context(), made.ID, client.ExecAttachOptions{TTY: true})
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Close()
	var said strings.Builder
	if _, err := answer.Reader.WriteTo(&said); err != nil {
		t.Fatal(err)
	}
	for {
		state, err := engine.ExecInspect(t.Context(), made.ID, client.ExecInspectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !state.Running {
			return said.String(), state.ExitCode
		}
	}
}

func TestNodesThatDie(t *testing.T) {
	t.Parallel()
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		o := options(t)
		p := open(t, o)
		spec := specFor(o, 2)
		create(t, p, spec)
		await(t, p, spec, gate.StateUp)
		if err := p.Kill(t.Context(), spec.Nodes[1]); err != nil {
			t.Fatal(err)
		}
		mentions(t, await(t, p, spec, gate.StateFailed), spec.Nodes[1], "signal 9")
		if err := p.Create(t.Context(), spec); err != nil {
			t.Errorf("create after a failure: %v", err)
		}
		mentions(t, await(t, p, spec, gate.StateFailed), spec.Nodes[1])
	})
	t.Run("after a while", func(t *testing.T) {
		t.Parallel()
		o := options(t)
		o.Faults.DieAfter = 100 * time.Millisecond
		p := open(t, o)
		spec := specFor(o, 1)
		create(t, p, spec)
		mentions(t, await(t, p, spec, gate.StateFailed), spec.Nodes[0])
	})
	t.Run("powered off", func(t *testing.T) {
		t.Parallel()
		o := options(t)
		p, engine := open(t, o), connect(t)
		spec := specFor(o, 1)
		create(t, p, spec)
		await(t, p, spec, gate.StateUp)
		if _, err := engine.ContainerStop(t.Context(), spec.Nodes[0], client.ContainerStopOptions{}); err != nil {
			t.Fatal(err)
		}
		mentions(t, await(t, p, spec, gate.StateFailed), spec.Nodes[0], "powered off")
	})
	t.Run("removed by hand", func(t *testing.T) {
		t.Parallel()
		o := options(t)
		p, engine := open(t, o), connect(t)
		spec := specFor(o, 2)
		create(t, p, spec)
		await(t, p, spec, gate.StateUp)
		if _, err := engine.ContainerRemove(t.Context(), spec.Nodes[1], client.ContainerRemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		mentions(t, await(t, p, spec, gate.StateFailed), spec.Nodes[1], "vanished")
	})
}

// TestReboots: a node that restarts stays up for the gate, at its address,
// whoever does it.
func TestReboots(t *testing.T) {
	t.Parallel()
	o := options(t)
	p, engine := open(t, o), connect(t)
	spec := specFor(o, 2)
	create(t, p, spec)
	before := await(t, p, spec, gate.StateUp)
	for who, reboot := range map[string]func(node string) error{
		"provider": func(node string) error { return p.Reboot(t.Context(), node) },
		"hand": func(node string) error {
			soon := 1
			_, err := engine.ContainerRestart(t.Context(), node, client.ContainerRestartOptions{Timeout: &soon})
			return err
		},
	} {
		done := make(chan error, 1)
		go func() { done <- reboot(spec.Nodes[0]) }()
		for going := true; going; {
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
				going = false
			default:
			}
			if s, err := p.Status(t.Context(), o.Site, spec.ID); err != nil || s.State != gate.StateUp {
				t.Fatalf("rebooted by %s: %s %s, %v", who, s.State, s.Details, err)
			}
		}
	}
	until(t, p, "the rebooted node", func() (bool, error) { return answers(t, before.Nodes[0].Address), nil })
	if after := await(t, p, spec, gate.StateUp); after.Nodes[0] != before.Nodes[0] {
		t.Errorf("a reboot made %+v of %+v", after.Nodes[0], before.Nodes[0])
	}
}

func TestBoots(t *testing.T) {
	t.Parallel()
	o := options(t)
	p := open(t, o)
	p.SetFaults(docker.Faults{NeverBoot: true})
	never := specFor(o, 1)
	create(t, p, never)
	s := await(t, p, never, gate.StateBooting)
	mentions(t, s, never.Nodes[0], "SSH")
	p.SetFaults(docker.Faults{BootDelay: time.Second})
	late := specFor(o, 1)
	create(t, p, late)
	await(t, p, late, gate.StateBooting)
	await(t, p, late, gate.StateUp)
	if s, err := p.Status(t.Context(), o.Site, never.ID); err != nil || s.State != gate.StateBooting || s.Nodes[0].Endpoint != "" {
		t.Errorf("the one that never boots: %+v, %v", s, err)
	}
}

// TestNetworkLost: a node without network is up for the gate, and is reached
// again, at the same address, when it has its network back.
func TestNetworkLost(t *testing.T) {
	t.Parallel()
	o := options(t)
	p := open(t, o)
	spec := specFor(o, 2)
	create(t, p, spec)
	before := await(t, p, spec, gate.StateUp)
	if err := p.Disconnect(t.Context(), spec.Nodes[1]); err != nil {
		t.Fatal(err)
	}
	if answers(t, before.Nodes[1].Address) || !answers(t, before.Nodes[0].Address) {
		t.Error("the wrong node has lost its network, or none")
	}
	if s, err := p.Status(t.Context(), o.Site, spec.ID); err != nil || s.State != gate.StateUp || s.Nodes[1] != before.Nodes[1] {
		t.Errorf("without network: %+v, %v", s, err)
	}
	if err := p.Reconnect(t.Context(), spec.Nodes[1]); err != nil {
		t.Fatal(err)
	}
	until(t, p, "the network", func() (bool, error) { return answers(t, before.Nodes[1].Address), nil })
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	o := options(t)
	p, engine := open(t, o), connect(t)
	unsafe := specFor(o, 1)
	create(t, p, unsafe)
	p.SetFaults(docker.Faults{Disk: 4 << 20})
	spec := specFor(o, 1)
	create(t, p, spec)
	await(t, p, unsafe, gate.StateUp)
	await(t, p, spec, gate.StateUp)
	if err := p.FillDisk(t.Context(), unsafe.Nodes[0]); err == nil {
		t.Error("the engine's own disk was filled")
	}
	if err := p.FillDisk(t.Context(), spec.Nodes[0]); err != nil {
		t.Fatal(err)
	}
	const write = "head -c 100000 /dev/zero >" + gate.NodeDir + "/file"
	if out, code := inside(t, engine, spec.Nodes[0], write); code == 0 {
		t.Errorf("there is room: %s", out)
	}
	if err := p.FreeDisk(t.Context(), spec.Nodes[0]); err != nil {
		t.Fatal(err)
	}
	if out, code := inside(t, engine, spec.Nodes[0], write); code != 0 {
		t.Errorf("there is no room: %s", out)
	}
}

// TestHalfACreation: what cannot be made whole is taken back whole, for the
// true reason, also after a restart of the gate.
func TestHalfACreation(t *testing.T) {
	t.Parallel()
	t.Run("fault", func(t *testing.T) {
		t.Parallel()
		o := options(t)
		o.Faults.NodeFails = 2
		p := open(t, o)
		spec := specFor(o, 3)
		create(t, p, spec)
		mentions(t, await(t, p, spec, gate.StateFailed), "node 2", "fault")
		nothingRuns(t, p, o)
		if err := p.Create(t.Context(), spec); err != nil {
			t.Errorf("create after a failure: %v", err)
		}
		second := open(t, o)
		mentions(t, await(t, second, spec, gate.StateFailed), "node 2", "fault")
	})
	t.Run("a foreign container has the name", func(t *testing.T) {
		t.Parallel()
		o := options(t)
		p, engine := open(t, o), connect(t)
		spec := specFor(o, 2)
		foreign, err := engine.ContainerCreate(t.Context(), client.ContainerCreateOptions{
			Name: spec.Nodes[1], Config: &container.Config{Image: o.Image, Labels: o.Labels},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx := context.WithoutCancel(t.Context())
			if _, err := engine.ContainerRemove(ctx, foreign.ID, client.ContainerRemoveOptions{Force: true}); err != nil {
				t.Errorf("the foreign container is gone: %v", err)
			}
		})
		create(t, p, spec)
		mentions(t, await(t, p, spec, gate.StateFailed), spec.Nodes[1], "not of this partition")
		nothingRuns(t, p, o)
		remove(t, p, spec)
	})
}

// nothingRuns waits until the engine has no containers and networks of the site.
func nothingRuns(t *testing.T, p *docker.Provider, o docker.Options) {
	t.Helper()
	engine := connect(t)
	filter := client.Filters{}.Add("label", "io.openworkload.skyport.site="+o.Site)
	until(t, p, "rollback", func() (bool, error) {
		containers, err := engine.ContainerList(t.Context(), client.ContainerListOptions{All: true, Filters: filter})
		if err != nil {
			return false, err
		}
		networks, err := engine.NetworkList(t.Context(), client.NetworkListOptions{Filters: filter})
		return err == nil && len(containers.Items)+len(networks.Items) == 0, err
	})
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	o := options(t)
	o.Images = []string{"skyport-test-absent:none"}
	o.Limits.CPUs = 2
	p := open(t, o)
	absent := specFor(o, 1)
	absent.Image = o.Images[0]
	err := p.Create(t.Context(), absent)
	if !errors.Is(err, gate.ErrPermanent) || skyport.CodeOf(err) != skyport.CodeUnknownImage || skyport.HintOf(err) == "" {
		t.Errorf("an image that the engine has not: %v", err)
	}
	if _, err := p.Check(t.Context()); skyport.CodeOf(err) != skyport.CodeUnknownImage {
		t.Errorf("check: %v", err)
	}
	two := specFor(o, 2)
	create(t, p, two)
	err = p.Create(t.Context(), specFor(o, 1))
	if errors.Is(err, gate.ErrPermanent) || skyport.CodeOf(err) != skyport.CodeUnavailable || !strings.Contains(err.Error(), "full") {
		t.Errorf("no room now: %v", err)
	}
	p.SetFaults(docker.Faults{CreateRefused: true})
	remove(t, p, two)
	if err = p.Create(t.Context(), specFor(o, 1)); !errors.Is(err, gate.ErrPermanent) {
		t.Errorf("refused: %v", err)
	}
	p.SetFaults(docker.Faults{CreateFails: 1, DeleteFails: 1})
	if err = p.Create(t.Context(), specFor(o, 1)); err == nil || errors.Is(err, gate.ErrPermanent) {
		t.Errorf("a passing error: %v", err)
	}
	if err = p.Delete(t.Context(), o.Site, two.ID); err == nil || errors.Is(err, gate.ErrPermanent) {
		t.Errorf("a passing error: %v", err)
	}
	engine := connect(t)
	if _, err := engine.ImageInspect(t.Context(), o.Images[0]); !cerrdefs.IsNotFound(err) {
		t.Errorf("the absent image: %v", err)
	}
}

// TestNoEngine: without an engine the catalogue's sites are there, and calls say
// what to do.
func TestNoEngine(t *testing.T) {
	t.Parallel()
	p, err := docker.New(docker.Options{Host: "unix://" + t.TempDir() + "/no.sock"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	sites, err := p.Sites(t.Context())
	if err != nil || len(sites) != 1 || !sites[0].Container || sites[0].DefaultImage != docker.DefaultImage {
		t.Errorf("sites: %+v, %v", sites, err)
	}
	_, err = p.Flavors(t.Context(), "docker")
	if skyport.CodeOf(err) != skyport.CodeUnavailable || skyport.HintOf(err) == "" || errors.Is(err, gate.ErrPermanent) {
		t.Errorf("flavors: %v, hint %q", err, skyport.HintOf(err))
	}
	if _, err = p.Status(t.Context(), "docker", skyport.NewPartitionID()); err == nil || errors.Is(err, gate.ErrNotFound) {
		t.Errorf("status without an engine: %v", err)
	}
	if err = p.Delete(t.Context(), "docker", skyport.NewPartitionID()); err == nil {
		t.Error("a removal without an engine")
	}
	if _, err := docker.New(docker.Options{Host: "what ever"}); err == nil || skyport.HintOf(err) == "" {
		t.Errorf("a host that is none: %v", err)
	}
}
