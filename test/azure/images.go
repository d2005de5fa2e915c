package azuretest

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
)

// image is one of the marketplace.
type image struct {
	publisher, offer, sku string
	arm                   bool
	versions              []string // oldest first
}

var images = []image{
	{"Canonical", "ubuntu-24_04-lts", "server", false, []string{"24.04.202509160", "24.04.202510010", "24.04.202511010"}},
	{"Canonical", "ubuntu-24_04-lts", "server-gen1", false, []string{"24.04.202511010"}},
	{"Canonical", "ubuntu-24_04-lts", "minimal", false, []string{"24.04.202511010"}},
	{"Canonical", "ubuntu-24_04-lts", "server-arm64", true, []string{"24.04.202510010", "24.04.202511010"}},
	{"Canonical", "0001-com-ubuntu-server-jammy", "22_04-lts", false, []string{"22.04.202510010"}},
	{"Canonical", "0001-com-ubuntu-server-jammy", "22_04-lts-gen2", false, []string{"22.04.202509010", "22.04.202510010"}},
	{"Canonical", "0001-com-ubuntu-server-jammy", "22_04-lts-arm64", true, []string{"22.04.202510010"}},
	{"Debian", "debian-12", "12", false, []string{"0.20251006.2257"}},
	{"Debian", "debian-12", "12-gen2", false, []string{"0.20250911.2232", "0.20251006.2257"}},
	{"Debian", "debian-12", "12-arm64", true, []string{"0.20251006.2257"}},
	{"Debian", "debian-13", "13-gen2", false, []string{"0.20251006.2257"}},
	{"Debian", "debian-13", "13-arm64", true, []string{"0.20251006.2257"}},
	{"almalinux", "almalinux-x86_64", "9-gen2", false, []string{"9.6.202508010"}},
	{"almalinux", "almalinux-arm", "9-arm-gen2", true, []string{"9.6.202508010"}},
	{"RedHat", "RHEL", "9-lvm-gen2", false, []string{"9.6.2025081517"}},
	{"microsoft-dsvm", "ubuntu-hpc", "2204", false, []string{"22.04.2025061101", "22.04.2025091201"}},
	{"microsoft-dsvm", "ubuntu-hpc", "2404", false, []string{"24.04.2025091201"}},
}

// publishers lists images: of a publisher, an offer, a sku.
// https://learn.microsoft.com/rest/api/compute/virtual-machine-images/list
func (e *Emulator) publishers(req *request, location string, s []string) (*response, error) {
	// {publisher}/artifacttypes/vmimage/offers/{offer}/skus/{sku}/versions/{version}
	is := func(i int, word string) bool { return len(s) > i && strings.EqualFold(s[i], word) }
	part := func(i int) string {
		if len(s) > i {
			return s[i]
		}
		return ""
	}
	if len(s) > 1 && (!is(1, "artifacttypes") || !is(2, "vmimage") || !is(3, "offers") || len(s) > 5 && !is(5, "skus") || len(s) > 7 && !is(7, "versions")) {
		return nil, badType("Microsoft.Compute", "locations/publishers", req.version)
	}
	var names []string
	var last image
	for _, i := range images {
		fields := []string{i.publisher, i.offer, i.sku}
		wanted := []string{part(0), part(4), part(6)}
		fits := true
		for j := range fields {
			fits = fits && (wanted[j] == "" || strings.EqualFold(fields[j], wanted[j]))
		}
		if !fits {
			continue
		}
		last = i
		switch {
		case len(s) == 0:
			names = append(names, i.publisher)
		case len(s) <= 4:
			names = append(names, i.offer)
		case len(s) <= 6:
			names = append(names, i.sku)
		default:
			names = append(names, i.versions...)
		}
	}
	if last.publisher == "" && len(s) > 0 {
		return nil, problem(http.StatusNotFound, "NotFound", "Artifact: VMImage was not found.")
	}
	slices.Sort(names)
	names = slices.Compact(names)
	base := "/subscriptions/" + e.o.Subscription + "/Providers/Microsoft.Compute/Locations/" + location + "/Publishers"
	if len(s) > 0 {
		base += "/" + strings.Join(s, "/")
	}
	if len(s) == 9 {
		v := s[8]
		if strings.EqualFold(v, "latest") {
			v = names[len(names)-1]
		}
		if !slices.Contains(names, v) {
			return nil, problem(http.StatusNotFound, "NotFound", "Artifact: VMImage was not found.")
		}
		arch := armcompute.ArchitectureTypesX64
		if last.arm {
			arch = armcompute.ArchitectureTypesArm64
		}
		return answer(http.StatusOK, armcompute.VirtualMachineImage{
			ID: &base, Name: &v, Location: &location, Properties: &armcompute.VirtualMachineImageProperties{
				Architecture: &arch, HyperVGeneration: to.Ptr(armcompute.HyperVGenerationTypesV2),
				OSDiskImage: &armcompute.OSDiskImage{OperatingSystem: to.Ptr(armcompute.OperatingSystemTypesLinux)},
			},
		})
	}
	if strings.EqualFold(req.query.Get("$orderby"), "name desc") {
		slices.Reverse(names)
	}
	if top, err := strconv.Atoi(req.query.Get("$top")); err == nil && top > 0 {
		names = names[:min(top, len(names))]
	}
	all := []any{} // a bare array, not a value
	for _, n := range names {
		all = append(all, armcompute.VirtualMachineImageResource{ID: to.Ptr(base + "/" + n), Name: &n, Location: &location})
	}
	return answer(http.StatusOK, all)
}

