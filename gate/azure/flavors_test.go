package azure

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openworkload/skyport"
)

// canned answers paths with bodies, and lets anybody log in who is known.
type canned struct {
	mu     sync.Mutex
	paths  map[string]string // path in small letters -> body; "@" stands for the server's URL
	tokens []string          // bodies of the logins
	refuse string            // body of a refused login
}

func (c *canned) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	base, path := "https://"+r.Host, strings.ToLower(r.URL.Path)
	w.Header().Set("Content-Type", "application/json")
	switch {
	case strings.HasSuffix(path, "/.well-known/openid-configuration"):
		reply(w, `{"token_endpoint":"%[1]s/tenant/oauth2/v2.0/token","authorization_endpoint":"%[1]s/a","issuer":"%[1]s/tenant/v2.0"}`, base)
	case strings.HasSuffix(path, "/oauth2/v2.0/token"):
		if err := r.ParseForm(); err == nil {
			c.tokens = append(c.tokens, r.PostForm.Get("client_secret")+r.PostForm.Get("client_assertion"))
		}
		if c.refuse != "" {
			w.WriteHeader(http.StatusUnauthorized)
			reply(w, "%s", c.refuse)
			return
		}
		reply(w, `{"token_type":"Bearer","expires_in":3600,"access_token":"t"}`)
	default:
		if page := r.URL.Query().Get("page"); page != "" {
			path += "#" + page
		}
		body, ok := c.paths[path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			body = `{"error":{"code":"ResourceNotFound","message":"not here: ` + path + `"}}`
		}
		reply(w, "%s", strings.ReplaceAll(body, "@", base))
	}
}

