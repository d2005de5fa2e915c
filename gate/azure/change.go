package azure

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/devtestlabs/armdevtestlabs"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
	"golang.org/x/sync/errgroup"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// atOnce is how many calls for the nodes of one partition are under way together.
const atOnce = 8

// Extend moves the schedules first: never may a node end before its lease.
func (s *site) Extend(ctx context.Context, id skyport.PartitionID, until time.Time) error {
	name := group(id)
	if err := s.ours(ctx, id); err != nil {
		return err
	}
	nodes, err := s.listMachines(ctx, name)
	if err != nil {
		return err
	}
	at := shutdownTime(until, time.Now())
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, m := range nodes {
		g.Go(func() error { return s.schedule(gctx, name, m, at) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return s.tag(ctx, name, map[string]string{cloud.TagDeleteAt: until.UTC().Truncate(time.Second).Format(time.RFC3339)})
}

// schedule sets when a node is deallocated. See
// https://learn.microsoft.com/azure/templates/microsoft.devtestlab/schedules
func (s *site) schedule(ctx context.Context, name string, m *armcompute.VirtualMachine, at string) error {
	on, off, task, zone := armdevtestlabs.EnableStatusEnabled, armdevtestlabs.EnableStatusDisabled, "ComputeVmShutdownTask", "UTC"
	tags := m.Tags
	_, err := s.schedules.CreateOrUpdate(ctx, name, scheduleName(value(m.Name)), armdevtestlabs.Schedule{
		Location: &s.o.Region, Tags: tags,
		Properties: &armdevtestlabs.ScheduleProperties{
			Status: &on, TaskType: &task, DailyRecurrence: &armdevtestlabs.DayDetails{Time: &at}, TimeZoneID: &zone,
			NotificationSettings: &armdevtestlabs.NotificationSettings{Status: &off}, TargetResourceID: m.ID,
		},
	}, nil)
	return s.explain(err, "set when the virtual machine %s is shut down", value(m.Name))
}

// ours checks that there is a group of the partition, and that it is ours.
func (s *site) ours(ctx context.Context, id skyport.PartitionID) error {
	all, err := s.ourGroups(ctx, id)
	if err != nil {
		return err
	}
	if len(all) == 0 || deleting(all[0]) {
		return fmt.Errorf("resource group %s: %w", group(id), gate.ErrNotFound)
	}
	tags, ours, err := cloud.ParseTags(values(all[0].Tags))
	if err != nil {
		return fmt.Errorf("resource group %s: %w", group(id), err)
	}
	if !ours || tags.Partition != id {
		return foreign(id)
	}
	return nil
}

func foreign(id skyport.PartitionID) error {
	return cloud.Permanent(skyport.CodeForbidden, "the resource group %s does not carry our tags: it is left alone", group(id)).
		WithHint("If it is Sky Port's all the same, remove it by az group delete -n %s.", group(id))
}

// Condemn marks the group.
func (s *site) Condemn(ctx context.Context, id skyport.PartitionID) error {
	all, err := s.ourGroups(ctx, id)
	if err != nil {
		return err
	}
	if len(all) == 0 || deleting(all[0]) {
		return nil
	}
	if _, ours, err := cloud.ParseTags(values(all[0].Tags)); !ours || err != nil {
		return foreign(id)
	}
	err = s.tag(ctx, group(id), map[string]string{cloud.TagCondemned: "yes"})
	if code := skyport.CodeOf(err); err != nil && (code == skyport.CodeNotFound || code == skyport.CodeUnavailable) {
		// It may have gone just now.
		if left, err := s.ourGroups(ctx, id); err == nil && (len(left) == 0 || deleting(left[0])) {
			return nil
		}
	}
	return err
}

// Admit writes the rule of the security group anew.
func (s *site) Admit(ctx context.Context, id skyport.PartitionID, sources []netip.Prefix) error {
	if err := s.ours(ctx, id); err != nil {
		return err
	}
	from, err := prefixes(sources)
	if err != nil {
		return err
	}
	name := group(id)
	tcp, allow, inbound := armnetwork.SecurityRuleProtocolTCP, armnetwork.SecurityRuleAccessAllow, armnetwork.SecurityRuleDirectionInbound
	words, ssh, all, first := "Core reaches the main node", "22", "*", int32(100)
	poller, err := s.rules.BeginCreateOrUpdate(ctx, name, name+"-nsg", "ssh", armnetwork.SecurityRule{Properties: &armnetwork.SecurityRulePropertiesFormat{
		Description: &words, Protocol: &tcp, Access: &allow, Direction: &inbound, Priority: &first,
		SourceAddressPrefixes: slicePointers(from), SourcePortRange: &all, DestinationAddressPrefix: &all, DestinationPortRange: &ssh,
	}}, nil)
	if err != nil {
		return s.explain(err, "open port 22 of %s to %s", name, strings.Join(from, ", "))
	}
	return await(ctx, s, poller, "open port 22 of %s to %s", name, strings.Join(from, ", "))
}

// await follows an operation of Azure to its end.
func await[T any](ctx context.Context, s *site, poller *runtime.Poller[T], what string, args ...any) error {
	for wait := s.o.Poll; !poller.Done(); {
		if err := pause(ctx, wait); err != nil {
			return fmt.Errorf(what+": %w", append(args, err)...)
		}
		answer, err := poller.Poll(ctx) //nolint:bodyclose // the SDK has read it
		if err != nil {
			return s.explain(err, what, args...)
		}
		wait = slower(wait, answer)
	}
	_, err := poller.Result(ctx)
	return s.explain(err, what, args...)
}

// capture lets a caller see the headers of an answer.
func capture(ctx context.Context, answer **http.Response) context.Context {
	return policy.WithCaptureResponse(ctx, answer)
}

func slicePointers(all []string) []*string {
	pointers := make([]*string, len(all))
	for i := range all {
		pointers[i] = &all[i]
	}
	return pointers
}

// marshal is the JSON of what the SDK has read as any.
func marshal(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return text
}

// unmarshal reads what the SDK has read as any into a type of ours.
func unmarshal(v, into any) error {
	if err := json.Unmarshal(marshal(v), into); err != nil {
		return skyport.Errorf(skyport.CodeInternal, "an answer of Azure: %w", err)
	}
	return nil
}

// squeezed is a text without blanks and dashes.
func squeezed(text string) string { return strings.NewReplacer(" ", "", "-", "").Replace(text) }
