package aws

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/sync/errgroup"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/cloud"
)

// network is where a partition's nodes are put.
type network struct {
	vpc, group string
	subnets    things // that are there
	taken      bool   // the configuration named the VPC: its subnets are not ours
}

// tags of one thing of a partition.
func (c *Cloud) tags(plan cloud.Plan, more map[string]string) map[string]string {
	all := maps.Clone(c.o.ExtraTags)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, plan.Tags.Map())
	all[tagName] = plan.Name
	maps.Copy(all, more)
	return all
}

// join makes what of the network is not there yet, but for subnets of our own.
func (c *Cloud) join(ctx context.Context, plan cloud.Plan, there things, tell func(string)) (network, error) {
	tags := c.tags(plan, map[string]string{tagCreated: time.Now().UTC().Format(time.RFC3339)})
	n := network{vpc: c.o.VPC, taken: c.o.VPC != "" || c.o.Subnet != ""}
	var err error
	if n.taken {
		if n.subnets, err = c.configured(ctx); err != nil {
			return n, err
		}
		n.vpc = n.subnets[0].vpc
	} else {
		if n.vpc, err = c.makeVPC(ctx, plan, there, tags, tell); err != nil {
			return n, err
		}
		n.subnets = slices.DeleteFunc(there.of(types.ResourceTypeSubnet), func(t thing) bool { return t.vpc != n.vpc })
	}
	group, ctx := errgroup.WithContext(ctx)
	if !n.taken {
		group.Go(func() error { return c.connect(ctx, n.vpc, there, tags, tell) })
	}
	group.Go(func() (err error) {
		n.group, err = c.protect(ctx, plan, n.vpc, there, tags, tell)
		return err
	})
	return n, group.Wait()
}

// configured are the subnets that the configuration allows.
func (c *Cloud) configured(ctx context.Context) (things, error) {
	in := &ec2.DescribeSubnetsInput{Filters: []types.Filter{{Name: sdk.String("vpc-id"), Values: []string{c.o.VPC}}}}
	if c.o.Subnet != "" {
		in = &ec2.DescribeSubnetsInput{SubnetIds: []string{c.o.Subnet}}
	}
	out, err := c.ec2.DescribeSubnets(ctx, in)
	if err != nil && !notFound(err) {
		return nil, c.explain(err, "look at the configured subnet")
	}
	if err != nil || len(out.Subnets) == 0 {
		return nil, cloud.Permanent(skyport.CodeUnavailable, "site %s: there is no subnet %s in VPC %s", c.o.Name, c.o.Subnet, c.o.VPC).
			WithHint("mend vpc and subnet in gate.yaml: aws ec2 describe-subnets --region %s", c.o.Region)
	}
	return collect(out.Subnets, asSubnet), nil
}

func (c *Cloud) makeVPC(ctx context.Context, plan cloud.Plan, there things, tags map[string]string, tell func(string)) (string, error) {
	if group := there.group(); group.id != "" {
		return group.vpc, nil // should an answer have been lost and there be two
	}
	if vpcs := there.of(types.ResourceTypeVpc); len(vpcs) > 0 {
		return slices.Min(vpcs.ids()), nil
	}
	tell("making the network")
	out, err := c.ec2.CreateVpc(ctx, &ec2.CreateVpcInput{
		CidrBlock: sdk.String(vpcBlock.String()), TagSpecifications: specify(tags, types.ResourceTypeVpc),
	})
	if err != nil {
		return "", c.explain(err, "make VPC %s", plan.Name)
	}
	return sdk.ToString(out.Vpc.VpcId), nil
}

// connect lets the VPC reach the internet.
func (c *Cloud) connect(ctx context.Context, vpc string, there things, tags map[string]string, tell func(string)) error {
	gateway := thing{}
	all := there.of(types.ResourceTypeInternetGateway)
	if at := slices.IndexFunc(all, func(t thing) bool { return t.vpc == vpc || t.vpc == "" }); at >= 0 {
		gateway = all[at]
	} else {
		tell("making the internet gateway")
		out, err := c.ec2.CreateInternetGateway(ctx, &ec2.CreateInternetGatewayInput{
			TagSpecifications: specify(tags, types.ResourceTypeInternetGateway),
		})
		if err != nil {
			return c.explain(err, "make the internet gateway")
		}
		gateway.id = sdk.ToString(out.InternetGateway.InternetGatewayId)
	}
	if gateway.vpc == "" {
		_, err := c.ec2.AttachInternetGateway(ctx, &ec2.AttachInternetGatewayInput{InternetGatewayId: &gateway.id, VpcId: &vpc})
		if err != nil && code(err) != "Resource.AlreadyAssociated" {
			return c.explain(err, "attach the internet gateway")
		}
	}
	// The VPC's own table, which every subnet uses, comes and goes with it.
	out, err := c.ec2.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{Filters: []types.Filter{
		{Name: sdk.String("vpc-id"), Values: []string{vpc}}, {Name: sdk.String("association.main"), Values: []string{"true"}},
	}})
	if err != nil {
		return c.explain(err, "look for the route table")
	}
	if len(out.RouteTables) == 0 {
		return skyport.Errorf(skyport.CodeUnavailable, "site %s: VPC %s has no route table yet", c.o.Name, vpc)
	}
	_, err = c.ec2.CreateRoute(ctx, &ec2.CreateRouteInput{
		RouteTableId: out.RouteTables[0].RouteTableId, DestinationCidrBlock: sdk.String("0.0.0.0/0"), GatewayId: &gateway.id,
	})
	if err != nil && code(err) != "RouteAlreadyExists" {
		return c.explain(err, "make the route to the internet")
	}
	return nil
}

