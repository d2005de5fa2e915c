package azure

import (
	"context"
	"math"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// Flavors are the sizes that the subscription may use in the region, with the
// retail prices. Without the prices they are told as unpriced: they can be used.
func (s *site) Flavors(ctx context.Context) ([]skyport.Flavor, error) {
	sizes, err := s.sizes(ctx)
	if err != nil {
		return nil, err
	}
	prices, err := s.prices(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		s.log.Warn("the prices of Azure cannot be had: flavors keep the last known ones, or have none", "error", err)
	}
	var all []skyport.Flavor
	for _, size := range sizes {
		flavor := s.flavor(size)
		if !s.offered(size, &flavor) {
			continue
		}
		price, known := prices[strings.ToLower(flavor.Name)]
		flavor.Price, flavor.Unpriced = price.onDemand, !known || price.onDemand == 0
		if size.is("LowPriorityCapable") {
			flavor.SpotPrice = price.spot
		}
		all = append(all, flavor)
	}
	return all, nil
}

// size is a size of virtual machines as Azure describes it. See
// https://learn.microsoft.com/rest/api/compute/resource-skus/list
type size struct {
	*armcompute.ResourceSKU
	can map[string]string // capabilities
}

// sizes are those that may be used: neither the region nor the subscription forbids them.
func (s *site) sizes(ctx context.Context) ([]size, error) {
	filter := "location eq '" + s.o.Region + "'"
	skus, err := collect(ctx, s.skus.NewListPager(&armcompute.ResourceSKUsClientListOptions{Filter: &filter}),
		func(p armcompute.ResourceSKUsClientListResponse) []*armcompute.ResourceSKU { return p.Value })
	if err != nil {
		return nil, s.explain(err, "list the sizes of virtual machines in %s", s.o.Region)
	}
	var all []size
	for _, sku := range skus {
		if sku == nil || value(sku.ResourceType) != "virtualMachines" || s.forbidden(sku) {
			continue
		}
		z := size{ResourceSKU: sku, can: map[string]string{}}
		for _, c := range sku.Capabilities {
			z.can[value(c.Name)] = value(c.Value)
		}
		all = append(all, z)
	}
	if len(all) == 0 {
		return nil, skyport.Errorf(skyport.CodeUnavailable, "Azure lists no size of virtual machines in %s that the subscription may use", s.o.Region).
			WithHint("Is the region's name right? az vm list-skus --location %s -o table", s.o.Region)
	}
	return all, nil
}

// forbidden says whether a size cannot be had: in the whole region, or in each of
// the zones that have it.
func (s *site) forbidden(sku *armcompute.ResourceSKU) bool {
	var zones []*string
	for _, at := range sku.LocationInfo {
		if at != nil && strings.EqualFold(value(at.Location), s.o.Region) {
			zones = append(zones, at.Zones...)
		}
	}
	closed := map[string]bool{}
	for _, r := range sku.Restrictions {
		switch {
		case r == nil:
		case value(r.Type) == armcompute.ResourceSKURestrictionsTypeZone:
			if r.RestrictionInfo != nil {
				for _, zone := range r.RestrictionInfo.Zones {
					closed[value(zone)] = true
				}
			}
		case slices.ContainsFunc(r.Values, func(at *string) bool { return strings.EqualFold(value(at), s.o.Region) }), len(r.Values) == 0:
			return true
		}
	}
	return len(zones) > 0 && !slices.ContainsFunc(zones, func(zone *string) bool { return !closed[value(zone)] })
}

func (z size) is(capability string) bool { return strings.EqualFold(z.can[capability], "true") }

func (z size) number(capability string) float64 {
	n, err := strconv.ParseFloat(z.can[capability], 64)
	if err != nil || n < 0 || math.IsInf(n, 0) || math.IsNaN(n) {
		return 0
	}
	return n
}

// flavor is a size in our words.
func (s *site) flavor(z size) skyport.Flavor {
	const mib, gib = 1 << 20, 1 << 30
	name := value(z.Name)
	f := skyport.Flavor{
		ID: gate.StableID(Kind, s.o.Name, "flavor", name), Name: name, Site: s.o.Name, Arch: "amd64",
		CPUs: int(z.number("vCPUs")), Memory: skyport.Bytes(z.number("MemoryGB") * gib),
		GPUs:    int(math.Ceil(z.number("GPUs"))),
		Storage: skyport.Bytes(max(z.number("MaxResourceVolumeMB"), z.number("NvmeDiskSizeInMiB")) * mib),
	}
	// Sizes with fewer cores than their hardware has.
	if n := int(z.number("vCPUsAvailable")); n > 0 {
		f.CPUs = n
	}
	if strings.EqualFold(z.can["CpuArchitectureType"], "Arm64") {
		f.Arch = "arm64"
	}
	if f.GPUs > 0 {
		f.GPUModel = gpuModel(name, value(z.Family))
	}
	return f
}

// offered says whether a size is one of those that the configuration names, or
// without one of the default selection.
func (s *site) offered(z size, f *skyport.Flavor) bool {
	// Our images are of the second generation.
	if generations := z.can["HyperVGenerations"]; f.CPUs == 0 || f.Memory == 0 || generations != "" && !strings.Contains(generations, "V2") {
		return false
	}
	if f.Name == s.o.DefaultFlavor {
		return true
	}
	if len(s.o.Flavors) > 0 {
		return slices.ContainsFunc(s.o.Flavors, func(pattern string) bool {
			matched, err := path.Match(pattern, f.Name)
			return matched && err == nil
		})
	}
	m := sizeName.FindStringSubmatch(f.Name)
	confidential := z.can["ConfidentialComputingType"] != "" || m != nil && strings.HasSuffix(m[1], "C") && m[1] != "NC" && m[1] != "HC"
	switch {
	case confidential, strings.HasSuffix(f.Name, "_Promo"):
		return false
	case f.GPUs > 0:
		return true
	}
	return m != nil && (m[1] == "D" || m[1] == "E" || m[1] == "F") && modern(m[3])
}

// modern says whether the version of a size is the fifth or a later one.
func modern(version string) bool {
	n, err := strconv.Atoi(version)
	return err == nil && n >= 5
}

// models of GPUs by what names of sizes or families hold, the longer first. See
// https://learn.microsoft.com/azure/virtual-machines/sizes/overview#gpu-accelerated
var models = []struct {
	in    *regexp.Regexp
	model string
}{
	{regexp.MustCompile(`gb300`), "GB300"},
	{regexp.MustCompile(`gb200`), "GB200"},
	{regexp.MustCompile(`rtxpro6000`), "RTX PRO 6000"},
	{regexp.MustCompile(`mi300x`), "MI300X"},
	{regexp.MustCompile(`h200`), "H200"},
	{regexp.MustCompile(`h100`), "H100"},
	{regexp.MustCompile(`a100|nd96asr_v4`), "A100"},
	{regexp.MustCompile(`a10_|a10v5`), "A10"},
	{regexp.MustCompile(`_t4|t4_`), "T4"},
	{regexp.MustCompile(`v620`), "V620"},
	{regexp.MustCompile(`v710`), "V710"},
	{regexp.MustCompile(`standard_nc\d+r?s_v3|standard_nd40rs_v2`), "V100"},
	{regexp.MustCompile(`standard_nc\d+r?s_v2`), "P100"},
	{regexp.MustCompile(`standard_nd\d+r?s `), "P40"},
	{regexp.MustCompile(`standard_nv\d+as_v4`), "MI25"},
	{regexp.MustCompile(`standard_nv\d+s_v[23]|standard_nv\d+ `), "M60"},
	{regexp.MustCompile(`standard_nc\d+r? `), "K80"},
}

// gpuModel is what a size's GPUs are; empty: not known.
func gpuModel(name, family string) string {
	text := strings.ToLower(name + " " + family)
	for _, m := range models {
		if m.in.MatchString(text) {
			return m.model
		}
	}
	return ""
}
