package aws

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/cloud"
)

// Make makes the partition, in the first zone that has room for all its nodes.
func (c *Cloud) Make(ctx context.Context, plan cloud.Plan, tell func(string)) error {
	data, err := userData(plan.UserData)
	if err != nil {
		return err
	}
	kind, zones, err := c.offer(ctx, plan)
	if err != nil {
		return err
	}
	image, err := c.resolve(ctx, cmp.Or(plan.NodeImage.Name, c.o.DefaultImage), architecture(kind))
	if err != nil {
		return err
	}
	there, err := c.survey(ctx, plan.ID)
	if err != nil {
		return err
	}
	n, err := c.join(ctx, plan, there, tell)
	if err != nil {
		return err
	}
	together, err := c.cluster(ctx, plan, kind, there, tell)
	if err != nil {
		return err
	}
	if err := c.dismiss(ctx, there, n.group); err != nil {
		return err
	}
	order := &launch{plan: plan, data: data, image: image, group: n.group, together: together, tell: tell, there: there.current()}
	for i, zone := range startWith(zones, order.there) {
		subnet, err := c.subnet(ctx, plan, &n, zone, tell)
		if err != nil {
			return err
		}
		if subnet == "" && i == len(zones)-1 {
			return cloud.Permanent(skyport.CodeNoCapacity, "site %s: no subnet of VPC %s is in a zone that offers %s and has room", c.o.Name, n.vpc, plan.Flavor)
		}
		if subnet == "" {
			continue
		}
		order.zone, order.subnet = zone, subnet
		err = c.launch(ctx, order)
		if skyport.CodeOf(err) != skyport.CodeNoCapacity || i == len(zones)-1 {
			return err
		}
		tell("zone " + zone + " has no room for it, trying the next")
		if err := c.giveUp(ctx, order); err != nil {
			return err
		}
	}
	return cloud.Permanent(skyport.CodeNoCapacity, "site %s: no zone of %s offers %s", c.o.Name, c.o.Region, plan.Flavor)
}

// userData is what each node boots with, as EC2 takes it.
func userData(all []string) ([]string, error) {
	packed := make([]string, 0, len(all))
	for _, text := range all {
		small, err := cloud.UserData(text)
		if err != nil {
			return nil, err
		}
		packed = append(packed, base64.StdEncoding.EncodeToString(small))
	}
	return packed, nil
}

// offer looks up the flavor and the zones that have it, in an order that is the
// partition's own: not all are to crowd into the first. Spot nodes go where they
// are cheapest.
func (c *Cloud) offer(ctx context.Context, plan cloud.Plan) (types.InstanceTypeInfo, []string, error) {
	out, err := c.ec2.DescribeInstanceTypes(ctx, &ec2.DescribeInstanceTypesInput{InstanceTypes: []types.InstanceType{types.InstanceType(plan.Flavor)}})
	if code(err) == "InvalidInstanceType" || err == nil && len(out.InstanceTypes) == 0 {
		return types.InstanceTypeInfo{}, nil, cloud.Permanent(skyport.CodeUnknownFlavor, "site %s: region %s has no instance type %s", c.o.Name, c.o.Region, plan.Flavor)
	}
	if err != nil {
		return types.InstanceTypeInfo{}, nil, c.explain(err, "look up instance type %s", plan.Flavor)
	}
	offers, err := c.ec2.DescribeInstanceTypeOfferings(ctx, &ec2.DescribeInstanceTypeOfferingsInput{
		LocationType: types.LocationTypeAvailabilityZone,
		Filters:      []types.Filter{{Name: sdk.String("instance-type"), Values: []string{plan.Flavor}}},
	})
	if err != nil {
		return types.InstanceTypeInfo{}, nil, c.explain(err, "look up the zones of instance type %s", plan.Flavor)
	}
	var zones []string
	for _, o := range offers.InstanceTypeOfferings {
		if zone := sdk.ToString(o.Location); len(zone) == len(c.o.Region)+1 { // "eu-west-1a"; longer ones are of local zones, which accounts opt in to
			zones = append(zones, zone)
		}
	}
	var prices map[string]float64
	if plan.Spot {
		all, err := c.spotPrices(ctx, plan.Flavor)
		if err != nil && ctx.Err() != nil {
			return types.InstanceTypeInfo{}, nil, err
		}
		prices = all[plan.Flavor] // without them any zone will do
	}
	price := func(zone string) float64 {
		if p, known := prices[zone]; known || !plan.Spot {
			return p
		}
		return math.Inf(1)
	}
	rank := func(zone string) string { return digest(string(plan.ID), zone) }
	slices.SortFunc(zones, func(a, b string) int {
		return cmp.Or(cmp.Compare(price(a), price(b)), cmp.Compare(rank(a), rank(b)))
	})
	return out.InstanceTypes[0], zones, nil
}

