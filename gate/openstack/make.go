package openstack

import (
	"context"
	"maps"
	"net/netip"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/cloud"
)

// making is one call of Make.
type making struct {
	*site
	se   *session
	plan cloud.Plan
	have *inventory
	// marks are what everything of the partition carries.
	marks map[string]string
	say   func(text string)

	flavor   flavor
	image    image
	userData []string

	group    thing
	network  string // its id
	subnet   thing  // zero in a provider network
	router   thing  // zero in a provider network
	external string // id of the network of floating addresses; empty: none
	cluster  string // id of the server group
}

// Make makes a partition, or goes on with it.
func (s *site) Make(ctx context.Context, plan cloud.Plan, tell func(text string)) error {
	se, err := s.open(ctx)
	if err != nil {
		return err
	}
	m := &making{site: s, se: se, plan: plan}
	var mu sync.Mutex
	m.say = func(text string) {
		mu.Lock()
		defer mu.Unlock()
		tell(text)
	}
	if err := m.prepare(ctx); err != nil {
		return err
	}
	defer s.release(plan.ID)
	if m.have, err = s.one(ctx, se, plan.ID); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{m.base, m.wires, m.nodes} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if m.group.marks[markMade] == "" {
		err = m.group.rewrite(ctx, se.network, with(m.group.marks, markMade, "yes"))
	}
	return s.explain(err, "note that all was made")
}

// prepare finds out what can be wrong before anything is made.
func (m *making) prepare(ctx context.Context) (err error) {
	if m.flavor, err = m.site.flavor(ctx, m.plan.NodeFlavor.Name); err != nil {
		return err
	}
	if m.image, err = m.site.image(ctx, m.plan.NodeImage.Name); err != nil {
		return err
	}
	if err := m.fits(m.flavor, m.image); err != nil {
		return err
	}
	if m.o.BootVolume && m.se.volume == nil {
		return cloud.Permanent(skyport.CodeUnsupported, "site %s: nodes are to boot from volumes, but the cloud has no volume service", m.o.Name).
			WithHint("boot_volume: false; openstack catalog list")
	}
	if m.userData, err = pack(m.plan); err != nil {
		return err
	}
	m.marks = maps.Clone(m.o.ExtraTags)
	if m.marks == nil {
		m.marks = map[string]string{}
	}
	maps.Copy(m.marks, m.plan.Tags.Map())
	read := undescribe(describe(m.marks, descriptionRoom-len(m.plan.Name)))
	for _, name := range []string{cloud.TagPartition, cloud.TagOwner, cloud.TagDeleteAt} {
		if read[name] != m.marks[name] {
			return cloud.Permanent(skyport.CodeInvalid, "the owner's name %q is too long for a tag in this cloud", m.plan.Owner)
		}
	}
	m.external, err = m.site.externalNetwork(ctx, m.se)
	return err
}

// base makes what does not need anything else: all side by side.
func (m *making) base(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.makeGroup(ctx) })
	if m.o.Network != "" {
		g.Go(func() error {
			n, err := m.site.networkNamed(ctx, m.se, m.o.Network)
			m.network = n
			return err
		})
	} else {
		g.Go(func() error { return m.makeNetwork(ctx) })
		g.Go(func() error { return m.makeRouter(ctx) })
	}
	if len(m.plan.Nodes) > 1 {
		g.Go(func() error { return m.makeCluster(ctx) })
	}
	return g.Wait()
}

// wires connects the subnet and makes the nodes' ports.
func (m *making) wires(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if m.router.ID != "" {
		g.Go(func() error { return m.connect(ctx) })
	}
	if m.have.things[kindPort] == nil {
		m.say("makes the ports of " + count(len(m.plan.Nodes), "node"))
	}
	ports := make([]thing, len(m.plan.Nodes))
	for i := range m.plan.Nodes {
		g.Go(func() (err error) {
			ports[i], err = m.makePort(ctx, i)
			return err
		})
	}
	err := g.Wait()
	if err == nil {
		m.have.things[kindPort] = ports
	}
	return err
}

// nodes makes servers and main's address, and waits until all servers are active.
func (m *making) nodes(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	ports := m.have.things[kindPort]
	if m.floating() {
		g.Go(func() error { return m.makeFloat(ctx, ports[0]) })
	}
	g.Go(func() error {
		servers, each := errgroup.WithContext(ctx)
		for i := range m.plan.Nodes {
			servers.Go(func() error { return m.makeServer(each, i, ports[i]) })
		}
		if err := servers.Wait(); err != nil {
			return err
		}
		return m.awaitServers(ctx)
	})
	return g.Wait()
}

// fields are what every thing of the network is made with.
func (m *making) fields(more map[string]any, marks ...string) map[string]any {
	all := map[string]any{"name": m.plan.Name, "description": describe(with(m.marks, marks...), descriptionRoom)}
	maps.Copy(all, more)
	return all
}

