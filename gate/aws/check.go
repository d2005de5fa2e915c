package aws

import (
	"context"
	"fmt"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/servicequotas"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// Codes of quotas of virtual CPUs by family, on demand and spot, and of VPCs, as
// aws service-quotas list-service-quotas tells them:
// https://docs.aws.amazon.com/general/latest/gr/ec2-service.html#limits_ec2
const (
	standard      = "standard"
	quotaVPCs     = "L-F678F1CE"
	quotaGateways = "L-A4707A72"
)

func cpuQuotas() map[string][2]string {
	return map[string][2]string{
		standard: {"L-1216C47A", "L-34B43A08"},
		"g":      {"L-DB2E81BA", "L-3819A6DF"},
		"p":      {"L-417A185B", "L-7212CCBC"},
		"x":      {"L-7295265B", "L-E3A00192"},
		"hpc":    {"L-F7808C92", ""},
	}
}

// family is the one whose quota a flavor counts against.
func family(flavor string) string {
	letters, _, _ := strings.Cut(flavor, ".")
	letters = strings.ToLower(strings.SplitN(letters, "-", 2)[0])
	if at := strings.IndexAny(letters, "0123456789"); at >= 0 {
		letters = letters[:at]
	}
	if _, known := cpuQuotas()[letters]; known {
		return letters
	}
	return standard
}

// moreOf is the command that asks for more of what an error found used up; the
// flavor may be unknown.
func (c *Cloud) moreOf(name, flavor string, spot bool) string {
	switch cpus := cpuQuotas()[family(flavor)]; {
	case name == "VpcLimitExceeded":
		return c.increase("vpc", quotaVPCs) + " (or say vpc in gate.yaml, for all partitions to share)"
	case name == "InternetGatewayLimitExceeded":
		return c.increase("vpc", quotaGateways)
	case flavor != "" && name == "VcpuLimitExceeded" && !spot:
		return c.increase("ec2", cpus[0])
	case flavor != "" && (name == "MaxSpotInstanceCountExceeded" || name == "VcpuLimitExceeded") && cpus[1] != "":
		return c.increase("ec2", cpus[1])
	}
	return "aws service-quotas list-service-quotas --service-code ec2 --region " + c.o.Region +
		", then aws service-quotas request-service-quota-increase"
}

func (c *Cloud) increase(service, quota string) string {
	return fmt.Sprintf("aws service-quotas request-service-quota-increase --service-code %s --quota-code %s --desired-value NUMBER --region %s",
		service, quota, c.o.Region)
}

// report collects findings.
type report struct {
	site string
	all  []gate.Finding
}

func (r *report) add(subject string, level gate.Level, fix, format string, args ...any) {
	r.all = append(r.all, gate.Finding{Site: r.site, Subject: subject, Level: level, Text: fmt.Sprintf(format, args...), Fix: fix})
}

// failed adds an error with what mends it; it says whether there was one.
func (r *report) failed(subject string, level gate.Level, err error) bool {
	if err != nil {
		r.add(subject, level, skyport.HintOf(err), "%v", err)
	}
	return err != nil
}

// end is what the check says, unless it was cut off.
func (r *report) end(ctx context.Context) ([]gate.Finding, error) {
	if ctx.Err() != nil {
		return r.all, fmt.Errorf("check site %s: %w", r.site, context.Cause(ctx))
	}
	return r.all, nil
}

// Check tries credentials, permissions, image, quotas and prices. It makes nothing.
func (c *Cloud) Check(ctx context.Context) ([]gate.Finding, error) {
	r := &report{site: c.o.Name}
	if !c.checkCredentials(ctx, r) {
		return r.end(ctx)
	}
	_, err := c.survey(ctx, "")
	if !r.failed("permissions", gate.LevelFailure, err) {
		r.add("permissions", gate.LevelOK, "", "may list what there is")
	}
	flavor := c.o.DefaultFlavor
	if flavor == "" {
		flavor = "t3.medium"
	}
	kind, zones, err := c.offer(ctx, cloud.Plan{PartitionSpec: gate.PartitionSpec{Flavor: flavor}})
	if !r.failed("flavor", gate.LevelFailure, err) {
		r.add("flavor", gate.LevelOK, "", "%s is offered in %s", flavor, strings.Join(zones, ", "))
		i, err := c.resolve(ctx, c.o.DefaultImage, architecture(kind))
		if !r.failed("image", gate.LevelFailure, err) {
			r.add("image", gate.LevelOK, "", "%s is %s", c.o.DefaultImage, i.id)
			c.checkPermissions(ctx, r, flavor, i)
		}
	}
	c.checkQuotas(ctx, r, flavor)
	in := c.products()
	in.MaxResults = sdk.Int32(1)
	if _, err := c.prices.GetProducts(ctx, in); !r.failed("prices", gate.LevelWarning, c.explain(err, "read the price list")) {
		r.add("prices", gate.LevelOK, "", "the price list can be read, in %s", c.currency())
	}
	return r.end(ctx)
}

// soon is how far away the end of credentials may be and still be told.
const soon = 24 * time.Hour

func (c *Cloud) checkCredentials(ctx context.Context, r *report) bool {
	own, err := c.config.Credentials.Retrieve(ctx)
	if r.failed("credentials", gate.LevelFailure, err) {
		return false
	}
	who, err := c.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if r.failed("credentials", gate.LevelFailure, c.explain(err, "ask who we are")) {
		return false
	}
	r.add("credentials", gate.LevelOK, "", "%s, by %s", sdk.ToString(who.Arn), own.Source)
	switch until, renewed := lasting(own); {
	case renewed:
	case until.IsZero():
		r.add("credentials", gate.LevelWarning, "use a profile or a role, which are renewed: aws configure sso", "they are a session's, and end at a time that only AWS knows")
	case time.Until(until) < soon:
		r.add("credentials", gate.LevelWarning, "aws sso login, before", "they are good until %s and are renewed as long as the login lasts", until.Format(time.RFC3339))
	}
	return true
}

// checkPermissions tries the calls that make something, dry.
func (c *Cloud) checkPermissions(ctx context.Context, r *report, flavor string, i image) {
	dry, marks := sdk.Bool(true), map[string]string{tagName: "swm-check"}
	run := c.order(&launch{image: i, plan: cloud.Plan{PartitionSpec: gate.PartitionSpec{Flavor: flavor, Nodes: []string{"swm-check"}}}}, 0)
	run.DryRun, run.ClientToken = dry, nil
	run.NetworkInterfaces[0].Groups, run.NetworkInterfaces[0].SubnetId = nil, nil
	tries := map[string]func() error{
		"ec2:CreatePlacementGroup": func() error {
			_, err := c.ec2.CreatePlacementGroup(ctx, &ec2.CreatePlacementGroupInput{
				DryRun: dry, GroupName: sdk.String("swm-check"), Strategy: types.PlacementStrategyCluster, TagSpecifications: specify(marks, types.ResourceTypePlacementGroup),
			})
			return err //nolint:wrapcheck // explained below
		},
		"ec2:RunInstances": func() error {
			_, err := c.ec2.RunInstances(ctx, run)
			return err //nolint:wrapcheck // explained below
		},
	}
	if c.o.VPC == "" && c.o.Subnet == "" {
		tries["ec2:CreateVpc"] = func() error {
			_, err := c.ec2.CreateVpc(ctx, &ec2.CreateVpcInput{DryRun: dry, CidrBlock: sdk.String(vpcBlock.String()), TagSpecifications: specify(marks, types.ResourceTypeVpc)})
			return err //nolint:wrapcheck // explained below
		}
		tries["ec2:CreateInternetGateway"] = func() error {
			_, err := c.ec2.CreateInternetGateway(ctx, &ec2.CreateInternetGatewayInput{DryRun: dry, TagSpecifications: specify(marks, types.ResourceTypeInternetGateway)})
			return err //nolint:wrapcheck // explained below
		}
	} else {
		subnets, err := c.configured(ctx)
		if r.failed("network", gate.LevelFailure, err) {
			return
		}
		run.NetworkInterfaces[0].SubnetId = &subnets[0].id
		tries["ec2:CreateSecurityGroup"] = func() error {
			_, err := c.ec2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{
				DryRun: dry, GroupName: sdk.String("swm-check"), Description: sdk.String("Sky Port"), VpcId: &subnets[0].vpc,
				TagSpecifications: specify(marks, types.ResourceTypeSecurityGroup),
			})
			return err //nolint:wrapcheck // explained below
		}
	}
	for what, try := range tries {
		switch err := try(); code(err) {
		case "DryRunOperation":
			r.add("permissions", gate.LevelOK, "", "%s is allowed", what)
		case "VPCIdNotSpecified", "MissingInput": // no default VPC to try it in; nodes get one of their own
			r.add("permissions", gate.LevelWarning, "", "%s cannot be tried without a default VPC", what)
		default:
			r.failed("permissions", gate.LevelFailure, c.explain(err, "try %s", what))
		}
	}
}

