package azuretest

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
)

// skus lists what can be had where.
// https://learn.microsoft.com/rest/api/compute/resource-skus/list
func (e *Emulator) skus(req *request) (*response, error) {
	wanted := regions
	if f := strings.TrimSpace(req.query.Get("$filter")); f != "" {
		m := term.FindStringSubmatch(f)
		if m == nil || !strings.EqualFold(m[1], "location") {
			return nil, problem(http.StatusBadRequest, "InvalidFilterInQueryString", "Invalid $filter '%s' specified in the query string: only location is supported.", f)
		}
		wanted = []string{normal(m[3])}
	}
	var all []any
	for _, region := range wanted {
		if !slices.Contains(regions, region) {
			continue
		}
		all = append(all, armcompute.ResourceSKU{ // not only machines have SKUs
			ResourceType: to.Ptr("disks"), Name: to.Ptr("Premium_LRS"), Size: to.Ptr("P10"), Tier: to.Ptr("Premium"), Locations: []*string{to.Ptr(region)},
			LocationInfo: []*armcompute.ResourceSKULocationInfo{{Location: to.Ptr(region)}},
			Capabilities: []*armcompute.ResourceSKUCapabilities{{Name: to.Ptr("MaxSizeGiB"), Value: to.Ptr("128")}},
		}, armcompute.ResourceSKU{ResourceType: to.Ptr("availabilitySets"), Name: to.Ptr("Aligned"), Locations: []*string{to.Ptr(region)}})
		for _, s := range e.sizes {
			all = append(all, s.sku(region))
		}
	}
	return answer(http.StatusOK, map[string]any{"value": all})
}

// sku is a size as it is listed.
func (s size) sku(region string) any {
	zones := []*string{to.Ptr("1"), to.Ptr("2"), to.Ptr("3")}
	short := strings.TrimPrefix(s.name, "Standard_")
	out := armcompute.ResourceSKU{
		ResourceType: to.Ptr("virtualMachines"), Name: &s.name, Tier: to.Ptr("Standard"), Size: &short, Family: &s.family, Locations: []*string{&region},
		LocationInfo: []*armcompute.ResourceSKULocationInfo{{Location: &region, Zones: zones}},
	}
	arch := "x64"
	if s.arm {
		arch = "Arm64"
	}
	add := func(name, value string) {
		out.Capabilities = append(out.Capabilities, &armcompute.ResourceSKUCapabilities{Name: &name, Value: &value})
	}
	title := func(yes bool) string {
		if yes {
			return "True"
		}
		return "False"
	}
	add("MaxResourceVolumeMB", strconv.Itoa(s.disk))
	add("OSVhdSizeMB", "1047552")
	add("vCPUs", strconv.Itoa(s.cpus))
	add("MemoryPreservingMaintenanceSupported", "True")
	add("HyperVGenerations", "V1,V2")
	add("MemoryGB", strconv.FormatFloat(s.memory, 'f', -1, 64))
	add("MaxDataDiskCount", strconv.Itoa(min(64, 2*s.cpus)))
	add("CpuArchitectureType", arch)
	add("LowPriorityCapable", title(s.spot))
	add("PremiumIO", "True")
	add("VMDeploymentTypes", "IaaS")
	add("vCPUsAvailable", strconv.Itoa(s.cpus))
	if s.gpus > 0 {
		add("GPUs", strconv.Itoa(s.gpus))
	}
	add("vCPUsPerCore", "2")
	add("EphemeralOSDiskSupported", title(s.disk > 30*1024))
	add("AcceleratedNetworkingEnabled", "True")
	add("RdmaEnabled", title(s.rdma))
	add("MaxNetworkInterfaces", "2")
	if s.limited != "" {
		out.Restrictions = append(out.Restrictions, &armcompute.ResourceSKURestrictions{
			Type: to.Ptr(armcompute.ResourceSKURestrictionsTypeLocation), Values: []*string{&region}, ReasonCode: to.Ptr(armcompute.ResourceSKURestrictionsReasonCode(s.limited)),
			RestrictionInfo: &armcompute.ResourceSKURestrictionInfo{Locations: []*string{&region}},
		})
	}
	if s.zonal {
		out.Restrictions = append(out.Restrictions, &armcompute.ResourceSKURestrictions{
			Type: to.Ptr(armcompute.ResourceSKURestrictionsTypeZone), Values: []*string{&region},
			ReasonCode:      to.Ptr(armcompute.ResourceSKURestrictionsReasonCodeNotAvailableForSubscription),
			RestrictionInfo: &armcompute.ResourceSKURestrictionInfo{Locations: []*string{&region}, Zones: []*string{to.Ptr("2")}},
		})
	}
	return out
}

func (e *Emulator) vmSizes(string) (*response, error) {
	var all []any
	for _, s := range e.sizes {
		all = append(all, armcompute.VirtualMachineSize{
			Name: &s.name, NumberOfCores: to.Ptr(int32(s.cpus)), MemoryInMB: to.Ptr(int32(s.memory * 1024)), ResourceDiskSizeInMB: to.Ptr(int32(s.disk)),
			OSDiskSizeInMB: to.Ptr[int32](1047552), MaxDataDiskCount: to.Ptr(int32(min(64, 2*s.cpus))),
		})
	}
	return answer(http.StatusOK, map[string]any{"value": all})
}

// limit is a quota.
func (e *Emulator) limit(name string) int {
	for n, limit := range e.o.Quotas {
		if strings.EqualFold(n, name) {
			return limit
		}
	}
	return 10_000
}

