package azuretest

import (
	"net/http"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armsubscriptions"
)

// regions that exist.
var regions = []string{"westeurope", "northeurope", "eastus", "germanywestcentral"}

var regionNames = map[string]string{
	"westeurope": "West Europe", "northeurope": "North Europe", "eastus": "East US", "germanywestcentral": "Germany West Central",
}

// normal spells a region as programs do: "West Europe" is westeurope.
func normal(location string) string {
	return strings.ToLower(strings.ReplaceAll(location, " ", ""))
}

// https://learn.microsoft.com/rest/api/resources/subscriptions/get
func (e *Emulator) subscription() any {
	return armsubscriptions.Subscription{
		ID: to.Ptr("/subscriptions/" + e.o.Subscription), SubscriptionID: &e.o.Subscription, TenantID: &e.o.Tenant, DisplayName: to.Ptr("Emulated subscription"),
		State: to.Ptr(armsubscriptions.SubscriptionStateEnabled), AuthorizationSource: to.Ptr("RoleBased"),
		SubscriptionPolicies: &armsubscriptions.SubscriptionPolicies{
			LocationPlacementID: to.Ptr("Public_2014-09-01"), QuotaID: to.Ptr("PayAsYouGo_2014-09-01"), SpendingLimit: to.Ptr(armsubscriptions.SpendingLimitOff),
		},
	}
}

// https://learn.microsoft.com/rest/api/resources/subscriptions/list-locations
func (e *Emulator) locations() []any {
	var all []any
	for _, r := range regions {
		all = append(all, armsubscriptions.Location{
			ID: to.Ptr("/subscriptions/" + e.o.Subscription + "/locations/" + r), Name: to.Ptr(r), DisplayName: to.Ptr(regionNames[r]),
			RegionalDisplayName: to.Ptr(regionNames[r]), Type: to.Ptr(armsubscriptions.LocationTypeRegion),
			Metadata: &armsubscriptions.LocationMetadata{RegionType: to.Ptr(armsubscriptions.RegionTypePhysical)},
		})
	}
	return all
}

var namespaces = []string{"Microsoft.Compute", "Microsoft.Network", "Microsoft.DevTestLab", "Microsoft.Resources", "Microsoft.Authorization"}

func (e *Emulator) isRegistered(namespace string) bool {
	missing := slices.ContainsFunc(e.o.Unregistered, func(n string) bool { return strings.EqualFold(n, namespace) })
	return !missing || e.registered[strings.ToLower(namespace)]
}

// describe is a resource provider.
// https://learn.microsoft.com/rest/api/resources/providers/get
func (e *Emulator) describe(namespace string) any {
	state := "Registered"
	if !e.isRegistered(namespace) {
		state = "NotRegistered"
	}
	p := armresources.Provider{
		ID: to.Ptr("/subscriptions/" + e.o.Subscription + "/providers/" + namespace), Namespace: &namespace,
		RegistrationPolicy: to.Ptr("RegistrationRequired"), RegistrationState: &state,
	}
	for _, k := range kinds {
		if short, ok := strings.CutPrefix(k.name, namespace+"/"); ok {
			t := &armresources.ProviderResourceType{ResourceType: &short}
			for _, v := range k.versions {
				t.APIVersions = append(t.APIVersions, &v)
			}
			for _, r := range regions {
				t.Locations = append(t.Locations, to.Ptr(regionNames[r]))
			}
			p.ResourceTypes = append(p.ResourceTypes, t)
		}
	}
	return p
}

func (e *Emulator) listProviders() (*response, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []any
	for _, n := range namespaces {
		all = append(all, e.describe(n))
	}
	return answer(http.StatusOK, map[string]any{"value": all})
}

func properNamespace(name string) (string, error) {
	i := slices.IndexFunc(namespaces, func(n string) bool { return strings.EqualFold(n, name) })
	if i < 0 {
		return "", problem(http.StatusNotFound, "InvalidResourceNamespace", "The resource namespace '%s' is invalid.", name)
	}
	return namespaces[i], nil
}

func (e *Emulator) getProvider(name string) (*response, error) {
	namespace, err := properNamespace(name)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return answer(http.StatusOK, e.describe(namespace))
}

func (e *Emulator) register(name string) (*response, error) {
	namespace, err := properNamespace(name)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.registered[strings.ToLower(namespace)] = true
	return answer(http.StatusOK, e.describe(namespace))
}
