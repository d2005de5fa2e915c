package azuretest_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armsubscriptions"

	azuretest "github.com/openworkload/skyport/test/azure"
)

// What can be had: sizes, quotas, images, as the SDK's clients read them.
func TestCatalogue(t *testing.T) {
	t.Parallel()
	s := start(t, azuretest.Options{Sizes: 1000, Quotas: map[string]int{"cores": 42}})
	ctx := t.Context()
	f, err := armcompute.NewClientFactory(s.e.Subscription(), s.cred, s.arm)
	if err != nil {
		t.Fatal(err)
	}
	machines, gpus, arm, limited := 0, 0, 0, 0
	for pager := f.NewResourceSKUsClient().NewListPager(&armcompute.ResourceSKUsClientListOptions{Filter: to.Ptr("location eq 'westeurope'")}); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, sku := range page.Value {
			if *sku.ResourceType != "virtualMachines" {
				continue
			}
			machines++
			for _, c := range sku.Capabilities {
				switch {
				case *c.Name == "GPUs":
					gpus++
				case *c.Name == "CpuArchitectureType" && *c.Value == "Arm64":
					arm++
				}
			}
			if len(sku.Restrictions) > 0 {
				limited++
			}
		}
	}
	if machines != 1000 || gpus < 8 || arm < 5 || limited < 3 {
		t.Errorf("%d sizes, %d with GPUs, %d of ARM, %d restricted", machines, gpus, arm, limited)
	}
	found := false
	for pager := f.NewUsageClient().NewListPager("westeurope", nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range page.Value {
			found = found || *u.Name.Value == "cores" && *u.Limit == 42
		}
	}
	if !found {
		t.Error("no quota of cores")
	}
	images := f.NewVirtualMachineImagesClient()
	versions, err := images.List(ctx, "westeurope", "Canonical", "ubuntu-24_04-lts", "server", &armcompute.VirtualMachineImagesClientListOptions{Top: to.Ptr[int32](1), Orderby: to.Ptr("name desc")})
	if err != nil || len(versions.VirtualMachineImageResourceArray) != 1 || *versions.VirtualMachineImageResourceArray[0].Name != "24.04.202511010" {
		t.Errorf("versions %+v: %v", versions, err)
	}
	one, err := images.Get(ctx, "westeurope", "Canonical", "ubuntu-24_04-lts", "server-arm64", "latest", nil)
	if err != nil || *one.Properties.Architecture != armcompute.ArchitectureTypesArm64 {
		t.Errorf("image %+v: %v", one, err)
	}
	if _, err := images.List(ctx, "westeurope", "Canonical", "ubuntu-04_04", "server", nil); code(err) != "NotFound" {
		t.Errorf("an image that is not: %v", err)
	}
	n, err := armnetwork.NewClientFactory(s.e.Subscription(), s.cred, s.arm)
	if err != nil {
		t.Fatal(err)
	}
	if page, err := n.NewUsagesClient().NewListPager("westeurope", nil).NextPage(ctx); err != nil || len(page.Value) == 0 {
		t.Errorf("network usages: %v", err)
	}
	subs, err := armsubscriptions.NewClient(s.cred, s.arm)
	if err != nil {
		t.Fatal(err)
	}
	if sub, err := subs.Get(ctx, s.e.Subscription(), nil); err != nil || *sub.State != armsubscriptions.SubscriptionStateEnabled {
		t.Errorf("subscription: %v", err)
	}
}

// The price list comes in pages, in the currency that is asked for.
func TestPrices(t *testing.T) {
	t.Parallel()
	s := start(t, azuretest.Options{})
	q := url.Values{"api-version": {"2023-01-01-preview"}, "currencyCode": {"'EUR'"}, "$filter": {"serviceName eq 'Virtual Machines' and armRegionName eq 'westeurope' and priceType eq 'Consumption'"}}
	next, pages, spot := s.e.PricesURL()+"/api/retail/prices?"+q.Encode(), 0, map[string]float64{}
	for ; next != ""; pages++ {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, next, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := s.options.Transport.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var page struct {
			Items []struct {
				CurrencyCode, ArmSkuName, SkuName, ProductName, ArmRegionName string
				RetailPrice                                                   float64
			}
			NextPageLink string
			Count        int
		}
		err = json.NewDecoder(answer.Body).Decode(&page)
		answer.Body.Close()
		if err != nil || page.Count != len(page.Items) || page.Count == 0 {
			t.Fatalf("page %d: %d of %d items: %v", pages, len(page.Items), page.Count, err)
		}
		for _, i := range page.Items {
			if i.CurrencyCode != "EUR" || i.ArmRegionName != "westeurope" {
				t.Fatalf("item %+v", i)
			}
			if strings.HasSuffix(i.SkuName, " Spot") && !strings.Contains(i.ProductName, "Windows") {
				spot[i.ArmSkuName] = i.RetailPrice
			}
		}
		next = page.NextPageLink
	}
	if pages < 3 || spot["Standard_D2s_v5"] != 0.019044 {
		t.Errorf("%d pages, %v", pages, spot["Standard_D2s_v5"])
	}
}
