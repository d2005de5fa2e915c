package azuretest_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"

	azuretest "github.com/openworkload/skyport/test/azure"
)

// A cluster is deployed, seen from all sides, and removed.
func TestLife(t *testing.T) {
	t.Parallel()
	s := start(t, azuretest.Options{Boot: 20 * time.Millisecond})
	ctx := t.Context()
	if err := s.group(ctx, "swm-a"); err != nil {
		t.Fatal(err)
	}
	d, err := s.deploy(ctx, "swm-a", clusterTemplate(t), cluster("swm-a", 3, nil))
	if err != nil {
		t.Fatal(err)
	}
	if *d.Properties.ProvisioningState != armresources.ProvisioningStateSucceeded {
		t.Fatalf("state %s", *d.Properties.ProvisioningState)
	}
	outputs := d.Properties.Outputs.(map[string]any)
	if a := outputs["address"].(map[string]any)["value"].(string); !strings.HasPrefix(a, "127.") {
		t.Errorf("public address %s", a)
	}
	if p := outputs["private"].(map[string]any)["value"].([]any); len(p) != 3 || p[0] != "10.0.0.4" || p[2] != "10.0.0.6" {
		t.Errorf("private addresses %v", p)
	}
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "ssh-ed25519") || strings.Contains(string(text), "I2Nsb3VkLWNvbmZpZw") {
		t.Errorf("a secret is told: %s", text)
	}

	names := map[string]int{}
	for pager := s.resources.NewListPager(&armresources.ClientListOptions{Filter: to.Ptr("tagName eq 'skyport-partition' and tagValue eq 'swm-a'")}); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Value {
			names[*r.Type]++
		}
	}
	for kind, n := range map[string]int{"Microsoft.Compute/virtualMachines": 3, "Microsoft.Compute/disks": 3, "Microsoft.Network/networkInterfaces": 3, "Microsoft.DevTestLab/schedules": 3, "Microsoft.Compute/proximityPlacementGroups": 1} {
		if names[kind] != n {
			t.Errorf("%d of %s, not %d: %v", names[kind], kind, n, names)
		}
	}
	vm, err := s.vms.Get(ctx, "swm-a", "swm-a-0", &armcompute.VirtualMachinesClientGetOptions{Expand: to.Ptr(armcompute.InstanceViewTypesInstanceView)})
	if err != nil {
		t.Fatal(err)
	}
	if got := *vm.Properties.InstanceView.Statuses[1].Code; got != "PowerState/running" {
		t.Errorf("it is %s", got)
	}
	if vm.Properties.OSProfile.CustomData != nil {
		t.Error("custom data is told")
	}
	for pager := s.vms.NewListAllPager(&armcompute.VirtualMachinesClientListAllOptions{StatusOnly: to.Ptr("true")}); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Value) != 3 || page.Value[0].Properties.InstanceView == nil {
			t.Errorf("%d machines", len(page.Value))
		}
	}
	nic, err := s.nics.Get(ctx, "swm-a", "swm-a-1-nic", nil)
	if err != nil {
		t.Fatal(err)
	}
	if nic.Properties.VirtualMachine == nil || *nic.Properties.ProvisioningState != armnetwork.ProvisioningStateSucceeded {
		t.Errorf("interface %+v", nic.Properties)
	}
	rule, err := s.rules.BeginCreateOrUpdate(ctx, "swm-a", "swm-a-nsg", "ssh", armnetwork.SecurityRule{Properties: &armnetwork.SecurityRulePropertiesFormat{
		Access: to.Ptr(armnetwork.SecurityRuleAccessAllow), Direction: to.Ptr(armnetwork.SecurityRuleDirectionInbound), Protocol: to.Ptr(armnetwork.SecurityRuleProtocolTCP),
		Priority: to.Ptr[int32](100), SourceAddressPrefixes: []*string{to.Ptr("198.51.100.0/24")}, SourcePortRange: to.Ptr("*"), DestinationAddressPrefix: to.Ptr("*"), DestinationPortRange: to.Ptr("22"),
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rule.PollUntilDone(ctx, nil); err != nil {
		t.Fatal(err)
	}
	nsg, err := s.nsgs.Get(ctx, "swm-a", "swm-a-nsg", nil)
	if err != nil {
		t.Fatal(err)
	}
	if r := nsg.Properties.SecurityRules; len(r) != 1 || *r[0].Properties.SourceAddressPrefixes[0] != "198.51.100.0/24" {
		t.Errorf("rules %+v", r)
	}
	if _, err := s.nics.BeginDelete(ctx, "swm-a", "swm-a-1-nic", nil); code(err) != "NicInUse" {
		t.Errorf("deletion of an interface in use: %v", err)
	}

	one, err := s.vms.BeginDelete(ctx, "swm-a", "swm-a-2", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := one.PollUntilDone(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.nics.Get(ctx, "swm-a", "swm-a-2-nic", nil); code(err) != "ResourceNotFound" {
		t.Errorf("the interface is to go with the machine: %v", err)
	}
	if err := s.drop(ctx, "swm-a"); err != nil {
		t.Fatal(err)
	}
	if left := s.e.Resources(); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
	if _, err := s.groups.Get(ctx, "swm-a", nil); code(err) != "ResourceGroupNotFound" {
		t.Errorf("the group: %v", err)
	}
}