// startWith puts the zone first in which nodes are already.
func startWith(zones []string, there things) []string {
	for _, t := range there.left() {
		if p := t.instance.Placement; p != nil && slices.Contains(zones, sdk.ToString(p.AvailabilityZone)) {
			first := sdk.ToString(p.AvailabilityZone)
			rest := slices.DeleteFunc(slices.Clone(zones), func(zone string) bool { return zone == first })
			return append([]string{first}, rest...)
		}
	}
	return zones
}

// cluster makes the placement group of several nodes, where the type allows one.
func (c *Cloud) cluster(ctx context.Context, plan cloud.Plan, kind types.InstanceTypeInfo, there things, tell func(string)) (string, error) {
	if len(plan.Nodes) < 2 || kind.PlacementGroupInfo == nil ||
		!slices.Contains(kind.PlacementGroupInfo.SupportedStrategies, types.PlacementGroupStrategyCluster) {
		return "", nil
	}
	if len(there.of(types.ResourceTypePlacementGroup)) > 0 {
		return plan.Name, nil
	}
	tell("making the placement group")
	_, err := c.ec2.CreatePlacementGroup(ctx, &ec2.CreatePlacementGroupInput{
		GroupName: &plan.Name, Strategy: types.PlacementStrategyCluster,
		TagSpecifications: specify(c.tags(plan, map[string]string{tagCreated: time.Now().UTC().Format(time.RFC3339)}), types.ResourceTypePlacementGroup),
	})
	if err != nil && code(err) != "InvalidPlacementGroup.Duplicate" {
		return "", c.explain(err, "make placement group %s", plan.Name)
	}
	return plan.Name, nil
}

// launch is an order of nodes.
type launch struct {
	plan                          cloud.Plan
	data                          []string
	image                         image
	group, together, zone, subnet string
	there                         things   // nodes that were there before
	made                          []string // ids of those that were made
	tell                          func(string)
}

