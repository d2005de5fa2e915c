package aws

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// Extend writes the new end of the lease on everything by one call. The nodes'
// own end is in their user data, and core moves it.
func (c *Cloud) Extend(ctx context.Context, id skyport.PartitionID, until time.Time) error {
	n, err := c.mark(ctx, id, cloud.TagDeleteAt, until.UTC().Format(time.RFC3339))
	if err == nil && n == 0 {
		return fmt.Errorf("site %s: partition %s: %w", c.o.Name, id, gate.ErrNotFound)
	}
	return err
}

// Condemn marks everything as to be removed.
func (c *Cloud) Condemn(ctx context.Context, id skyport.PartitionID) error {
	_, err := c.mark(ctx, id, cloud.TagCondemned, "yes")
	return err
}

// mark sets a tag on all that is left of a partition.
func (c *Cloud) mark(ctx context.Context, id skyport.PartitionID, key, value string) (int, error) {
	const tries = 3
	for try := 1; ; try++ {
		there, err := c.survey(ctx, id)
		if err != nil {
			return 0, err
		}
		ids := there.left().ids()
		if len(ids) == 0 {
			return 0, nil
		}
		_, err = c.ec2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: ids, Tags: tagList(map[string]string{key: value})})
		if notFound(err) && try < tries { // one of them has just gone
			if err := c.pause(ctx); err != nil {
				return 0, err
			}
			continue
		}
		return len(ids), c.explain(err, "tag partition %s", id)
	}
}

// Clear removes all that carries the partition's tag until two lists in a row
// have nothing: lists lag behind what a creation has just made.
func (c *Cloud) Clear(ctx context.Context, id skyport.PartitionID, tell func(string)) error {
	gone := map[string]bool{} // by the word of the call that should remove it
	for empty := 0; ; {
		there, err := c.survey(ctx, id)
		if err != nil {
			return err
		}
		var left things
		for _, t := range there.left() {
			if !gone[t.id] {
				left = append(left, t)
			}
		}
		if len(left) == 0 {
			if empty++; empty == 2 {
				return nil
			}
		} else {
			empty = 0
			if err := c.remove(ctx, left, gone, tell); err != nil {
				return err
			}
		}
		if err := c.pause(ctx); err != nil {
			return err
		}
	}
}

// remove does what can be done now: nodes first, and once they are terminated,
// what they were made of and lived in. It returns what cannot be removed for
// another reason than that something still uses it.
func (c *Cloud) remove(ctx context.Context, left things, gone map[string]bool, tell func(string)) error {
	if nodes := left.of(types.ResourceTypeInstance); len(nodes) > 0 {
		var ids []string
		for _, t := range nodes {
			if state(t) != types.InstanceStateNameShuttingDown {
				ids = append(ids, t.id)
			}
		}
		if len(ids) > 0 {
			tell(fmt.Sprintf("terminating %d nodes", len(ids)))
			_, err := c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: ids})
			for i := 0; notFound(err) && i < len(ids); i++ { // one that is not there refuses all
				_, one := c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: ids[i : i+1]})
				gone[ids[i]] = notFound(one)
				if one != nil && !notFound(one) {
					err = one
				}
			}
			if err != nil && !notFound(err) {
				return c.explain(err, "terminate nodes")
			}
		} else {
			tell(fmt.Sprintf("waiting for %d nodes to end", len(nodes)))
		}
		return nil
	}
	// In this order: nothing goes while something is in it.
	for _, kind := range []types.ResourceType{
		types.ResourceTypeVolume, types.ResourceTypeNetworkInterface, types.ResourceTypeSecurityGroup, types.ResourceTypePlacementGroup,
		types.ResourceTypeSubnet, types.ResourceTypeInternetGateway, types.ResourceTypeVpc,
	} {
		for _, t := range left.of(kind) {
			if t.busy {
				tell(fmt.Sprintf("waiting for %s %s to be let go", kind, t.id))
				continue
			}
			err := c.removeOne(ctx, t)
			explained := c.explain(err, "remove %s %s", kind, t.id)
			switch {
			case err == nil:
				tell(fmt.Sprintf("removed %s %s", kind, t.id))
			case notFound(err):
				gone[t.id] = true
			case errors.Is(explained, gate.ErrPermanent), code(err) == "":
				return explained
			case strings.HasSuffix(code(err), "InUse"), passingCodes[code(err)]:
				tell(fmt.Sprintf("waiting to remove %s %s: %s", kind, t.id, skyport.Abbreviate(err.Error(), 200)))
			default:
				return explained
			}
		}
	}
	return nil
}

func (c *Cloud) removeOne(ctx context.Context, t thing) error {
	var err error
	switch t.kind {
	case types.ResourceTypeVolume:
		_, err = c.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: &t.id})
	case types.ResourceTypeNetworkInterface:
		_, err = c.ec2.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: &t.id})
	case types.ResourceTypeSecurityGroup:
		_, err = c.ec2.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: &t.id})
	case types.ResourceTypePlacementGroup:
		_, err = c.ec2.DeletePlacementGroup(ctx, &ec2.DeletePlacementGroupInput{GroupName: &t.name})
	case types.ResourceTypeSubnet:
		_, err = c.ec2.DeleteSubnet(ctx, &ec2.DeleteSubnetInput{SubnetId: &t.id})
	case types.ResourceTypeInternetGateway:
		if t.vpc != "" {
			_, err = c.ec2.DetachInternetGateway(ctx, &ec2.DetachInternetGatewayInput{InternetGatewayId: &t.id, VpcId: &t.vpc})
		}
		if err == nil || code(err) == "Gateway.NotAttached" {
			_, err = c.ec2.DeleteInternetGateway(ctx, &ec2.DeleteInternetGatewayInput{InternetGatewayId: &t.id})
		}
	case types.ResourceTypeVpc:
		_, err = c.ec2.DeleteVpc(ctx, &ec2.DeleteVpcInput{VpcId: &t.id})
	default:
		err = errors.New("no resource of ours")
	}
	return err
}