// checkImage refuses an image that is not there or of the wrong architecture.
// https://learn.microsoft.com/troubleshoot/azure/virtual-machines/error-messages
func (e *Emulator) checkImage(c *change, s size) error {
	p := c.model.(*armcompute.VirtualMachine).Properties
	if p.StorageProfile == nil || p.StorageProfile.ImageReference == nil {
		return invalidParameter("imageReference", "Required parameter 'imageReference' is missing (null).")
	}
	ref := p.StorageProfile.ImageReference
	if ref.ID != nil {
		// Images of galleries are not kept: what an id of one says is taken as it is.
		if !strings.Contains(strings.ToLower(*ref.ID), "/galleries/") || strings.Contains(strings.ToLower(*ref.ID), "missing") {
			return problem(http.StatusNotFound, "GalleryImageNotFound", "The gallery image %s is not available in %s region. Please contact image owner to replicate to this region, "+
				"or change your requested region.", *ref.ID, c.new.Location)
		}
		return nil
	}
	for _, i := range images {
		if !strings.EqualFold(i.publisher, text(ref.Publisher)) || !strings.EqualFold(i.offer, text(ref.Offer)) || !strings.EqualFold(i.sku, text(ref.SKU)) {
			continue
		}
		exact := text(ref.Version)
		if strings.EqualFold(exact, "latest") {
			exact = i.versions[len(i.versions)-1]
		}
		if !slices.Contains(i.versions, exact) {
			break
		}
		if i.arm != s.arm {
			return problem(http.StatusBadRequest, "BadRequest", "Cannot create a VM of size '%s' because this VM size only supports a CPU Architecture of '%s', "+
				"but an image or disk with CPU Architecture '%s' was given. "+
				"Please check that the CPU Architecture of the image or disk is compatible with that of the VM size.", s.name, archOf(s.arm), archOf(i.arm))
		}
		ref.ExactVersion = &exact
		return nil
	}
	return problem(http.StatusNotFound, "PlatformImageNotFound", "The platform image '%s:%s:%s:%s' is not available. "+
		"Verify that all fields in the storage profile are correct. For more details about storage profile information, please refer to https://aka.ms/storageprofile",
		text(ref.Publisher), text(ref.Offer), text(ref.SKU), text(ref.Version))
}

func archOf(arm bool) string {
	if arm {
		return "Arm64"
	}
	return "x64"
}