// reply answers, or ends the connection.
func reply(w http.ResponseWriter, format string, args ...any) {
	if _, err := fmt.Fprintf(w, format, args...); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func (c *canned) open(t *testing.T, change func(*Options)) *site {
	t.Helper()
	server := httptest.NewTLSServer(c)
	t.Cleanup(server.Close)
	return testSite(t, func(o *Options) {
		o.Endpoint, o.Authority, o.PricesURL, o.HTTP = server.URL, server.URL, server.URL, server.Client()
		if change != nil {
			change(o)
		}
	})
}

// sku is a size as https://learn.microsoft.com/rest/api/compute/resource-skus/list has them.
func sku(t *testing.T, name, family string, capabilities map[string]string, more string) string {
	t.Helper()
	list := []map[string]string{}
	for k, v := range capabilities {
		list = append(list, map[string]string{"name": k, "value": v})
	}
	text, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"resourceType":"virtualMachines","name":%q,"family":%q,"locations":["WestEurope"],
		"locationInfo":[{"location":"WestEurope","zones":["1","2"]}],"capabilities":%s %s}`, name, family, text, more)
}

const (
	noLocation = `,"restrictions":[{"type":"Location","values":["WestEurope"],"restrictionInfo":{"locations":["WestEurope"]},"reasonCode":"NotAvailableForSubscription"}]`
	noZone1    = `,"restrictions":[{"type":"Zone","values":["WestEurope"],"restrictionInfo":{"locations":["WestEurope"],"zones":["1"]},"reasonCode":"NotAvailableForSubscription"}]`
	noZones    = `,"restrictions":[{"type":"Zone","values":["WestEurope"],"restrictionInfo":{"locations":["WestEurope"],"zones":["2","1"]},"reasonCode":"NotAvailableForSubscription"}]`
)

func sizesAndPrices(t *testing.T) *canned {
	t.Helper()
	can := func(cpus, memory string, more ...string) map[string]string {
		all := map[string]string{"vCPUs": cpus, "MemoryGB": memory, "HyperVGenerations": "V1,V2", "LowPriorityCapable": "True", "CpuArchitectureType": "x64"}
		for i := 0; i+1 < len(more); i += 2 {
			all[more[i]] = more[i+1]
		}
		return all
	}
	skus := []string{
		sku(t, "Standard_D4s_v5", "standardDSv5Family", can("4", "16"), noZone1),
		sku(t, "Standard_D4ds_v6", "standardDdsv6Family", can("4", "16", "MaxResourceVolumeMB", "0", "NvmeDiskSizeInMiB", "225280"), ""),
		sku(t, "Standard_D4ps_v6", "standardDpsv6Family", can("4", "16", "CpuArchitectureType", "Arm64"), ""),
		sku(t, "Standard_E8-4ds_v5", "standardEDSv5Family", can("8", "64", "vCPUsAvailable", "4", "MaxResourceVolumeMB", "307200"), ""),
		sku(t, "Standard_NC24ads_A100_v4", "StandardNCADSA100v4Family", can("24", "220", "GPUs", "1", "LowPriorityCapable", "False"), ""),
		sku(t, "Standard_NV6ads_A10_v5", "StandardNVADSA10v5Family", can("6", "55", "GPUs", "0.167"), ""),
		sku(t, "Standard_DC4as_v5", "standardDCASv5Family", can("4", "16", "ConfidentialComputingType", "SNP"), ""),
		sku(t, "Standard_D4s_v3", "standardDSv3Family", can("4", "16"), ""),
		sku(t, "Standard_D4_v5", "standardDv5Family", can("4", "16", "HyperVGenerations", "V1"), ""),
		sku(t, "Standard_D8s_v5", "standardDSv5Family", can("8", "32"), noLocation),
		sku(t, "Standard_D16s_v5", "standardDSv5Family", can("16", "64"), noZones),
		`{"resourceType":"disks","name":"Premium_LRS","locations":["WestEurope"]}`,
	}
	item := func(size, sku, product string, price float64, more string) string {
		return fmt.Sprintf(`{"currencyCode":"EUR","tierMinimumUnits":0,"retailPrice":%g,"armRegionName":"westeurope","skuName":%q,"armSkuName":%q,
			"productName":%q,"unitOfMeasure":"1 Hour","type":"Consumption" %s}`, price, sku, size, product, more)
	}
	first := []string{
		item("Standard_D4s_v5", "D4s v5", "Virtual Machines Dsv5 Series", 0.23, `,"isPrimaryMeterRegion":true`),
		item("Standard_D4s_v5", "D4s v5", "Virtual Machines Dsv5 Series", 0.99, `,"isPrimaryMeterRegion":false`),
		item("Standard_D4s_v5", "D4s v5", "Virtual Machines Dsv5 Series Windows", 0.42, ""),
		item("Standard_D4s_v5", "D4s v5 Low Priority", "Virtual Machines Dsv5 Series", 0.01, ""),
	}
	second := []string{
		item("Standard_D4s_v5", "D4s v5 Spot", "Virtual Machines Dsv5 Series", 0.05, ""),
		item("Standard_NC24ads_A100_v4", "NC24ads A100 v4", "NCads A100 v4", 4.5, ""),
		item("Standard_NC24ads_A100_v4", "NC24ads A100 v4 Spot", "NCads A100 v4", 1.5, ""),
	}
	return &canned{paths: map[string]string{
		"/subscriptions/sub/providers/microsoft.compute/skus": `{"value":[` + strings.Join(skus, ",") + `]}`,
		"/api/retail/prices":   `{"Items":[` + strings.Join(first, ",") + `],"NextPageLink":"@/api/retail/prices?page=2","Count":4}`,
		"/api/retail/prices#2": `{"Items":[` + strings.Join(second, ",") + `],"NextPageLink":null,"Count":3}`,
	}}
}

func TestFlavors(t *testing.T) {
	t.Parallel()
	s := sizesAndPrices(t).open(t, nil)
	got, err := s.Flavors(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const gib = 1 << 30
	want := []skyport.Flavor{
		{Name: "Standard_D4s_v5", CPUs: 4, Memory: 16 * gib, Price: 0.23, SpotPrice: 0.05},
		{Name: "Standard_D4ds_v6", CPUs: 4, Memory: 16 * gib, Storage: 220 * gib, Unpriced: true},
		{Name: "Standard_D4ps_v6", CPUs: 4, Memory: 16 * gib, Arch: "arm64", Unpriced: true},
		{Name: "Standard_E8-4ds_v5", CPUs: 4, Memory: 64 * gib, Storage: 300 * gib, Unpriced: true},
		{Name: "Standard_NC24ads_A100_v4", CPUs: 24, Memory: 220 * gib, GPUs: 1, GPUModel: "A100", Price: 4.5},
		{Name: "Standard_NV6ads_A10_v5", CPUs: 6, Memory: 55 * gib, GPUs: 1, GPUModel: "A10", Unpriced: true},
	}
	for i := range want {
		want[i].Site = "az"
		if want[i].Arch == "" {
			want[i].Arch = "amd64"
		}
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(skyport.Flavor{}, "ID")); diff != "" {
		t.Error(diff)
	}
}

func TestChosenFlavors(t *testing.T) {
	t.Parallel()
	s := sizesAndPrices(t).open(t, func(o *Options) {
		o.Flavors, o.DefaultFlavor = []string{"Standard_DC*", "Standard_*_v3"}, "Standard_D4ps_v6"
	})
	got, err := s.Flavors(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range got {
		names = append(names, f.Name)
	}
	if diff := cmp.Diff([]string{"Standard_D4ps_v6", "Standard_DC4as_v5", "Standard_D4s_v3"}, names); diff != "" {
		t.Error(diff)
	}
}

// TestPricesGone keeps the last prices, and tells flavors without any as unpriced.
func TestPricesGone(t *testing.T) {
	t.Parallel()
	c := sizesAndPrices(t)
	s := c.open(t, nil)
	price := func() (float64, bool) {
		t.Helper()
		all, err := s.Flavors(t.Context())
		if err != nil || len(all) == 0 {
			t.Fatal(err)
		}
		return all[0].Price, all[0].Unpriced
	}
	set := func(page, body string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.paths[page] = body
	}
	good := c.paths["/api/retail/prices"]
	set("/api/retail/prices", `{"Items":[],"NextPageLink":"https://elsewhere.test/api/retail/prices"}`)
	if _, unpriced := price(); !unpriced {
		t.Error("prices without prices")
	}
	set("/api/retail/prices", good)
	if p, _ := price(); p != 0.23 {
		t.Errorf("the price is %v", p)
	}
	set("/api/retail/prices", `nonsense`)
	if p, unpriced := price(); p != 0.23 || unpriced {
		t.Errorf("the last price is forgotten: %v", p)
	}
}

func TestGPUModels(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"Standard_ND96isr_H100_v5 standardNDSH100v5Family":   "H100",
		"Standard_NCC40ads_H100_v5 standardNCCadsH100v5":     "H100",
		"Standard_ND96amsr_A100_v4 standardNDAMSv4_A100":     "A100",
		"Standard_ND96asr_v4 standardNDASv4_A100Family":      "A100",
		"Standard_NC4as_T4_v3 Standard NCASv3_T4 Family":     "T4",
		"Standard_NC6s_v3 standardNCSv3Family":               "V100",
		"Standard_NV12s_v3 standardNVSv3Family":              "M60",
		"Standard_NV4as_v4 standardNVSv4Family":              "MI25",
		"Standard_ND96isr_MI300X_v5 standardNDISRMI300XFam":  "MI300X",
		"Standard_NG8ads_V620_v1 StandardNGADSV620v1Family":  "V620",
		"Standard_ND96isr_H200_v5 standardNDISRH200V5Family": "H200",
		"Standard_NV36ads_A10_v5 StandardNVADSA10v5Family":   "A10",
		"Standard_NX1_v9 standardNXFamily":                   "",
	} {
		size, family, _ := strings.Cut(name, " ")
		if got := gpuModel(size, family); got != want {
			t.Errorf("%s: %q, not %q", name, got, want)
		}
	}
}

func TestFlavorsEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sizesAndPrices(t).open(t, nil).Flavors(ctx); err == nil {
		t.Error("an ended context ends nothing")
	}
}
