package azure

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
	"golang.org/x/sync/errgroup"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// view is what lists show, of one group or of all.
type view struct {
	machines   []*armcompute.VirtualMachine
	power      map[string]string // by lower-case id: running, deallocated and so on
	interfaces map[string]*armnetwork.Interface
	addresses  map[string]*armnetwork.PublicIPAddress
}

// viewOf lists what is in a group, or with an empty name in all.
func (s *site) viewOf(ctx context.Context, name string) (*view, error) {
	v := &view{power: map[string]string{}, interfaces: map[string]*armnetwork.Interface{}, addresses: map[string]*armnetwork.PublicIPAddress{}}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) { v.machines, err = s.listMachines(ctx, name); return err })
	g.Go(func() error { return s.listPower(ctx, v) })
	g.Go(func() error { return s.listInterfaces(ctx, name, v) })
	g.Go(func() error { return s.listAddresses(ctx, name, v) })
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return v, nil
}

func (s *site) listMachines(ctx context.Context, name string) (all []*armcompute.VirtualMachine, err error) {
	if name == "" {
		all, err = collect(ctx, s.machines.NewListAllPager(nil), func(p armcompute.VirtualMachinesClientListAllResponse) []*armcompute.VirtualMachine { return p.Value })
	} else {
		all, err = collect(ctx, s.machines.NewListPager(name, nil), func(p armcompute.VirtualMachinesClientListResponse) []*armcompute.VirtualMachine { return p.Value })
	}
	if absent(err) {
		return nil, nil // the group went meanwhile
	}
	return all, s.explain(err, "list virtual machines")
}

// listPower asks which machines run: other lists do not say it. There is none
// that says it of a single group.
func (s *site) listPower(ctx context.Context, v *view) error {
	only := "true"
	all, err := collect(ctx, s.machines.NewListAllPager(&armcompute.VirtualMachinesClientListAllOptions{StatusOnly: &only}),
		func(p armcompute.VirtualMachinesClientListAllResponse) []*armcompute.VirtualMachine { return p.Value })
	if err != nil {
		return s.explain(err, "list the state of virtual machines")
	}
	for _, m := range all {
		if m.Properties == nil || m.Properties.InstanceView == nil {
			continue
		}
		for _, status := range m.Properties.InstanceView.Statuses {
			if power, ok := strings.CutPrefix(value(status.Code), "PowerState/"); ok {
				v.power[strings.ToLower(value(m.ID))] = power
			}
		}
	}
	return nil
}

func (s *site) listInterfaces(ctx context.Context, name string, v *view) (err error) {
	var all []*armnetwork.Interface
	if name == "" {
		all, err = collect(ctx, s.interfaces.NewListAllPager(nil), func(p armnetwork.InterfacesClientListAllResponse) []*armnetwork.Interface { return p.Value })
	} else {
		all, err = collect(ctx, s.interfaces.NewListPager(name, nil), func(p armnetwork.InterfacesClientListResponse) []*armnetwork.Interface { return p.Value })
	}
	for _, i := range all {
		v.interfaces[strings.ToLower(value(i.ID))] = i
	}
	if absent(err) {
		return nil
	}
	return s.explain(err, "list network interfaces")
}

func (s *site) listAddresses(ctx context.Context, name string, v *view) (err error) {
	var all []*armnetwork.PublicIPAddress
	if name == "" {
		all, err = collect(ctx, s.addresses.NewListAllPager(nil),
			func(p armnetwork.PublicIPAddressesClientListAllResponse) []*armnetwork.PublicIPAddress {
				return p.Value
			})
	} else {
		all, err = collect(ctx, s.addresses.NewListPager(name, nil),
			func(p armnetwork.PublicIPAddressesClientListResponse) []*armnetwork.PublicIPAddress { return p.Value })
	}
	for _, a := range all {
		v.addresses[strings.ToLower(value(a.ID))] = a
	}
	if absent(err) {
		return nil
	}
	return s.explain(err, "list public addresses")
}

// machine is a node with what its machine says beside.
type machine struct {
	cloud.Node
	place   int
	state   string // of the provisioning
	power   string
	created time.Time
}

// nodes are the machines of a group, main first.
func (v *view) nodes(name string) []machine {
	var all []machine
	for _, m := range v.machines {
		id := strings.ToLower(value(m.ID))
		if groupOf(id) != name || m.Properties == nil {
			continue
		}
		node := machine{
			place: place(m), state: value(m.Properties.ProvisioningState), power: v.power[id], created: value(m.Properties.TimeCreated),
		}
		node.Name, node.Role = value(m.Name), skyport.RoleCompute
		node.Running = node.power == "running" || node.power == "" && node.state == "Succeeded"
		private, public := v.addressesOf(m)
		node.Address = private
		if private != "" {
			node.Endpoint = gate.Endpoint(private)
		}
		if node.place == 0 {
			node.Role, node.Endpoint = skyport.RoleMain, ""
			if public != "" {
				node.Endpoint = gate.Endpoint(public)
			}
		}
		all = append(all, node)
	}
	slices.SortFunc(all, func(a, b machine) int { return cmp.Or(cmp.Compare(a.place, b.place), cmp.Compare(a.Name, b.Name)) })
	return all
}

// place is where a machine stands among the nodes; unknown ones come last.
func place(m *armcompute.VirtualMachine) int {
	if n, err := strconv.Atoi(value(m.Tags[tagNode])); err == nil {
		return n
	}
	return 1 << 20
}

// addressesOf are the addresses of a machine's interface.
func (v *view) addressesOf(m *armcompute.VirtualMachine) (private, public string) {
	if m.Properties.NetworkProfile == nil {
		return "", ""
	}
	for _, ref := range m.Properties.NetworkProfile.NetworkInterfaces {
		i := v.interfaces[strings.ToLower(value(ref.ID))]
		if i == nil || i.Properties == nil {
			continue
		}
		for _, c := range i.Properties.IPConfigurations {
			if c.Properties == nil {
				continue
			}
			private = value(c.Properties.PrivateIPAddress)
			if at := c.Properties.PublicIPAddress; at != nil {
				if a := v.addresses[strings.ToLower(value(at.ID))]; a != nil && a.Properties != nil {
					public = value(a.Properties.IPAddress)
				}
			}
			return private, public
		}
	}
	return "", ""
}

// complete says whether n nodes have all their addresses.
func complete(nodes []machine, n int) bool {
	return len(nodes) >= n && !slices.ContainsFunc(nodes, func(m machine) bool { return m.Address == "" || m.Endpoint == "" })
}

// resources are those in a group that cost money.
func (v *view) resources(name string) []cloud.Resource {
	all := []cloud.Resource{{Kind: "resource group", Name: name}}
	for _, m := range v.machines {
		if groupOf(value(m.ID)) == name {
			all = append(all, cloud.Resource{Kind: "virtual machine", Name: value(m.Name)})
		}
	}
	for id, a := range v.addresses {
		if groupOf(id) == name {
			all = append(all, cloud.Resource{Kind: "public address", Name: value(a.Name)})
		}
	}
	return all
}

// groupOf is the group of a resource, in small letters: some lists of Azure
// shout it.
func groupOf(id string) string {
	parsed, err := arm.ParseResourceID(id)
	if err != nil {
		return ""
	}
	return strings.ToLower(parsed.ResourceGroupName)
}
