package azuretest

import (
	"net/http"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/devtestlabs/armdevtestlabs"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
)

// Kinds of resources, as they are spelled.
const (
	kindGroup      = "Microsoft.Resources/resourceGroups"
	kindDeployment = "Microsoft.Resources/deployments"
	kindNSG        = "Microsoft.Network/networkSecurityGroups"
	kindRule       = "Microsoft.Network/networkSecurityGroups/securityRules"
	kindNet        = "Microsoft.Network/virtualNetworks"
	kindSubnet     = "Microsoft.Network/virtualNetworks/subnets"
	kindIP         = "Microsoft.Network/publicIPAddresses"
	kindNIC        = "Microsoft.Network/networkInterfaces"
	kindNear       = "Microsoft.Compute/proximityPlacementGroups"
	kindVM         = "Microsoft.Compute/virtualMachines"
	kindDisk       = "Microsoft.Compute/disks"
	kindSchedule   = "Microsoft.DevTestLab/schedules"
)

// kind is what the emulator knows of a type.
type kind struct {
	name     string
	versions []string
	model    func() any
	// fill checks what was sent and adds what Azure adds.
	fill func(e *Emulator, c *change) error
	// remove refuses the deletion of what is in use.
	remove func(e *Emulator, r *resource) error
	// within is the property of the parent that children lie in.
	within string
	// slow kinds answer by operations.
	slow    bool
	longest int // of names
}

// change is a resource that is being written.
type change struct {
	kind  *kind
	old   *resource // nil: it is new
	new   *resource
	model any // as sent, to be filled
	host  *Emulator
}

var (
	networkVersions = []string{"2025-01-01", "2024-10-01", "2024-07-01", "2024-05-01", "2024-03-01", "2024-01-01", "2023-11-01", "2023-09-01", "2023-06-01", "2023-04-01", "2022-07-01", "2021-08-01"}
	computeVersions = []string{"2025-04-01", "2024-11-01", "2024-07-01", "2024-03-01", "2023-09-01", "2023-07-01", "2023-03-01", "2022-11-01", "2022-08-01", "2021-11-01"}
	diskVersions    = []string{"2025-01-02", "2024-03-02", "2023-10-02", "2023-04-02", "2023-01-02", "2022-07-02"}
)

// kinds that can be made. The versions are those of the references, newest first:
// https://learn.microsoft.com/azure/templates/
var kinds = []*kind{
	{name: kindNSG, versions: networkVersions, model: func() any { return &armnetwork.SecurityGroup{} }, fill: fillNSG, remove: notUsed, slow: true, longest: 80},
	{name: kindRule, versions: networkVersions, model: func() any { return &armnetwork.SecurityRule{} }, within: "securityRules", slow: true, longest: 80},
	{name: kindNet, versions: networkVersions, model: func() any { return &armnetwork.VirtualNetwork{} }, fill: fillNet, remove: notUsed, slow: true, longest: 64},
	{name: kindSubnet, versions: networkVersions, model: func() any { return &armnetwork.Subnet{} }, within: "subnets", slow: true, longest: 80},
	{name: kindIP, versions: networkVersions, model: func() any { return &armnetwork.PublicIPAddress{} }, fill: fillIP, remove: notUsed, slow: true, longest: 80},
	{name: kindNIC, versions: networkVersions, model: func() any { return &armnetwork.Interface{} }, fill: fillNIC, remove: removeNIC, slow: true, longest: 80},
	{name: kindNear, versions: computeVersions, model: func() any { return &armcompute.ProximityPlacementGroup{} }, fill: fillNear, remove: notUsed, longest: 80},
	{name: kindVM, versions: computeVersions, model: func() any { return &armcompute.VirtualMachine{} }, fill: fillVM, slow: true, longest: 64},
	{name: kindDisk, versions: diskVersions, model: func() any { return &armcompute.Disk{} }, fill: fillDisk, remove: removeDisk, slow: true, longest: 80},
	{name: kindSchedule, versions: []string{"2018-09-15", "2016-05-15"}, model: func() any { return &armdevtestlabs.Schedule{} }, fill: fillSchedule, longest: 260},
}

// kindNamed finds a kind by its name in any case.
func kindNamed(name string) *kind {
	i := slices.IndexFunc(kinds, func(k *kind) bool { return strings.EqualFold(k.name, name) })
	if i < 0 {
		return nil
	}
	return kinds[i]
}

// badType is the answer to a type that is not known.
func badType(namespace, rest, version string) *Problem {
	return problem(http.StatusNotFound, "InvalidResourceType", "The resource type '%s' could not be found in the namespace '%s' for api version '%s'. "+
		"The supported api-versions are ''.", rest, namespace, version)
}

// usable finds a kind that a template or a path names, with a version.
func usable(name, version, location string) (*kind, error) {
	k := kindNamed(name)
	namespace, rest, _ := strings.Cut(name, "/")
	switch {
	case k == nil:
		if _, err := properNamespace(namespace); err != nil {
			return nil, err
		}
		return nil, badType(namespace, rest, version)
	case !slices.Contains(k.versions, version):
		return nil, problem(http.StatusBadRequest, "NoRegisteredProviderFound", "No registered resource provider found for location '%s' and API version '%s' for type '%s'. "+
			"The supported api-versions are '%s'. The supported locations are '%s'.", location, version, rest, strings.Join(k.versions, ", "), strings.Join(regions, ", "))
	}
	return k, nil
}
