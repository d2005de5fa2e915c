package azure

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// Images that every site has, all of the second generation: newer sizes boot
// no other. See https://learn.microsoft.com/azure/virtual-machines/linux/endorsed-distros
// and https://learn.microsoft.com/azure/virtual-machines/azure-hpc-vm-images
var builtin = []struct {
	name, urn, arch, comment string
	plain                    bool // a distribution and nothing else
}{
	{ubuntu, "Canonical:ubuntu-24_04-lts:server:latest", "amd64", "Ubuntu 24.04 LTS", true},
	{ubuntuARM, "Canonical:ubuntu-24_04-lts:server-arm64:latest", "arm64", "Ubuntu 24.04 LTS", true},
	{"ubuntu-22.04", "Canonical:0001-com-ubuntu-server-jammy:22_04-lts-gen2:latest", "amd64", "Ubuntu 22.04 LTS", true},
	{"ubuntu-22.04-arm64", "Canonical:0001-com-ubuntu-server-jammy:22_04-lts-arm64:latest", "arm64", "Ubuntu 22.04 LTS", true},
	{"debian-12", "Debian:debian-12:12-gen2:latest", "amd64", "Debian 12", true},
	{"debian-12-arm64", "Debian:debian-12:12-arm64:latest", "arm64", "Debian 12", true},
	{ubuntuHPC, "microsoft-dsvm:ubuntu-hpc:2204:latest", "amd64", "Ubuntu 22.04 with drivers of GPUs and InfiniBand", false},
}

const (
	ubuntu    = "ubuntu-24.04"
	ubuntuARM = "ubuntu-24.04-arm64"
	ubuntuHPC = "ubuntu-hpc"
)

// Images are those that are built in and those of the configuration.
func (s *site) Images(context.Context) ([]skyport.Image, error) {
	var all []skyport.Image
	add := func(name, arch, comment string) {
		all = append(all, skyport.Image{
			ID: gate.StableID(Kind, s.o.Name, "image", name), Name: name, Site: s.o.Name, Kind: skyport.ImageCloud, Arch: arch, Comment: comment,
		})
	}
	for _, b := range builtin {
		if _, replaced := s.o.Images[b.name]; !replaced {
			add(b.name, b.arch, b.comment+", "+b.urn)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.o.Images)) {
		arch := ""
		if strings.Contains(strings.ToLower(s.o.Images[name]), "arm64") {
			arch = "arm64"
		}
		add(name, arch, s.o.Images[name])
	}
	return all, nil
}

// imageOf is the image of a plan as a reference for ARM. plain says that it is a
// distribution and nothing else.
func (s *site) imageOf(plan *cloud.Plan) (reference map[string]any, plain bool, err error) {
	name := cmp.Or(plan.NodeImage.Name, plan.Image, s.DefaultImage(plan.NodeFlavor))
	urn, configured := s.o.Images[name]
	for _, b := range builtin {
		if b.name == name && !configured {
			urn, plain = b.urn, b.plain
		}
	}
	if urn == "" {
		urn = name // jobs may name an image in Azure's own words
	}
	reference, err = parseImage(urn)
	if err != nil {
		return nil, false, cloud.Permanent(skyport.CodeUnknownImage, "site %s has no image %q", s.o.Name, skyport.Abbreviate(name, 100)).
			WithHint("skyport image list shows what there is; add others under images of the site.")
	}
	return reference, plain, nil
}

// DefaultImage is what nodes boot when the job names no image.
func (s *site) DefaultImage(flavor skyport.Flavor) string {
	switch {
	case s.o.DefaultImage != "":
		return s.o.DefaultImage
	case flavor.Arch == "arm64":
		return ubuntuARM
	case flavor.GPUs > 0:
		return ubuntuHPC
	}
	return ubuntu
}

// parseImage reads publisher:offer:sku:version or the id of a gallery's image,
// a shared or a community gallery's too. See
// https://learn.microsoft.com/rest/api/compute/virtual-machines/create-or-update#imagereference
func parseImage(text string) (map[string]any, error) {
	lower := strings.ToLower(text)
	switch parts := strings.Split(text, ":"); {
	case strings.HasPrefix(lower, "/subscriptions/") && strings.Contains(lower, "/providers/microsoft.compute/"):
		return map[string]any{"id": text}, nil
	case strings.HasPrefix(lower, "/sharedgalleries/"):
		return map[string]any{"sharedGalleryImageId": text}, nil
	case strings.HasPrefix(lower, "/communitygalleries/"):
		return map[string]any{"communityGalleryImageId": text}, nil
	case len(parts) == 4 && !slices.Contains(parts, ""):
		return map[string]any{"publisher": parts[0], "offer": parts[1], "sku": parts[2], "version": parts[3]}, nil
	}
	return nil, skyport.Errorf(skyport.CodeInvalid, "%q is neither publisher:offer:sku:version nor the id of a gallery's image", skyport.Abbreviate(text, 200))
}

// ResolveImage looks for an image that a job names in Azure's own words.
func (s *site) ResolveImage(ctx context.Context, name string) (skyport.Image, error) {
	if _, err := parseImage(name); err != nil {
		return skyport.Image{}, cloud.Permanent(skyport.CodeUnknownImage, "%w", err)
	}
	if err := s.imageExists(ctx, name); err != nil {
		return skyport.Image{}, err
	}
	image := skyport.Image{ID: gate.StableID(Kind, s.o.Name, "image", name), Name: name, Site: s.o.Name, Kind: skyport.ImageCloud}
	if strings.Contains(strings.ToLower(name), "arm64") {
		image.Arch = "arm64"
	}
	return image, nil
}

const galleryVersion = "2024-03-03" // of the API of galleries

// imageExists asks Azure for an image.
func (s *site) imageExists(ctx context.Context, urn string) error {
	reference, err := parseImage(urn)
	if err != nil {
		return err
	}
	id, own := reference["id"].(string)
	switch {
	case own:
		err = s.fetch(ctx, id, galleryVersion, &struct{}{})
	case reference["publisher"] == nil:
		return nil // galleries of others: only a deployment tells
	default:
		err = s.marketImage(ctx, strings.Split(urn, ":"))
	}
	if absent(err) {
		return cloud.Permanent(skyport.CodeUnknownImage, "there is no image %s in %s", urn, s.o.Region).
			WithHint("az vm image list --all --location %s --publisher … -o table shows what there is.", s.o.Region)
	}
	return s.explain(err, "look for the image %s", urn)
}

// marketImage looks for an image of the marketplace: publisher, offer, SKU, version.
func (s *site) marketImage(ctx context.Context, parts []string) error {
	if parts[3] != "latest" {
		_, err := s.images.Get(ctx, s.o.Region, parts[0], parts[1], parts[2], parts[3], nil)
		return err //nolint:wrapcheck // imageExists explains it
	}
	one, newest := int32(1), "name desc"
	got, err := s.images.List(ctx, s.o.Region, parts[0], parts[1], parts[2], &armcompute.VirtualMachineImagesClientListOptions{Top: &one, Orderby: &newest})
	if err == nil && len(got.VirtualMachineImageResourceArray) == 0 {
		return cloud.Permanent(skyport.CodeUnknownImage, "there is no version of it")
	}
	return err //nolint:wrapcheck // imageExists explains it
}
