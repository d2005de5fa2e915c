package aws

import (
	"context"
	"slices"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/sync/errgroup"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/cloud"
)

// Tags beside those that all clouds have.
const (
	tagName    = "Name"            // as the console shows it
	tagNode    = "skyport-node"    // number of a node, main is 0
	tagRun     = "skyport-run"     // of an instance: the security group that it was made for
	tagCreated = "skyport-created" // when a creation began
)

// thing is one resource of ours.
type thing struct {
	kind     types.ResourceType
	id, name string
	tags     map[string]string
	instance *types.Instance      // of an instance
	rules    []types.IpPermission // of a security group
	vpc      string               // that an internet gateway is attached to, or a subnet is in
	zone     string               // of a subnet
	block    string               // of a subnet
	busy     bool                 // of a volume or interface: attached
}

// gone says whether only a memory is left: terminated instances are listed for an hour more.
func (t thing) gone() bool {
	return t.instance != nil && t.instance.State != nil && t.instance.State.Name == types.InstanceStateNameTerminated
}

// things are resources, of one partition or of many.
type things []thing

func (all things) of(kind types.ResourceType) things {
	return slices.DeleteFunc(slices.Clone(all), func(t thing) bool { return t.kind != kind })
}

func (all things) left() things {
	return slices.DeleteFunc(slices.Clone(all), func(t thing) bool { return t.gone() })
}

func (all things) ids() []string {
	ids := make([]string, 0, len(all))
	for _, t := range all {
		if t.kind == types.ResourceTypePlacementGroup && t.id == "" {
			continue
		}
		ids = append(ids, t.id)
	}
	return ids
}

// marks are the tags of all of them as one.
func (all things) marks() cloud.Tags {
	var marks cloud.Tags
	for i, t := range all {
		own, _, err := cloud.ParseTags(t.tags)
		switch {
		case err != nil: // survey has left those out
		case i == 0:
			marks = own
		default:
			marks = marks.Merge(own)
		}
	}
	return marks
}

