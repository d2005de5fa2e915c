package azure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/cloud"
)

// Find goes by the tags of resource groups: there is nothing of ours outside of
// them. It makes one call for each kind of resource, not for each partition.
func (s *site) Find(ctx context.Context, id skyport.PartitionID) ([]cloud.Found, error) {
	groups, err := s.ourGroups(ctx, id)
	if err != nil {
		return nil, err
	}
	if id != "" && len(groups) == 0 {
		return nil, nil
	}
	name := ""
	if id != "" {
		name = group(id)
	}
	v, err := s.viewOf(ctx, name)
	if err != nil {
		return nil, err
	}
	if id == "" {
		if groups, err = s.unlisted(ctx, v, groups); err != nil {
			return nil, err
		}
	}
	var all []cloud.Found
	for _, g := range groups {
		found, err := s.found(ctx, v, g)
		if err != nil {
			return nil, err
		}
		if found != nil {
			all = append(all, *found)
		}
	}
	return all, nil
}

// ourGroups are the groups with our tags: of one partition, or all of this region.
func (s *site) ourGroups(ctx context.Context, id skyport.PartitionID) ([]*armresources.ResourceGroup, error) {
	if id != "" {
		got, err := s.groups.Get(ctx, group(id), nil)
		if absent(err) {
			return nil, nil
		}
		if err != nil {
			return nil, s.explain(err, "look for the resource group %s", group(id))
		}
		if !strings.EqualFold(value(got.Location), s.o.Region) {
			return nil, nil // of another site
		}
		return []*armresources.ResourceGroup{&got.ResourceGroup}, nil
	}
	return s.listGroups(ctx, "tagName eq '"+cloud.TagOwner+"'")
}

func (s *site) listGroups(ctx context.Context, filter string) ([]*armresources.ResourceGroup, error) {
	all, err := collect(ctx, s.groups.NewListPager(&armresources.ResourceGroupsClientListOptions{Filter: &filter}),
		func(p armresources.ResourceGroupsClientListResponse) []*armresources.ResourceGroup { return p.Value })
	if err != nil {
		return nil, s.explain(err, "list resource groups")
	}
	// Another region of the subscription is another site.
	return slices.DeleteFunc(all, func(g *armresources.ResourceGroup) bool {
		return g == nil || !strings.EqualFold(value(g.Location), s.o.Region)
	}), nil
}

// unlisted adds the groups of resources with our tags that the list of groups
// does not show: it lags.
func (s *site) unlisted(ctx context.Context, v *view, groups []*armresources.ResourceGroup) ([]*armresources.ResourceGroup, error) {
	known := map[string]bool{}
	for _, g := range groups {
		known[strings.ToLower(value(g.Name))] = true
	}
	for _, m := range v.machines {
		name := groupOf(value(m.ID))
		tags, ours, err := cloud.ParseTags(values(m.Tags))
		if known[name] || !ours || err != nil || name != group(tags.Partition) || !strings.EqualFold(value(m.Location), s.o.Region) {
			continue
		}
		known[name] = true
		more, err := s.ourGroups(ctx, tags.Partition)
		if err != nil {
			return nil, err
		}
		groups = append(groups, more...)
	}
	return groups, nil
}

// found says what there is of a partition; nil: the group is not ours.
func (s *site) found(ctx context.Context, v *view, g *armresources.ResourceGroup) (*cloud.Found, error) {
	name, raw := strings.ToLower(value(g.Name)), values(g.Tags)
	tags, ours, err := cloud.ParseTags(raw)
	if !ours || name != group(tags.Partition) && err == nil {
		return nil, nil
	}
	if err != nil {
		s.log.Warn("a resource group has tags of ours that cannot be read: it is left alone", "group", name, "error", err)
		return nil, nil
	}
	// A group that goes is condemned, whoever has condemned it.
	tags.Condemned = tags.Condemned || deleting(g)
	nodes := v.nodes(name)
	f := &cloud.Found{Tags: tags, Resources: v.resources(name)}
	if f.Created, err = time.Parse(time.RFC3339, raw[tagCreated]); err != nil && len(nodes) > 0 {
		f.Created = nodes[0].created
	}
	for _, n := range nodes {
		f.Nodes = append(f.Nodes, n.Node)
	}
	if raw[tagMade] == "" || tags.Condemned {
		return f, nil // whether a creation under way has failed, Make says
	}
	f.Made = complete(nodes, tags.Nodes)
	f.Failure = failureOf(nodes, raw[tagSpot] == "yes")
	made, err := time.Parse(time.RFC3339, raw[tagMade])
	if settled := err != nil || time.Since(made) > s.settle(); f.Failure == nil && len(nodes) < tags.Nodes && settled {
		names, err := s.plannedNodes(ctx, name)
		if err != nil {
			return f, err
		}
		gone, err := s.gone(ctx, name, names, nodes)
		if err != nil {
			return f, err
		}
		if gone != "" {
			f.Failure = lost(gone, raw[tagSpot] == "yes")
		}
	}
	return f, nil
}

// failureOf says what is wrong with the machines of a partition that was made.
func failureOf(nodes []machine, spot bool) error {
	for _, n := range nodes {
		switch {
		case n.state == "Deleting", spot && (n.power == "deallocating" || n.power == "deallocated"):
			return lost(n.Name, spot)
		case n.state == "Failed":
			return skyport.Errorf(skyport.CodeUnavailable, "Azure says that the virtual machine %s has failed", n.Name)
		case n.power == "deallocating", n.power == "deallocated", n.power == "stopped":
			return skyport.Errorf(skyport.CodeUnavailable, "the virtual machine %s was shut down: at the end of its lease, or by somebody", n.Name)
		}
	}
	return nil
}

// lost is the failure of a partition one of whose nodes is gone.
func lost(node string, spot bool) error {
	if spot {
		return skyport.Errorf(skyport.CodeInterrupted, "Azure took the spot node %s back", node)
	}
	return skyport.Errorf(skyport.CodeInterrupted, "the virtual machine %s is gone: somebody has deleted it", node)
}

// gone returns a node that is not listed and really is not there: the lists lag,
// a machine asked for by its name does not.
func (s *site) gone(ctx context.Context, name string, names []string, listed []machine) (string, error) {
	for _, node := range names {
		if slices.ContainsFunc(listed, func(m machine) bool { return m.Name == node }) {
			continue
		}
		_, err := s.machines.Get(ctx, name, node, nil)
		switch {
		case absent(err):
			return node, nil
		case err != nil:
			return "", s.explain(err, "look for the virtual machine %s", node)
		}
	}
	return "", nil
}

// plannedNodes are the names of all nodes of a partition, which its deployment remembers.
func (s *site) plannedNodes(ctx context.Context, name string) ([]string, error) {
	got, err := s.deployments.Get(ctx, name, name, nil)
	if absent(err) {
		return nil, nil // the group goes
	}
	if err != nil {
		return nil, s.explain(err, "look for the deployment of %s", name)
	}
	var parameters struct {
		Nodes struct {
			Value []string `json:"value"`
		} `json:"nodes"`
	}
	if got.Properties == nil || unmarshal(got.Properties.Parameters, &parameters) != nil || len(parameters.Nodes.Value) == 0 {
		return nil, fmt.Errorf("deployment of %s: %w", name, errors.New("it does not tell its nodes"))
	}
	return parameters.Nodes.Value, nil
}
