package aws

import (
	"cmp"
	"context"
	"slices"
	"strconv"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// Find tells what is there of one partition, or of all.
func (c *Cloud) Find(ctx context.Context, id skyport.PartitionID) ([]cloud.Found, error) {
	all, err := c.survey(ctx, id)
	if err != nil {
		return nil, err
	}
	parts := map[skyport.PartitionID]things{}
	for _, t := range all {
		id := skyport.PartitionID(t.tags[cloud.TagPartition])
		parts[id] = append(parts[id], t)
	}
	var found []cloud.Found
	for _, part := range parts {
		if len(part.left()) > 0 {
			found = append(found, part.found())
		}
	}
	slices.SortFunc(found, func(a, b cloud.Found) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Tags.Partition, b.Tags.Partition))
	})
	return found, nil
}

// current are the instances of the creation that the partition's security group
// belongs to. Those of an earlier one under the same id, and those that were
// given up for another zone, may still be listed, terminated. Main comes first.
func (all things) current() things {
	group := all.group()
	nodes := slices.DeleteFunc(all.of(types.ResourceTypeInstance), func(t thing) bool {
		return group.id == "" || t.tags[tagRun] != group.id
	})
	slices.SortStableFunc(nodes, func(a, b thing) int { return cmp.Compare(a.number(), b.number()) })
	return nodes
}

// group is the partition's security group. Where a list that lagged has led to
// two, all agree on one.
func (all things) group() thing {
	groups := all.of(types.ResourceTypeSecurityGroup)
	if len(groups) == 0 {
		return thing{}
	}
	return slices.MinFunc(groups, func(a, b thing) int { return cmp.Compare(a.id, b.id) })
}

// found tells what a partition's things amount to.
func (all things) found() cloud.Found {
	left := all.left()
	f := cloud.Found{Tags: left.marks(), Created: left.begun()}
	addressed := 0
	for _, t := range all.current() { // main first
		if f.Failure == nil {
			f.Failure = failure(t)
		}
		if t.gone() {
			continue
		}
		n := t.node()
		if n.Address != "" && n.Endpoint != "" {
			addressed++
		}
		f.Nodes = append(f.Nodes, n)
	}
	f.Made = f.Tags.Nodes > 0 && addressed == f.Tags.Nodes && len(f.Nodes) == f.Tags.Nodes
	for _, t := range left {
		f.Resources = append(f.Resources, cloud.Resource{Kind: string(t.kind), Name: cmp.Or(t.name, t.id)})
	}
	return f
}

// number is that of a node.
func (t thing) number() int {
	n, err := strconv.Atoi(t.tags[tagNode])
	if err != nil {
		return 1 << 30 // none of those that were asked for
	}
	return n
}

// node is an instance as the provider knows it.
func (t thing) node() cloud.Node {
	n := cloud.Node{Running: state(t) == types.InstanceStateNameRunning}
	n.Name, n.Role, n.Address = t.tags[tagName], skyport.RoleCompute, sdk.ToString(t.instance.PrivateIpAddress)
	reached := n.Address
	if t.number() == 0 {
		n.Role, reached = skyport.RoleMain, sdk.ToString(t.instance.PublicIpAddress)
	}
	if reached != "" {
		n.Endpoint = gate.Endpoint(reached)
	}
	return n
}

func state(t thing) types.InstanceStateName {
	if t.instance.State == nil {
		return types.InstanceStateNamePending
	}
	return t.instance.State.Name
}

// failure says why an instance will not become or stay of use; nil: it may.
// The reasons: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html
func failure(t thing) error {
	switch state(t) {
	case types.InstanceStateNamePending, types.InstanceStateNameRunning:
		return nil
	case types.InstanceStateNameShuttingDown, types.InstanceStateNameTerminated, types.InstanceStateNameStopping, types.InstanceStateNameStopped:
	}
	reason, said := "", string(state(t))
	if r := t.instance.StateReason; r != nil {
		reason, said = sdk.ToString(r.Code), skyport.Abbreviate(cmp.Or(sdk.ToString(r.Message), sdk.ToString(r.Code), said), 200)
	}
	name := t.tags[tagName]
	switch reason {
	case "Server.InsufficientInstanceCapacity":
		return cloud.Permanent(skyport.CodeNoCapacity, "node %s: AWS had no room for it: %s", name, said).WithHint("try another flavor or site, or wait")
	case "Client.VolumeLimitExceeded":
		return cloud.Permanent(skyport.CodeQuota, "node %s: the account's quota of volumes is used up: %s", name, said)
	case "Client.InvalidSnapshot.NotFound":
		return cloud.Permanent(skyport.CodeUnknownImage, "node %s: the image's disk is gone: %s", name, said).WithHint("ask for another image")
	case "Client.InternalError":
		return cloud.Permanent(skyport.CodeUnavailable, "node %s did not start: %s", name, said).
			WithHint("often the image's disk is encrypted with a key that the gate may not use: allow kms:CreateGrant and kms:Decrypt")
	case "Server.SpotInstanceTermination", "Server.SpotInstanceShutdown":
		return cloud.Permanent(skyport.CodeInterrupted, "AWS took spot node %s back: %s", name, said)
	case "Client.UserInitiatedShutdown":
		return cloud.Permanent(skyport.CodeUnavailable, "node %s was terminated by somebody: %s", name, said)
	}
	if t.instance.InstanceLifecycle == types.InstanceLifecycleTypeSpot {
		return cloud.Permanent(skyport.CodeInterrupted, "AWS took spot node %s back: %s", name, said)
	}
	return cloud.Permanent(skyport.CodeUnavailable, "node %s is gone: %s", name, said)
}
