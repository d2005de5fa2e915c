package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"strconv"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// subnet is the network of a partition.
type subnet struct {
	id     string
	prefix netip.Prefix
}

// address is that of a node by its number: the first is the gateway's.
func (s subnet) address(number int) (netip.Addr, error) {
	at := s.prefix.Masked().Addr()
	for range number + 2 {
		at = at.Next()
	}
	// The last one is for broadcasts.
	if !s.prefix.Contains(at) || !s.prefix.Contains(at.Next()) {
		return at, permanent(skyport.CodeUnsatisfiable, "the subnet %s has no address for node %d", s.prefix, number+1).
			WithHint("give the engine larger default-address-pools")
	}
	return at, nil
}

// network finds the partition's network, or makes it. The engine chooses the
// subnet, but lets nodes keep an address over restarts only in one that was
// named: so a draft is made first, and the network in its place.
func (p *Provider) network(ctx context.Context, w *work, v *view) (subnet, error) {
	for _, id := range v.drafts {
		if err := p.removeNetwork(ctx, id); err != nil {
			return subnet{}, err
		}
	}
	if len(v.networks) > 0 {
		return p.subnetOf(ctx, v.networks[0])
	}
	name := skyport.PartitionName(w.id)
	var last error
	for range tries {
		id, err := p.makeNetwork(ctx, name+"-draft", w.record.labels(p.options.Site, kindDraft), nil)
		if err != nil {
			return subnet{}, err
		}
		draft, err := p.subnetOf(ctx, id)
		if err != nil {
			return subnet{}, err
		}
		if err := p.removeNetwork(ctx, id); err != nil {
			return subnet{}, err
		}
		id, err = p.makeNetwork(ctx, name, w.record.labels(p.options.Site, kindNetwork), &network.IPAM{Config: []network.IPAMConfig{{
			Subnet: draft.prefix, Gateway: draft.prefix.Masked().Addr().Next(),
		}}})
		if err == nil {
			return subnet{id, draft.prefix}, nil
		}
		last = err // somebody else took the subnet
	}
	return subnet{}, last
}

func (p *Provider) makeNetwork(ctx context.Context, name string, labels map[string]string, ipam *network.IPAM) (string, error) {
	maps.Copy(labels, p.options.Labels)
	made, err := p.engine.NetworkCreate(ctx, name, client.NetworkCreateOptions{Driver: "bridge", IPAM: ipam, Labels: labels})
	if err != nil {
		return "", p.engineError(err, "make network "+name)
	}
	return made.ID, nil
}

func (p *Provider) subnetOf(ctx context.Context, id string) (subnet, error) {
	answer, err := p.engine.NetworkInspect(ctx, id, client.NetworkInspectOptions{})
	if err != nil {
		return subnet{}, p.engineError(err, "look at network "+id)
	}
	for _, c := range answer.Network.IPAM.Config {
		if c.Subnet.Addr().Is4() {
			return subnet{id, c.Subnet}, nil
		}
	}
	return subnet{}, skyport.Errorf(skyport.CodeUnavailable, "the Docker engine gave network %s no IPv4 subnet", answer.Network.Name)
}

func (p *Provider) removeNetwork(ctx context.Context, id string) error {
	_, err := p.engine.NetworkRemove(ctx, id, client.NetworkRemoveOptions{})
	if err != nil && !cerrdefs.IsNotFound(err) {
		return p.engineError(err, "remove network "+id)
	}
	return nil
}

// raise brings a node one step or all the way from nothing to running. It is
// called again after an error, and after a kill of the gate.
func (p *Provider) raise(ctx context.Context, w *work, net subnet, number int) error {
	if err := w.faults.node(number); err != nil {
		return err
	}
	name := w.record.nodes[number]
	// Whether the engine can make privileged containers is learned by one node.
	release, limited := p.tryPrivileges()
	defer release()
	found, err := p.engine.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	switch {
	case cerrdefs.IsNotFound(err):
		return p.makeNode(ctx, w, net, number, limited)
	case err != nil:
		return p.engineError(err, "look for container "+name)
	}
	c := found.Container
	switch {
	case c.Config == nil || c.State == nil || c.Config.Labels[labelPartition] != string(w.id):
		return permanent(skyport.CodeConflict, "the Docker engine has a container %s that is not of this partition", name)
	case c.State.Status != container.StateCreated:
		return nil // runs, or has ended already, which the status tells
	}
	privileged := c.HostConfig != nil && c.HostConfig.Privileged
	if privileged && limited {
		return p.remakeNode(ctx, c.ID, name)
	}
	return p.startNode(ctx, w, number, c.ID, privileged)
}

func (p *Provider) makeNode(ctx context.Context, w *work, net subnet, number int, limited bool) error {
	name := w.record.nodes[number]
	address, err := net.address(number)
	if err != nil {
		return err
	}
	labels := w.record.labels(p.options.Site, kindNode)
	labels[labelNode] = strconv.Itoa(number)
	labels[labelRole] = string(role(number))
	labels[labelAddress] = address.String()
	maps.Copy(labels, p.options.Labels)

	made, err := p.engine.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name: name,
		Config: &container.Config{
			Hostname: name, Image: w.image, Labels: labels,
			Env: append(append([]string{"SKYPORT_ENGINE=" + word(!p.options.NoEngine)}, w.faults.env()...), p.options.Env...),
		},
		HostConfig: p.hostConfig(w, net, number, limited),
		NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
			net.id: {IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: address}},
		}},
	})
	switch {
	case cerrdefs.IsNotFound(err) && strings.Contains(err.Error(), "image"):
		return noImage(w.image)
	case cerrdefs.IsInvalidArgument(err):
		return permanent(skyport.CodeUnsupported, "the Docker engine refuses container %s: %w", name, err)
	case err != nil:
		return p.engineError(err, "make container "+name)
	}
	return p.startNode(ctx, w, number, made.ID, !limited)
}

