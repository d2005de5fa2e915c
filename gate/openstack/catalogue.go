package openstack

import (
	"cmp"
	"context"
	"encoding/json"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// flavor is one of https://docs.openstack.org/api-ref/compute/#list-flavors-with-details
type flavor struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	CPUs     int               `json:"vcpus"`
	RAM      int64             `json:"ram"`  // MiB
	Disk     int64             `json:"disk"` // GiB; 0: as large as the image
	Disabled bool              `json:"OS-FLV-DISABLED:disabled"`
	Extra    map[string]string `json:"extra_specs"`
	Deeper   int64             `json:"OS-FLV-EXT-DATA:ephemeral"`
}

// image is one of https://docs.openstack.org/api-ref/image/v2/#list-images
// with the properties of https://docs.openstack.org/glance/latest/admin/useful-image-properties.html
type image struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Status    string `json:"status"`
	MinDisk   int64  `json:"min_disk"` // GiB
	MinRAM    int64  `json:"min_ram"`  // MiB
	Size      int64  `json:"size"`
	Created   string `json:"created_at"`
	Format    string `json:"disk_format"`
	Hidden    bool   `json:"os_hidden"`
	Distro    string `json:"os_distro"`
	Version   string `json:"os_version"`
	Machine   string `json:"architecture"`
	MachineHW string `json:"hw_architecture"`
}

// Flavors lists what nodes there are.
func (s *site) Flavors(ctx context.Context) ([]skyport.Flavor, error) {
	all, err := s.flavors(ctx)
	if err != nil {
		return nil, err
	}
	var offered []skyport.Flavor
	for _, f := range all {
		if !s.offers(f.Name) || f.CPUs < 1 || f.RAM < 1 {
			continue
		}
		price, priced := s.o.Prices[f.Name]
		storage := skyport.Bytes(f.Disk+f.Deeper) << 30
		if s.o.BootVolume {
			storage = s.o.Disk + skyport.Bytes(f.Deeper)<<30
		}
		gpus, model := f.gpus()
		offered = append(offered, skyport.Flavor{
			ID: gate.StableID(kindName, s.o.Name, "flavor", f.Name), Name: f.Name, Site: s.o.Name, CPUs: f.CPUs,
			Memory: skyport.Bytes(f.RAM) << 20, Storage: storage, GPUs: gpus, GPUModel: model, Arch: f.arch(),
			Price: price, Unpriced: !priced,
		})
	}
	slices.SortFunc(offered, func(a, b skyport.Flavor) int { return strings.Compare(a.Name, b.Name) })
	return offered, nil
}

func (s *site) offers(name string) bool {
	return len(s.o.Flavors) == 0 || slices.ContainsFunc(s.o.Flavors, func(pattern string) bool {
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	})
}

// flavors lists and remembers all flavors by name.
func (s *site) flavors(ctx context.Context) (map[string]flavor, error) {
	se, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	list, err := pages[flavor](ctx, se.compute, "flavors/detail", "flavors", nil)
	if err != nil {
		return nil, s.explain(err, "list flavors")
	}
	all := map[string]flavor{}
	for _, f := range list {
		if !f.Disabled {
			all[f.Name] = f
		}
	}
	s.seen.Lock()
	defer s.seen.Unlock()
	s.seen.flavors = all
	return all, nil
}

// flavor finds a flavor, anew when it was not seen before.
func (s *site) flavor(ctx context.Context, name string) (flavor, error) {
	s.seen.Lock()
	f, ok := s.seen.flavors[name]
	s.seen.Unlock()
	if ok {
		return f, nil
	}
	all, err := s.flavors(ctx)
	if err != nil {
		return f, err
	}
	if f, ok = all[name]; !ok {
		return f, cloud.Permanent(skyport.CodeUnknownFlavor, "site %s has no flavor %s", s.o.Name, name).WithHint("openstack flavor list")
	}
	return f, nil
}

var gpuModel = regexp.MustCompile(`(?i)(?:^|[^a-z0-9])(gb200|b200|b100|gh200|h200|h100|a100|a800|a40|a30|a16|a10g?|a2|l40s?|l4|` +
	`v100s?|p100|p40|p4|t4|k80|m60|m10|mi300x?|mi250x?|mi210|mi100|rtx[-_]?[a-z]?[0-9]{4}|titan)(?:[^a-z0-9]|$)`)