// ensure takes what is there, or makes it.
func (m *making) ensure(ctx context.Context, k *kind, fields map[string]any) (thing, error) {
	if t := m.have.first(k); t != nil {
		return *t, nil
	}
	if !k.named {
		delete(fields, "name")
	}
	m.say("makes the " + k.name)
	t, err := k.create(ctx, m.se.network, fields)
	return t, m.explain(err, "make the "+k.name)
}

func (m *making) makeGroup(ctx context.Context) (err error) {
	public := "no"
	if m.floating() {
		public = "yes"
	}
	if m.group, err = m.ensure(ctx, kindGroup, m.fields(nil, markPublic, public)); err != nil {
		return err
	}
	return m.admit(ctx, m.se, m.group, m.plan.Sources)
}

func (m *making) makeNetwork(ctx context.Context) error {
	network, err := m.ensure(ctx, kindNetwork, m.fields(nil))
	if err != nil {
		return err
	}
	m.network = network.ID
	subnet := m.have.first(kindSubnet)
	if subnet != nil {
		m.subnet = *subnet
		return nil
	}
	return m.makeSubnet(ctx)
}

// makeSubnet gives the network a range that no other subnet of the project has:
// those of several partitions may meet in one router of the cloud's owner.
func (m *making) makeSubnet(ctx context.Context) error {
	for try := 0; ; try++ {
		others, err := pages[thing](ctx, m.se.network, kindSubnet.path, kindSubnet.many, nil)
		if err != nil {
			return m.explain(err, "list subnets")
		}
		of, err := m.site.choose(m.plan.ID, others, len(m.plan.Nodes), try)
		if err != nil {
			return err
		}
		fields := m.fields(map[string]any{"network_id": m.network, "ip_version": 4, "cidr": of.String(), "enable_dhcp": true})
		if len(m.o.Nameservers) > 0 {
			fields["dns_nameservers"] = m.o.Nameservers
		}
		m.subnet, err = m.ensure(ctx, kindSubnet, fields)
		// A cloud that forbids overlapping answers 400 or 409 when somebody was faster.
		if err == nil || try == 8 || !overlaps(err) {
			return err
		}
	}
}

func (m *making) makeRouter(ctx context.Context) (err error) {
	if m.external == "" {
		return nil // a network on its own
	}
	m.router, err = m.ensure(ctx, kindRouter, m.fields(map[string]any{"external_gateway_info": map[string]any{"network_id": m.external}}))
	return err
}

// connect plugs the subnet into the router.
// https://docs.openstack.org/api-ref/network/v2/#add-interface-to-router
func (m *making) connect(ctx context.Context) error {
	err := change(ctx, m.se.network, kindRouter.path+"/"+m.router.ID+"/add_router_interface", map[string]any{"subnet_id": m.subnet.ID})
	if is(err, 400) || is(err, 409) {
		// It may have it already: "Router already has a port on subnet".
		ports, lookErr := m.site.interfaces(ctx, m.se, m.router.ID)
		for _, port := range ports {
			for _, ip := range port.FixedIPs {
				if ip.SubnetID == m.subnet.ID {
					return nil
				}
			}
		}
		if lookErr != nil {
			return lookErr
		}
	}
	return m.explain(err, "connect the subnet to the router")
}

func (m *making) makePort(ctx context.Context, index int) (thing, error) {
	if ports := nodeOf(m.have.things[kindPort], thingMarks, index); len(ports) > 0 {
		return ports[0], nil
	}
	fields := m.fields(map[string]any{"network_id": m.network, "security_groups": []string{m.group.ID}}, markNode, itoa(index))
	if m.subnet.ID != "" {
		of, err := netip.ParsePrefix(m.subnet.CIDR)
		if err != nil {
			return thing{}, cloud.Permanent(skyport.CodeInternal, "range of subnet %s: %w", m.subnet.ID, err)
		}
		fields["fixed_ips"] = []fixedIP{{SubnetID: m.subnet.ID, Address: addressOf(of, index).String()}}
	}
	port, err := kindPort.create(ctx, m.se.network, fields)
	return port, m.explain(err, "make the port of "+m.plan.Nodes[index])
}

// makeFloat gives main an address that core reaches.
// https://docs.openstack.org/api-ref/network/v2/#create-floating-ip
func (m *making) makeFloat(ctx context.Context, port thing) error {
	if m.external == "" {
		return cloud.Permanent(skyport.CodeInvalid, "site %s: main needs an address from outside, but there is no external network", m.o.Name).
			WithHint("name it as external_network, or set floating_ip: false where core reaches the nodes' network; openstack network list --external")
	}
	float, err := m.ensure(ctx, kindFloat, m.fields(map[string]any{"floating_network_id": m.external, "port_id": port.ID}))
	if err != nil || float.PortID == port.ID {
		return err
	}
	err = change(ctx, m.se.network, kindFloat.path+"/"+float.ID, map[string]any{"floatingip": map[string]any{"port_id": port.ID}})
	return m.explain(err, "give main its floating IP")
}
