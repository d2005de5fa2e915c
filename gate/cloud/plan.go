package cloud

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// Resolver is implemented by a Cloud that knows more images than it lists:
// Create asks it for a name that the catalogue has not. An image that does not
// exist is a [Permanent] error of CodeUnknownImage.
type Resolver interface {
	ResolveImage(ctx context.Context, name string) (skyport.Image, error)
}

// Chooser is implemented by a Cloud whose default image depends on the flavor,
// one with drivers for GPUs for instance. An empty name stands for the site's default.
type Chooser interface {
	DefaultImage(flavor skyport.Flavor) string
}

// create starts a creation, or finds that there is no need to.
func (s *site) create(ctx context.Context, spec gate.PartitionSpec) error {
	if err := sound(spec); err != nil {
		return err
	}
	s.mu.Lock()
	settled, err := s.compare(spec)
	s.mu.Unlock()
	if settled || err != nil {
		return err
	}
	// What a process before this one has made is in the first list; since then
	// only this process makes anything under core's ids.
	if err := s.look(ctx, 0, forever); err != nil {
		return err
	}
	plan, err := s.plan(ctx, spec)
	if errors.Is(err, gate.ErrPermanent) {
		return s.refuse(spec, err)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if settled, err := s.compare(spec); settled || err != nil {
		return err
	}
	if err := s.full(spec); err != nil {
		return err
	}
	r := s.record(spec.ID)
	r.tags, r.nodes, r.created, r.sources = plan.Tags, spec.Nodes, time.Now(), spell(plan.Sources)
	r.made, r.ours, r.whole, r.removed, r.echoes = false, false, nil, false, 0
	if r.found != nil { // a creation that was cut off: what it made is open to the sources of that time
		r.sources = ""
	}
	w := &work{plan: plan, details: fmt.Sprintf("Asking site %s for %s", s.name, count(len(spec.Nodes), "node"))}
	if !s.begin(r, w, func(ctx context.Context) { s.build(ctx, r, w) }) {
		return s.isClosed()
	}
	s.clock++
	r.seq = s.clock
	s.p.notify()
	return nil
}

// compare holds a spec against what is there of its id. It is settled when
// there is nothing to do. The site's mutex is held.
func (s *site) compare(spec gate.PartitionSpec) (settled bool, err error) {
	r := s.records[spec.ID]
	switch {
	case r == nil, !r.known() && !r.removed, r.removed && r.work == nil && r.found == nil:
		return false, nil
	case r.work != nil && r.work.removes, r.removed, r.work == nil && r.failure == nil && r.tags.Condemned:
		return false, skyport.Errorf(skyport.CodeConflict, "partition %s is being removed", spec.ID)
	case r.tags.Fingerprint != "" && r.tags.Fingerprint != spec.Fingerprint():
		return false, fmt.Errorf("partition %s: %w", spec.ID, gate.ErrConflict)
	}
	goesOn := r.work == nil && r.failure == nil && !r.made && r.found != nil && r.found.Failure == nil && !r.found.Made
	return !goesOn, nil
}

// refuse answers that a partition cannot be made. What a creation that was cut
// off has made of it is removed.
func (s *site) refuse(spec gate.PartitionSpec, why error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	settled, err := s.compare(spec)
	if settled || err != nil {
		return err
	}
	if r := s.records[spec.ID]; r != nil && r.found != nil {
		s.startClearing(r, &work{removes: true, known: true})
	}
	return why
}

// sound refuses specs that no site could make.
func sound(spec gate.PartitionSpec) error {
	_, err := skyport.ParsePartitionID(string(spec.ID))
	switch {
	case err != nil:
		return Permanent(skyport.CodeInvalid, "partition %q: %w", skyport.Abbreviate(string(spec.ID), 60), err)
	case spec.Owner == "":
		return Permanent(skyport.CodeInvalid, "partition %s has no owner", spec.ID)
	case len(spec.Nodes) == 0:
		return Permanent(skyport.CodeInvalid, "partition %s has no nodes", spec.ID)
	case len(spec.UserData) != 0 && len(spec.UserData) != len(spec.Nodes):
		return Permanent(skyport.CodeInvalid, "partition %s has %d nodes and user data for %d", spec.ID, len(spec.Nodes), len(spec.UserData))
	}
	return nil
}

// plan holds a spec against the catalogue.
func (s *site) plan(ctx context.Context, spec gate.PartitionSpec) (Plan, error) {
	described := s.cloud.Site()
	flavor, err := s.flavor(ctx, cmp.Or(spec.Flavor, described.DefaultFlavor))
	if err != nil {
		return Plan{}, err
	}
	if spec.Spot && flavor.SpotPrice == 0 {
		return Plan{}, Permanent(skyport.CodeUnsupported, "flavor %s at site %s is not to be had as spot", flavor.Name, s.name).
			WithHint("ask without spot, or for a flavor with a spot price: skyport flavors shows them")
	}
	chosen := spec.Image
	if c, ok := s.cloud.(Chooser); ok && chosen == "" {
		chosen = c.DefaultImage(flavor)
	}
	image, err := s.image(ctx, cmp.Or(chosen, described.DefaultImage))
	if err != nil {
		return Plan{}, err
	}
	if flavor.Arch != "" && image.Arch != "" && flavor.Arch != image.Arch {
		return Plan{}, Permanent(skyport.CodeUnsatisfiable, "image %s is for %s, nodes of flavor %s are %s", image.Name, image.Arch, flavor.Name, flavor.Arch).
			WithHint("%s", s.fitting(ctx, flavor))
	}
	if err := allowed(described, flavor, len(spec.Nodes)); err != nil {
		return Plan{}, err
	}
	sources, err := s.sources.find(ctx, sourcesLife)
	if err != nil {
		return Plan{}, err
	}
	return Plan{
		PartitionSpec: spec, Name: "swm-" + string(spec.ID), NodeFlavor: flavor, NodeImage: image, Tags: TagsOf(spec), Sources: sources,
	}, nil
}

// flavor finds a flavor. What a cache of earlier days has not is looked up again.
func (s *site) flavor(ctx context.Context, name string) (skyport.Flavor, error) {
	named := func(f skyport.Flavor) bool { return f.Name == name }
	all, err := s.flavors.having(ctx, named)
	if err != nil {
		return skyport.Flavor{}, err
	}
	if at := slices.IndexFunc(all, named); at >= 0 {
		return all[at], nil
	}
	names := make([]string, 0, len(all))
	for _, f := range all {
		names = append(names, f.Name)
	}
	return skyport.Flavor{}, Permanent(skyport.CodeUnknownFlavor, "no flavor %q at site %s", skyport.Abbreviate(name, 60), s.name).
		WithHint("%s", alike(name, names, "skyport flavors shows all"))
}

// image finds an image that nodes can boot.
func (s *site) image(ctx context.Context, name string) (skyport.Image, error) {
	named := func(i skyport.Image) bool { return i.Name == name && i.Kind != skyport.ImageContainer }
	all, err := s.images.get(ctx)
	if err != nil {
		return skyport.Image{}, err
	}
	if at := slices.IndexFunc(all, named); at >= 0 {
		return all[at], nil
	}
	if resolver, ok := s.cloud.(Resolver); ok && name != "" { // sooner than all are listed again
		var image skyport.Image
		err := s.ask(ctx, func(ctx context.Context) (err error) { image, err = resolver.ResolveImage(ctx, name); return err })
		if err == nil || !errors.Is(err, gate.ErrPermanent) {
			return image, err
		}
	}
	if all, err = s.images.having(ctx, named); err != nil {
		return skyport.Image{}, err
	}
	if at := slices.IndexFunc(all, named); at >= 0 {
		return all[at], nil
	}
	var names []string
	for _, i := range all {
		if i.Kind != skyport.ImageContainer {
			names = append(names, i.Name)
		}
	}
	return skyport.Image{}, Permanent(skyport.CodeUnknownImage, "no image %q at site %s", skyport.Abbreviate(name, 100), s.name).
		WithHint("%s", alike(name, names, "skyport images shows all"))
}

// fitting names images that a flavor can boot.
func (s *site) fitting(ctx context.Context, flavor skyport.Flavor) string {
	all, err := s.images.get(ctx)
	var names []string
	for _, i := range all {
		if err == nil && i.Kind != skyport.ImageContainer && i.Arch == flavor.Arch && len(names) < 3 {
			names = append(names, i.Name)
		}
	}
	if len(names) == 0 {
		return "choose a flavor of the image's architecture"
	}
	return "images that fit: " + strings.Join(names, ", ")
}

// allowed refuses what the site's limits never allow.
func allowed(site skyport.Site, flavor skyport.Flavor, nodes int) error {
	most, what := site.Limits.Nodes, "nodes"
	if n := site.Limits.CPUs; n > 0 && flavor.CPUs > 0 && (most == 0 || n/flavor.CPUs < most) {
		most, what = n/flavor.CPUs, fmt.Sprintf("nodes of %d CPUs", flavor.CPUs)
		if most == 0 {
			return tooMuch(site, nodes, 0, what)
		}
	}
	if n := site.Limits.Memory; n > 0 && flavor.Memory > 0 && (most == 0 || int(n/flavor.Memory) < most) {
		most, what = int(n/flavor.Memory), fmt.Sprintf("nodes of %d MiB", flavor.Memory>>20)
		if most == 0 {
			return tooMuch(site, nodes, 0, what)
		}
	}
	if most > 0 && nodes > most {
		return tooMuch(site, nodes, most, what)
	}
	return nil
}

func tooMuch(site skyport.Site, nodes, most int, what string) error {
	return Permanent(skyport.CodeUnsatisfiable, "%d %s are asked for, the limits of site %s allow %d", nodes, what, site.Name, most).
		WithHint("ask for fewer or smaller nodes, or raise limits of the site in gate.yaml")
}

// full says whether the site has no room now. The site's mutex is held.
func (s *site) full(spec gate.PartitionSpec) error {
	most := s.cloud.Site().Limits.Nodes
	if most == 0 {
		return nil
	}
	used := len(spec.Nodes)
	for id, r := range s.records {
		if _, there := s.told(r); there && id != spec.ID && (r.failure == nil || r.work != nil) {
			used += max(r.tags.Nodes, 1)
		}
	}
	if used > most {
		return skyport.Errorf(skyport.CodeUnavailable, "site %s is full: %d nodes with these, its limit is %d", s.name, used, most).
			WithHint("wait until a partition is removed, or raise limits.nodes of the site in gate.yaml")
	}
	return nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