// gpus reads how many GPUs a flavor has, and which. Clouds say it by placement's
// resource classes or by aliases of PCI devices:
// https://docs.openstack.org/nova/latest/admin/virtual-gpu.html
// https://docs.openstack.org/nova/latest/admin/pci-passthrough.html
func (f flavor) gpus() (count int, model string) {
	hints := []string{f.Name}
	for key, value := range f.Extra {
		upper := strings.ToUpper(key)
		switch {
		case strings.HasPrefix(upper, "RESOURCES") && strings.Contains(upper, "GPU"):
			if n, err := strconv.Atoi(value); err == nil {
				count += max(n, 0)
			}
			hints = append(hints, strings.ReplaceAll(key, "_", "-"))
		case key == "pci_passthrough:alias":
			for _, one := range strings.Split(value, ",") {
				alias, number, _ := strings.Cut(strings.TrimSpace(one), ":")
				n, err := strconv.Atoi(number)
				if err != nil {
					n = 1
				}
				if strings.Contains(strings.ToLower(alias), "gpu") || gpuModel.MatchString(alias) || strings.Contains(strings.ToLower(alias), "nvidia") {
					count += n
					hints = append(hints, alias)
				}
			}
		case key == "accel:device_profile":
			if strings.Contains(strings.ToLower(value), "gpu") || gpuModel.MatchString(value) {
				count = max(count, 1)
				hints = append(hints, value)
			}
		}
	}
	if count == 0 {
		return 0, ""
	}
	slices.Reverse(hints) // what the cloud says of the device before the flavor's name
	for _, hint := range hints {
		if m := gpuModel.FindStringSubmatch(hint); m != nil {
			return count, strings.ToUpper(m[1])
		}
	}
	return count, ""
}

func (f flavor) arch() string {
	for key, value := range f.Extra {
		switch key {
		case "hw:architecture", "capabilities:cpu_info:arch", "hw_architecture":
			return goArch(strings.TrimLeft(value, "=<in> "))
		case "trait:HW_ARCH_X86_64", "trait:COMPUTE_ARCH_X86_64":
			return "amd64"
		case "trait:HW_ARCH_AARCH64", "trait:COMPUTE_ARCH_AARCH64":
			return "arm64"
		}
	}
	return ""
}

func goArch(machine string) string {
	switch strings.ToLower(machine) {
	case "x86_64", "amd64":
		return "amd64"
	case "aarch64", "arm64", "armv8":
		return "arm64"
	}
	return ""
}

// Images lists what nodes can boot.
func (s *site) Images(ctx context.Context) ([]skyport.Image, error) {
	all, err := s.images(ctx)
	if err != nil {
		return nil, err
	}
	var offered []skyport.Image
	for name, i := range all {
		if name == i.ID {
			continue // found by its id too, not listed twice
		}
		offered = append(offered, s.offer(name, i))
	}
	slices.SortFunc(offered, func(a, b skyport.Image) int { return strings.Compare(a.Name, b.Name) })
	return offered, nil
}

func (s *site) offer(name string, i image) skyport.Image {
	comment := i.Name
	if i.MinDisk > 0 {
		comment += ", needs a disk of " + (skyport.Bytes(i.MinDisk) << 30).String()
	}
	return skyport.Image{
		ID: gate.StableID(kindName, s.o.Name, "image", name), Name: name, Site: s.o.Name, Kind: skyport.ImageCloud,
		Comment: comment, Arch: goArch(cmp.Or(i.MachineHW, i.Machine)),
	}
}

// images lists and remembers all images: by their names, the newest of each,
// by friendly names, by those of the configuration, and by id.
func (s *site) images(ctx context.Context) (map[string]image, error) {
	se, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	list, err := pages[image](ctx, se.image, "images", "images", url.Values{"status": {"active"}, "limit": {"100"}})
	if err != nil {
		return nil, s.explain(err, "list images")
	}
	slices.SortStableFunc(list, func(a, b image) int {
		return cmp.Or(when(b.Created).Compare(when(a.Created)), strings.Compare(a.ID, b.ID))
	})
	all := map[string]image{}
	put := func(name string, i image) {
		if _, taken := all[name]; !taken && name != "" {
			all[name] = i
		}
	}
	for _, i := range list {
		if i.bootable() {
			put(i.Name, i)
			put(i.ID, i)
		}
	}
	for _, i := range list {
		if i.bootable() {
			put(i.friendly(), i)
		}
	}
	for name, of := range s.o.Images {
		if i, ok := all[of]; ok {
			all[name] = i
		} else {
			s.log.WarnContext(ctx, "the configuration names an image that the cloud does not have", "image", name, "means", of)
		}
	}
	s.seen.Lock()
	defer s.seen.Unlock()
	s.seen.images = all
	return all, nil
}

