package aws

import (
	"context"
	"maps"
	"path"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// DefaultFlavors are the patterns of what is offered when nothing is configured:
// the families that people compute on, of the generations that are sold now.
func DefaultFlavors() []string {
	return []string{"t3.*", "t4g.*", "m[5-9]*.*", "c[5-9]*.*", "r[5-9]*.*", "x2*.*", "hpc*.*", "g[4-9]*.*", "p[3-9]*.*"}
}

// builtin are the images that every region has, by public parameters:
// https://documentation.ubuntu.com/aws/aws-how-to/instances/find-ubuntu-images/
// https://wiki.debian.org/Cloud/AmazonEC2Image/
// https://docs.aws.amazon.com/dlami/latest/devguide/find-dlami-id.html
func builtin() map[string]string {
	return map[string]string{
		"ubuntu-24.04":        "ssm:/aws/service/canonical/ubuntu/server/24.04/stable/current/{arch}/hvm/ebs-gp3/ami-id",
		"ubuntu-22.04":        "ssm:/aws/service/canonical/ubuntu/server/22.04/stable/current/{arch}/hvm/ebs-gp2/ami-id",
		"debian-12":           "ssm:/aws/service/debian/release/12/latest/{arch}",
		"debian-13":           "ssm:/aws/service/debian/release/13/latest/{arch}",
		"ubuntu-22.04-nvidia": "ssm:/aws/service/deeplearning/ami/{machine}/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id",
	}
}

const (
	amd64 = "amd64"
	arm64 = "arm64"
)

// architecture is that of an instance type in Go's spelling.
func architecture(t types.InstanceTypeInfo) string {
	if t.ProcessorInfo != nil && slices.Contains(t.ProcessorInfo.SupportedArchitectures, types.ArchitectureTypeArm64) {
		return arm64
	}
	return amd64
}

// Flavors lists the region's instance types that the site offers.
func (c *Cloud) Flavors(ctx context.Context) ([]skyport.Flavor, error) {
	offered, err := c.instanceTypes(ctx)
	if err != nil {
		return nil, err
	}
	prices, err := c.onDemandPrices(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	const few = 100 // types that may be named in a call
	for _, t := range offered {
		if len(offered) <= few {
			names = append(names, string(t.InstanceType))
		}
	}
	spot, err := c.spotPrices(ctx, names...)
	if err != nil {
		return nil, err
	}
	flavors := make([]skyport.Flavor, 0, len(offered))
	for _, t := range offered {
		f := c.flavor(t)
		price, known := prices[f.Name]
		f.Price, f.Unpriced = price, !known
		if slices.Contains(t.SupportedUsageClasses, types.UsageClassTypeSpot) {
			f.SpotPrice = least(spot[f.Name])
		}
		flavors = append(flavors, f)
	}
	slices.SortFunc(flavors, func(a, b skyport.Flavor) int { return strings.Compare(a.Name, b.Name) })
	return flavors, nil
}

// instanceTypes are those that fit the patterns, are virtual machines and can be
// had on demand. Without patterns of the configuration only current generations count.
func (c *Cloud) instanceTypes(ctx context.Context) ([]types.InstanceTypeInfo, error) {
	in := &ec2.DescribeInstanceTypesInput{MaxResults: sdk.Int32(100), Filters: []types.Filter{{Name: sdk.String("bare-metal"), Values: []string{"false"}}}}
	patterns := c.o.Flavors
	if len(patterns) == 0 {
		patterns = DefaultFlavors()
		in.Filters = append(in.Filters, types.Filter{Name: sdk.String("current-generation"), Values: []string{"true"}})
	} else if !strings.ContainsAny(strings.Join(patterns, ""), `[\`) { // EC2 knows * and ? itself
		in.Filters = append(in.Filters, types.Filter{Name: sdk.String("instance-type"), Values: patterns})
	}
	var offered []types.InstanceTypeInfo
	for pages := ec2.NewDescribeInstanceTypesPaginator(c.ec2, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, c.explain(err, "list instance types")
		}
		for _, t := range page.InstanceTypes {
			fits := slices.ContainsFunc(patterns, func(pattern string) bool {
				ok, err := path.Match(pattern, string(t.InstanceType))
				return ok && err == nil
			})
			if fits && t.VCpuInfo != nil && t.MemoryInfo != nil && slices.Contains(t.SupportedUsageClasses, types.UsageClassTypeOnDemand) {
				offered = append(offered, t)
			}
		}
	}
	return offered, nil
}

// flavor is an instance type without its price. Its storage is the system disk:
// disks of the instance itself come without a file system, and nothing mounts them.
func (c *Cloud) flavor(t types.InstanceTypeInfo) skyport.Flavor {
	name := string(t.InstanceType)
	f := skyport.Flavor{
		ID: gate.StableID(Kind, c.o.Name, "flavor", name), Name: name, Site: c.o.Name,
		CPUs: int(sdk.ToInt32(t.VCpuInfo.DefaultVCpus)), Memory: skyport.Bytes(sdk.ToInt64(t.MemoryInfo.SizeInMiB)) << 20,
		Storage: skyport.Bytes(c.diskSize(image{})) << 30, Arch: architecture(t),
	}
	if t.GpuInfo != nil {
		for _, g := range t.GpuInfo.Gpus {
			f.GPUs += int(sdk.ToInt32(g.Count))
			f.GPUModel = sdk.ToString(g.Name)
		}
	}
	return f
}

// image is what a node boots.
type image struct {
	id, device string
	size       int32 // of its disk in GiB
}

// sources are the images by name, the configuration's first.
func (c *Cloud) sources() map[string]string {
	all := builtin()
	maps.Copy(all, c.o.Images)
	return all
}

const ssmPrefix = "ssm:"

// parameter is the path of a parameter for an architecture.
func parameter(source, arch string) string {
	machine := map[string]string{amd64: "x86_64", arm64: arm64}[arch]
	return strings.NewReplacer("{arch}", arch, "{machine}", machine).Replace(strings.TrimPrefix(source, ssmPrefix))
}

// resolve finds the image of a name for an architecture.
func (c *Cloud) resolve(ctx context.Context, name, arch string) (image, error) {
	id, known := c.sources()[name]
	if !known {
		id = name
	}
	if strings.HasPrefix(id, ssmPrefix) {
		out, err := c.ssm.GetParameter(ctx, &ssm.GetParameterInput{Name: sdk.String(parameter(id, arch))})
		if err != nil {
			return image{}, c.explain(err, "look up image %s for %s", name, arch)
		}
		id = sdk.ToString(out.Parameter.Value)
	}
	found, err := c.ami(ctx, name, id)
	if err != nil {
		return image{}, err
	}
	if has := imageArch(found); has != arch {
		return image{}, cloud.Permanent(skyport.CodeUnknownImage, "site %s: image %s is for %s, the flavor's nodes are %s", c.o.Name, name, has, arch)
	}
	i := image{id: id, device: sdk.ToString(found.RootDeviceName)}
	for _, m := range found.BlockDeviceMappings {
		if sdk.ToString(m.DeviceName) == i.device && m.Ebs != nil {
			i.size = sdk.ToInt32(m.Ebs.VolumeSize)
		}
	}
	return i, nil
}

// ami looks at an image by its id.
func (c *Cloud) ami(ctx context.Context, name, id string) (types.Image, error) {
	if !strings.HasPrefix(id, "ami-") {
		return types.Image{}, cloud.Permanent(skyport.CodeUnknownImage, "site %s: image %s is %q, which is no AMI id",
			c.o.Name, skyport.Abbreviate(name, 60), skyport.Abbreviate(id, 60))
	}
	out, err := c.ec2.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{id}})
	if err != nil {
		return types.Image{}, c.explain(err, "look at image %s", name)
	}
	if len(out.Images) == 0 {
		return types.Image{}, cloud.Permanent(skyport.CodeUnknownImage, "site %s: image %s (%s) is not there, or is not ours to use", c.o.Name, name, id).
			WithHint("aws ec2 describe-images --image-ids %s --region %s", id, c.o.Region)
	}
	return out.Images[0], nil
}

// ResolveImage finds an image that is not listed, by its id.
func (c *Cloud) ResolveImage(ctx context.Context, name string) (skyport.Image, error) {
	found, err := c.ami(ctx, name, name)
	if err != nil {
		return skyport.Image{}, err
	}
	return c.image(name, imageArch(found), sdk.ToString(found.Name)), nil
}

// DefaultImage is one with drivers for nodes with GPUs, unless the configuration names one.
func (c *Cloud) DefaultImage(flavor skyport.Flavor) string {
	if flavor.GPUs > 0 && !c.chosen {
		return "ubuntu-22.04-nvidia"
	}
	return ""
}

func (c *Cloud) image(name, arch, comment string) skyport.Image {
	return skyport.Image{ID: gate.StableID(Kind, c.o.Name, "image", name), Name: name, Site: c.o.Name, Kind: skyport.ImageCloud, Arch: arch, Comment: comment}
}

func imageArch(i types.Image) string {
	if i.Architecture == types.ArchitectureValuesArm64 {
		return arm64
	}
	return amd64
}

// Images lists what the configuration names and what every region has. Others
// can be asked for by their ids.
func (c *Cloud) Images(ctx context.Context) ([]skyport.Image, error) {
	ids, err := c.parameters(ctx)
	if err != nil {
		return nil, err
	}
	var images []skyport.Image
	for name, from := range c.sources() {
		if !strings.HasPrefix(from, ssmPrefix) {
			found, err := c.ami(ctx, name, from)
			switch {
			case err == nil:
				images = append(images, c.image(name, imageArch(found), sdk.ToString(found.Name)+" ("+from+")"))
			case skyport.CodeOf(err) == skyport.CodeUnknownImage:
				c.log.WarnContext(ctx, "a configured image is not there", "image", name, "error", err)
			default:
				return nil, err
			}
			continue
		}
		onAMD, onARM := ids[parameter(from, amd64)], ids[parameter(from, arm64)]
		switch {
		case ids == nil, onAMD != "" && onARM != "": // for every architecture, or a path that says nothing of it
			images = append(images, c.image(name, "", strings.TrimPrefix(from, ssmPrefix)))
		case onAMD != "":
			images = append(images, c.image(name, amd64, onAMD))
		case onARM != "":
			images = append(images, c.image(name, arm64, onARM))
		}
	}
	slices.SortFunc(images, func(a, b skyport.Image) int { return strings.Compare(a.Name, b.Name) })
	return images, nil
}

// parameters reads all parameters that images may be behind; nil: it is not allowed.
func (c *Cloud) parameters(ctx context.Context) (map[string]string, error) {
	paths := map[string]bool{}
	for _, from := range c.sources() {
		if strings.HasPrefix(from, ssmPrefix) {
			paths[parameter(from, amd64)], paths[parameter(from, arm64)] = true, true
		}
	}
	found := map[string]string{}
	const most = 10 // in a call
	for names := range slices.Chunk(slices.Sorted(maps.Keys(paths)), most) {
		out, err := c.ssm.GetParameters(ctx, &ssm.GetParametersInput{Names: names})
		if err != nil {
			err = c.explain(err, "look up images")
			if skyport.CodeOf(err) == skyport.CodeCredentials {
				c.log.WarnContext(ctx, "images are listed unseen, for ssm:GetParameters is refused", "error", err)
				return nil, nil
			}
			return nil, err
		}
		for _, p := range out.Parameters {
			found[sdk.ToString(p.Name)] = sdk.ToString(p.Value)
		}
	}
	return found, nil
}