// survey lists what carries our tags: of one partition, or with an empty id of
// all. Each kind is listed by one call and its pages, all kinds side by side.
func (c *Cloud) survey(ctx context.Context, id skyport.PartitionID) (things, error) {
	ours := types.Filter{Name: sdk.String("tag-key"), Values: []string{cloud.TagPartition}}
	if id != "" {
		ours = types.Filter{Name: sdk.String("tag:" + cloud.TagPartition), Values: []string{string(id)}}
	}
	filters := []types.Filter{ours}
	lists := []func(context.Context, *string) (things, *string, error){
		func(ctx context.Context, next *string) (things, *string, error) {
			out, err := c.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{Filters: filters, NextToken: next})
			if err != nil {
				return nil, nil, c.explain(err, "list instances")
			}
			var found things
			for _, r := range out.Reservations {
				for i := range r.Instances {
					found = append(found, thing{
						kind: types.ResourceTypeInstance, id: sdk.ToString(r.Instances[i].InstanceId), tags: tagMap(r.Instances[i].Tags), instance: &r.Instances[i],
					})
				}
			}
			return found, out.NextToken, nil
		},
		func(ctx context.Context, next *string) (things, *string, error) {
			out, err := c.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{Filters: filters, NextToken: next})
			if err != nil {
				return nil, nil, c.explain(err, "list volumes")
			}
			return collect(out.Volumes, func(v types.Volume) thing {
				return thing{kind: types.ResourceTypeVolume, id: sdk.ToString(v.VolumeId), tags: tagMap(v.Tags), busy: v.State != types.VolumeStateAvailable}
			}), out.NextToken, nil
		},
		func(ctx context.Context, next *string) (things, *string, error) {
			out, err := c.ec2.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{Filters: filters, NextToken: next})
			if err != nil {
				return nil, nil, c.explain(err, "list network interfaces")
			}
			return collect(out.NetworkInterfaces, func(n types.NetworkInterface) thing {
				return thing{
					kind: types.ResourceTypeNetworkInterface, id: sdk.ToString(n.NetworkInterfaceId), tags: tagMap(n.TagSet),
					busy: n.Status != types.NetworkInterfaceStatusAvailable,
				}
			}), out.NextToken, nil
		},
		func(ctx context.Context, next *string) (things, *string, error) {
			out, err := c.ec2.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{Filters: filters, NextToken: next})
			if err != nil {
				return nil, nil, c.explain(err, "list security groups")
			}
			return collect(out.SecurityGroups, func(g types.SecurityGroup) thing {
				return thing{kind: types.ResourceTypeSecurityGroup, id: sdk.ToString(g.GroupId), tags: tagMap(g.Tags), rules: g.IpPermissions, vpc: sdk.ToString(g.VpcId)}
			}), out.NextToken, nil
		},
		func(ctx context.Context, _ *string) (things, *string, error) {
			out, err := c.ec2.DescribePlacementGroups(ctx, &ec2.DescribePlacementGroupsInput{Filters: filters})
			if err != nil {
				return nil, nil, c.explain(err, "list placement groups")
			}
			return collect(out.PlacementGroups, func(g types.PlacementGroup) thing {
				return thing{kind: types.ResourceTypePlacementGroup, id: sdk.ToString(g.GroupId), name: sdk.ToString(g.GroupName), tags: tagMap(g.Tags)}
			}), nil, nil
		},
		func(ctx context.Context, next *string) (things, *string, error) {
			out, err := c.ec2.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{Filters: filters, NextToken: next})
			if err != nil {
				return nil, nil, c.explain(err, "list subnets")
			}
			return collect(out.Subnets, asSubnet), out.NextToken, nil
		},
		func(ctx context.Context, next *string) (things, *string, error) {
			out, err := c.ec2.DescribeInternetGateways(ctx, &ec2.DescribeInternetGatewaysInput{Filters: filters, NextToken: next})
			if err != nil {
				return nil, nil, c.explain(err, "list internet gateways")
			}
			return collect(out.InternetGateways, func(g types.InternetGateway) thing {
				t := thing{kind: types.ResourceTypeInternetGateway, id: sdk.ToString(g.InternetGatewayId), tags: tagMap(g.Tags)}
				if len(g.Attachments) > 0 {
					t.vpc = sdk.ToString(g.Attachments[0].VpcId)
				}
				return t
			}), out.NextToken, nil
		},
		func(ctx context.Context, next *string) (things, *string, error) {
			out, err := c.ec2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{Filters: filters, NextToken: next})
			if err != nil {
				return nil, nil, c.explain(err, "list VPCs")
			}
			return collect(out.Vpcs, func(v types.Vpc) thing {
				return thing{kind: types.ResourceTypeVpc, id: sdk.ToString(v.VpcId), tags: tagMap(v.Tags)}
			}), out.NextToken, nil
		},
	}
	found := make([]things, len(lists))
	group, ctx := errgroup.WithContext(ctx)
	for i, list := range lists {
		group.Go(func() error {
			for next := (*string)(nil); ; {
				some, after, err := list(ctx, next)
				if err != nil {
					return err
				}
				found[i] = append(found[i], some...)
				if sdk.ToString(after) == "" {
					return nil
				}
				next = after
			}
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Concat(found...), func(t thing) bool {
		_, ours, err := cloud.ParseTags(t.tags)
		if err != nil {
			c.log.WarnContext(ctx, "left alone: its tags cannot be read", "kind", t.kind, "id", t.id, "error", err)
		}
		return !ours || err != nil
	}), nil
}

func asSubnet(s types.Subnet) thing {
	return thing{
		kind: types.ResourceTypeSubnet, id: sdk.ToString(s.SubnetId), tags: tagMap(s.Tags),
		vpc: sdk.ToString(s.VpcId), zone: sdk.ToString(s.AvailabilityZone), block: sdk.ToString(s.CidrBlock),
	}
}

func collect[T any](all []T, as func(T) thing) things {
	found := make(things, 0, len(all))
	for _, one := range all {
		found = append(found, as(one))
	}
	return found
}

func tagMap(tags []types.Tag) map[string]string {
	all := make(map[string]string, len(tags))
	for _, t := range tags {
		all[sdk.ToString(t.Key)] = sdk.ToString(t.Value)
	}
	return all
}

// tagList spells tags as EC2 wants them, in a fixed order.
func tagList(all map[string]string) []types.Tag {
	tags := make([]types.Tag, 0, len(all))
	for key, value := range all {
		tags = append(tags, types.Tag{Key: sdk.String(key), Value: sdk.String(value)})
	}
	slices.SortFunc(tags, func(a, b types.Tag) int { return strings.Compare(*a.Key, *b.Key) })
	return tags
}

// specify says that a call is to put tags on what it makes.
func specify(all map[string]string, kinds ...types.ResourceType) []types.TagSpecification {
	specs := make([]types.TagSpecification, 0, len(kinds))
	for _, kind := range kinds {
		specs = append(specs, types.TagSpecification{ResourceType: kind, Tags: tagList(all)})
	}
	return specs
}

// begun tells when the oldest of the things was made.
func (all things) begun() time.Time {
	var first time.Time
	earlier := func(t time.Time) {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t.UTC()
		}
	}
	for _, t := range all {
		if at, err := time.Parse(time.RFC3339, t.tags[tagCreated]); err == nil {
			earlier(at)
		}
		if t.instance != nil && t.tags[tagCreated] == "" {
			earlier(sdk.ToTime(t.instance.LaunchTime))
		}
	}
	return first
}
