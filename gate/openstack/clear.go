package openstack

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// atOnce is how many calls go to a service at one time for one partition.
const atOnce = 8

// Extend moves the end of the lease, in all that has one. Servers end
// themselves by what they have booted.
func (s *site) Extend(ctx context.Context, id skyport.PartitionID, until time.Time) error {
	se, v, err := s.reach(ctx, id)
	if err != nil {
		return err
	}
	if v.empty() {
		return fmt.Errorf("partition %s: %w", id.Short(), gate.ErrNotFound)
	}
	end := until.UTC().Truncate(time.Second).Format(time.RFC3339)
	bearer := v.bearer()
	if err := atATime(s.retag(ctx, se, bearer, cloud.TagDeleteAt, end)); err != nil || bearer == v {
		return err
	}
	// The latest end counts: from here on it only makes the tags agree, which is
	// not worth the patience of a cloud that is busy.
	ctx, cancel := context.WithTimeout(ctx, agreeLimit)
	defer cancel()
	if err := atATime(s.retag(ctx, se, v, cloud.TagDeleteAt, end)); err != nil {
		s.log.DebugContext(ctx, "some tags tell an older end of the lease", "partition", id, "error", err)
	}
	return nil
}

const agreeLimit = 10 * time.Second

// Condemn marks a partition as one to be removed.
func (s *site) Condemn(ctx context.Context, id skyport.PartitionID) error {
	se, v, err := s.reach(ctx, id)
	if err != nil || v.empty() {
		return err
	}
	return atATime(s.retag(ctx, se, v.bearer(), cloud.TagCondemned, "yes"))
}

// bearer is what carries a partition's marks: its security group, which goes last, or what else
// there is while that is missing.
func (v *inventory) bearer() *inventory {
	groups := v.things[kindGroup]
	if len(groups) == 0 {
		return v
	}
	return &inventory{things: map[*kind][]thing{kindGroup: groups}}
}

func (s *site) reach(ctx context.Context, id skyport.PartitionID) (*session, *inventory, error) {
	se, err := s.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	v, err := s.one(ctx, se, id)
	return se, v, err
}

// atATime calls a few at a time.
func atATime(calls []func() error) error {
	var g errgroup.Group
	g.SetLimit(atOnce)
	for _, call := range calls {
		g.Go(call)
	}
	return g.Wait()
}

// Clear removes all that belongs to a partition, in the order in which the cloud
// lets it go, again and again until its lists are empty.
func (s *site) Clear(ctx context.Context, id skyport.PartitionID, tell func(text string)) error {
	said := ""
	for wait := s.o.Poll / 8; ; wait = min(wait*3/2, s.o.Poll*3) {
		se, v, err := s.reach(ctx, id)
		if err != nil {
			return err
		}
		if v.empty() {
			s.release(id)
			return nil
		}
		c := clearing{site: s, se: se, v: v}
		if err := c.pass(ctx); err != nil {
			return err
		}
		if text := c.text(); text != said {
			said = text
			tell(text)
		}
		if len(v.servers) > 0 {
			err = c.awaitServers(ctx)
		} else {
			err = pause(ctx, wait)
		}
		if err != nil {
			return s.explain(err, c.text())
		}
	}
}

// awaitServers waits until no server is left, but not for long: one that the
// cloud has forgotten to remove is removed again.
func (c *clearing) awaitServers(ctx context.Context) error {
	id := c.v.tags().Partition
	wait := c.o.Poll / 4
	for range 20 {
		if err := pause(ctx, wait); err != nil {
			return err
		}
		wait = min(wait*3/2, c.o.Poll*3)
		left, err := c.listServers(ctx, c.se, id)
		if err != nil || !slices.ContainsFunc(left, func(one server) bool {
			of, ours := c.partitionOf("server", one.Name, one.Metadata)
			return ours && of == id
		}) {
			return err
		}
	}
	return nil
}

// clearing is one pass over what is left.
type clearing struct {
	*site
	se *session
	v  *inventory

	mu    sync.Mutex
	waits []string // what could not be removed yet, and why
}

func (c *clearing) text() string {
	if len(c.waits) > 0 {
		return "waits for " + strings.Join(c.waits[:min(len(c.waits), 3)], "; ")
	}
	if n := len(c.v.servers); n > 0 {
		return "waits for the end of " + count(n, "server")
	}
	return "removes " + count(c.v.count(), "thing")
}

// pass removes what can be removed now. Servers and the way from outside go
// first, side by side; ports and disks when the servers are gone; then the
// network, and at the end the group that says whose all this was.
func (c *clearing) pass(ctx context.Context) error {
	g, each := errgroup.WithContext(ctx)
	g.Go(func() error { return c.servers(each) })
	g.Go(func() error {
		if err := c.things(each, kindFloat); err != nil {
			return err
		}
		return c.routers(each)
	})
	if err := g.Wait(); err != nil || len(c.v.servers) > 0 {
		return err
	}
	g, each = errgroup.WithContext(ctx)
	g.Go(func() error { return c.volumes(each) })
	g.Go(func() error { return c.things(each, kindPort) })
	g.Go(func() error {
		for _, group := range c.v.serverGroups {
			if err := c.try("server group", remove(each, c.se.compute, "os-server-groups", group.ID)); err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	for _, k := range []*kind{kindSubnet, kindNetwork} {
		if err := c.things(ctx, k); err != nil {
			return err
		}
	}
	if len(c.waits) > 0 {
		return nil
	}
	return c.things(ctx, kindGroup)
}

// try takes an answer: what is busy is tried again in the next pass.
func (c *clearing) try(what string, err error) error {
	if err == nil {
		return nil
	}
	if busy(err) {
		r, _ := refused(err)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.waits = append(c.waits, what+": "+r.message)
		return nil
	}
	return c.explain(err, "remove "+what)
}

func (c *clearing) servers(ctx context.Context) error {
	var calls []func() error
	for _, one := range c.v.servers {
		calls = append(calls, func() error {
			return c.try("server "+one.Name, remove(ctx, c.se.compute, "servers", one.ID))
		})
	}
	return atATime(calls)
}

func (c *clearing) things(ctx context.Context, k *kind) error {
	var calls []func() error
	for _, t := range c.v.things[k] {
		calls = append(calls, func() error {
			return c.try(k.name+" "+t.Name+t.Address, remove(ctx, c.se.network, k.path, t.ID))
		})
	}
	return atATime(calls)
}

// routers are unplugged, then removed.
// https://docs.openstack.org/api-ref/network/v2/#remove-interface-from-router
func (c *clearing) routers(ctx context.Context) error {
	for _, router := range c.v.things[kindRouter] {
		ports, err := c.interfaces(ctx, c.se, router.ID)
		if err != nil {
			return err
		}
		for _, port := range ports {
			err := change(ctx, c.se.network, kindRouter.path+"/"+router.ID+"/remove_router_interface", map[string]any{"port_id": port.ID})
			if gone(err) {
				continue
			}
			if err := c.try("the router's port", err); err != nil {
				return err
			}
		}
	}
	return c.things(ctx, kindRouter)
}

func (c *clearing) volumes(ctx context.Context) error {
	var calls []func() error
	for _, one := range c.v.volumes {
		if one.Status == "deleting" {
			continue
		}
		calls = append(calls, func() error {
			return c.try("volume "+one.Name, remove(ctx, c.se.volume, "volumes", one.ID))
		})
	}
	return atATime(calls)
}