// image finds an image, anew when it was not seen before.
func (s *site) image(ctx context.Context, name string) (image, error) {
	s.seen.Lock()
	i, ok := s.seen.images[name]
	s.seen.Unlock()
	if ok {
		return i, nil
	}
	all, err := s.images(ctx)
	if err != nil {
		return i, err
	}
	if i, ok = all[name]; !ok {
		return i, cloud.Permanent(skyport.CodeUnknownImage, "site %s has no active image %q", s.o.Name, name).
			WithHint("openstack image list --status active")
	}
	return i, nil
}

// ResolveImage finds an image by its id, which the catalogue does not list.
func (s *site) ResolveImage(ctx context.Context, name string) (skyport.Image, error) {
	i, err := s.image(ctx, name)
	return s.offer(name, i), err
}

func (s *site) forgetCatalogue() {
	s.seen.Lock()
	defer s.seen.Unlock()
	s.seen.flavors, s.seen.images = nil, nil
}

func (i image) bootable() bool {
	return i.Status == "active" && !i.Hidden && !slices.Contains([]string{"aki", "ari", "ami", "iso"}, i.Format)
}

var release = regexp.MustCompile(`(?i)^(ubuntu|debian|rocky|almalinux|alma|centos|fedora|opensuse|rhel)` +
	`[-_ ]*(?:linux|stream|server|leap|cloud|base|noble|jammy|focal)*[-_ v]*(\d+(?:\.\d+)?)(?:[^\d].*)?$`)

// friendly is the name that images of all clouds have alike, such as
// ubuntu-24.04; empty when it is not known what the image is.
func (i image) friendly() string {
	if i.Distro != "" && i.Version != "" {
		return strings.ToLower(i.Distro + "-" + i.Version)
	}
	m := release.FindStringSubmatch(i.Name)
	if m == nil || len(m[2]) > 5 {
		return ""
	}
	distro := strings.ToLower(m[1])
	if distro == "alma" {
		distro = "almalinux"
	}
	return distro + "-" + m[2]
}

// fits says early what the cloud would say late.
func (s *site) fits(f flavor, i image) error {
	switch {
	case f.RAM < i.MinRAM:
		return cloud.Permanent(skyport.CodeInvalid, "image %s needs %s of memory, flavor %s has %s", i.Name,
			skyport.Bytes(i.MinRAM)<<20, f.Name, skyport.Bytes(f.RAM)<<20).WithHint("take a larger flavor")
	case !s.o.BootVolume && f.Disk > 0 && f.Disk < i.MinDisk: // volumes are made as large as the image wants
		return cloud.Permanent(skyport.CodeInvalid, "image %s needs a disk of %d GiB, a node of flavor %s has %d GiB", i.Name, i.MinDisk, f.Name, f.Disk).
			WithHint("take a larger flavor, or nodes that boot from a volume: boot_volume")
	}
	return nil
}

// UnmarshalJSON reads an image whose properties other people have written:
// one of another type is none.
func (i *image) UnmarshalJSON(text []byte) error {
	type plain image
	if json.Unmarshal(text, (*plain)(i)) != nil {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(text, &fields); err != nil {
			return err //nolint:wrapcheck // the list's reader says what it is
		}
		for _, name := range []string{"os_distro", "os_version", "architecture", "hw_architecture", "os_hidden"} {
			delete(fields, name)
		}
		rest, err := json.Marshal(fields)
		if err != nil {
			return err //nolint:wrapcheck // the list's reader says what it is
		}
		return json.Unmarshal(rest, (*plain)(i)) //nolint:wrapcheck // the list's reader says what it is
	}
	return nil
}
