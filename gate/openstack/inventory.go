package openstack

import (
	"cmp"
	"context"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
	"golang.org/x/sync/errgroup"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/cloud"
)

// kind is a kind of thing of the network service; they are all alike.
// https://docs.openstack.org/api-ref/network/v2/
type kind struct {
	name            string // for people
	path, one, many string // in URLs and bodies
	named           bool   // has a name
}

var (
	kindGroup   = &kind{"security group", "security-groups", "security_group", "security_groups", true}
	kindNetwork = &kind{"network", "networks", "network", "networks", true}
	kindSubnet  = &kind{"subnet", "subnets", "subnet", "subnets", true}
	kindRouter  = &kind{"router", "routers", "router", "routers", true}
	kindPort    = &kind{"port", "ports", "port", "ports", true}
	kindFloat   = &kind{"floating IP", "floatingips", "floatingip", "floatingips", false}

	kinds = []*kind{kindGroup, kindNetwork, kindSubnet, kindRouter, kindPort, kindFloat}
)

// thing is one thing of the network service, with what of its kind we need.
type thing struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Description string    `json:"description"`
	Created     string    `json:"created_at"`
	Status      string    `json:"status"`
	NetworkID   string    `json:"network_id"` // of subnets and ports
	CIDR        string    `json:"cidr"`
	DeviceID    string    `json:"device_id"` // of ports
	DeviceOwner string    `json:"device_owner"`
	FixedIPs    []fixedIP `json:"fixed_ips"`
	PortID      string    `json:"port_id"` // of floating addresses
	Address     string    `json:"floating_ip_address"`
	Rules       []rule    `json:"security_group_rules"`

	kind  *kind
	marks map[string]string
}

type fixedIP struct {
	SubnetID string `json:"subnet_id,omitempty"`
	Address  string `json:"ip_address,omitempty"`
}

// server is one of https://docs.openstack.org/api-ref/compute/#list-servers-detailed
type server struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Status   string            `json:"status"`
	Created  string            `json:"created"`
	Metadata map[string]string `json:"metadata"`
	Fault    struct {
		Message string `json:"message"`
		Details string `json:"details"`
	} `json:"fault"`
}

// serverGroup is one of https://docs.openstack.org/api-ref/compute/#list-server-groups
type serverGroup struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	marks map[string]string
}

// volume is one of https://docs.openstack.org/api-ref/block-storage/v3/#list-accessible-volumes-with-details
type volume struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Status   string            `json:"status"`
	Created  string            `json:"created_at"`
	Metadata map[string]string `json:"metadata"`
}

// inventory is what there is of one partition.
type inventory struct {
	things       map[*kind][]thing // the oldest first
	servers      []server
	serverGroups []serverGroup
	volumes      []volume
}

func (v *inventory) empty() bool {
	return v.count() == 0
}

func (v *inventory) count() int {
	n := len(v.servers) + len(v.serverGroups) + len(v.volumes)
	for _, things := range v.things {
		n += len(things)
	}
	return n
}

// first is the thing of a kind that counts: should an answer have been lost
// there may be two, and the older one has been used.
func (v *inventory) first(k *kind) *thing {
	if things := v.things[k]; len(things) > 0 {
		return &things[0]
	}
	return nil
}

// anchor carries what holds of the partition as a whole.
func (v *inventory) anchor() *thing { return v.first(kindGroup) }

// node finds what belongs to a node.
func nodeOf[T any](all []T, marks func(T) map[string]string, index int) []T {
	var found []T
	for _, one := range all {
		if marks(one)[markNode] == itoa(index) {
			found = append(found, one)
		}
	}
	return found
}

func thingMarks(t thing) map[string]string   { return t.marks }
func serverMarks(s server) map[string]string { return s.Metadata }
func volumeMarks(v volume) map[string]string { return v.Metadata }

const namePrefix = "swm-"

