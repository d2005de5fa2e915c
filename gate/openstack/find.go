package openstack

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// Find tells what there is of one partition, or of all.
func (s *site) Find(ctx context.Context, id skyport.PartitionID) ([]cloud.Found, error) {
	se, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	all, err := s.look(ctx, se, id)
	if err != nil {
		return nil, err
	}
	var found []cloud.Found
	for _, v := range all {
		found = append(found, v.found())
	}
	slices.SortFunc(found, func(a, b cloud.Found) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Tags.Partition, b.Tags.Partition))
	})
	return found, nil
}

// found says an inventory in the words of all clouds.
func (v *inventory) found() cloud.Found {
	f := cloud.Found{Tags: v.tags(), Created: v.created(), Resources: v.resources()}
	for _, one := range v.servers {
		index, err := strconv.Atoi(one.Metadata[markNode])
		host := one.Metadata[markHost]
		if err != nil || host == "" || slices.ContainsFunc(f.Nodes, func(n cloud.Node) bool { return n.Name == host }) {
			continue // a second one of a node: Make and Clear care for it
		}
		node := cloud.Node{Running: one.Status == "ACTIVE"}
		node.Name, node.Role = host, skyport.RoleCompute
		if index == 0 {
			node.Role = skyport.RoleMain
		}
		node.Address, node.Endpoint = v.addresses(index)
		f.Nodes = append(f.Nodes, node)
	}
	order := map[string]int{}
	for _, one := range v.servers {
		order[one.Metadata[markHost]], _ = strconv.Atoi(one.Metadata[markNode]) // those in the list were read above
	}
	slices.SortFunc(f.Nodes, func(a, b cloud.Node) int { return cmp.Compare(order[a.Name], order[b.Name]) })
	f.Made = v.anchor() != nil && f.Tags.Nodes > 0 && len(f.Nodes) == f.Tags.Nodes &&
		!slices.ContainsFunc(f.Nodes, func(n cloud.Node) bool { return !n.Running || n.Address == "" || n.Endpoint == "" })
	if !f.Tags.Condemned {
		f.Failure = v.failure(f)
	}
	return f
}

// addresses are those of a node: inside, and as an endpoint that core dials.
func (v *inventory) addresses(index int) (address, endpoint string) {
	ports := nodeOf(v.things[kindPort], thingMarks, index)
	if len(ports) == 0 {
		return "", ""
	}
	// A provider network may give both an IPv4 and an IPv6 address: the former is reached from more places.
	for _, ip := range ports[0].FixedIPs {
		if at, err := netip.ParseAddr(ip.Address); err == nil && (address == "" || at.Is4()) {
			address = ip.Address
		}
	}
	if address == "" {
		return "", ""
	}
	if index > 0 || v.anchor() == nil || v.anchor().marks[markPublic] != "yes" {
		return address, gate.Endpoint(address)
	}
	for _, float := range v.things[kindFloat] {
		if float.PortID == ports[0].ID {
			return address, gate.Endpoint(float.Address)
		}
	}
	return address, "" // comes yet
}

// failure says why a partition will never be usable, or is not any more.
func (v *inventory) failure(f cloud.Found) error {
	for _, one := range v.servers {
		if one.Status == "ERROR" {
			return broken(one.Metadata[markHost], one.Fault.Message)
		}
	}
	if anchor := v.anchor(); anchor == nil || anchor.marks[markMade] != "yes" {
		return nil
	}
	for _, one := range v.servers {
		switch one.Status {
		case "SHUTOFF", "SUSPENDED", "PAUSED", "SHELVED", "SHELVED_OFFLOADED", "SOFT_DELETED", "DELETED":
			return cloud.Permanent(skyport.CodeInterrupted, "node %s does not run any more: the cloud says %s", one.Metadata[markHost], one.Status).
				WithHint("somebody stopped it, or its host failed: openstack server event list %s", one.ID)
		}
	}
	if len(f.Nodes) < f.Tags.Nodes {
		return cloud.Permanent(skyport.CodeInterrupted, "%d of %s are gone from the cloud", f.Tags.Nodes-len(f.Nodes), count(f.Tags.Nodes, "node")).
			WithHint("somebody deleted them, or the cloud lost them")
	}
	if !f.Made {
		for _, node := range f.Nodes {
			if node.Running && node.Endpoint == "" {
				return cloud.Permanent(skyport.CodeInterrupted, "node %s has lost its address", node.Name).WithHint("openstack floating ip list")
			}
		}
	}
	return nil
}

// tags are those of the partition. The name of a server group cannot be
// rewritten: it counts when nothing else is there.
func (v *inventory) tags() cloud.Tags {
	var all cloud.Tags
	merge := func(marks map[string]string) {
		if tags, ours, err := cloud.ParseTags(marks); ours && err == nil {
			if all.Partition == "" {
				all = tags
				return
			}
			job, user := cmp.Or(all.Job, tags.Job), cmp.Or(all.User, tags.User)
			all = all.Merge(tags)
			all.Job, all.User = job, user
		}
	}
	for _, k := range kinds {
		for _, t := range v.things[k] {
			merge(t.marks)
		}
	}
	for _, one := range v.servers {
		merge(one.Metadata)
	}
	for _, one := range v.volumes {
		merge(one.Metadata)
	}
	if all.Partition == "" {
		for _, one := range v.serverGroups {
			merge(one.marks)
		}
	}
	return all
}

func (v *inventory) created() time.Time {
	var first time.Time
	older := func(text string) {
		if t := when(text); !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	for _, k := range kinds {
		for _, t := range v.things[k] {
			older(t.Created)
		}
	}
	for _, one := range v.servers {
		older(one.Created)
	}
	for _, one := range v.volumes {
		older(one.Created)
	}
	return first
}

func (v *inventory) resources() []cloud.Resource {
	var all []cloud.Resource
	for _, one := range v.servers {
		all = append(all, cloud.Resource{Kind: "server", Name: one.Name})
	}
	for _, one := range v.volumes {
		all = append(all, cloud.Resource{Kind: "volume", Name: one.Name})
	}
	for _, k := range kinds {
		for _, t := range v.things[k] {
			all = append(all, cloud.Resource{Kind: k.name, Name: cmp.Or(t.Name, t.Address, t.ID)})
		}
	}
	for _, one := range v.serverGroups {
		all = append(all, cloud.Resource{Kind: "server group", Name: one.ID})
	}
	return all
}
