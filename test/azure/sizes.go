package azuretest

import (
	"fmt"
	"strings"
)

// size is a size of virtual machines.
type size struct {
	name    string // Standard_D2s_v5
	family  string // of its quota: standardDSv5Family
	series  string // product of the price list: "Dsv5 Series"
	cpus    int
	memory  float64 // GiB
	disk    int     // temporary, MiB
	gpus    int
	arm     bool
	spot    bool
	rdma    bool
	limited string // reason code, when the subscription cannot have it
	zonal   bool   // restricted in a zone only
	price   float64
}

// line is several sizes of one series. What the numbers are: name, cpus,
// memory, temporary disk in GiB, gpus, price in USD per hour.
type line struct {
	family, series string
	pattern        string // of the name, with the number of cpus or a word
	sizes          []shape
	arm, noSpot    bool
	rdma           bool
	limited        string
	zonal          bool
}

type shape struct {
	word   string
	cpus   int
	memory float64
	disk   int
	gpus   int
	price  float64
}

// catalogue follows the tables of https://learn.microsoft.com/azure/virtual-machines/sizes;
// prices are of the right size, not true.
var catalogue = []line{
	{family: "standardBSFamily", series: "BS Series", pattern: "Standard_B%s", noSpot: true, sizes: []shape{
		{"1ls", 1, 0.5, 4, 0, 0.0059}, {"1s", 1, 1, 4, 0, 0.012}, {"1ms", 1, 2, 4, 0, 0.024}, {"2s", 2, 4, 8, 0, 0.048}, {"2ms", 2, 8, 16, 0, 0.096}, {"4ms", 4, 16, 32, 0, 0.192}, {"8ms", 8, 32, 64, 0, 0.384},
	}},
	{family: "standardBsv2Family", series: "Bsv2 Series", pattern: "Standard_B%ss_v2", sizes: []shape{
		{"2", 2, 8, 0, 0, 0.0966}, {"4", 4, 16, 0, 0, 0.193}, {"8", 8, 32, 0, 0, 0.386},
	}},
	{family: "standardDSv3Family", series: "DSv3 Series", pattern: "Standard_D%ss_v3", sizes: []shape{
		{"2", 2, 8, 16, 0, 0.12}, {"4", 4, 16, 32, 0, 0.24}, {"8", 8, 32, 64, 0, 0.48}, {"16", 16, 64, 128, 0, 0.96}, {"32", 32, 128, 256, 0, 1.92}, {"64", 64, 256, 512, 0, 3.84},
	}},
	{family: "standardDSv5Family", series: "Dsv5 Series", pattern: "Standard_D%ss_v5", sizes: []shape{
		{"2", 2, 8, 0, 0, 0.115}, {"4", 4, 16, 0, 0, 0.23}, {"8", 8, 32, 0, 0, 0.46}, {"16", 16, 64, 0, 0, 0.92}, {"32", 32, 128, 0, 0, 1.84}, {"48", 48, 192, 0, 0, 2.76}, {"64", 64, 256, 0, 0, 3.68}, {"96", 96, 384, 0, 0, 5.52},
	}},
	{family: "standardDDSv5Family", series: "Ddsv5 Series", pattern: "Standard_D%sds_v5", sizes: []shape{
		{"2", 2, 8, 75, 0, 0.136}, {"4", 4, 16, 150, 0, 0.272}, {"8", 8, 32, 300, 0, 0.544}, {"16", 16, 64, 600, 0, 1.088}, {"32", 32, 128, 1200, 0, 2.176},
	}},
	{family: "standardDASv5Family", series: "Dasv5 Series", pattern: "Standard_D%sas_v5", sizes: []shape{
		{"2", 2, 8, 0, 0, 0.104}, {"4", 4, 16, 0, 0, 0.208}, {"8", 8, 32, 0, 0, 0.416}, {"16", 16, 64, 0, 0, 0.832}, {"32", 32, 128, 0, 0, 1.664},
	}},
	{family: "standardDPSv5Family", series: "Dpsv5 Series", pattern: "Standard_D%sps_v5", arm: true, sizes: []shape{
		{"2", 2, 8, 0, 0, 0.0924}, {"4", 4, 16, 0, 0, 0.1848}, {"8", 8, 32, 0, 0, 0.3696}, {"16", 16, 64, 0, 0, 0.7392}, {"32", 32, 128, 0, 0, 1.4784},
	}},
	{family: "standardDPLDSv5Family", series: "Dpldsv5 Series", pattern: "Standard_D%splds_v5", arm: true, sizes: []shape{
		{"2", 2, 4, 75, 0, 0.092}, {"4", 4, 8, 150, 0, 0.184}, {"8", 8, 16, 300, 0, 0.368},
	}},
	{family: "standardESv5Family", series: "Esv5 Series", pattern: "Standard_E%ss_v5", sizes: []shape{
		{"2", 2, 16, 0, 0, 0.152}, {"4", 4, 32, 0, 0, 0.304}, {"8", 8, 64, 0, 0, 0.608}, {"16", 16, 128, 0, 0, 1.216}, {"32", 32, 256, 0, 0, 2.432}, {"96", 96, 672, 0, 0, 7.296},
	}},
	{family: "standardFSv2Family", series: "FSv2 Series", pattern: "Standard_F%ss_v2", sizes: []shape{
		{"2", 2, 4, 16, 0, 0.097}, {"4", 4, 8, 32, 0, 0.194}, {"8", 8, 16, 64, 0, 0.388}, {"16", 16, 32, 128, 0, 0.776}, {"32", 32, 64, 256, 0, 1.552}, {"72", 72, 144, 576, 0, 3.492},
	}},
	{family: "standardLSv3Family", series: "Lsv3 Series", pattern: "Standard_L%ss_v3", zonal: true, sizes: []shape{
		{"8", 8, 64, 80, 0, 0.744}, {"16", 16, 128, 160, 0, 1.488},
	}},
	{family: "standardHBrsv3Family", series: "HBrsv3 Series", pattern: "Standard_HB120%s_v3", rdma: true, sizes: []shape{
		{"rs", 120, 448, 480, 0, 4.68}, {"-16rs", 16, 448, 480, 0, 4.68},
	}},
	{family: "standardHBv4Family", series: "HBrsv4 Series", pattern: "Standard_HB176%s_v4", rdma: true, limited: "NotAvailableForSubscription", sizes: []shape{
		{"rs", 176, 704, 480, 0, 9.36},
	}},
	{family: "Standard NCASv3_T4 Family", series: "NCasT4v3 Series", pattern: "Standard_NC%s_T4_v3", sizes: []shape{
		{"4as", 4, 28, 180, 1, 0.658}, {"8as", 8, 56, 360, 1, 0.94}, {"16as", 16, 110, 360, 1, 1.505}, {"64as", 64, 440, 2880, 4, 5.44},
	}},
	{family: "StandardNCADSA100v4Family", series: "NCadsA100v4 Series", pattern: "Standard_NC%sads_A100_v4", sizes: []shape{
		{"24", 24, 220, 64, 1, 4.775}, {"48", 48, 440, 128, 2, 9.55}, {"96", 96, 880, 256, 4, 19.1},
	}},
	{family: "standardNDAMSv4_A100Family", series: "NDamsrA100v4 Series", pattern: "Standard_ND%samsr_A100_v4", rdma: true, limited: "NotAvailableForSubscription", sizes: []shape{
		{"96", 96, 1900, 6400, 8, 40.96},
	}},
	{family: "StandardNCadsH100v5Family", series: "NCadsH100v5 Series", pattern: "Standard_NC%sads_H100_v5", limited: "QuotaId", sizes: []shape{
		{"40", 40, 320, 128, 1, 9.08}, {"80", 80, 640, 256, 2, 18.17},
	}},
	{family: "standardNVADSA10v5Family", series: "NVadsA10v5 Series", pattern: "Standard_NV%sads_A10_v5", sizes: []shape{
		{"6", 6, 55, 180, 1, 0.568}, {"36", 36, 440, 720, 1, 4.0},
	}},
}

// makeSizes are all that there are, and invented ones until there are so many.
func makeSizes(many int) (all []size) {
	for _, l := range catalogue {
		for _, s := range l.sizes {
			all = append(all, size{
				name: fmt.Sprintf(l.pattern, s.word), family: l.family, series: l.series, cpus: s.cpus, memory: s.memory, disk: s.disk * 1024, gpus: s.gpus,
				arm: l.arm, spot: !l.noSpot, rdma: l.rdma, limited: l.limited, zonal: l.zonal, price: s.price,
			})
		}
	}
	for i := 0; len(all) < many; i++ {
		cpus := 1 << (i % 7)
		all = append(all, size{
			name: fmt.Sprintf("Standard_X%ds%d_v9", cpus, i), family: "standardXSv9Family", series: "Xsv9 Series", cpus: cpus, memory: float64(4 * cpus),
			spot: true, price: 0.05 * float64(cpus),
		})
	}
	return all
}

func (e *Emulator) sizeNamed(name string) (size, bool) {
	s, ok := e.bySize[strings.ToLower(name)]
	return s, ok
}

func (e *Emulator) sizeNames() string {
	var all []string
	for _, s := range e.sizes {
		all = append(all, s.name)
	}
	return strings.Join(all, ",")
}