// checkQuotas looks at how much the account may have.
func (c *Cloud) checkQuotas(ctx context.Context, r *report, flavor string) {
	cpus := cpuQuotas()[family(flavor)]
	look := func(service, quota, what string, enough float64, note string) {
		if quota == "" {
			return
		}
		out, err := c.quotas.GetServiceQuota(ctx, &servicequotas.GetServiceQuotaInput{ServiceCode: &service, QuotaCode: &quota})
		switch {
		case err != nil:
			r.failed("quota", gate.LevelWarning, c.explain(err, "ask for the quota of %s", what))
		case out.Quota == nil:
		case sdk.ToFloat64(out.Quota.Value) < enough:
			r.add("quota", gate.LevelWarning, c.increase(service, quota), "%s: %.0f%s", what, sdk.ToFloat64(out.Quota.Value), note)
		default:
			r.add("quota", gate.LevelOK, "", "%s: %.0f", what, sdk.ToFloat64(out.Quota.Value))
		}
	}
	const few, fewNetworks = 16, 10
	look("ec2", cpus[0], "CPUs of nodes of the family of "+flavor, few, ", which few nodes use up")
	look("ec2", cpus[1], "CPUs of spot nodes of the family of "+flavor, few, ", which few nodes use up")
	if c.o.VPC == "" && c.o.Subnet == "" {
		look("vpc", quotaVPCs, "VPCs", fewNetworks, ", and each partition has one: more partitions at once need more, or a vpc in gate.yaml that they share")
	}
}