// launch runs the nodes that are not there yet, side by side, and waits until
// all have addresses.
func (c *Cloud) launch(ctx context.Context, l *launch) error {
	var (
		all  sync.WaitGroup
		errs = make([]error, len(l.plan.Nodes))
		made = make([]string, len(l.plan.Nodes))
	)
	for i := range l.plan.Nodes {
		if slices.ContainsFunc(l.there, func(t thing) bool { return t.number() == i }) {
			continue
		}
		all.Go(func() {
			l.tell("making node " + l.plan.Nodes[i])
			out, err := c.ec2.RunInstances(ctx, c.order(l, i))
			if errs[i] = c.refusal(err, l.plan, i); err == nil && len(out.Instances) > 0 {
				made[i] = sdk.ToString(out.Instances[0].InstanceId)
			}
		})
	}
	all.Wait()
	l.made = slices.DeleteFunc(made, func(id string) bool { return id == "" })
	// One that cannot be had decides: others may only have been cut off.
	for _, err := range errs {
		if skyport.CodeOf(err) == skyport.CodeNoCapacity {
			return err
		}
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	for {
		there, err := c.survey(ctx, l.plan.ID)
		if err != nil {
			return err
		}
		if other := there.group(); other.id != "" && other.id != l.group {
			return skyport.Errorf(skyport.CodeUnavailable, "site %s: partition %s has two security groups, %s counts", c.o.Name, l.plan.ID, other.id)
		}
		f := there.found()
		if f.Made || f.Failure != nil {
			return f.Failure
		}
		l.tell(fmt.Sprintf("waiting for the addresses of %d nodes", len(l.plan.Nodes)))
		if err := c.pause(ctx); err != nil {
			return err
		}
	}
}

// refusal explains why there is no node; it knows which quota it is about.
func (c *Cloud) refusal(err error, plan cloud.Plan, i int) error {
	explained := c.explain(err, "make node %s", plan.Nodes[i])
	var ours *skyport.Error
	if errors.As(explained, &ours) && ours.Code == skyport.CodeQuota {
		return ours.WithHint("ask for more: %s", c.moreOf(code(err), plan.Flavor, plan.Spot))
	}
	return explained
}

// order is the call that makes a node. The same order has the same token: made
// twice, it makes one node.
func (c *Cloud) order(l *launch, i int) *ec2.RunInstancesInput {
	tags := c.tags(l.plan, map[string]string{tagName: l.plan.Nodes[i], tagNode: strconv.Itoa(i), tagRun: l.group})
	kinds := []types.ResourceType{types.ResourceTypeInstance, types.ResourceTypeVolume, types.ResourceTypeNetworkInterface}
	in := &ec2.RunInstancesInput{
		ClientToken: sdk.String(digest(string(l.plan.ID), l.group, l.subnet, strconv.Itoa(i))),
		MinCount:    sdk.Int32(1), MaxCount: sdk.Int32(1),
		InstanceType: types.InstanceType(l.plan.Flavor), ImageId: &l.image.id,
		NetworkInterfaces: []types.InstanceNetworkInterfaceSpecification{{
			DeviceIndex: sdk.Int32(0), SubnetId: &l.subnet, Groups: []string{l.group},
			AssociatePublicIpAddress: sdk.Bool(i == 0), DeleteOnTermination: sdk.Bool(true),
		}},
		BlockDeviceMappings: []types.BlockDeviceMapping{{
			DeviceName: &l.image.device,
			Ebs:        &types.EbsBlockDevice{VolumeSize: sdk.Int32(c.diskSize(l.image)), VolumeType: types.VolumeTypeGp3, DeleteOnTermination: sdk.Bool(true)},
		}},
		InstanceInitiatedShutdownBehavior: types.ShutdownBehaviorTerminate,
		MetadataOptions: &types.InstanceMetadataOptionsRequest{
			HttpEndpoint: types.InstanceMetadataEndpointStateEnabled, HttpTokens: types.HttpTokensStateRequired, HttpPutResponseHopLimit: sdk.Int32(1),
		},
	}
	if i < len(l.data) {
		in.UserData = &l.data[i]
	}
	if l.together != "" {
		in.Placement = &types.Placement{GroupName: &l.together}
	}
	if l.plan.Spot {
		kinds = append(kinds, types.ResourceTypeSpotInstancesRequest)
		in.InstanceMarketOptions = &types.InstanceMarketOptionsRequest{MarketType: types.MarketTypeSpot, SpotOptions: &types.SpotMarketOptions{
			SpotInstanceType: types.SpotInstanceTypeOneTime, InstanceInterruptionBehavior: types.InstanceInterruptionBehaviorTerminate,
		}}
	}
	in.TagSpecifications = specify(tags, kinds...)
	return in
}

// diskSize is that of the system disk in GiB.
func (c *Cloud) diskSize(of image) int32 {
	const gib = 1 << 30
	wanted := cmp.Or(c.o.Disk, 64*gib)
	return max(int32(min((wanted+gib-1)/gib, 16<<10)), of.size) //nolint:gosec // at most 16 TiB
}

// giveUp lets go of the nodes of a zone that had no room for all.
func (c *Cloud) giveUp(ctx context.Context, l *launch) error {
	ids := slices.Concat(l.there.left().ids(), l.made)
	l.there, l.made = nil, nil
	if len(ids) == 0 {
		return nil
	}
	// They are no failure of the partition any more, whatever becomes of them.
	if _, err := c.ec2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: ids, Tags: tagList(map[string]string{tagRun: "given up"})}); err != nil {
		return c.explain(err, "mark nodes that are given up")
	}
	_, err := c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: ids})
	return c.explain(err, "terminate nodes that are given up")
}

// dismiss ends nodes of another security group than the one that counts: a list
// that lagged had led to them.
func (c *Cloud) dismiss(ctx context.Context, there things, group string) error {
	ids := slices.DeleteFunc(there.left().of(types.ResourceTypeInstance), func(t thing) bool {
		return t.tags[tagRun] == group || state(t) == types.InstanceStateNameShuttingDown
	}).ids()
	if len(ids) == 0 {
		return nil
	}
	_, err := c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: ids})
	return c.explain(err, "terminate nodes that are there twice")
}

// digest is a short name made of words, fit for a client token.
func digest(words ...string) string {
	h := sha256.New()
	for _, w := range words {
		h.Write([]byte(w + "\x00"))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
