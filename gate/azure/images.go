package azure

import (
	"context"
	"maps"
	"slices"
	"strings"

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
	name := plan.Image
	if name == "" {
		name = plan.NodeImage.Name
	}
	if name == "" {
		name = s.defaultImage(plan.NodeFlavor)
	}
	urn, configured := s.o.Images[name]
	for _, b := range builtin {
		if b.name == name && !configured {
			urn, plain = b.urn, b.plain
		}
	}
	if urn == "" {
		urn = name // jobs may name an image in Azure's own words, if the catalogue let it pass
	}
	reference, err = parseImage(urn)
	if err != nil {
		return nil, false, cloud.Permanent(skyport.CodeUnknownImage, "site %s has no image %q", s.o.Name, skyport.Abbreviate(name, 100)).
			WithHint("skyport image list shows what there is; add others under images of the site.")
	}
	return reference, plain, nil
}

// defaultImage is what nodes boot when neither job nor configuration name an image.
func (s *site) defaultImage(flavor skyport.Flavor) string {
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