// hostConfig is what the engine gives a node. An engine that lacks capabilities
// itself cannot make privileged containers; then a node gets all that it has.
func (p *Provider) hostConfig(w *work, net subnet, number int, limited bool) *container.HostConfig {
	host := &container.HostConfig{
		NetworkMode: container.NetworkMode(net.id),
		Privileged:  !limited,
		Resources: container.Resources{
			NanoCPUs: int64(w.record.cpus) * 1e9, Memory: int64(w.record.memory), MemorySwap: int64(w.record.memory),
		},
		LogConfig: container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "10m", "max-file": "1"}},
	}
	if limited {
		host.CapAdd, host.CapDrop = []string{"ALL"}, []string{"SYS_RESOURCE"}
		host.SecurityOpt = []string{"seccomp=unconfined", "apparmor=unconfined", "label=disable"}
		host.MaskedPaths, host.ReadonlyPaths = []string{}, []string{}
		host.DeviceCgroupRules = []string{"a *:* rwm"}
	}
	if !p.options.NoEngine {
		labels := w.record.labels(p.options.Site, kindDisk)
		maps.Copy(labels, p.options.Labels)
		host.Mounts = []mount.Mount{{
			Type: mount.TypeVolume, Source: w.record.nodes[number] + ".engine", Target: "/var/lib/docker",
			VolumeOptions: &mount.VolumeOptions{Labels: labels, NoCopy: true},
		}}
	}
	if w.faults.Disk > 0 {
		host.Tmpfs = map[string]string{gate.NodeDir: fmt.Sprintf("size=%d,mode=0755,exec", int64(w.faults.Disk))}
	}
	return host
}

// startNode hands a container its user data and starts it. Only a container
// that was never started is started: one that ended has died.
func (p *Provider) startNode(ctx context.Context, w *work, number int, id string, privileged bool) error {
	name := w.record.nodes[number]
	seed, err := seed(w.id, name, number, w.userData)
	if err != nil {
		return err
	}
	_, err = p.engine.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/", Content: bytes.NewReader(seed)})
	if err != nil {
		return p.engineError(err, "copy the user data into container "+name)
	}
	_, err = p.engine.ContainerStart(ctx, id, client.ContainerStartOptions{})
	switch {
	case err == nil:
		if privileged {
			p.privileges(false)
		}
		return nil
	case privileged && strings.Contains(err.Error(), "unable to apply caps"):
		p.log.WarnContext(ctx, "the Docker engine lacks capabilities: nodes get all others", "error", err)
		p.privileges(true)
		return p.remakeNode(ctx, id, name)
	}
	return p.engineError(err, "start container "+name)
}

// tryPrivileges waits while another node tries whether the engine can make
// privileged containers. It is limited when the engine was found to be.
func (p *Provider) tryPrivileges() (release func(), limited bool) {
	p.trial.Lock()
	p.mu.Lock()
	limited, learned := p.limited, p.learned
	p.mu.Unlock()
	if learned {
		p.trial.Unlock()
		return func() {}, limited
	}
	return p.trial.Unlock, false
}

func (p *Provider) privileges(limited bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limited, p.learned = limited, true
}

// remakeNode removes a container that cannot start, so that the next try makes
// another one.
func (p *Provider) remakeNode(ctx context.Context, id, name string) error {
	_, err := p.engine.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && !cerrdefs.IsNotFound(err) {
		return p.engineError(err, "remove container "+name)
	}
	return skyport.Errorf(skyport.CodeUnavailable, "container %s is made again with fewer capabilities: %w", name, cerrdefs.ErrUnavailable)
}

// seed is the archive of what cloud-init's NoCloud source reads, from the root.
func seed(id skyport.PartitionID, name string, number int, userData []string) ([]byte, error) {
	user := "#cloud-config\n"
	if number < len(userData) {
		user = userData[number]
	}
	meta := fmt.Sprintf("instance-id: %s-%d\nlocal-hostname: %s\n", id, number, name)
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	now := time.Now()
	write := func(path string, mode int64, text string) error {
		h := &tar.Header{Name: path, Mode: mode, Size: int64(len(text)), ModTime: now, Typeflag: tar.TypeReg}
		if strings.HasSuffix(path, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return fmt.Errorf("pack user data: %w", err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			return fmt.Errorf("pack user data: %w", err)
		}
		return nil
	}
	for _, dir := range []string{"var/", "var/lib/", "var/lib/cloud/", "var/lib/cloud/seed/", "var/lib/cloud/seed/nocloud/"} {
		if err := write(dir, 0o755, ""); err != nil {
			return nil, err
		}
	}
	const at = "var/lib/cloud/seed/nocloud/"
	if err := write(at+"user-data", 0o600, user); err != nil {
		return nil, err
	}
	if err := write(at+"meta-data", 0o600, meta); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack user data: %w", err)
	}
	return archive.Bytes(), nil
}

func word(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}
