package ssh

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// imageHost is the one image that hosts have: what is installed on them.
const imageHost = "host"

// firstLook is how long the catalogue waits for hosts that were never asked.
const firstLook = 3 * time.Second

// site is a list of hosts.
type site struct {
	name  string
	hosts []*host
}

func (s *site) host(name string) *host {
	i := slices.IndexFunc(s.hosts, func(h *host) bool { return h.config.Name == name })
	if i < 0 {
		return nil
	}
	return s.hosts[i]
}

// flavorOf names what a host is: hosts of one name are as good as each other.
func flavorOf(c *Host, f facts) string {
	size := fmt.Sprintf("%dcpu-%dg", f.CPUs, f.Memory>>30)
	if f.Memory < 1<<30 {
		size = fmt.Sprintf("%dcpu-%dm", f.CPUs, f.Memory>>20)
	}
	if f.GPUs > 0 {
		size += fmt.Sprintf("-%dgpu", f.GPUs)
	}
	if f.Arch != "" && f.Arch != "amd64" {
		size += "-" + f.Arch
	}
	return strings.Join(append(slices.Clone(c.Labels), size), "-")
}

// members are the hosts of each flavor.
func (s *site) members() map[string][]*host {
	all := map[string][]*host{}
	for _, h := range s.hosts {
		if f, known := h.size(); known {
			name := flavorOf(&h.config, f)
			all[name] = append(all[name], h)
		}
	}
	return all
}

// flavors are the sizes of hosts. What differs within a flavor is told at its
// worst: the least memory and storage, the highest price.
func (s *site) flavors() []skyport.Flavor {
	var flavors []skyport.Flavor
	members := s.members()
	for _, name := range slices.Sorted(maps.Keys(members)) {
		var flavor skyport.Flavor
		for i, h := range members[name] {
			f, _ := h.size()
			if i == 0 {
				flavor = skyport.Flavor{
					ID: gate.StableID(Kind, s.name, "flavor", name), Name: name, Site: s.name,
					CPUs: f.CPUs, Memory: f.Memory, GPUs: f.GPUs, Storage: f.Storage, Price: h.config.Price, Arch: f.Arch,
				}
			}
			flavor.Memory, flavor.Storage = min(flavor.Memory, f.Memory), min(flavor.Storage, f.Storage)
			flavor.Price = max(flavor.Price, h.config.Price)
		}
		flavors = append(flavors, flavor)
	}
	return flavors
}

// told puts the site into words.
func (s *site) told() skyport.Site {
	t := skyport.Site{
		ID: gate.StableID(Kind, s.name), Name: s.name, Kind: Kind, Container: true, DefaultImage: imageHost,
		Limits: skyport.Limits{Nodes: len(s.hosts)},
	}
	for _, h := range s.hosts {
		if f, _ := h.size(); f.Engine == "" {
			t.Container = false
		}
	}
	flavors := s.flavors()
	if len(flavors) > 0 {
		t.DefaultFlavor = slices.MinFunc(flavors, func(a, b skyport.Flavor) int {
			switch {
			case a.Price != b.Price && a.Price < b.Price, a.Price == b.Price && a.CPUs < b.CPUs:
				return -1
			case a.Price == b.Price && a.CPUs == b.CPUs:
				return strings.Compare(a.Name, b.Name)
			}
			return 1
		}).Name
	}
	return t
}

// meet waits a short while for hosts whose size was never told.
func (p *Provider) meet(ctx context.Context, sites ...*site) {
	ctx, cancel := context.WithTimeout(ctx, firstLook)
	defer cancel()
	done := make(chan struct{}, 1)
	waiting := 0
	for _, s := range sites {
		for _, h := range s.hosts {
			if h.asked() {
				continue
			}
			if f, known := h.size(); known && f.Arch != "" {
				continue // remembered
			}
			waiting++
			if !p.spawn(func() {
				_, _ = h.look(ctx, 0) // what it found is noted
				select {
				case done <- struct{}{}:
				case <-ctx.Done():
				}
			}) {
				return
			}
		}
	}
	for range waiting {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
	if waiting > 0 {
		p.saveFacts()
	}
}

// Sites tells the sites, by what is known of their hosts.
func (p *Provider) Sites(ctx context.Context) ([]skyport.Site, error) {
	p.meet(ctx, p.sites...)
	all := make([]skyport.Site, 0, len(p.sites))
	for _, s := range p.sites {
		all = append(all, s.told())
	}
	return all, nil
}

// Flavors tells the sizes of the site's hosts. It is a passing error when none
// has told its size yet.
func (p *Provider) Flavors(ctx context.Context, name string) ([]skyport.Flavor, error) {
	s, err := p.site(name)
	if err != nil {
		return nil, err
	}
	p.meet(ctx, s)
	flavors := s.flavors()
	if len(flavors) == 0 {
		var why []error
		for _, h := range s.hosts {
			_, err := h.trouble()
			why = append(why, err)
		}
		return nil, skyport.Errorf(skyport.CodeUnavailable, "no host of site %s has told its size: %w", name, errors.Join(why...)).
			WithHint("set cpus and memory of the hosts, or see why they do not answer")
	}
	return flavors, nil
}

// Images tells the one image: hosts are as they are.
func (p *Provider) Images(_ context.Context, name string) ([]skyport.Image, error) {
	s, err := p.site(name)
	if err != nil {
		return nil, err
	}
	return []skyport.Image{{
		ID: gate.StableID(Kind, s.name, "image", imageHost), Name: imageHost, Site: s.name, Kind: skyport.ImageCloud, Comment: "The hosts as they are",
	}}, nil
}

// factsFile remembers what hosts told: one that is away when the gate starts
// still has its flavor.
const factsFile = "facts.json"

func (p *Provider) saveFacts() {
	all := map[string]facts{}
	for _, s := range p.sites {
		for _, h := range s.hosts {
			h.mu.Lock()
			if h.facts.CPUs > 0 {
				all[s.name+"/"+h.config.Name] = h.facts
			}
			h.mu.Unlock()
		}
	}
	p.saving.Lock()
	defer p.saving.Unlock()
	if err := writeJSON(filepath.Join(p.options.Dir, factsFile), all); err != nil {
		p.log.Warn("what hosts told of themselves is not remembered", "error", err)
	}
}

func (p *Provider) loadFacts() {
	var all map[string]facts
	if err := readJSON(filepath.Join(p.options.Dir, factsFile), &all); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			p.log.Warn("what hosts told of themselves is asked anew", "error", err)
		}
		return
	}
	for _, s := range p.sites {
		for _, h := range s.hosts {
			h.remember(all[s.name+"/"+h.config.Name])
		}
	}
}
