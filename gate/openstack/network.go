package openstack

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/cloud"
)

// rule is one of https://docs.openstack.org/api-ref/network/v2/#create-security-group-rule
type rule struct {
	ID        string `json:"id,omitempty"`
	Group     string `json:"security_group_id"`
	Direction string `json:"direction"`
	Ethertype string `json:"ethertype"`
	Protocol  string `json:"protocol,omitempty"`
	Min       int    `json:"port_range_min,omitempty"`
	Max       int    `json:"port_range_max,omitempty"`
	Remote    string `json:"remote_ip_prefix,omitempty"`
	Peer      string `json:"remote_group_id,omitempty"`
}

// same compares what rules allow.
func (r rule) same(other rule) bool {
	r.ID, other.ID = "", ""
	return r == other
}

// rules are what a partition lets in: port 22 from the sources, all from inside.
func rules(group string, sources []netip.Prefix) []rule {
	var all []rule
	for _, kind := range []string{"IPv4", "IPv6"} {
		all = append(all, rule{Group: group, Direction: "ingress", Ethertype: kind, Peer: group})
	}
	for _, source := range sources {
		r := rule{Group: group, Direction: "ingress", Ethertype: "IPv4", Protocol: "tcp", Min: 22, Max: 22, Remote: source.Masked().String()}
		if source.Addr().Is6() {
			r.Ethertype = "IPv6"
		}
		if !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	return all
}

// admit makes a group's rules what they should be: first what is missing, then
// away with what is too much.
func (s *site) admit(ctx context.Context, se *session, group thing, sources []netip.Prefix) error {
	want := rules(group.ID, sources)
	g, each := errgroup.WithContext(ctx)
	for _, r := range want {
		if slices.ContainsFunc(group.Rules, r.same) {
			continue
		}
		g.Go(func() error {
			err := create(each, se.network, "security-group-rules", map[string]any{"security_group_rule": r}, nil)
			if is(err, 409) && !overQuota(err) {
				return nil // it is there
			}
			return s.explain(err, "open port 22")
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	g, each = errgroup.WithContext(ctx)
	for _, r := range group.Rules {
		if r.Direction != "ingress" || slices.ContainsFunc(want, r.same) {
			continue
		}
		g.Go(func() error {
			return s.explain(remove(each, se.network, "security-group-rules", r.ID), "close port 22 for others")
		})
	}
	return g.Wait()
}

func overQuota(err error) bool {
	r, ok := refused(err)
	return ok && r.kind == "OverQuota"
}

// Admit opens port 22 to these sources and to no others.
func (s *site) Admit(ctx context.Context, id skyport.PartitionID, sources []netip.Prefix) error {
	se, err := s.open(ctx)
	if err != nil {
		return err
	}
	groups, err := pages[thing](ctx, se.network, kindGroup.path, kindGroup.many, url.Values{"name": {namePrefix + string(id)}})
	if err != nil {
		return s.explain(err, "list security groups")
	}
	for _, group := range groups {
		if of, ours := s.partitionOf(kindGroup.name, group.Name, undescribe(group.Description)); ours && of == id {
			if err := s.admit(ctx, se, group, sources); err != nil {
				return err
			}
		}
	}
	return nil
}

// externalNetwork finds where floating addresses come from; empty when there is
// none and none is needed.
func (s *site) externalNetwork(ctx context.Context, se *session) (string, error) {
	if s.o.Network != "" && !s.floating() {
		return "", nil
	}
	found, err := pages[thing](ctx, se.network, kindNetwork.path, kindNetwork.many, url.Values{"router:external": {"true"}})
	if err != nil {
		return "", s.explain(err, "list external networks")
	}
	var names []string
	for _, n := range found {
		if s.o.ExternalNetwork != "" && (n.Name == s.o.ExternalNetwork || n.ID == s.o.ExternalNetwork) {
			return n.ID, nil
		}
		names = append(names, n.Name)
	}
	slices.Sort(names)
	const hint = "openstack network list --external"
	switch {
	case s.o.ExternalNetwork != "":
		return "", cloud.Permanent(skyport.CodeInvalid, "site %s: there is no external network %s; there are: %s", s.o.Name, s.o.ExternalNetwork,
			strings.Join(names, ", ")).WithHint(hint)
	case len(found) > 1:
		return "", cloud.Permanent(skyport.CodeInvalid, "site %s: there are several external networks: %s", s.o.Name, strings.Join(names, ", ")).
			WithHint("name one as external_network")
	case len(found) == 1:
		return found[0].ID, nil
	case s.floating():
		return "", cloud.Permanent(skyport.CodeInvalid, "site %s: there is no external network, so main gets no address that core reaches", s.o.Name).
			WithHint("set network to the provider network that nodes are to be in, or floating_ip: false; " + hint)
	}
	return "", nil
}

// networkNamed finds a network by name or id.
func (s *site) networkNamed(ctx context.Context, se *session, name string) (string, error) {
	for _, by := range []string{"name", "id"} {
		found, err := pages[thing](ctx, se.network, kindNetwork.path, kindNetwork.many, url.Values{by: {name}})
		if err != nil {
			return "", s.explain(err, "find network "+name)
		}
		if len(found) > 1 {
			return "", cloud.Permanent(skyport.CodeInvalid, "site %s: there are %d networks of the name %s", s.o.Name, len(found), name).
				WithHint("name it by id: openstack network list")
		}
		if len(found) == 1 {
			return found[0].ID, nil
		}
	}
	return "", cloud.Permanent(skyport.CodeInvalid, "site %s: there is no network %s", s.o.Name, name).WithHint("openstack network list")
}

// interfaces lists the ports of a router that are in subnets of its project.
func (s *site) interfaces(ctx context.Context, se *session, router string) ([]thing, error) {
	ports, err := pages[thing](ctx, se.network, kindPort.path, kindPort.many, url.Values{"device_id": {router}})
	return slices.DeleteFunc(ports, func(p thing) bool {
		return !strings.HasPrefix(p.DeviceOwner, "network:") || p.DeviceOwner == "network:router_gateway" || strings.Contains(p.DeviceOwner, "snat")
	}), s.explain(err, "list the router's ports")
}

// choose picks a range in 10.128.0.0/9, by the partition's id so that several
// gates do not pick the same, that overlaps with nothing.
func (s *site) choose(id skyport.PartitionID, others []thing, nodes, try int) (netip.Prefix, error) {
	bits := 24
	if nodes > 200 {
		bits = 20
	}
	var used []netip.Prefix
	for _, other := range others {
		if p, err := netip.ParsePrefix(other.CIDR); err == nil {
			used = append(used, p)
		}
	}
	used = append(used, s.o.Avoid...)
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))            // a hash takes all
	start := h.Sum32() + uint32(try)*7919 //nolint:gosec // a few tries
	s.subnets.Lock()
	defer s.subnets.Unlock()
	for other, p := range s.subnets.taken {
		if other != id {
			used = append(used, p)
		}
	}
	for i := range uint32(1 << 15) {
		p := rangeOf((start+i)%(1<<15), bits)
		if !slices.ContainsFunc(used, p.Overlaps) {
			s.subnets.taken[id] = p
			return p, nil
		}
	}
	return netip.Prefix{}, cloud.Permanent(skyport.CodeNoCapacity, "site %s: no free range of addresses is left in 10.128.0.0/9", s.o.Name)
}

// rangeOf is a range around the n-th /24 of 10.128.0.0/9.
func rangeOf(n uint32, bits int) netip.Prefix {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 10<<24|128<<16|n<<8)
	return netip.PrefixFrom(netip.AddrFrom4(b), bits).Masked()
}

func (s *site) release(id skyport.PartitionID) {
	s.subnets.Lock()
	defer s.subnets.Unlock()
	delete(s.subnets.taken, id)
}

// addressOf is the address of a node: the tenth and on.
func addressOf(of netip.Prefix, index int) netip.Addr {
	b := of.Masked().Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+10+uint32(index)) //nolint:gosec // a number of nodes
	return netip.AddrFrom4(b)
}

func overlaps(err error) bool {
	r, ok := refused(err)
	return ok && strings.Contains(strings.ToLower(r.message), "overlap")
}

// Sources are those of the configuration, where it has them.
func (s *site) Sources() cloud.Sources { return cloud.Sources{Fixed: s.o.SSHFrom} }
