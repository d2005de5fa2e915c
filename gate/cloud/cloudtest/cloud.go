package cloudtest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// The kinds of resources.
const (
	kindGroup   = "group"
	kindNetwork = "network"
	kindAddress = "address"
	kindNode    = "node"
)

// Cloud is how one process speaks to a world.
type Cloud struct {
	w    *World
	dead atomic.Bool
}

var _ cloud.Cloud = (*Cloud)(nil)

// Open lets a process speak to the world.
func (w *World) Open() *Cloud { return &Cloud{w: w} }

// Kill ends the process that speaks: it changes nothing any more.
func (c *Cloud) Kill() { c.dead.Store(true) }

// Site describes the site.
func (c *Cloud) Site() skyport.Site { return c.w.site }

// Flavors tells those of the options.
func (c *Cloud) Flavors(ctx context.Context) ([]skyport.Flavor, error) {
	return slices.Clone(c.w.o.Flavors), c.enter(ctx, "Flavors")
}

// Images tells those of the options.
func (c *Cloud) Images(ctx context.Context) ([]skyport.Image, error) {
	return slices.Clone(c.w.o.Images), c.enter(ctx, "Images")
}

var goodName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// Make makes a group, a network, an address and the nodes.
func (c *Cloud) Make(ctx context.Context, plan cloud.Plan, tell func(string)) error {
	if err := c.enter(ctx, "Make"); err != nil {
		return err
	}
	tags := plan.Tags.Map()
	for _, host := range plan.Nodes {
		if !goodName.MatchString(host) {
			return cloud.Permanent(skyport.CodeInvalid, "%q is no name of a host", host)
		}
	}
	for key, value := range tags {
		if len(value) > 255 || strings.ContainsFunc(key+value, func(c rune) bool { return c < ' ' || c > '~' }) {
			return cloud.Permanent(skyport.CodeInvalid, "%s=%q is no tag", key, value)
		}
	}
	things := []resource{
		{kind: kindGroup, name: plan.Name + "-group", open: spell(plan.Sources)},
		{kind: kindNetwork, name: plan.Name + "-net"},
		{kind: kindAddress, name: plan.Name + "-address"},
	}
	for i, host := range plan.Nodes {
		things = append(things, resource{kind: kindNode, name: fmt.Sprintf("%s-node-%d", plan.Name, i), host: host, number: i, spot: plan.Spot})
	}
	for _, thing := range things {
		if c.w.exists(thing.name) {
			continue
		}
		tell("Making " + thing.kind + " " + thing.name)
		if err := c.refusal(thing.kind); err != nil {
			return err
		}
		err := c.effect(ctx, "make "+thing.name, func(twice bool) {
			c.w.add(thing, maps.Clone(tags), false)
			if twice && thing.kind == kindNode {
				c.w.add(thing, maps.Clone(tags), true)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Find lists, by tags, what the lists show.
func (c *Cloud) Find(ctx context.Context, id skyport.PartitionID) ([]cloud.Found, error) {
	if err := c.enter(ctx, "Find"); err != nil {
		return nil, err
	}
	w := c.w
	w.mu.Lock()
	w.catchUp()
	found := w.find(id, w.moment())
	w.mu.Unlock()
	if w.o.Step > 0 && !rest(ctx, w.o.Step) {
		return nil, fmt.Errorf("find: %w", ctx.Err())
	}
	return found, nil
}

// moment is the one that a list shows.
func (w *World) moment() time.Time {
	now := time.Now()
	if w.faults.Lag > 0 {
		now = now.Add(-time.Duration(w.chance.Int64N(int64(w.faults.Lag))))
	}
	return now
}

func (w *World) find(id skyport.PartitionID, at time.Time) []cloud.Found {
	all := map[skyport.PartitionID]*cloud.Found{}
	kinds := map[skyport.PartitionID]map[string]bool{}
	public := map[skyport.PartitionID]string{}
	var order []skyport.PartitionID
	for _, r := range w.resources {
		v, there := r.then(at)
		if !there {
			continue
		}
		tags, ours, err := cloud.ParseTags(v.tags)
		if !ours || err != nil || (id != "" && tags.Partition != id) {
			continue
		}
		f, known := all[tags.Partition]
		if !known {
			f = &cloud.Found{Tags: tags, Created: r.history[0].at}
			all[tags.Partition], kinds[tags.Partition] = f, map[string]bool{}
			order = append(order, tags.Partition)
		}
		f.Tags = f.Tags.Merge(tags)
		f.Resources = append(f.Resources, cloud.Resource{Kind: r.kind, Name: r.name})
		kinds[tags.Partition][r.kind] = true
		if r.kind == kindAddress {
			public[tags.Partition] = r.address
		}
		if r.kind != kindNode || slices.ContainsFunc(f.Nodes, func(n cloud.Node) bool { return n.Name == r.host }) {
			continue
		}
		if v.took {
			f.Failure = skyport.Errorf(skyport.CodeInterrupted, "the cloud has taken node %s back", r.host)
		}
		role := skyport.RoleCompute
		if r.number == 0 {
			role = skyport.RoleMain
		}
		f.Nodes = append(f.Nodes, cloud.Node{
			Node:    skyport.Node{Name: r.host, Role: role, Address: r.address, Endpoint: gate.Endpoint(r.address)},
			Running: !r.history[0].at.Add(w.o.Boot).After(at),
		})
	}
	found := make([]cloud.Found, 0, len(order))
	for _, id := range order {
		f := all[id]
		if f.Made = len(kinds[id]) == 4 && len(f.Nodes) == f.Tags.Nodes; f.Made {
			main := slices.IndexFunc(f.Nodes, func(n cloud.Node) bool { return n.Role == skyport.RoleMain })
			f.Nodes[main].Endpoint = gate.Endpoint(public[id])
			f.Nodes[0], f.Nodes[main] = f.Nodes[main], f.Nodes[0]
		}
		found = append(found, *f)
	}
	return found
}

// Extend writes the lease into the tags.
func (c *Cloud) Extend(ctx context.Context, id skyport.PartitionID, until time.Time) error {
	if err := c.enter(ctx, "Extend"); err != nil {
		return err
	}
	return c.effect(ctx, "extend "+string(id), func(bool) {
		c.w.alter(id, func(_ *resource, v *version) { v.tags[cloud.TagDeleteAt] = until.UTC().Format(time.RFC3339) })
	})
}

// Condemn writes the mark into the tags.
func (c *Cloud) Condemn(ctx context.Context, id skyport.PartitionID) error {
	if err := c.enter(ctx, "Condemn"); err != nil {
		return err
	}
	return c.effect(ctx, "condemn "+string(id), func(bool) {
		c.w.alter(id, func(_ *resource, v *version) { v.tags[cloud.TagCondemned] = "yes" })
	})
}

// Clear removes by name, node by node, until the lists show nothing any more.
func (c *Cloud) Clear(ctx context.Context, id skyport.PartitionID, tell func(string)) error {
	if err := c.enter(ctx, "Clear"); err != nil {
		return err
	}
	for {
		c.w.mu.Lock()
		c.w.catchUp()
		left, lists := c.w.named(id), c.w.find(id, c.w.moment())
		c.w.mu.Unlock()
		if len(left) == 0 && len(lists) == 0 {
			return nil
		}
		for _, r := range slices.Backward(left) {
			tell("Removing " + r.kind + " " + r.name)
			err := c.effect(ctx, "remove "+r.name, func(bool) {
				if v, there := r.now(); there {
					v.at, v.gone = time.Now(), true
					r.history = append(r.history, v)
				}
			})
			if err != nil {
				return err
			}
		}
		if len(left) == 0 && !rest(ctx, max(c.w.o.Step, time.Millisecond)) {
			return fmt.Errorf("clear %s: %w", id, ctx.Err())
		}
	}
}

// Admit opens the group to these sources only.
func (c *Cloud) Admit(ctx context.Context, id skyport.PartitionID, sources []netip.Prefix) error {
	if err := c.enter(ctx, "Admit"); err != nil {
		return err
	}
	return c.effect(ctx, "admit to "+string(id), func(bool) {
		for _, r := range c.w.named(id) {
			if r.kind == kindGroup {
				r.open = spell(sources)
			}
		}
	})
}

// Check finds nothing missing.
func (c *Cloud) Check(ctx context.Context) ([]gate.Finding, error) {
	return []gate.Finding{{Subject: "credentials", Level: gate.LevelOK, Text: "memory needs none"}}, c.enter(ctx, "Check")
}

// Close does nothing.
func (c *Cloud) Close() error { return nil }

// enter counts a call, which may be one too many.
func (c *Cloud) enter(ctx context.Context, method string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	if c.dead.Load() {
		return fmt.Errorf("%s: the process was killed", method)
	}
	w := c.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[method]++
	if time.Now().Before(w.hushed) {
		w.early++
	}
	if w.chance.Float64() < w.faults.Throttle {
		w.hushed = time.Now().Add(w.faults.Quiet)
		return fmt.Errorf("%s: %w", method, &cloud.Throttled{After: w.faults.Quiet, Err: fmt.Errorf("429 too many requests")})
	}
	return nil
}

// refusal is the next error of Make that was asked for.
func (c *Cloud) refusal(kind string) error {
	w := c.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if kind != kindNode || len(w.refusals) == 0 {
		return nil
	}
	err := w.refusals[0]
	w.refusals = w.refusals[1:]
	return err
}

// effect changes something, as far as the faults let it.
func (c *Cloud) effect(ctx context.Context, what string, do func(twice bool)) error {
	w := c.w
	cut := w.o.Step > 0 && !rest(ctx, w.o.Step)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	if c.dead.Load() {
		return fmt.Errorf("%s: the process was killed", what)
	}
	f, roll := w.faults, w.chance.Float64()
	if cut || ctx.Err() != nil { // it was on its way: who knows
		if roll < 0.5 {
			do(false)
		}
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
	switch {
	case roll < f.Error:
		return fmt.Errorf("%s: 500 internal error", what)
	case roll < f.Error+f.Lost:
		do(false)
		return fmt.Errorf("%s: connection reset", what)
	case roll < f.Error+f.Lost+f.Late:
		after := time.Duration(w.chance.Int64N(int64(max(f.Lag, time.Millisecond))))
		w.late = append(w.late, pending{time.Now().Add(after), func() { do(false) }})
		return fmt.Errorf("%s: 504 gateway timeout", what)
	case roll < f.Error+f.Lost+f.Late+f.Twice:
		do(true)
	default:
		do(false)
	}
	return nil
}

func spell(sources []netip.Prefix) string {
	all := make([]string, 0, len(sources))
	for _, s := range sources {
		all = append(all, s.String())
	}
	return strings.Join(all, ", ")
}

func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