// used counts against a quota: cores of machines that exist, also those that are
// deallocated. e.mu is held.
func (e *Emulator) used(name, location string) (n int) {
	if name == "PublicIPAddresses" {
		return len(e.list(0, func(r *resource) bool { return r.Kind == kindIP && r.Location == location }))
	}
	for _, r := range e.list(0, func(r *resource) bool { return r.Kind == kindVM && r.Location == location }) {
		s, _ := e.sizeNamed(r.Size)
		spot := r.Spot
		switch {
		case strings.EqualFold(name, "virtualMachines"):
			n++
		case strings.EqualFold(name, "lowPriorityCores") && spot, strings.EqualFold(name, "cores") && !spot, strings.EqualFold(name, s.family) && !spot:
			n += s.cpus
		}
	}
	return n
}

// usages tells quotas and what is used of them.
// https://learn.microsoft.com/rest/api/compute/usage/list
// https://learn.microsoft.com/rest/api/virtualnetwork/usages/list
func (e *Emulator) usages(compute bool, location string) (*response, error) {
	location = normal(location)
	e.mu.Lock()
	defer e.mu.Unlock()
	all := []any{}
	if !compute {
		for _, u := range [][2]string{
			{"VirtualNetworks", "Virtual Networks"},
			{"NetworkInterfaces", "Network Interfaces"},
			{"NetworkSecurityGroups", "Network Security Groups"},
			{"PublicIPAddresses", "Public IP Addresses"},
		} {
			n := len(e.list(0, func(r *resource) bool { return strings.EqualFold(lastOf(r.Kind), u[0]) && r.Location == location }))
			all = append(all, map[string]any{
				"currentValue": n, "limit": e.limit(u[0]), "unit": "Count", "name": map[string]string{"value": u[0], "localizedValue": u[1]},
				"id": fmt.Sprintf("/subscriptions/%s/providers/Microsoft.Network/locations/%s/usages/%s", e.o.Subscription, location, u[0]),
			})
		}
		return answer(http.StatusOK, map[string]any{"value": all})
	}
	names := [][2]string{{"availabilitySets", "Availability Sets"}, {"cores", "Total Regional vCPUs"}, {"virtualMachines", "Virtual Machines"}, {"lowPriorityCores", "Total Regional Low-priority vCPUs"}}
	for _, s := range e.sizes {
		if f := [2]string{s.family, strings.TrimSuffix(strings.TrimPrefix(s.family, "standard"), "Family") + " Family vCPUs"}; !slices.Contains(names, f) {
			names = append(names, f)
		}
	}
	for _, u := range names {
		all = append(all, armcompute.Usage{
			CurrentValue: to.Ptr(int32(e.used(u[0], location))), Limit: to.Ptr(int64(e.limit(u[0]))), Unit: to.Ptr("Count"),
			Name: &armcompute.UsageName{Value: &u[0], LocalizedValue: &u[1]},
		})
	}
	return answer(http.StatusOK, map[string]any{"value": all})
}

// preflight refuses machines that cannot be had: of sizes that are not, or not for
// this subscription, or beyond a quota.
// https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-resource-quota
// https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-sku-not-available
func (e *Emulator) preflight(machines []map[string]any) error {
	more := map[string]int{}
	location := ""
	unavailable := e.Faults().Unavailable
	for _, m := range machines {
		location, _ = m["location"].(string)
		location = normal(location)
		properties, _ := m["properties"].(map[string]any)
		profile, _ := properties["hardwareProfile"].(map[string]any)
		name, _ := profile["vmSize"].(string)
		s, ok := e.sizeNamed(name)
		if !ok {
			return invalidParameter("vmSize", "The value %s provided for the VM size is not valid. The valid sizes in the current region are: %s.", name, e.sizeNames())
		}
		if s.limited != "" || slices.ContainsFunc(unavailable, func(u string) bool { return strings.EqualFold(u, s.name) }) {
			return skuNotAvailable(s.name, location)
		}
		if priority, _ := properties["priority"].(string); strings.EqualFold(priority, "Spot") {
			more["LowPriorityCores"] += s.cpus
			continue
		}
		more["cores"] += s.cpus
		more[s.family] += s.cpus
	}
	for name, n := range more {
		used, limit := e.used(name, location), e.limit(name)
		if used+n <= limit {
			continue
		}
		shown := map[string]string{"cores": "Total Regional Cores", "LowPriorityCores": "LowPriorityCores"}[name]
		if shown == "" {
			shown = name + " Cores"
		}
		return problem(http.StatusConflict, "QuotaExceeded", "Operation could not be completed as it results in exceeding approved %s quota. "+
			"Additional details - Deployment Model: Resource Manager, Location: %s, Current Limit: %d, Current Usage: %d, Additional Required: %d, "+
			"(Minimum) New Limit Required: %d. Setup Alerts when Quota reaches threshold. Learn more at https://aka.ms/quotamonitoringalerting . "+
			"Submit a request for Quota increase at https://aka.ms/ProdportalCRP/#blade/Microsoft_Azure_Capacity/UsageAndQuota.ReactView "+
			"by specifying parameters listed in the 'Details' section for deployment to succeed. "+
			"Please read more about quota limits at https://docs.microsoft.com/en-us/azure/azure-supportability/regional-quota-requests",
			shown, location, limit, used, n, used+n)
	}
	return nil
}
