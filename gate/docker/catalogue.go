package docker

import (
	"context"
	"fmt"
	"regexp"
	"slices"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

const flavorSmall = "small"

// size is what the engine has.
type size struct {
	cpus   int
	memory skyport.Bytes
	arch   string // in Go's spelling
}

// engineSize asks the engine for its size, once.
func (p *Provider) engineSize(ctx context.Context) (size, error) {
	p.mu.Lock()
	known := p.size
	p.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	answer, err := p.engine.Info(ctx, client.InfoOptions{})
	if err != nil {
		return size{}, p.engineError(err, "ask for its size")
	}
	s := size{cpus: answer.Info.NCPU, memory: skyport.Bytes(answer.Info.MemTotal), arch: answer.Info.Architecture}
	switch s.arch {
	case "x86_64":
		s.arch = "amd64"
	case "aarch64":
		s.arch = "arm64"
	}
	for _, f := range p.options.Flavors {
		if f.CPUs > s.cpus || f.Memory > s.memory {
			p.log.WarnContext(ctx, "flavor is left out: the engine is smaller", "flavor", f.Name, "cpus", s.cpus, "memory", s.memory)
		}
	}
	p.mu.Lock()
	p.size = &s
	p.mu.Unlock()
	return s, nil
}

// Flavors tells those of the options, or small, medium and large: one cpu with
// a GiB, half of the engine's cpus with a quarter of its memory, all cpus with
// half of it.
func (p *Provider) Flavors(ctx context.Context, site string) ([]skyport.Flavor, error) {
	if err := p.ours(site); err != nil {
		return nil, err
	}
	s, err := p.engineSize(ctx)
	if err != nil {
		return nil, err
	}
	flavors := slices.Clone(p.options.Flavors)
	if len(flavors) == 0 {
		const step = 256 << 20
		flavors = []skyport.Flavor{
			{Name: flavorSmall, CPUs: 1, Memory: min(1<<30, s.memory)},
			{Name: "medium", CPUs: max(1, s.cpus/2), Memory: max(s.memory/4/step*step, min(step, s.memory))},
			{Name: "large", CPUs: s.cpus, Memory: max(s.memory/2/step*step, min(step, s.memory))},
		}
	}
	flavors = slices.DeleteFunc(flavors, func(f skyport.Flavor) bool { return f.CPUs > s.cpus || f.Memory > s.memory })
	for i := range flavors {
		f := &flavors[i]
		f.ID, f.Site, f.Arch = gate.StableID(Kind, site, "flavor", f.Name), site, s.arch
	}
	return flavors, nil
}

// Images tells the node images.
func (p *Provider) Images(_ context.Context, site string) ([]skyport.Image, error) {
	if err := p.ours(site); err != nil {
		return nil, err
	}
	var images []skyport.Image
	for _, name := range p.imageNames() {
		images = append(images, skyport.Image{
			ID: gate.StableID(Kind, site, "image", name), Name: name, Site: site, Kind: skyport.ImageCloud,
			Comment: "node image of the Docker engine",
		})
	}
	return images, nil
}

func (p *Provider) imageNames() []string {
	names := []string{p.options.Image}
	for _, name := range p.options.Images {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// nodeName is what the engine takes for a container and a host's name.
var nodeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9-]{0,61}[a-zA-Z0-9]$`)

// checked says no to what can never be had here, and tells flavor and image.
func (p *Provider) checked(ctx context.Context, spec gate.PartitionSpec) (flavor skyport.Flavor, image string, err error) {
	if _, err := skyport.ParsePartitionID(string(spec.ID)); err != nil {
		return flavor, "", permanent(skyport.CodeInvalid, "%v", err)
	}
	if len(spec.Nodes) == 0 {
		return flavor, "", permanent(skyport.CodeInvalid, "a partition needs a node")
	}
	for i, name := range spec.Nodes {
		if !nodeName.MatchString(name) || slices.Contains(spec.Nodes[:i], name) {
			return flavor, "", permanent(skyport.CodeInvalid, "node name %q is not usable", skyport.Abbreviate(name, 70))
		}
	}
	if n := len(spec.UserData); n > 0 && n != len(spec.Nodes) {
		return flavor, "", permanent(skyport.CodeInvalid, "user data for %d nodes, not for %d", n, len(spec.Nodes))
	}
	image = p.options.Image
	if spec.Image != "" {
		image = spec.Image
	}
	if !slices.Contains(p.imageNames(), image) {
		return flavor, "", permanent(skyport.CodeUnknownImage, "no image %q at site %s", skyport.Abbreviate(spec.Image, 60), p.options.Site)
	}
	flavors, err := p.Flavors(ctx, spec.Site)
	if err != nil {
		return flavor, "", err
	}
	i := slices.IndexFunc(flavors, func(f skyport.Flavor) bool { return f.Name == spec.Flavor })
	if i < 0 {
		return flavor, "", permanent(skyport.CodeUnknownFlavor, "no flavor %q at site %s", skyport.Abbreviate(spec.Flavor, 60), p.options.Site)
	}
	flavor = flavors[i]
	if why := exceeds(p.options.Limits, len(spec.Nodes), flavor.CPUs, flavor.Memory); why != "" {
		return flavor, "", permanent(skyport.CodeUnsatisfiable, "%d nodes of %s can never be had at site %s: %s",
			len(spec.Nodes), flavor.Name, p.options.Site, why)
	}
	return flavor, image, nil
}

// exceeds says why n nodes do not fit into limits, or nothing.
func exceeds(l skyport.Limits, n, cpus int, memory skyport.Bytes) string {
	switch {
	case l.Nodes != 0 && n > l.Nodes:
		return fmt.Sprintf("%d nodes are left", max(0, l.Nodes))
	case l.CPUs != 0 && n*cpus > l.CPUs:
		return fmt.Sprintf("%d cpus are left", max(0, l.CPUs))
	case l.Memory != 0 && skyport.Bytes(n)*memory > l.Memory:
		return fmt.Sprintf("%v of memory is left", max(0, l.Memory))
	}
	return ""
}

// full says why n more nodes do not fit beside what exists, or nothing. A
// partition takes its room until it is gone.
func (p *Provider) full(seen map[skyport.PartitionID]*view, r record) string {
	left := p.options.Limits
	for _, v := range seen {
		n := len(v.record.nodes)
		left.Nodes = reduce(left.Nodes, n)
		left.CPUs = reduce(left.CPUs, n*v.record.cpus)
		left.Memory = reduce(left.Memory, skyport.Bytes(n)*v.record.memory)
	}
	return exceeds(left, len(r.nodes), r.cpus, r.memory)
}

// reduce takes from what is limited; zero is no limit, so nothing left is -1.
func reduce[N int | skyport.Bytes](left, by N) N {
	switch {
	case left == 0 || left < 0:
		return left
	case left <= by:
		return -1
	}
	return left - by
}

// imageThere says what is wrong when the engine does not have the image.
func (p *Provider) imageThere(ctx context.Context, image string) error {
	_, err := p.engine.ImageInspect(ctx, image)
	if cerrdefs.IsNotFound(err) {
		return noImage(image)
	}
	if err != nil {
		return p.engineError(err, "look for image "+image)
	}
	return nil
}

func noImage(image string) error {
	err := permanent(skyport.CodeUnknownImage, "the Docker engine has no image %s", image)
	if image == DefaultImage {
		return err.WithHint("make node-image builds it")
	}
	return err.WithHint("docker pull or docker load it; make node-image builds %s", DefaultImage)
}

// Check says what is wrong with the engine, or how large it is: whether it
// answers and has the node images.
func (p *Provider) Check(ctx context.Context) (string, error) {
	s, err := p.engineSize(ctx)
	if err != nil {
		return "", err
	}
	for _, image := range p.imageNames() {
		if err := p.imageThere(ctx, image); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%s with %d cpus and %v, image %s", p.engine.DaemonHost(), s.cpus, s.memory, p.options.Image), nil
}