// look lists what there is of one partition, or with an empty id of all: one
// listing for each kind, side by side.
func (s *site) look(ctx context.Context, se *session, id skyport.PartitionID) (map[skyport.PartitionID]*inventory, error) {
	var (
		things  = make([][]thing, len(kinds))
		servers []server
		groups  []serverGroup
		volumes []volume
	)
	g, ctx := errgroup.WithContext(ctx)
	for i, k := range kinds {
		g.Go(func() (err error) {
			query := url.Values{}
			if se.project != "" {
				query.Set("project_id", se.project) // administrators see everybody's
			}
			if k.named && id != "" {
				query.Set("name", namePrefix+string(id))
			}
			things[i], err = pages[thing](ctx, se.network, k.path, k.many, query)
			return s.explain(err, "list "+k.name+"s")
		})
	}
	g.Go(func() (err error) {
		servers, err = s.listServers(ctx, se, id)
		return err
	})
	g.Go(func() (err error) {
		groups, err = pages[serverGroup](ctx, se.compute, "os-server-groups", "server_groups", url.Values{"limit": {"1000"}})
		if len(groups) == 1000 {
			more := url.Values{"limit": {"1000"}, "offset": {"1000"}}
			var rest []serverGroup
			rest, err = pages[serverGroup](ctx, se.compute, "os-server-groups", "server_groups", more)
			groups = append(groups, rest...)
		}
		return s.explain(err, "list server groups")
	})
	if s.o.BootVolume && se.volume != nil {
		g.Go(func() (err error) {
			volumes, err = pages[volume](ctx, se.volume, "volumes/detail", "volumes", nil)
			return s.explain(err, "list volumes")
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	all := map[skyport.PartitionID]*inventory{}
	of := func(what, name string, marks map[string]string) *inventory {
		owner, ours := s.partitionOf(what, name, marks)
		if !ours || (id != "" && owner != id) {
			return nil
		}
		if all[owner] == nil {
			all[owner] = &inventory{things: map[*kind][]thing{}}
		}
		return all[owner]
	}
	for i, k := range kinds {
		slices.SortFunc(things[i], func(a, b thing) int {
			return cmp.Or(when(a.Created).Compare(when(b.Created)), strings.Compare(a.ID, b.ID))
		})
		for _, t := range things[i] {
			t.kind, t.marks = k, undescribe(t.Description)
			if v := of(k.name, t.Name, t.marks); v != nil {
				v.things[k] = append(v.things[k], t)
			}
		}
	}
	for _, one := range servers {
		if v := of("server", one.Name, one.Metadata); v != nil {
			v.servers = append(v.servers, one)
		}
	}
	for _, one := range groups {
		name, description, _ := strings.Cut(one.Name, " ")
		one.marks = undescribe(description)
		if v := of("server group", name, one.marks); v != nil {
			v.serverGroups = append(v.serverGroups, one)
		}
	}
	for _, one := range volumes {
		if v := of("volume", one.Name, one.Metadata); v != nil {
			v.volumes = append(v.volumes, one)
		}
	}
	return all, nil
}

// listServers lists servers by name: those of one partition, or all of ours.
func (s *site) listServers(ctx context.Context, se *session, id skyport.PartitionID) ([]server, error) {
	// A regular expression: https://docs.openstack.org/api-ref/compute/#list-servers-detailed
	query := url.Values{"name": {"^" + regexp.QuoteMeta(namePrefix) + string(id)}}
	servers, err := pages[server](ctx, se.compute, "servers/detail", "servers", query)
	for i, one := range servers {
		if one.Status == "ERROR" && one.Fault.Message == "" && one.Metadata[cloud.TagOwner] != "" && err == nil {
			// Lists lack the fault of a server that never got a host.
			answer := struct {
				Server *server `json:"server"`
			}{&servers[i]}
			if err = fetch(ctx, se.compute, se.compute.ServiceURL("servers", one.ID), &answer); gone(err) {
				err = nil
			}
		}
	}
	slices.SortFunc(servers, func(a, b server) int {
		return cmp.Or(when(a.Created).Compare(when(b.Created)), strings.Compare(a.ID, b.ID))
	})
	return servers, s.explain(err, "list servers")
}

// partitionOf says whose a thing is. Only what has our marks, and where it has a
// name one that says the same, is ours.
func (s *site) partitionOf(what, name string, marks map[string]string) (skyport.PartitionID, bool) {
	tags, ours, err := cloud.ParseTags(marks)
	switch {
	case !ours:
		return "", false
	case err != nil:
		s.log.Warn("something looks like ours but cannot be read: it is left alone", "kind", what, "name", name, "error", err)
		return "", false
	case name != "" && !strings.HasPrefix(name, namePrefix+string(tags.Partition)):
		return "", false
	}
	return tags.Partition, true
}

// one finds the inventory of one partition; empty when there is nothing.
func (s *site) one(ctx context.Context, se *session, id skyport.PartitionID) (*inventory, error) {
	all, err := s.look(ctx, se, id)
	if err != nil {
		return nil, err
	}
	if v := all[id]; v != nil {
		return v, nil
	}
	return &inventory{things: map[*kind][]thing{}}, nil
}

// make makes a thing of the network.
func (k *kind) create(ctx context.Context, client *gophercloud.ServiceClient, fields map[string]any) (thing, error) {
	answer := map[string]thing{}
	err := create(ctx, client, k.path, map[string]any{k.one: fields}, &answer)
	t := answer[k.one]
	t.kind, t.marks = k, undescribe(t.Description)
	return t, err
}

// rewrite changes a thing's marks.
func (t thing) rewrite(ctx context.Context, client *gophercloud.ServiceClient, marks map[string]string) error {
	return change(ctx, client, t.kind.path+"/"+t.ID, map[string]any{t.kind.one: map[string]any{"description": describe(marks, descriptionRoom)}})
}