// protect makes the security group, named after the partition: a second one of
// that name there cannot be.
func (c *Cloud) protect(ctx context.Context, plan cloud.Plan, vpc string, there things, tags map[string]string, tell func(string)) (string, error) {
	if group := there.group(); group.id != "" {
		return group.id, c.admit(ctx, group.id, group.rules, plan.Sources)
	}
	tell("making the security group")
	out, err := c.ec2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{
		GroupName: &plan.Name, Description: sdk.String("Sky Port partition " + string(plan.ID)), VpcId: &vpc,
		TagSpecifications: specify(tags, types.ResourceTypeSecurityGroup),
	})
	if err != nil {
		return "", c.explain(err, "make security group %s", plan.Name)
	}
	id := sdk.ToString(out.GroupId)
	return id, c.admit(ctx, id, nil, plan.Sources)
}

// Admit opens port 22 to these sources and closes it to others.
func (c *Cloud) Admit(ctx context.Context, id skyport.PartitionID, sources []netip.Prefix) error {
	there, err := c.survey(ctx, id)
	if err != nil {
		return err
	}
	for _, g := range there.of(types.ResourceTypeSecurityGroup) {
		if err := c.admit(ctx, g.id, g.rules, sources); err != nil {
			return err
		}
	}
	return nil
}

const sshPort = 22

// admit makes the group's rules of what they are: all among the nodes, and port
// 22 from the sources. New rules come first, so that nobody is cut off between.
func (c *Cloud) admit(ctx context.Context, group string, rules []types.IpPermission, sources []netip.Prefix) error {
	wanted, inside := map[string]bool{}, false
	for _, s := range sources {
		wanted[s.Masked().String()] = true
	}
	var surplus []string
	for _, r := range rules {
		if slices.ContainsFunc(r.UserIdGroupPairs, func(p types.UserIdGroupPair) bool { return sdk.ToString(p.GroupId) == group }) {
			inside = true
		}
		if sdk.ToInt32(r.FromPort) != sshPort || sdk.ToInt32(r.ToPort) != sshPort {
			continue
		}
		var from []string
		for _, one := range r.IpRanges {
			from = append(from, sdk.ToString(one.CidrIp))
		}
		for _, one := range r.Ipv6Ranges {
			from = append(from, sdk.ToString(one.CidrIpv6))
		}
		for _, one := range from {
			if !wanted[one] {
				surplus = append(surplus, one)
			}
			delete(wanted, one)
		}
	}
	fresh := doors(slices.Sorted(maps.Keys(wanted)))
	if !inside {
		fresh = append(fresh, types.IpPermission{IpProtocol: sdk.String("-1"), UserIdGroupPairs: []types.UserIdGroupPair{{GroupId: &group}}})
	}
	open := func(rules []types.IpPermission) error {
		_, err := c.ec2.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &group, IpPermissions: rules})
		return err //nolint:wrapcheck // explained below
	}
	var err error
	if len(fresh) > 0 {
		err = open(fresh)
	}
	if code(err) == "InvalidPermission.Duplicate" { // the list lagged, and one rule that is there refuses all
		for i := range fresh {
			if err = open(fresh[i : i+1]); err != nil && code(err) != "InvalidPermission.Duplicate" {
				break
			}
			err = nil
		}
	}
	if err != nil {
		return c.explain(err, "open security group %s", group)
	}
	if len(surplus) > 0 {
		_, err := c.ec2.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: &group, IpPermissions: doors(surplus)})
		if err != nil && code(err) != "InvalidPermission.NotFound" {
			return c.explain(err, "close security group %s", group)
		}
	}
	return nil
}

// doors are rules for port 22, one for each source.
func doors(sources []string) []types.IpPermission {
	var rules []types.IpPermission
	for _, s := range sources {
		rule := types.IpPermission{IpProtocol: sdk.String("tcp"), FromPort: sdk.Int32(sshPort), ToPort: sdk.Int32(sshPort)}
		if p, err := netip.ParsePrefix(s); err == nil && p.Addr().Is6() {
			rule.Ipv6Ranges = []types.Ipv6Range{{CidrIpv6: &s, Description: sdk.String("Sky Port")}}
		} else {
			rule.IpRanges = []types.IpRange{{CidrIp: &s, Description: sdk.String("Sky Port")}}
		}
		rules = append(rules, rule)
	}
	return rules
}

// A VPC of our own has a subnet of 4,000 addresses for each zone that is tried.
var vpcBlock = netip.MustParsePrefix("10.77.0.0/16")

const subnetSize = 16 // subnets in a VPC

// subnet is one in the zone, made if need be; empty: there cannot be one.
func (c *Cloud) subnet(ctx context.Context, plan cloud.Plan, n *network, zone string, tell func(string)) (string, error) {
	if at := slices.IndexFunc(n.subnets, func(t thing) bool { return t.zone == zone }); at >= 0 {
		return n.subnets[at].id, nil
	}
	if n.taken {
		return "", nil
	}
	for i := range subnetSize {
		block := fmt.Sprintf("10.77.%d.0/20", i*256/subnetSize)
		if slices.ContainsFunc(n.subnets, func(t thing) bool { return t.block == block }) {
			continue
		}
		tell("making the subnet in zone " + zone)
		out, err := c.ec2.CreateSubnet(ctx, &ec2.CreateSubnetInput{
			VpcId: &n.vpc, CidrBlock: &block, AvailabilityZone: &zone,
			TagSpecifications: specify(c.tags(plan, map[string]string{tagCreated: time.Now().UTC().Format(time.RFC3339)}), types.ResourceTypeSubnet),
		})
		if err != nil {
			return "", c.explain(err, "make the subnet in zone %s", zone)
		}
		n.subnets = append(n.subnets, asSubnet(*out.Subnet))
		return sdk.ToString(out.Subnet.SubnetId), nil
	}
	return "", nil
}
